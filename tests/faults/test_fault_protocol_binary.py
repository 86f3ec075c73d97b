"""Cases 14 and 15, 23-27: the binary tensor data extension, byte for byte."""

from __future__ import annotations

import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.running_server import RunningServer, assert_no_leak, assert_refused

HEADER = "Inference-Header-Content-Length"


def entry(name: str, datatype: str, shape: list[int], size: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def post(
    server: RunningServer, model: str, document: Any, payload: bytes, header: str | None = None
) -> httpx.Response:
    text = json.dumps(document).encode()
    headers = {
        HEADER: str(len(text)) if header is None else header,
        "Content-Type": "application/octet-stream",
    }
    return server.http.post(f"/v2/models/{model}/infer", content=text + payload, headers=headers)


def split(reply: httpx.Response) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The JSON part, and the raw bytes of each binary output."""
    assert reply.status_code == 200, reply.text
    length = int(reply.headers[HEADER])
    document = json.loads(reply.content[:length])
    rest, raw = reply.content[length:], {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            raw[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    return document, raw


FP32_ONE = {"inputs": [entry("x", "FP32", [1, 1], 4)]}


@pytest.mark.parametrize("header", ["999999", "-1", "12x", "", "1.5", "0x10", "9" * 40])
def test_case_23_a_wrong_header_length_is_400(server: RunningServer, header: str) -> None:
    assert_refused(post(server, "echo_fp32", FP32_ONE, bytes(4), header), 400, HEADER)


def test_case_23_a_header_length_that_cuts_the_json_is_400(server: RunningServer) -> None:
    assert_refused(post(server, "echo_fp32", FP32_ONE, bytes(4), "10"), 400)


def test_case_23_a_header_length_of_zero_for_two_inputs_is_400(server: RunningServer) -> None:
    """Zero announces a raw tensor without JSON, which only a model of one input could take."""
    assert_refused(post(server, "pair", {}, bytes(8), "0"), 400)


@pytest.mark.parametrize("payload", [b"", bytes(3), bytes(5), bytes(400)])
def test_case_24_binary_sizes_that_do_not_sum_to_the_body_are_400(
    server: RunningServer, payload: bytes
) -> None:
    assert_refused(post(server, "echo_fp32", FP32_ONE, payload), 400, "4")


@pytest.mark.parametrize("size", [-4, "4", 4.0, None, True, 2**63, 5])
def test_case_24_a_wrong_binary_data_size_is_400(server: RunningServer, size: Any) -> None:
    assert_refused(post(server, "echo_fp32", {"inputs": [entry("x", "FP32", [1, 1], size)]}, bytes(4)), 400)


def test_case_24_a_binary_size_that_does_not_fit_the_shape_is_400(server: RunningServer) -> None:
    document = {"inputs": [entry("x", "FP32", [1, 3], 8)]}
    assert_refused(post(server, "echo_fp32", document, bytes(8)), 400, "8", "12")


def test_case_24_data_and_binary_size_at_once_are_400(server: RunningServer) -> None:
    both = entry("x", "FP32", [1, 1], 4) | {"data": [1.0]}
    assert_refused(post(server, "echo_fp32", {"inputs": [both]}, bytes(4)), 400)


@pytest.mark.parametrize(
    "payload",
    [
        struct.pack("<I", 100) + b"short",
        struct.pack("<I", 2**32 - 1) + b"ab",
        struct.pack("<I", 1) + b"a" + struct.pack("<I", 1) + b"b",
        struct.pack("<I", 1) + b"abc",
        b"\x01\x00",
    ],
    ids=["past the end", "four gigabytes", "one too many", "bytes left over", "half a length"],
)
def test_case_24_bytes_elements_that_do_not_fit_are_400(server: RunningServer, payload: bytes) -> None:
    document = {"inputs": [entry("x", "BYTES", [1, 1], len(payload))]}
    assert_refused(post(server, "echo_bytes", document, payload), 400)


def test_case_25_json_and_binary_inputs_mix_and_each_output_has_its_own_form(server: RunningServer) -> None:
    a = np.float32([[0.1, -2.5, 3e30]])
    document = {
        "inputs": [
            entry("a", "FP32", [1, 3], 12),
            {"name": "b", "datatype": "INT32", "shape": [1, 3], "data": [1, 2, 3]},
        ],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "sum", "parameters": {"binary_data": False}}, {"name": "difference"}],
    }
    reply, raw = split(post(server, "pair", document, a.tobytes()))
    b = np.float32([[1, 2, 3]])
    assert [output["name"] for output in reply["outputs"]] == ["sum", "difference"]
    assert np.float32(reply["outputs"][0]["data"]).tobytes() == (a + b).tobytes()
    assert raw == {"difference": (a - b).tobytes()}


def test_case_25_one_output_asked_as_binary_leaves_the_other_json(server: RunningServer) -> None:
    document = {
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 1], "data": [5]},
            {"name": "b", "datatype": "INT32", "shape": [1, 1], "data": [2]},
        ],
        "outputs": [{"name": "difference", "parameters": {"binary_data": True}}, {"name": "sum"}],
    }
    reply, raw = split(post(server, "pair", document, b""))
    assert raw == {"difference": struct.pack("<f", 3.0)}
    assert reply["outputs"][1]["data"] == [7.0]


# Hand-written: little-endian, row-major, as the protocol's binary extension has it.
GOLDEN = {
    "BOOL": ("01 00 01", [True, False, True]),
    "UINT8": ("00 7f ff", [0, 127, 255]),
    "UINT16": ("0100 0001 ffff", [1, 256, 65535]),
    "UINT32": ("01000000 00000001 ffffffff", [1, 2**24, 2**32 - 1]),
    "UINT64": ("0100000000000000 0000000000000001 ffffffffffffffff", [1, 2**56, 2**64 - 1]),
    "INT8": ("ff 7f 80", [-1, 127, -128]),
    "INT16": ("feff ff7f 0080", [-2, 32767, -32768]),
    "INT32": ("feffffff ffffff7f 00000080", [-2, 2**31 - 1, -(2**31)]),
    "INT64": ("feffffffffffffff ffffffffffffff7f 0000000000000080", [-2, 2**63 - 1, -(2**63)]),
    "FP16": ("003c 00c0 ff7b", None),  # 1, -2, 65504
    "BF16": ("803f 00c0 4942", None),  # 1, -2, 50.25
    "FP32": ("0000803f 000020c1 cdcccc3d", [1.0, -10.0, 0.1]),
    "FP64": ("000000000000f03f 00000000000024c0 9a9999999999b93f", [1.0, -10.0, 0.1]),
    "BYTES": ("01000000 61 00000000 03000000 e282ac", ["a", "", "\u20ac"]),
}


@pytest.mark.parametrize("datatype", GOLDEN)
def test_case_26_27_binary_tensors_of_every_type_come_back_as_the_golden_bytes(
    server: RunningServer, datatype: str
) -> None:
    raw_bytes, values = bytes.fromhex(GOLDEN[datatype][0].replace(" ", "")), GOLDEN[datatype][1]
    document: dict[str, Any] = {
        "inputs": [entry("x", datatype, [1, 3], len(raw_bytes))],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    reply, raw = split(post(server, f"echo_{datatype.lower()}", document, raw_bytes))
    assert raw == {"y": raw_bytes}
    assert reply["outputs"][0]["datatype"] == datatype
    if values is not None:
        inputs = [{"name": "x", "datatype": datatype, "shape": [1, 3], "data": values}]
        as_json = server.infer(f"echo_{datatype.lower()}", inputs)
        (output,) = as_json.json()["outputs"]
        if datatype == "FP32":
            assert np.float32(output["data"]).tobytes() == np.float32(values).tobytes()
        else:
            assert output["data"] == values


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_case_26_half_precision_answers_need_the_binary_form(server: RunningServer, datatype: str) -> None:
    document = {"inputs": [entry("x", datatype, [1, 1], 2)], "outputs": [{"name": "y"}]}
    reply = post(server, f"echo_{datatype.lower()}", document, b"\x00\x3c")
    assert_refused(reply, 400, datatype, "binary")


def test_case_27_bytes_that_are_not_text_are_kept_or_refused_but_never_mangled(server: RunningServer) -> None:
    """ONNX strings are text; a service (see the images) takes any bytes."""
    payload = struct.pack("<I", 4) + b"\x00\xff\xfe\x80"
    document = {
        "inputs": [entry("x", "BYTES", [1, 1], len(payload))],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    reply = post(server, "echo_bytes", document, payload)
    if reply.status_code == 400:
        assert_refused(reply, 400, "echo_bytes")
    else:
        assert split(reply)[1] == {"y": payload}


def test_case_27_bytes_that_are_not_text_are_never_sent_as_broken_json(server: RunningServer) -> None:
    payload = struct.pack("<I", 2) + b"\xff\xfe"
    reply = post(server, "echo_bytes", {"inputs": [entry("x", "BYTES", [1, 1], len(payload))]}, payload)
    assert reply.status_code in (200, 400), reply.text
    reply.content.decode("utf-8")
    assert_no_leak(reply.text)


NOT_FINITE = {"nan": struct.pack("<f", float("nan")), "inf": struct.pack("<f", float("-inf"))}


@pytest.mark.parametrize("kind", NOT_FINITE)
def test_case_14_binary_numbers_that_are_not_finite_are_400_by_default(
    server: RunningServer, kind: str
) -> None:
    assert_refused(post(server, "echo_fp32", FP32_ONE, NOT_FINITE[kind]), 400, "x", "finite")


@pytest.mark.parametrize("kind", NOT_FINITE)
def test_case_14_a_model_that_allows_them_gets_them_and_gives_them_back(
    server: RunningServer, kind: str
) -> None:
    document = FP32_ONE | {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    assert split(post(server, "wild_fp32", document, NOT_FINITE[kind]))[1] == {"y": NOT_FINITE[kind]}


@pytest.mark.parametrize("kind", NOT_FINITE)
def test_case_14_even_then_json_carries_no_nan(server: RunningServer, kind: str) -> None:
    reply = post(server, "wild_fp32", FP32_ONE, NOT_FINITE[kind])
    assert reply.status_code in (400, 502), reply.text
    assert "outputs" not in reply.json()
    assert_no_leak(reply.text)


@pytest.mark.parametrize("values", [[-1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]], ids=["nan", "inf"])
def test_case_15_a_model_that_answers_nan_or_inf_is_502_in_every_form(
    server: RunningServer, values: list[float]
) -> None:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": values}]
    assert_refused(server.infer("logarithm", inputs), 502, "y")
    document = {
        "inputs": [entry("x", "FP32", [1, 4], 16)],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    assert_refused(post(server, "logarithm", document, np.float32(values).tobytes()), 502, "y")
    fine = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 1.0, 1.0, 1.0]}]
    assert server.infer("logarithm", fine).json()["outputs"][0]["data"] == [0.0, 0.0, 0.0, 0.0]
