"""Cases 58 and 59, defects 1 and 2: the cache never gives one request the answer of another, and equal
requests in flight share one execution."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bare_sockets import Wire, infer_bytes
from tests.support.running_server import RunningServer, eventually, running
from tests.support.slow_requests import fresh_value, slow_input


def outcome(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return reply.headers["X-Cache"]


def echo(value: float) -> list[dict[str, Any]]:
    return [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [value]}]


def binary(
    server: RunningServer, model: str, datatype: str, shape: list[int], payload: bytes, **extra: Any
) -> Any:
    document: dict[str, Any] = {
        "inputs": [
            {
                "name": "x",
                "datatype": datatype,
                "shape": shape,
                "parameters": {"binary_data_size": len(payload)},
            }
        ],
        "parameters": {"binary_data_output": True, **extra},
    }
    text = json.dumps(document).encode()
    return server.http.post(
        f"/v2/models/{model}/infer",
        content=text + payload,
        headers={"Inference-Header-Content-Length": str(len(text))},
    )


def test_case_58_an_equal_request_is_a_hit_and_equal_to_the_first(server: RunningServer) -> None:
    value = fresh_value()
    executed = server.executions("echo_fp32")
    first, second = (server.infer("echo_fp32", echo(value)) for _ in range(2))
    assert (outcome(first), outcome(second)) == ("miss", "hit")
    assert first.json()["outputs"] == second.json()["outputs"]
    assert server.executions("echo_fp32") == executed + 1


def test_case_58_a_hit_carries_the_id_of_its_own_request(server: RunningServer) -> None:
    value = fresh_value()
    replies = [server.infer("echo_fp32", echo(value), id=name) for name in ("first", "second")]
    assert [reply.json()["id"] for reply in replies] == ["first", "second"]
    assert outcome(replies[1]) == "hit"
    assert "id" not in server.infer("echo_fp32", echo(value)).json() or server.infer(
        "echo_fp32", echo(value)
    ).json()["id"] not in ("first", "second")


def test_case_58_defect_1_same_bytes_in_another_shape_are_another_entry(server: RunningServer) -> None:
    payload = np.float32([fresh_value() for _ in range(8)]).tobytes()
    for shape in ([1, 8], [2, 4], [4, 2], [8, 1]):
        reply = binary(server, "echo_fp32", "FP32", shape, payload)
        assert outcome(reply) == "miss"
        length = int(reply.headers["Inference-Header-Content-Length"])
        assert json.loads(reply.content[:length])["outputs"][0]["shape"] == shape


def test_case_58_defect_1_same_bytes_for_another_model_or_type_are_another_entry(
    server: RunningServer,
) -> None:
    payload = np.uint64([int(fresh_value()) + 2**40]).tobytes()
    for model, datatype in (("echo_uint64", "UINT64"), ("echo_int64", "INT64"), ("echo_fp64", "FP64")):
        reply = binary(server, model, datatype, [1, 1], payload)
        assert outcome(reply) == "miss"
        assert reply.content.endswith(payload)


def test_case_58_defect_1_another_version_is_another_entry(server: RunningServer) -> None:
    value = fresh_value()
    for version, factor in (("1", 10), ("2", 20)):
        reply = server.infer("scaled", echo(value), version=version)
        assert outcome(reply) == "miss"
        assert reply.json()["outputs"][0]["data"] == [factor * value]


def test_case_58_defect_1_other_requested_outputs_are_another_entry(server: RunningServer) -> None:
    value = fresh_value()
    inputs = [
        {"name": "a", "datatype": "FP32", "shape": [1, 1], "data": [value]},
        {"name": "b", "datatype": "INT32", "shape": [1, 1], "data": [1]},
    ]
    for names in (["sum"], ["difference"], ["sum", "difference"]):
        reply = server.infer("pair", inputs, outputs=[{"name": name} for name in names])
        assert [output["name"] for output in reply.json()["outputs"]] == names


def test_case_58_defect_1_the_classification_form_is_not_mixed_up_with_the_tensor(
    server: RunningServer,
) -> None:
    image = np.random.default_rng(int(fresh_value())).standard_normal(3 * 32 * 32).astype(np.float32)
    inputs = [{"name": "image", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": image.tolist()}]
    kinds = []
    for parameters in ({}, {"classification": 2}, {"classification": 3}, {}):
        reply = server.infer("tinynet", inputs, outputs=[{"name": "logits", "parameters": parameters}])
        (output,) = reply.json()["outputs"]
        kinds.append((output["datatype"], output["shape"]))
    assert kinds == [("FP32", [1, 5]), ("BYTES", [1, 2]), ("BYTES", [1, 3]), ("FP32", [1, 5])]


def test_case_58_defect_1_other_parameters_are_another_entry(server: RunningServer) -> None:
    value = fresh_value()
    for parameters in (
        {"mode": "a"},
        {"mode": "b"},
        {"mode": 1},
        {"mode": True},
        {"mode": 1.5},
        {"other": "a"},
        {},
    ):
        assert outcome(server.infer("echo_fp32", echo(value), parameters=parameters)) == "miss", parameters


def test_case_58_the_order_of_parameters_and_inputs_does_not_matter(server: RunningServer) -> None:
    a = {"name": "a", "datatype": "FP32", "shape": [1, 1], "data": [fresh_value()]}
    b = {"name": "b", "datatype": "INT32", "shape": [1, 1], "data": [1]}
    assert outcome(server.infer("pair", [a, b], parameters={"p": 1, "q": 2})) == "miss"
    assert outcome(server.infer("pair", [b, a], parameters={"q": 2, "p": 1})) == "hit"


CELLS = st.lists(
    st.sampled_from([b"", b"a", b"ab", b"b", b"\x01\x00\x00\x00a", b"\x00"]), min_size=2, max_size=4
)


@settings(max_examples=40, deadline=None)
@given(first=CELLS, second=CELLS)
def test_case_58_property_the_key_never_confuses_two_requests(
    server: RunningServer, first: list[bytes], second: list[bytes]
) -> None:
    """Byte strings whose concatenations collide: each answer must be its own question."""
    for cells in (first, second):
        payload = b"".join(len(cell).to_bytes(4, "little") + cell for cell in cells)
        for shape in ([1, len(cells)], [len(cells), 1]):
            reply = binary(server, "echo_bytes", "BYTES", shape, payload)
            assert reply.status_code == 200, reply.text
            length = int(reply.headers["Inference-Header-Content-Length"])
            assert reply.content[length:] == payload
            assert json.loads(reply.content[:length])["outputs"][0]["shape"] == shape


def test_case_58_errors_are_never_cached(server: RunningServer) -> None:
    bad = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [-1.0, 1.0, 1.0, fresh_value()]}]
    executed = server.executions("logarithm")
    for _ in range(3):
        reply = server.infer("logarithm", bad)
        assert reply.status_code == 502
        assert reply.headers.get("X-Cache") != "hit"
    assert server.executions("logarithm") >= executed + 3


@pytest.mark.parametrize("directive", ["no-store", "no-cache", "no-cache, max-age=0"])
def test_case_58_a_caller_can_go_round_the_cache(server: RunningServer, directive: str) -> None:
    value = fresh_value()
    assert outcome(server.infer("echo_fp32", echo(value))) == "miss"
    again = server.infer("echo_fp32", echo(value), headers={"Cache-Control": directive})
    assert outcome(again) in ("bypass", "miss")


def test_case_58_no_store_leaves_nothing_behind(server: RunningServer) -> None:
    value = fresh_value()
    server.infer("echo_fp32", echo(value), headers={"Cache-Control": "no-store"})
    assert outcome(server.infer("echo_fp32", echo(value))) == "miss"


@pytest.fixture(scope="module")
def shared_house(small_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with two tenants."""
    keys = {"auth": {"keys": {"alice": "key-of-alice", "bob": "key-of-bob"}}, "scheduler": {"lanes": 1}}
    with running(small_repository, tmp_path_factory.mktemp("tenants"), keys) as started:
        yield started


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_case_58_tenants_do_not_see_each_others_answers(shared_house: RunningServer) -> None:
    value = fresh_value()
    order = ["key-of-alice", "key-of-bob", "key-of-alice", "key-of-bob"]
    outcomes = [outcome(shared_house.infer("echo_fp32", echo(value), headers=bearer(key))) for key in order]
    assert outcomes == ["miss", "miss", "hit", "hit"]


@pytest.mark.parametrize(
    "headers", [{}, bearer("wrong"), {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}]
)
def test_without_a_known_key_the_answer_is_401_and_says_no_secret(
    shared_house: RunningServer, headers: dict[str, str]
) -> None:
    reply = shared_house.infer("echo_fp32", echo(1.0), headers=headers)
    assert reply.status_code == 401, reply.text
    assert "key-of" not in reply.text
    assert "key-of" not in shared_house.log


def at_once(server: RunningServer, model: str, inputs: list[dict[str, Any]], count: int) -> list[Any]:
    wires = [Wire(server.http_port) for _ in range(count)]
    for wire in wires:
        wire.send(infer_bytes(model, inputs))
    replies = [wire.reply() for wire in wires]
    for wire in wires:
        wire.close()
    return replies


def test_case_59_defect_2_a_hundred_identical_requests_are_one_execution(one_lane: RunningServer) -> None:
    value, executed = fresh_value(), one_lane.executions("slow")
    replies = at_once(one_lane, "slow", slow_input(value), 100)
    assert {reply.status for reply in replies} == {200}
    assert {json.loads(reply.body)["outputs"][0]["data"][0] for reply in replies} == {value}
    assert one_lane.executions("slow") == executed + 1
    outcomes = [reply.headers["x-cache"] for reply in replies]
    assert outcomes.count("miss") == 1
    assert set(outcomes) <= {"miss", "coalesced", "hit"}
    assert "coalesced" in outcomes


@pytest.mark.parametrize("when", ["queued", "executing"])
def test_case_59_when_the_leader_leaves_a_follower_takes_over(
    one_lane: RunningServer, busy: Any, when: str
) -> None:
    value, executed = fresh_value(), one_lane.executions("slow_batch")
    request = infer_bytes("slow_batch", slow_input(value, batched=True))
    leader = Wire(one_lane.http_port)
    followers = [Wire(one_lane.http_port) for _ in range(5)]
    with busy:
        leader.send(request)
        eventually(lambda: one_lane.pending("slow_batch") >= 1, "the leader waits")
        for wire in followers:
            wire.send(request)
        if when == "queued":
            leader.reset()
            eventually(lambda: one_lane.pending("slow_batch") >= 1, "somebody waits")
    if when == "executing":
        eventually(lambda: one_lane.pending("slow_batch") == 0, "it runs")
        leader.reset()
    replies = [wire.reply() for wire in followers]
    assert [reply.status for reply in replies] == [200] * 5
    assert all(json.loads(reply.body)["outputs"][0]["data"] == [value] for reply in replies)
    assert one_lane.executions("slow_batch") <= executed + 2
    for wire in followers:
        wire.close()


def test_case_59_when_everybody_leaves_nothing_is_executed(one_lane: RunningServer, busy: Any) -> None:
    executed = one_lane.executions("slow_batch")
    request = infer_bytes("slow_batch", slow_input(fresh_value(), batched=True))
    with busy:
        wires = [Wire(one_lane.http_port) for _ in range(6)]
        for wire in wires:
            wire.send(request)
        eventually(lambda: one_lane.pending("slow_batch") >= 1, "they wait")
        for wire in wires:
            wire.close()
        eventually(lambda: one_lane.pending("slow_batch") == 0, "nobody waits")
    one_lane.infer("slow", slow_input(fresh_value()))
    assert one_lane.executions("slow_batch") == executed


def test_case_59_when_the_leader_fails_each_follower_gets_a_clear_error(one_lane: RunningServer) -> None:
    replies = at_once(one_lane, "slow_logarithm", slow_input(-fresh_value()), 6)
    assert {reply.status for reply in replies} == {502}
    for reply in replies:
        assert json.loads(reply.body)["error"]


def test_case_59_a_short_deadline_of_the_leader_does_not_doom_patient_followers(
    one_lane: RunningServer, busy: Any
) -> None:
    value = fresh_value()
    with busy, ThreadPoolExecutor(2) as pool:
        hasty = pool.submit(
            one_lane.infer,
            "slow_batch",
            slow_input(value, batched=True),
            headers={"X-Request-Timeout-Ms": "1500"},
        )
        patient = pool.submit(one_lane.infer, "slow_batch", slow_input(value, batched=True))
    assert patient.result().status_code == 200
    assert hasty.result().status_code in (200, 503, 504)


def test_the_cache_can_be_switched_off_and_flights_are_still_shared(
    start_server: Callable[..., RunningServer], small_repository: Path
) -> None:
    server = start_server(small_repository, {"cache": {"enabled": False}, "scheduler": {"lanes": 1}})
    value = fresh_value()
    assert [outcome(server.infer("echo_fp32", echo(value))) for _ in range(3)] != ["miss", "hit", "hit"]
    executed = server.executions("slow")
    replies = at_once(server, "slow", slow_input(fresh_value()), 10)
    assert {reply.status for reply in replies} == {200}
    assert server.executions("slow") == executed + 1


def test_the_cache_is_bounded_in_bytes(
    start_server: Callable[..., RunningServer], small_repository: Path
) -> None:
    server = start_server(small_repository, {"cache": {"max_bytes": 200_000}, "scheduler": {"lanes": 1}})
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": [1, 10_000], "data": [float(number)] * 10_000}
        for number in itertools.islice(itertools.count(), 8)
    ]
    for entry in inputs:
        assert outcome(server.infer("echo_fp32", [entry])) == "miss"
    assert outcome(server.infer("echo_fp32", [inputs[-1]])) == "hit"
    assert outcome(server.infer("echo_fp32", [inputs[0]])) == "miss"
