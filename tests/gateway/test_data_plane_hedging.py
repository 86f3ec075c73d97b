"""Hedged requests on real lanes of two devices: who answers, how often, and what the loser keeps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.hedging import SHARE, Tail
from nonet.gateway.executor import EmbeddedDevice
from nonet.runtime.errors import ServingError
from nonet.runtime.requests import InferRequest, Outcome
from tests.support import misbehaving_servables as bad
from tests.support.data_plane_harness import serving, until, value_of

LATE = 777.0


class LateOnce(bad.DoublingServable):
    """The first execution of each value from :data:`LATE` on waits for ``release``, and fails then if there
    is an ``error``; the second does so if ``always``, or waits for ``again`` and answers if ``both``.
    ``waiting`` counts those inside, ``closed_under`` those that were when it was closed."""

    def __init__(
        self,
        error: Exception | None = None,
        *,
        always: bool = False,
        both: bool = False,
        **changes: object,
    ) -> None:
        super().__init__(bad.doubling_info(max_batch_size=1, **changes))  # type: ignore[arg-type]
        self.release, self.again = threading.Event(), threading.Event()
        self.error = error
        self.always, self.both = always, both
        self.waiting = self.closed_under = 0
        self._seen: set[float] = set()

    def answer(self, batch: Sequence[InferRequest], rows: int) -> list[Outcome]:
        value = float(batch[0].inputs[0].data.flat[0])
        with self._lock:
            first = value not in self._seen
            waits = value >= LATE and (first or self.always or self.both)
            self._seen.add(value)
            self.waiting += waits
        if waits:
            (self.release if first or self.always else self.again).wait(30.0)
            with self._lock:
                self.waiting -= 1
            if self.error is not None and (first or self.always):
                raise self.error
        return super().answer(batch, rows)

    def close(self) -> None:
        self.closed_under += self.waiting
        self.release.set()
        self.again.set()
        super().close()


def devices() -> list[EmbeddedDevice]:
    return [EmbeddedDevice(1, "one"), EmbeddedDevice(1, "two")]


async def warm(plane: DataPlane, tokens: float = 1.0) -> None:
    """Earn so many hedges, and have both devices learn how long an execution takes."""
    for number in range(5000):
        await asyncio.gather(
            *(plane.infer(bad.doubling_request(2.0 * (number % 300) + other)) for other in range(2))
        )
        if plane._dispatcher.hedging._tokens >= tokens:
            break


def outcomes(plane: DataPlane) -> dict[str, int]:
    return dict(plane.placement_facts()["nonet_hedges"])


async def test_the_first_answer_counts_once_and_the_loser_keeps_its_model() -> None:
    model = LateOnce()
    async with serving(model, cached=False, devices=devices()) as (plane, recorder):
        await warm(plane)
        before, hedges = len(recorder.requests), outcomes(plane)
        answer = await plane.infer(bad.doubling_request(LATE))
        assert value_of(answer) == 2 * LATE
        assert model.waiting == 1, "the first execution still hangs"
        assert outcomes(plane) == {**hedges, "won": hedges["won"] + 1}
        assert len(recorder.requests) == before + 1
        retiring = asyncio.create_task(asyncio.to_thread(plane.catalog.retire, "doubler", "1", 20.0))
        await until(lambda: plane.catalog.versions("doubler") == [])
        await until(lambda: plane.in_flight == 0)
        model.release.set()
        assert await retiring
        assert len(recorder.requests) == before + 1
    assert model.closed_under == 0


async def test_the_late_execution_may_win_all_the_same() -> None:
    model = LateOnce(always=True)
    async with serving(model, cached=False, devices=devices()) as (plane, _):
        await warm(plane)
        hedges = outcomes(plane)
        asking = asyncio.create_task(plane.infer(bad.doubling_request(LATE)))
        await until(lambda: model.waiting == 2)
        model.release.set()
        assert value_of(await asking) == 2 * LATE
        await until(lambda: sum(outcomes(plane).values()) == sum(hedges.values()) + 1)
        assert outcomes(plane)["failed"] == hedges["failed"]


async def test_if_both_fail_the_caller_hears_of_it_once() -> None:
    error = RuntimeError("it broke late")
    both = LateOnce(error, always=True)
    async with serving(both, cached=False, devices=devices()) as (plane, recorder):
        await warm(plane)
        asking = asyncio.create_task(plane.infer(bad.doubling_request(LATE)))
        await until(lambda: both.waiting == 2)
        both.release.set()
        with pytest.raises(ServingError) as failed:
            await asking
        assert failed.value.code == "MODEL_FAILED"
        assert outcomes(plane)["failed"] == 1
        assert [record.code for record in recorder.requests if record.code] == ["MODEL_FAILED"]


async def test_a_failure_does_not_count_while_the_other_may_answer() -> None:
    model = LateOnce(RuntimeError("it broke late"), both=True)
    async with serving(model, cached=False, devices=devices()) as (plane, recorder):
        await warm(plane)
        asking = asyncio.create_task(plane.infer(bad.doubling_request(LATE)))
        await until(lambda: model.waiting == 2)
        hedges = outcomes(plane)
        model.release.set()  # the first one fails, the second waits for a second release
        await until(lambda: model.waiting == 1)
        assert not asking.done()
        model.again.set()
        assert value_of(await asking) == 2 * LATE
        assert outcomes(plane) == {**hedges, "won": hedges["won"] + 1}
        assert not [record.code for record in recorder.requests if record.code]


async def test_a_caller_who_leaves_takes_both_executions_with_him() -> None:
    model = LateOnce(always=True)
    async with serving(model, cached=False, devices=devices()) as (plane, recorder):
        await warm(plane)
        asking = asyncio.create_task(plane.infer(bad.doubling_request(LATE)))
        await until(lambda: model.waiting == 2)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        model.release.set()
        await until(lambda: sum(plane.utilisation().values()) == 0)
        assert recorder.requests[-1].code == "CLIENT_CLOSED"


@pytest.mark.parametrize("changes", [{"cacheable": False}, {"decoupled": True}], ids=["unequal", "several"])
async def test_what_must_not_run_twice_does_not(changes: dict[str, object]) -> None:
    model = LateOnce(**changes)
    async with serving(model, cached=False, devices=devices()) as (plane, _):
        for number in range(100):
            await plane.infer(bad.doubling_request(float(number)))
        asking = asyncio.create_task(plane.infer(bad.doubling_request(LATE)))
        await until(lambda: model.waiting == 1)
        await asyncio.sleep(0.2)  # a hedge would come within milliseconds; nothing can be waited for
        assert model.waiting == 1
        model.release.set()
        await asking
        assert sum(outcomes(plane).values()) == 0


async def test_hedges_stay_within_their_share_of_the_executions() -> None:
    model = LateOnce()
    async with serving(model, cached=False, devices=devices()) as (plane, recorder):
        await warm(plane, 3.0)
        late = 0
        while late < 12:
            asking = asyncio.create_task(plane.infer(bad.doubling_request(LATE + late)))
            await asyncio.wait([asking], timeout=0.3)
            model.release.set()
            await asking
            await until(lambda: model.waiting == 0 and sum(plane.utilisation().values()) == 0)
            model.release.clear()
            late += 1
        hedges = sum(outcomes(plane).values())
        assert 1 <= hedges <= SHARE * len(recorder.batches)


def test_the_tail_is_the_99th_percentile() -> None:
    tail = Tail()
    for number in range(20_000):
        tail.observe(1.0 + (number * 7919 % 1000) / 1000.0)
    assert tail.ratio == pytest.approx(1.99, abs=0.1)
