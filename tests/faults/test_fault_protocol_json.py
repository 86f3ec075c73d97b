"""Cases 1-14, 16-18, 22, 26 and 28: what a wrong JSON request is told, and that it costs nothing."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support.running_server import RunningServer, assert_no_leak, assert_refused

MIB = 1 << 20
INFER = "/v2/models/echo_fp32/infer"
JSON = {"Content-Type": "application/json"}


def tensor(
    data: Any, shape: list[Any] | None = None, datatype: Any = "FP32", name: str = "x"
) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": datatype,
        "shape": [1, len(data)] if shape is None else shape,
        "data": data,
    }


def post(server: RunningServer, content: str | bytes, path: str = INFER) -> Any:
    return server.http.post(path, content=content, headers=JSON)


@pytest.mark.parametrize(
    "body",
    [
        "{",
        '{"inputs": [}',
        '{"inputs": []}}',
        "{'inputs': []}",
        "\x00\x01",
        '{"inputs": [{"name": "x",]}',
        "nul",
    ],
)
def test_case_1_malformed_json_is_400(server: RunningServer, body: str) -> None:
    assert_refused(post(server, body), 400)


def test_case_1_json_that_is_not_utf8_is_400(server: RunningServer) -> None:
    assert_refused(post(server, b'{"id": "\xff\xfe", "inputs": []}'), 400)


def test_case_2_an_empty_body_is_400(server: RunningServer) -> None:
    assert_refused(post(server, b""), 400)


@pytest.mark.parametrize("body", ["[]", '"inputs"', "1", "null", "true", '[{"inputs": []}]'])
def test_case_3_a_body_that_is_no_object_is_400(server: RunningServer, body: str) -> None:
    assert_refused(post(server, body), 400)


@pytest.mark.parametrize(
    "body", ["{}", '{"inputs": []}', '{"inputs": null}', '{"inputs": {}}', '{"inputs": "x"}']
)
def test_case_4_missing_or_empty_inputs_are_400_and_named(server: RunningServer, body: str) -> None:
    assert_refused(post(server, body), 400, "inputs")


@pytest.mark.parametrize("entry", ["null", "1", '"x"', "[]", "{}", '{"name": 3}'])
def test_case_4_an_input_that_is_no_tensor_is_400(server: RunningServer, entry: str) -> None:
    assert_refused(post(server, f'{{"inputs": [{entry}]}}'), 400, "inputs")


@pytest.mark.parametrize("field", ["name", "shape", "datatype", "data"])
def test_case_4_a_missing_field_of_an_input_is_400_and_named(server: RunningServer, field: str) -> None:
    entry = tensor([1.0])
    del entry[field]
    assert_refused(server.infer("echo_fp32", [entry]), 400, field)


@pytest.mark.parametrize("datatype", ["FLOAT", "fp32", "", "INT128", 32, None, ["FP32"]])
def test_case_5_an_unknown_datatype_is_400_and_the_allowed_ones_are_listed(
    server: RunningServer, datatype: Any
) -> None:
    reply = server.infer("echo_fp32", [tensor([1.0], datatype=datatype)])
    assert_refused(reply, 400, "datatype", "BOOL", "UINT8", "INT64", "FP32", "BYTES")


def test_case_6_a_datatype_the_model_does_not_take_is_400_with_both(server: RunningServer) -> None:
    reply = server.infer("echo_fp32", [tensor(["a"], datatype="BYTES")])
    assert_refused(reply, 400, "x", "expects FP32", "BYTES")


@pytest.mark.parametrize(
    ("data", "shape", "numbers"),
    [
        ([1.0, 2.0, 3.0], [1, 4], ("3", "4")),
        ([[1.0, 2.0, 3.0]], [1, 2], ("3", "2")),
        ([], [1, 2], ("0", "2")),
        ([1.0] * 7, [2, 3], ("7", "6")),
        ([[1.0, 2.0], [3.0]], [2, 2], ("3", "4")),
    ],
)
def test_case_7_data_that_does_not_fill_the_shape_is_400_with_both_numbers(
    server: RunningServer, data: Any, shape: list[int], numbers: tuple[str, str]
) -> None:
    assert_refused(server.infer("echo_fp32", [tensor(data, shape)]), 400, *numbers)


def test_case_7_nested_and_flat_data_give_the_same_tensor(server: RunningServer) -> None:
    flat = server.infer("echo_fp32", [tensor([1, 2, 3, 4], [2, 2])]).json()["outputs"]
    nested = server.infer("echo_fp32", [tensor([[1, 2], [3, 4]], [2, 2])]).json()["outputs"]
    assert flat == nested == [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]


@pytest.mark.parametrize("shape", [[-1, 1], [1, -1], [-1, -1], [-2, -2]])
def test_case_8_a_negative_dimension_is_400(server: RunningServer, shape: list[int]) -> None:
    assert_refused(server.infer("echo_fp32", [tensor([1.0], shape)]), 400, "shape")


def test_case_9_a_zero_dimension_is_served_where_the_model_leaves_the_size_free(
    server: RunningServer,
) -> None:
    reply = server.infer("echo_fp32", [tensor([], [1, 0])])
    assert reply.status_code == 200, reply.text
    assert reply.json()["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 0], "data": []}]


@pytest.mark.parametrize(
    ("model", "shape"), [("fixed_fp32", [1, 0]), ("fixed_fp32", [0, 4]), ("echo_fp32", [0, 3])]
)
def test_case_9_a_zero_dimension_elsewhere_is_400(
    server: RunningServer, model: str, shape: list[int]
) -> None:
    assert_refused(server.infer(model, [tensor([], shape)]), 400)


@pytest.mark.parametrize(
    "shape", [[2**62], [1, 2**62], [2**4, 2**60 + 2], [2**32, 2**32], [2**64, 1], [10**30, 1], [2**63, 2]]
)
def test_case_10_a_shape_that_overflows_is_400_and_allocates_nothing(
    server: RunningServer, shape: list[int]
) -> None:
    before = server.rss()
    for _ in range(20):
        assert_refused(server.infer("echo_fp32", [tensor([1.0], shape)]), 400)
    assert server.rss() - before < 16 * MIB


@pytest.mark.parametrize(
    "shape", [[1.0, 1], [1, 1.5], ["1", "1"], "1,1", [True, 1], [None, 1], [[1], 1], {}, 1, None]
)
def test_case_11_a_shape_of_anything_but_integers_is_400(server: RunningServer, shape: Any) -> None:
    entry = tensor([1.0])
    entry["shape"] = shape
    assert_refused(server.infer("echo_fp32", [entry]), 400, "shape")


INTEGER_RANGES = [
    (f"{sign}INT{bits}", low, high)
    for bits in (8, 16, 32, 64)
    for sign, low, high in (("", -(2 ** (bits - 1)), 2 ** (bits - 1) - 1), ("U", 0, 2**bits - 1))
]


@pytest.mark.parametrize(("datatype", "low", "high"), INTEGER_RANGES)
def test_case_12_integers_out_of_range_are_400_and_the_bounds_are_exact(
    server: RunningServer, datatype: str, low: int, high: int
) -> None:
    model = f"echo_{datatype.lower()}"
    for wrong in (low - 1, high + 1):
        assert_refused(server.infer(model, [tensor([wrong], datatype=datatype)]), 400, "x")
    reply = server.infer(model, [tensor([low, high], datatype=datatype)])
    assert reply.json()["outputs"][0]["data"] == [low, high]


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("FP32", "1"),
        ("FP32", True),
        ("FP32", None),
        ("FP32", {}),
        ("FP64", "1e3"),
        ("INT32", "1"),
        ("INT32", True),
        ("INT32", 1.5),
        ("UINT8", None),
        ("BOOL", "true"),
        ("BOOL", 2),
        ("BYTES", 1),
        ("BYTES", True),
        ("BYTES", None),
    ],
)
def test_case_13_values_of_another_kind_are_400(server: RunningServer, datatype: str, value: Any) -> None:
    reply = server.infer(f"echo_{datatype.lower()}", [tensor([value], datatype=datatype)])
    assert_refused(reply, 400, "x")


@pytest.mark.parametrize("data", ["1.0", 1.0, None, {}, True])
def test_case_13_data_that_is_no_array_is_400(server: RunningServer, data: Any) -> None:
    assert_refused(server.infer("echo_fp32", [tensor(data, [1, 1])]), 400, "data")


@pytest.mark.parametrize(
    "literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "nan", "1e39", "-1e39"]
)
def test_case_14_numbers_that_are_not_finite_are_400(server: RunningServer, literal: str) -> None:
    body = f'{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [{literal}]}}]}}'
    assert_refused(post(server, body), 400)


def test_case_16_duplicate_input_names_are_400(server: RunningServer) -> None:
    assert_refused(server.infer("echo_fp32", [tensor([1.0]), tensor([2.0])]), 400, "x")


def test_case_17_an_unknown_input_is_400_and_the_known_ones_are_named(server: RunningServer) -> None:
    reply = server.infer("echo_fp32", [tensor([1.0]), tensor([1.0], name="z")])
    assert_refused(reply, 400, "z", "x")


def test_case_17_a_missing_required_input_is_400_and_named(server: RunningServer) -> None:
    assert_refused(server.infer("pair", [tensor([1.0], name="a")]), 400, "b")


def test_case_18_an_unknown_requested_output_is_400(server: RunningServer) -> None:
    assert_refused(
        server.infer("echo_fp32", [tensor([1.0])], outputs=[{"name": "nothing"}]), 400, "nothing", "y"
    )


def test_case_18_duplicate_requested_outputs_are_400(server: RunningServer) -> None:
    assert_refused(
        server.infer("echo_fp32", [tensor([1.0])], outputs=[{"name": "y"}, {"name": "y"}]), 400, "y"
    )


@pytest.mark.parametrize("outputs", ["y", {}, [1], [None], [{}], [{"name": None}]])
def test_case_18_requested_outputs_of_the_wrong_kind_are_400(server: RunningServer, outputs: Any) -> None:
    assert_refused(server.infer("echo_fp32", [tensor([1.0])], outputs=outputs), 400, "output")


def test_case_18_only_the_requested_output_comes_back(server: RunningServer) -> None:
    inputs = [tensor([3.0], name="a"), tensor([1], name="b", datatype="INT32")]
    reply = server.infer("pair", inputs, outputs=[{"name": "difference"}]).json()
    assert [(output["name"], output["data"]) for output in reply["outputs"]] == [("difference", [2.0])]


NESTED = {
    "data": '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": %s%s}]}',
    "parameters": '{"parameters": {"deep": %s%s}, "inputs": []}',
    "top": "%s%s",
}


@pytest.mark.parametrize("where", NESTED)
def test_case_22_nesting_of_ten_thousand_levels_is_400(server: RunningServer, where: str) -> None:
    assert_refused(post(server, NESTED[where] % ("[" * 10_000, "]" * 10_000)), 400)


def test_case_22_a_million_keys_are_400_quickly_and_memory_stays_flat(server: RunningServer) -> None:
    body = "{" + ",".join(f'"k{number}":{number}' for number in range(1_000_000)) + "}"
    assert_refused(post(server, body), 400)
    before, start = server.rss(), time.monotonic()
    for _ in range(4):
        assert_refused(post(server, body), 400)
    assert time.monotonic() - start < 20, "four such bodies held the server for seconds each"
    assert server.rss() - before < 48 * MIB


@pytest.mark.parametrize("part", ["[],", "{},"])
def test_case_22_millions_of_lists_or_objects_are_400_in_flat_memory(
    server: RunningServer, part: str
) -> None:
    before = server.most_memory()
    body = '{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[' + part * 4_000_000 + "1]}]}"
    assert_refused(post(server, body), 400, "2097152 objects and arrays")
    assert server.most_memory() - before < 100 * MIB


@pytest.mark.parametrize("parameters", [[], "x", 1, {"deep": {"a": 1}}, {"list": [1]}, {"nothing": None}])
def test_case_22_parameters_are_a_flat_object_or_400(server: RunningServer, parameters: Any) -> None:
    reply = server.infer("echo_fp32", [tensor([1.0])], parameters=parameters)
    assert_refused(reply, 400, "parameters")


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_case_26_half_precision_in_json_is_400(server: RunningServer, datatype: str) -> None:
    reply = server.infer(f"echo_{datatype.lower()}", [tensor([1.0], datatype=datatype)])
    assert_refused(reply, 400, datatype, "binary")


@pytest.mark.parametrize("request_id", ["abc", "42", "é-ü", "a" * 200, "with space"])
def test_case_28_the_reply_carries_the_id_of_the_request(server: RunningServer, request_id: str) -> None:
    reply = server.infer("echo_fp32", [tensor([1.0])], id=request_id)
    assert reply.status_code == 200, reply.text
    assert reply.json()["id"] == request_id


def test_case_28_without_an_id_two_replies_agree_about_having_one(server: RunningServer) -> None:
    """Absent in, absent (or generated) out: but the same each time, and never a failure."""
    replies = [server.infer("echo_fp32", [tensor([1.0])]) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 200]
    first, second = (reply.json().get("id", "") for reply in replies)
    assert bool(first) == bool(second)
    assert not first or first != second


@pytest.mark.parametrize("request_id", [1, None, [], {}, True])
def test_case_28_an_id_that_is_no_text_never_breaks_the_server(
    server: RunningServer, request_id: Any
) -> None:
    reply = server.infer("echo_fp32", [tensor([1.0])], id=request_id)
    assert reply.status_code in (200, 400), reply.text
    assert_no_leak(reply.text)


def test_unknown_top_level_members_are_ignored_as_the_protocol_wants(server: RunningServer) -> None:
    reply = server.infer("echo_fp32", [tensor([1.0])], whatever=[1, 2, 3])
    assert reply.status_code == 200, reply.text


def test_replies_are_strict_json(server: RunningServer) -> None:
    reply = server.infer("echo_fp32", [tensor([3.4e38, -3.4e38, 1e-45, 0.1], [2, 2])])

    def refuse(literal: str) -> float:
        raise AssertionError(f"the reply has the literal {literal}")

    json.loads(reply.text, parse_constant=refuse)
