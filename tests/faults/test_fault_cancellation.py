"""Case 54 and defects 3 and 4: a client that leaves takes its work along; one bad item hurts nobody else.
Case 55: the answers of the others are those they would have got alone."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.bare_sockets import Wire, infer_bytes, request_bytes
from tests.support.running_server import RunningServer, eventually
from tests.support.slow_requests import fresh_value, slow_input


def drained(server: RunningServer, *models: str) -> None:
    eventually(
        lambda: all(server.pending(model) == 0 for model in models), f"the queues of {models} are empty"
    )


def barrier(server: RunningServer) -> None:
    """Return once everything queued before has been executed or dropped."""
    assert server.infer("slow", slow_input(fresh_value())).status_code == 200


def cancelled(server: RunningServer, stage: str) -> float:
    """Sum of our counters of cancelled requests with this stage."""
    return sum(
        value
        for (name, labels), value in server.metrics().items()
        if name == "nonet_cancelled_total" and ("stage", stage) in labels
    )


@pytest.mark.parametrize("farewell", ["close", "reset"])
def test_case_54_defect_3_a_client_that_leaves_the_queue_is_not_executed(
    one_lane: RunningServer, busy: Any, farewell: str
) -> None:
    executed, counted = one_lane.executions("slow_batch"), cancelled(one_lane, "queued")
    with busy:
        leaving = [Wire(one_lane.http_port) for _ in range(5)]
        for wire in leaving:
            wire.send(infer_bytes("slow_batch", slow_input(fresh_value(), batched=True)))
        eventually(lambda: one_lane.pending("slow_batch") == 5, "five requests wait")
        for wire in leaving:
            getattr(wire, farewell)()
        drained(one_lane, "slow_batch")
    barrier(one_lane)
    assert one_lane.executions("slow_batch") == executed
    assert cancelled(one_lane, "queued") == counted + 5


@pytest.mark.parametrize("farewell", ["close", "reset"])
def test_case_54_defect_3_a_client_that_leaves_after_a_large_body_is_not_executed(
    one_lane: RunningServer, busy: Any, farewell: str
) -> None:
    """Reading stops while a large body is taken in; a server that forgets to go on never sees the end."""
    executed, counted = one_lane.executions("slow_batch"), cancelled(one_lane, "queued")
    padding = b" " * (4 << 20)
    with busy:
        leaving = [Wire(one_lane.http_port) for _ in range(5)]
        for wire in leaving:
            body = json.dumps({"inputs": slow_input(fresh_value(), batched=True)}).encode() + padding
            wire.send(request_bytes("POST", "/v2/models/slow_batch/infer", body))
        eventually(lambda: one_lane.pending("slow_batch") == 5, "five requests wait")
        for wire in leaving:
            getattr(wire, farewell)()
        drained(one_lane, "slow_batch")
    barrier(one_lane)
    assert one_lane.executions("slow_batch") == executed
    assert cancelled(one_lane, "queued") == counted + 5


def test_case_54_a_cancelled_grpc_call_is_not_executed(one_lane: RunningServer, busy: Any) -> None:
    executed = one_lane.executions("slow_batch")
    with grpc.insecure_channel(one_lane.grpc_address) as channel, contextlib.ExitStack() as stack:
        # Connected first: on a slow machine that takes longer than the lane stays busy.
        grpc.channel_ready_future(channel).result(timeout=60)
        stack.enter_context(busy)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        message = service_pb2.ModelInferRequest(model_name="slow_batch")
        message.inputs.add(name="x", datatype="FP32", shape=[1, 1])
        message.raw_input_contents.append(np.float32([fresh_value()]).tobytes())
        # No deadline of its own: an earlier one than theirs would put it before the others that wait.
        call = stub.ModelInfer.future(message)
        eventually(lambda: one_lane.pending("slow_batch") == 1, "the call waits")
        call.cancel()
        drained(one_lane, "slow_batch")
    barrier(one_lane)
    assert one_lane.executions("slow_batch") == executed


def test_case_54_defect_3_the_next_client_does_not_wait_behind_the_ones_who_left(
    one_lane: RunningServer, busy: Any
) -> None:
    """Without cancellation, forty abandoned slow requests would make the last one wait many seconds."""
    executed = one_lane.executions("slow")
    with busy:
        leaving = [Wire(one_lane.http_port) for _ in range(40)]
        for wire in leaving:
            wire.send(infer_bytes("slow", slow_input(fresh_value())))
        eventually(lambda: one_lane.pending("slow") >= 40, "forty requests wait")
        for wire in leaving:
            wire.close()
        eventually(lambda: one_lane.pending("slow") <= 1, "they are gone")
        assert one_lane.infer("slow", slow_input(fresh_value())).status_code == 200
    assert one_lane.executions("slow") <= executed + busy.requests + 1


def test_case_54_leaving_during_execution_does_not_touch_the_batch_peers(
    one_lane: RunningServer, busy: Any
) -> None:
    values = [fresh_value() for _ in range(4)]
    with busy:
        wires = [Wire(one_lane.http_port) for _ in values]
        for wire, value in zip(wires, values, strict=True):
            wire.send(infer_bytes("slow_batch", slow_input(value, batched=True)))
        eventually(lambda: one_lane.pending("slow_batch") == 4, "four requests wait")
    drained(one_lane, "slow_batch")
    wires[1].reset()
    for index in (0, 2, 3):
        reply = wires[index].reply()
        assert reply.status == 200, reply.body
        assert json.loads(reply.body)["outputs"][0]["data"] == [values[index]]
        assert reply.headers["x-batch-size"] == "4"
        wires[index].close()
    assert one_lane.http.get("/v2/health/ready").status_code == 200


def test_case_54_a_client_that_leaves_in_the_middle_of_its_body_queues_nothing(
    one_lane: RunningServer,
) -> None:
    before = one_lane.statistics("echo_fp32")["inference_count"]
    whole = infer_bytes(
        "echo_fp32", [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [fresh_value()]}]
    )
    for cut in (len(whole) - 1, len(whole) - 20, 60):
        with Wire(one_lane.http_port) as wire:
            wire.send(whole[:cut])
    barrier(one_lane)
    assert one_lane.statistics("echo_fp32")["inference_count"] == before


def lookup(index: int) -> list[dict[str, Any]]:
    return [{"name": "index", "datatype": "INT64", "shape": [1, 1], "data": [index]}]


def together(server: RunningServer, busy: Any, model: str, bodies: list[list[dict[str, Any]]]) -> list[Any]:
    """Replies to ``bodies``, which all wait in the queue before the first of them may run."""
    headers = {"Cache-Control": "no-store"}
    with busy:
        wires = [Wire(server.http_port) for _ in bodies]
        for wire, body in zip(wires, bodies, strict=True):
            wire.send(infer_bytes(model, body, headers))
        eventually(lambda: server.pending(model) == len(bodies), f"{len(bodies)} requests wait")
    replies = [wire.reply() for wire in wires]
    for wire in wires:
        wire.close()
    return replies


def test_case_55_defect_4_one_item_that_fails_inside_the_engine_fails_alone(
    one_lane: RunningServer, busy: Any
) -> None:
    """ONNX Runtime refuses the whole batch for one index outside the table."""
    solo = [one_lane.infer("lookup", lookup(index)).json()["outputs"] for index in range(7)]
    indices = [0, 1, 2, 99, 3, 4, 5, 6]
    replies = together(one_lane, busy, "lookup", [lookup(index) for index in indices])
    good = [reply for index, reply in zip(indices, replies, strict=True) if index != 99]
    assert [reply.status for reply in good] == [200] * 7, [reply.body for reply in good]
    assert [json.loads(reply.body)["outputs"] for reply in good] == solo
    bad = replies[3]
    assert 400 <= bad.status < 600
    assert "outputs" not in json.loads(bad.body)
    assert one_lane.infer("lookup", lookup(5)).json()["outputs"] == solo[5]


def test_case_55_one_item_whose_answer_is_nan_fails_alone(one_lane: RunningServer, busy: Any) -> None:
    rows = [[fresh_value(), 2.0, 3.0, 4.0] for _ in range(7)]
    rows.insert(2, [-1.0, 1.0, 1.0, 1.0])
    bodies = [[{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": row}] for row in rows]
    replies = together(one_lane, busy, "logarithm", bodies)
    assert [reply.status for reply in replies] == [200, 200, 502, 200, 200, 200, 200, 200]
    assert {reply.headers["x-batch-size"] for index, reply in enumerate(replies) if index != 2} == {"8"}
    for row, reply in zip(rows, replies, strict=True):
        if row[0] > 0:
            solo = one_lane.infer(
                "logarithm",
                [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": row}],
                headers={"Cache-Control": "no-store"},
            )
            assert json.loads(reply.body)["outputs"] == solo.json()["outputs"]


def test_case_55_an_item_that_is_malformed_never_reaches_the_batch(
    one_lane: RunningServer, busy: Any
) -> None:
    good = [[{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [fresh_value()]}] for _ in range(6)]
    with busy, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(one_lane.infer, "echo_fp32", body) for body in good]
        wrong = one_lane.infer("echo_fp32", [good[0][0] | {"shape": [1, 7]}])
        assert wrong.status_code == 400
    assert [answer.result().json()["outputs"][0]["data"] for answer in answers] == [
        body[0]["data"] for body in good
    ]


def test_case_55_batched_answers_of_a_network_are_bit_equal_to_solo_answers(
    one_lane: RunningServer, busy: Any
) -> None:
    images = np.random.default_rng(17).standard_normal((8, 3, 32, 32)).astype(np.float32)
    bodies = [
        [{"name": "image", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": image.ravel().tolist()}]
        for image in images
    ]
    solo = [
        one_lane.infer("tinynet", body, headers={"Cache-Control": "no-store"}).json()["outputs"]
        for body in bodies
    ]
    replies = together(one_lane, busy, "tinynet", bodies)
    assert [json.loads(reply.body)["outputs"] for reply in replies] == solo
    assert {reply.headers["x-batch-size"] for reply in replies} == {"8"}


def test_requests_of_several_rows_share_a_batch_without_exceeding_it(
    one_lane: RunningServer, busy: Any
) -> None:
    sizes = [3, 5, 8, 1, 7]
    bodies = [
        [{"name": "x", "datatype": "FP32", "shape": [rows, 1], "data": [fresh_value() for _ in range(rows)]}]
        for rows in sizes
    ]
    replies = together(one_lane, busy, "echo_fp32", bodies)
    for body, reply in zip(bodies, replies, strict=True):
        assert json.loads(reply.body)["outputs"][0]["data"] == body[0]["data"]
        assert int(reply.headers["x-batch-size"]) <= 8


@pytest.mark.parametrize("field", ["x-device", "x-batch-size", "x-cache", "x-model-version", "server-timing"])
def test_answers_say_where_and_how_they_were_made(one_lane: RunningServer, field: str) -> None:
    body = [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [fresh_value()]}]
    reply = one_lane.infer("echo_fp32", body)
    assert reply.headers[field]
    if field == "server-timing":
        assert {part.split(";")[0].strip() for part in reply.headers[field].split(",")} >= {
            "queue",
            "compute",
        }
