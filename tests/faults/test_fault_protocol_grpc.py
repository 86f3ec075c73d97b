"""Cases 29 and 30, and the gRPC side of the protocol cases: same failures, same numbers, gRPC's own codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.running_server import RunningServer, assert_no_leak

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def stub(server: RunningServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc_address, [("grpc.max_send_message_length", -1)]) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(
    model: str, *inputs: tuple[str, str, list[int]], raw: list[bytes] | None = None, version: str = ""
) -> Any:
    message = service_pb2.ModelInferRequest(model_name=model, model_version=version)
    for name, datatype, shape in inputs:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
    message.raw_input_contents.extend(raw or [])
    return message


def refused(stub: Any, message: Any, code: Code, *words: str) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message, timeout=30)
    assert caught.value.code() == code, caught.value
    details: str = caught.value.details()
    assert details
    for word in words:
        assert word.lower() in details.lower(), f"{word!r} is not in {details!r}"
    assert_no_leak(details)
    return details


ONE = ("x", "FP32", [1, 1])
FOUR = bytes(4)


@pytest.mark.parametrize("raw", [[], [FOUR, FOUR], [FOUR] * 5])
def test_case_29_a_wrong_count_of_raw_contents_is_invalid_argument(stub: Any, raw: list[bytes]) -> None:
    refused(stub, request("echo_fp32", ONE, raw=raw), Code.INVALID_ARGUMENT)


def test_case_29_fewer_raw_contents_than_inputs_is_invalid_argument(stub: Any) -> None:
    message = request("pair", ("a", "FP32", [1, 1]), ("b", "INT32", [1, 1]), raw=[FOUR])
    refused(stub, message, Code.INVALID_ARGUMENT, "1", "2")


def test_case_29_typed_and_raw_contents_together_are_invalid_argument(stub: Any) -> None:
    message = request("echo_fp32", ONE, raw=[FOUR])
    message.inputs[0].contents.fp32_contents.append(1.0)
    refused(stub, message, Code.INVALID_ARGUMENT, "raw_input_contents")


def test_case_29_a_message_over_the_limit_is_resource_exhausted(server: RunningServer, stub: Any) -> None:
    elements = (64 << 20) // 4
    message = request("echo_fp32", ("x", "FP32", [1, elements]), raw=[bytes(elements * 4)])
    refused(stub, message, Code.RESOURCE_EXHAUSTED)
    assert stub.ServerLive(service_pb2.ServerLiveRequest()).live


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (request("echo_fp32"), Code.INVALID_ARGUMENT, ["input"]),
        (request("echo_fp32", ("x", "FLOAT", [1, 1]), raw=[FOUR]), Code.INVALID_ARGUMENT, ["FP32", "BYTES"]),
        (
            request("echo_fp32", ("x", "INT32", [1, 1]), raw=[FOUR]),
            Code.INVALID_ARGUMENT,
            ["expects FP32", "INT32"],
        ),
        (request("echo_fp32", ("x", "FP32", [1, 3]), raw=[bytes(8)]), Code.INVALID_ARGUMENT, ["8", "12"]),
        (request("echo_fp32", ("x", "FP32", [-1, 1]), raw=[FOUR]), Code.INVALID_ARGUMENT, []),
        (request("echo_fp32", ("x", "FP32", [2**62, 4]), raw=[FOUR]), Code.INVALID_ARGUMENT, []),
        (request("echo_fp32", ("x", "FP32", [2**4, 2**60 + 2]), raw=[FOUR]), Code.INVALID_ARGUMENT, []),
        (request("echo_fp32", ("x", "FP32", [1]), raw=[FOUR]), Code.INVALID_ARGUMENT, []),
        (request("echo_fp32", ONE, ONE, raw=[FOUR, FOUR]), Code.INVALID_ARGUMENT, ["x"]),
        (request("echo_fp32", ("z", "FP32", [1, 1]), raw=[FOUR]), Code.INVALID_ARGUMENT, ["z"]),
        (request("pair", ("a", "FP32", [1, 1]), raw=[FOUR]), Code.INVALID_ARGUMENT, ["b"]),
        (request("echo_bytes", ("x", "BYTES", [1, 1]), raw=[b"\xff\0\0\0ab"]), Code.INVALID_ARGUMENT, []),
        (request("echo_fp32", ONE, raw=[np.float32([np.nan]).tobytes()]), Code.INVALID_ARGUMENT, ["finite"]),
        (request("absent", ONE, raw=[FOUR]), Code.NOT_FOUND, ["absent"]),
        (request("echo_fp32", ONE, raw=[FOUR], version="9"), Code.NOT_FOUND, ["9"]),
        (request("", ONE, raw=[FOUR]), Code.INVALID_ARGUMENT, []),
        (request("../../etc", ONE, raw=[FOUR]), Code.NOT_FOUND, []),
        (request("truncated", ("x", "FP32", [1, 1]), raw=[FOUR]), Code.UNAVAILABLE, []),
        (
            request("logarithm", ("x", "FP32", [1, 4]), raw=[np.float32([-1, 1, 1, 1]).tobytes()]),
            Code.INTERNAL,
            ["y"],
        ),
    ],
    ids=lambda value: value.model_name[:12] if hasattr(value, "model_name") else None,
)
def test_protocol_failures_have_their_grpc_status(
    stub: Any, message: Any, code: Code, words: list[str]
) -> None:
    if message.model_name == "":
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(message, timeout=30)
        assert caught.value.code() in (Code.INVALID_ARGUMENT, Code.NOT_FOUND)
        return
    refused(stub, message, code, *words)


def test_a_wrong_count_of_typed_contents_is_invalid_argument(stub: Any) -> None:
    message = request("echo_fp32", ("x", "FP32", [1, 3]))
    message.inputs[0].contents.fp32_contents.extend([1.0, 2.0])
    refused(stub, message, Code.INVALID_ARGUMENT, "2", "3")


def test_typed_contents_of_the_wrong_field_are_invalid_argument(stub: Any) -> None:
    message = request("echo_fp32", ONE)
    message.inputs[0].contents.int_contents.append(1)
    refused(stub, message, Code.INVALID_ARGUMENT)


@pytest.mark.parametrize(("datatype", "value"), [("INT8", 999), ("INT8", -129), ("INT16", 2**15)])
def test_case_12_typed_contents_out_of_range_are_invalid_argument(
    stub: Any, datatype: str, value: int
) -> None:
    message = request(f"echo_{datatype.lower()}", ("x", datatype, [1, 1]))
    message.inputs[0].contents.int_contents.append(value)
    refused(stub, message, Code.INVALID_ARGUMENT)


def test_case_18_unknown_and_duplicate_outputs_are_invalid_argument(stub: Any) -> None:
    for names in (["nothing"], ["y", "y"]):
        message = request("echo_fp32", ONE, raw=[FOUR])
        for name in names:
            message.outputs.add(name=name)
        refused(stub, message, Code.INVALID_ARGUMENT, names[0])


def test_case_28_the_id_comes_back_over_grpc(stub: Any) -> None:
    message = request("echo_fp32", ONE, raw=[FOUR])
    message.id = "mine"
    assert stub.ModelInfer(message, timeout=30).id == "mine"


def over_rest(server: RunningServer, model: str, inputs: dict[str, np.ndarray], types: dict[str, str]) -> Any:
    """Outputs by name as raw bytes, through HTTP with the binary extension."""
    entries = [
        {
            "name": name,
            "datatype": types[name],
            "shape": list(array.shape),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in inputs.items()
    ]
    document = json.dumps({"inputs": entries, "parameters": {"binary_data_output": True}}).encode()
    reply = server.http.post(
        f"/v2/models/{model}/infer",
        content=document + b"".join(array.tobytes() for array in inputs.values()),
        headers={"Inference-Header-Content-Length": str(len(document)), "Cache-Control": "no-store"},
    )
    if reply.status_code != 200:
        return reply.status_code
    length = int(reply.headers["Inference-Header-Content-Length"])
    rest, outputs = reply.content[length:], {}
    for output in json.loads(reply.content[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        outputs[output["name"]] = (output["datatype"], output["shape"], rest[:size])
        rest = rest[size:]
    return outputs


def over_grpc(stub: Any, model: str, inputs: dict[str, np.ndarray], types: dict[str, str]) -> Any:
    """Outputs by name as raw bytes, through gRPC; or the gRPC status."""
    entries = [(name, types[name], list(array.shape)) for name, array in inputs.items()]
    try:
        message = request(model, *entries, raw=[array.tobytes() for array in inputs.values()])
        reply = stub.ModelInfer(message, timeout=30)
    except grpc.RpcError as error:
        return error.code()
    pairs = zip(reply.outputs, reply.raw_output_contents, strict=True)
    return {output.name: (output.datatype, list(output.shape), raw) for output, raw in pairs}


SHARED = settings(max_examples=25, deadline=None)
FINITE = st.floats(-1e6, 1e6, width=32)


@SHARED
@given(
    a=hnp.arrays(np.float32, (2, 3), elements=FINITE),
    b=hnp.arrays(np.int32, (2, 3), elements=st.integers(-(2**31), 2**31 - 1)),
)
def test_case_30_rest_and_grpc_answer_the_same_bytes(
    server: RunningServer, stub: Any, a: np.ndarray, b: np.ndarray
) -> None:
    inputs, types = {"a": a, "b": b}, {"a": "FP32", "b": "INT32"}
    rest = over_rest(server, "pair", inputs, types)
    assert isinstance(rest, dict), rest
    assert rest == over_grpc(stub, "pair", inputs, types)


@SHARED
@given(image=hnp.arrays(np.float32, (2, 3, 32, 32), elements=FINITE, fill=FINITE))
def test_case_30_rest_and_grpc_agree_on_a_real_network(
    server: RunningServer, stub: Any, image: np.ndarray
) -> None:
    rest = over_rest(server, "tinynet", {"image": image}, {"image": "FP32"})
    assert isinstance(rest, dict), rest
    assert rest == over_grpc(stub, "tinynet", {"image": image}, {"image": "FP32"})


HTTP_OF = {Code.INVALID_ARGUMENT: 400, Code.NOT_FOUND: 404, Code.UNAVAILABLE: 503, Code.INTERNAL: 502}


@pytest.mark.parametrize(
    ("model", "array", "datatype"),
    [
        ("absent", np.float32([[1]]), "FP32"),
        ("truncated", np.float32([[1]]), "FP32"),
        ("echo_fp32", np.float32([1]), "FP32"),
        ("echo_fp32", np.float64([[1]]), "FP64"),
        ("logarithm", np.float32([[-1, 1, 1, 1]]), "FP32"),
        ("fixed_fp32", np.float32([[1, 2]]), "FP32"),
        ("fixed_fp32", np.zeros((9, 4), np.float32), "FP32"),
    ],
)
def test_case_30_rest_and_grpc_refuse_alike(
    server: RunningServer, stub: Any, model: str, array: np.ndarray, datatype: str
) -> None:
    rest = over_rest(server, model, {"x": array}, {"x": datatype})
    code = over_grpc(stub, model, {"x": array}, {"x": datatype})
    assert isinstance(rest, int)
    assert HTTP_OF[code] == rest
