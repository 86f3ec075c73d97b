"""Cases 56 and 57 and defect 5: deadlines are honoured end to end, on a clock that nobody can step."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.bare_sockets import Wire, infer_bytes, request_bytes
from tests.support.running_server import RunningServer, assert_refused, eventually
from tests.support.slow_requests import fresh_value, slow_input

TIMEOUT = "X-Request-Timeout-Ms"


def barrier(server: RunningServer) -> None:
    """Return once everything queued before has been executed or dropped."""
    assert server.infer("slow", slow_input(fresh_value())).status_code == 200


def test_case_56_a_deadline_that_has_passed_at_arrival_is_504_without_compute(
    one_lane: RunningServer,
) -> None:
    """The header says one millisecond; the body takes two hundred to arrive."""
    executed = one_lane.executions("slow")
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [%f]}]}' % fresh_value()
    whole = request_bytes("POST", "/v2/models/slow/infer", body, {TIMEOUT: "1"})
    with Wire(one_lane.http_port) as wire:
        wire.send(whole[:-10])
        time.sleep(0.2)
        wire.send(whole[-10:])
        reply = wire.reply()
    assert reply.status in (503, 504), reply.body
    assert one_lane.executions("slow") == executed


def test_case_56_defect_5_a_deadline_that_cannot_be_met_is_refused_at_once(one_lane: RunningServer) -> None:
    """A network that takes some 300 ms, a caller that has 20: refused before any work, with a retry hint."""
    executed = one_lane.executions("slow")
    reply = one_lane.infer("slow", slow_input(fresh_value()), headers={TIMEOUT: "20"})
    assert_refused(reply, 503)
    assert "Retry-After" in reply.headers
    assert reply.elapsed.total_seconds() < 0.2, "refused only after the work could have been done"
    barrier(one_lane)
    assert one_lane.executions("slow") == executed + 1


def test_case_56_the_queue_in_front_counts(one_lane: RunningServer, busy: Any) -> None:
    """Alone it would do: behind more urgent work that takes over half a second, 400 ms do not."""
    executed = one_lane.executions("slow_batch")
    with busy, contextlib.ExitStack() as urgent:
        for _ in range(3):
            wire = urgent.enter_context(contextlib.closing(Wire(one_lane.http_port)))
            wire.send(infer_bytes("slow", slow_input(fresh_value()), {"X-Priority": "0"}))
        eventually(lambda: one_lane.pending("slow") >= 4, "the urgent work waits too")
        reply = one_lane.infer(
            "slow_batch", slow_input(fresh_value(), batched=True), headers={TIMEOUT: "400"}
        )
        assert reply.status_code in (503, 504), reply.text
    barrier(one_lane)
    assert one_lane.executions("slow_batch") == executed


def test_case_56_a_deadline_with_room_is_met(one_lane: RunningServer) -> None:
    reply = one_lane.infer("slow", slow_input(fresh_value()), headers={TIMEOUT: "20000"})
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("value", ["abc", "-5", "nan", "1e400", "", "1,5"])
def test_case_56_a_deadline_that_is_no_number_is_400(one_lane: RunningServer, value: str) -> None:
    assert_refused(one_lane.infer("echo_fp32", echo(), headers={TIMEOUT: value}), 400, TIMEOUT)


def test_case_56_a_deadline_of_zero_never_computes(one_lane: RunningServer) -> None:
    executed = one_lane.executions("slow")
    reply = one_lane.infer("slow", slow_input(fresh_value()), headers={TIMEOUT: "0"})
    assert reply.status_code in (400, 503, 504), reply.text
    assert one_lane.executions("slow") == executed


def test_case_56_grpc_deadlines_mean_the_same(one_lane: RunningServer) -> None:
    executed = one_lane.executions("slow")
    with grpc.insecure_channel(one_lane.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        message = service_pb2.ModelInferRequest(model_name="slow")
        message.inputs.add(name="x", datatype="FP32", shape=[1])
        message.raw_input_contents.append(np.float32([fresh_value()]).tobytes())
        grpc.channel_ready_future(channel).result(10)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(message, timeout=0.05)
        assert caught.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    barrier(one_lane)
    assert one_lane.executions("slow") == executed + 1


def test_case_56_under_overload_nobody_is_told_after_the_deadline_and_no_work_is_wasted(
    one_lane: RunningServer,
) -> None:
    """Twenty callers with two seconds each for three times as much work: some are served, the rest refused.

    Every refusal comes before the deadline; every answer was in time (with a second of slack for this
    machine); and what was executed was also delivered.
    """
    limit = 2.0
    executed = one_lane.executions("slow")

    def ask(value: float) -> tuple[int, float]:
        start = time.monotonic()
        reply = one_lane.infer("slow", slow_input(value), headers={TIMEOUT: str(int(limit * 1000))})
        return reply.status_code, time.monotonic() - start

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(ask, [fresh_value() for _ in range(20)]))
    served = [elapsed for status, elapsed in outcomes if status == 200]
    assert {status for status, _ in outcomes} <= {200, 503, 504}
    assert served
    assert len(served) < 20
    assert max(elapsed for _, elapsed in outcomes) < limit + 1.0
    barrier(one_lane)
    assert one_lane.executions("slow") - executed - 1 <= len(served) + 1


def test_deadline_misses_and_refusals_are_counted(one_lane: RunningServer) -> None:
    def shed() -> float:
        return sum(value for (name, _), value in one_lane.metrics().items() if "shed" in name)

    before = shed()
    one_lane.infer("slow", slow_input(fresh_value()), headers={TIMEOUT: "20"})
    assert shed() > before


def echo() -> list[dict[str, Any]]:
    return [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [fresh_value()]}]


STEPPED_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long *offset(void) {
    static volatile long *where;
    if (!where) {
        int file = open(getenv("STEP_FILE"), O_RDONLY);
        void *map = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        static long none;
        where = map == MAP_FAILED ? &none : map;
    }
    return where;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, at);
    if (!result && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += *offset();
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


class SteppedClock:
    """A library that shifts the wall clock of one process by the seconds in a shared file."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("no C compiler to build the stepped clock")
        folder.mkdir()
        self._file = folder / "offset"
        self._file.write_bytes(bytes(8))
        source, self._library = folder / "clock.c", folder / "clock.so"
        source.write_text(STEPPED_CLOCK)
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "STEP_FILE": str(self._file)}

    def step(self, seconds: int) -> None:
        with self._file.open("r+b") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))


def test_case_57_a_stepped_wall_clock_changes_nothing(
    tmp_path: Path, small_repository: Path, start_server: Callable[..., RunningServer]
) -> None:
    clock = SteppedClock(tmp_path / "clock")
    limits = {"scheduler": {"lanes": 1}, "cache": {"ttl": 600.0}, "server": {"keep_alive": 30.0}}
    server = start_server(small_repository, limits, environment=clock.environment)
    kept = echo()
    assert server.infer("echo_fp32", kept).headers["X-Cache"] == "miss"
    with ThreadPoolExecutor(4) as pool, Wire(server.http_port) as idle:
        idle.send(request_bytes("GET", "/v2/health/live"))
        assert idle.reply().status == 200
        for seconds in (3600, -3600, 0):
            going = [
                pool.submit(server.infer, "slow", slow_input(fresh_value()), headers={TIMEOUT: "20000"})
                for _ in range(3)
            ]
            eventually(lambda: server.pending("slow") >= 1, "requests run and wait")
            clock.step(seconds)
            assert [answer.result().status_code for answer in going] == [200, 200, 200]
            last = server.statistics("slow")["last_inference"] / 1000 - time.time()
            assert abs(last - seconds) < 60, f"the step had no effect on the process: {last} s"
            assert server.infer("echo_fp32", kept).headers["X-Cache"] == "hit"
            refused = server.infer("slow", slow_input(fresh_value()), headers={TIMEOUT: "20"})
            assert refused.status_code == 503
            statistics = server.statistics("slow")["inference_stats"]
            assert 0 <= statistics["queue"]["ns"] < 600e9
            assert 0 <= statistics["success"]["ns"] < 600e9
        idle.send(request_bytes("GET", "/v2/health/live"))
        assert idle.reply().status == 200
