"""A gateway in front of real Triton servers: what is killed, hangs, is slow, unloaded, or shares memory."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.executor import TritonDevice
from nonet.gateway.executor.triton import meaning
from nonet.gateway.settings.topology import RemoteService
from nonet.runtime.catalog import Catalog
from nonet.runtime.clock import MonotonicClock
from nonet.runtime.errors import DeadlineExceeded, NotFound, Unavailable
from nonet.runtime.oip import proto_codec
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.tensors import DataType, Tensor
from tests.support.triton_server import TritonServer, needs_triton

pytestmark = [needs_triton, pytest.mark.server]

GUARD = 60.0


class Gateway:
    """A data plane whose devices are Triton servers."""

    def __init__(self, *servers: TritonServer, **settings: Any) -> None:
        self.catalog = Catalog()
        self.devices = [
            TritonDevice(
                RemoteService("gpu", server.address, kind="triton", **settings), self.catalog, number
            )
            for number, server in enumerate(servers, 1)
        ]
        self.plane = DataPlane(self.catalog, self.devices, clock=MonotonicClock())

    async def __aenter__(self) -> Gateway:
        await self.plane.start()
        for device in self.devices:
            await until(lambda device=device: device.serves(("sleeper", "1")))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.plane.stop()

    def ask(
        self, seconds: float, model: str = "sleeper", *, rows: int = 1, within: float | None = None
    ) -> asyncio.Task[InferResponse]:
        x = np.full((rows, 1), seconds, np.float32)
        request = InferRequest(
            model,
            (Tensor("x", DataType.FP32, x),),
            deadline=None if within is None else time.monotonic() + within,
            use_cache=False,
        )
        return asyncio.create_task(self.plane.infer(request))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(GUARD):
        while not condition():
            await asyncio.sleep(0.05)


def regions() -> set[str]:
    """Names of the shared memory objects of gateways on this machine."""
    return {each.name for each in Path("/dev/shm").glob("nonet-*")}


def doubled(answer: InferResponse) -> float:
    return float(answer.output("y").data[0, 0])


async def in_flight(gateway: Gateway) -> None:
    """Wait until both servers have requests."""
    await until(lambda: all(state.running for state in gateway.plane._dispatcher.scheduler.devices.values()))


async def test_case_61_a_killed_triton_loses_no_request_and_comes_back(twins: list[TritonServer]) -> None:
    victim, _ = twins
    async with Gateway(*twins, lanes=2) as gateway:
        asked = [gateway.ask(0.4 + index / 100) for index in range(4)]
        await in_flight(gateway)
        await asyncio.sleep(0.1)
        victim.kill()
        answers = await asyncio.gather(*asked)
        assert [doubled(each) for each in answers] == pytest.approx([0.8 + i / 50 for i in range(4)])
        assert not gateway.devices[0].healthy
        victim.start()
        await until(lambda: gateway.devices[0].healthy and gateway.devices[0].serves(("sleeper", "1")))
        asked = [gateway.ask(0.2 + index / 100) for index in range(4)]
        assert {each.device for each in await asyncio.gather(*asked)} == {"remote:gpu-1", "remote:gpu-2"}


async def test_case_62_a_hung_triton_holds_up_nobody_and_comes_back(twins: list[TritonServer]) -> None:
    victim, _ = twins
    async with Gateway(*twins, lanes=2, hang_seconds=1.0) as gateway:
        asked = [gateway.ask(0.3 + index / 100) for index in range(4)]
        await in_flight(gateway)
        victim.process.send_signal(signal.SIGSTOP)
        try:
            # Nobody said a deadline: what hangs is given up and answered by the other.
            answers = await asyncio.gather(*asked)
            assert [doubled(each) for each in answers] == pytest.approx([0.6 + i / 50 for i in range(4)])
            assert (await gateway.ask(0.0)).device == "remote:gpu-2"
        finally:
            victim.process.send_signal(signal.SIGCONT)
        await until(lambda: gateway.devices[0].healthy)


async def test_a_slow_model_costs_its_caller_the_deadline_and_nobody_else_anything(
    twins: list[TritonServer],
) -> None:
    async with Gateway(twins[0], lanes=4) as gateway:
        slow = gateway.ask(2.0, within=0.5)
        with pytest.raises(DeadlineExceeded):
            await slow
        assert doubled(await gateway.ask(0.0, "other", within=3.0)) == 0.0
        # The sample that its silence called for is answered when it is done, and the model serves on.
        await until(lambda: gateway.devices[0].serves(("sleeper", "1")))
        assert doubled(await gateway.ask(0.1)) == pytest.approx(0.2)


async def test_a_model_whose_process_died_is_out_though_triton_calls_it_ready_and_is_loaded_afresh(
    twins: list[TritonServer],
) -> None:
    server = twins[0]
    async with Gateway(server, lanes=4, models=("sleeper", "other"), control=True) as gateway:
        asked = gateway.ask(2.0)
        await until(lambda: gateway.plane._dispatcher.scheduler.devices["remote:gpu-1"].running != {})
        server.process_of("sleeper").kill()
        with pytest.raises(Unavailable) as refused:
            await asked
        assert refused.value.code == "BACKEND_CRASHED"
        assert gateway.devices[0].healthy
        assert doubled(await gateway.ask(0.0, "other")) == 0.0
        await until(lambda: gateway.devices[0].serves(("sleeper", "1")))
        assert doubled(await gateway.ask(0.1)) == pytest.approx(0.2)


async def test_what_triton_unloads_is_gone_and_what_it_loads_is_there(twins: list[TritonServer]) -> None:
    server = twins[0]
    async with Gateway(server) as gateway:
        server.control("unload", "other")
        await until(lambda: not gateway.devices[0].serves(("other", "1")))
        with pytest.raises(NotFound):
            await gateway.ask(0.0, "other")
        server.control("load", "other")
        await until(lambda: gateway.devices[0].serves(("other", "1")))
        assert doubled(await gateway.ask(0.0, "other")) == 0.0


async def test_the_wanted_models_are_loaded_and_others_are_not_served(twins: list[TritonServer]) -> None:
    server = twins[0]
    server.control("unload", "sleeper")
    async with Gateway(server, models=("sleeper",), control=True) as gateway:  # waits until it serves
        with pytest.raises(NotFound):
            await gateway.ask(0.0, "other")


async def test_triton_batches_what_arrives_together(twins: list[TritonServer]) -> None:
    server = twins[0]
    async with Gateway(server, lanes=1) as gateway:
        assert gateway.catalog.info("sleeper").max_batch_size == 8
        before = server.statistics("sleeper")
        await asyncio.gather(*(gateway.ask(0.01 * index) for index in range(8)))
        after = server.statistics("sleeper")
    assert after["inference_count"] - before["inference_count"] == 8
    assert after["execution_count"] - before["execution_count"] < 8


async def test_what_waits_in_tritons_queue_past_its_deadline_is_dropped_there(
    twins: list[TritonServer],
) -> None:
    server = twins[0]
    async with Gateway(server, lanes=2) as gateway:
        before = server.statistics("sleeper")["inference_count"]
        asked = gateway.ask(2.0)
        await until(lambda: gateway.plane._dispatcher.scheduler.devices["remote:gpu-1"].running != {})
        await asyncio.sleep(0.3)  # past the delay that the model's batcher waits for company
        late = InferRequest("sleeper", (Tensor("x", DataType.FP32, np.zeros((8, 1), np.float32)),), "1")
        with pytest.raises(grpc.aio.AioRpcError) as passed:  # sent past the scheduler, which would refuse it
            await gateway.devices[0]._call(late, 0.4, ())
        assert passed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # Triton knows the deadline by itself, too, of what is not in the next batch already.
        call = gateway.devices[0]._method("unary_unary", "ModelInfer", "inference.ModelInferResponse")
        sent = proto_codec.encode_request(dataclasses.replace(late, parameters={"timeout": 100_000}))
        following = call(proto_codec.encode_request(late), timeout=20.0)
        await asyncio.sleep(0.2)
        with pytest.raises(grpc.aio.AioRpcError) as dropped:
            await call(sent, timeout=20.0)
        await following
        assert isinstance(meaning(dropped.value), DeadlineExceeded), dropped.value.details()
        assert dropped.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
        await asked
        await gateway.ask(0.0)
        # Of three times eight rows one was run, and samples.
        assert server.statistics("sleeper")["inference_count"] - before < 16


async def test_shared_memory_carries_the_same_tensors_and_is_given_back(twins: list[TritonServer]) -> None:
    server = twins[0]
    before = regions()
    async with Gateway(server, lanes=2, shared_memory=65536) as gateway:
        memory = gateway.devices[0]._memory
        assert memory is not None
        asked = [gateway.ask(0.01 * index, rows=1 + index % 3) for index in range(12)]
        for index, answer in enumerate(await asyncio.gather(*asked)):
            assert answer.output("y").data.ravel() == pytest.approx([0.02 * index] * (1 + index % 3))
        assert 2 <= memory.passed <= 12  # what finds no region free goes in a message
        names = {each["name"] for each in server.http.get("/v2/systemsharedmemory/status").json()}
        assert regions() - before <= names
        # A region whose request did not end is not used again.
        with pytest.raises(DeadlineExceeded):
            await gateway.ask(1.0, within=0.3)
        await until(lambda: gateway.devices[0].serves(("sleeper", "1")))
        assert doubled(await gateway.ask(0.1)) == pytest.approx(0.2)
    assert regions() <= before


async def test_a_triton_that_started_anew_gets_the_regions_anew(twins: list[TritonServer]) -> None:
    server = twins[1]
    async with Gateway(server, lanes=1, shared_memory=65536) as gateway:
        await gateway.ask(0.0)
        server.http.post("/v2/systemsharedmemory/unregister", json={}).raise_for_status()
        assert doubled(await gateway.ask(0.01)) == pytest.approx(0.02)
        assert doubled(await gateway.ask(0.02)) == pytest.approx(0.04)
        memory = gateway.devices[0]._memory
        assert memory is not None
        assert memory.passed == 2


async def test_what_triton_says_of_a_wrong_request_is_the_callers_and_no_more(
    twins: list[TritonServer],
) -> None:
    """A request that this gateway's own checks would have stopped, so it is sent past them."""
    async with Gateway(twins[0]) as gateway:
        wrong = InferRequest("sleeper", (Tensor("x", DataType.FP32, np.zeros((1, 3), np.float32)),), "1")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.devices[0]._call(wrong, 5.0, ())
        failure = gateway.devices[0]._failure(refused.value, ("sleeper", "1"))
        assert failure is not None
        assert failure.http_status == 400
        assert "Expected [-1,1], got [1,3]" in failure.message
        assert "NOTE" not in failure.message
