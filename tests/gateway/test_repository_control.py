"""Repository work: one call at a time, in order, and never in the threads that requests need."""

from __future__ import annotations

import asyncio
import threading

import pytest

from nonet.gateway.core.repository_control import RepositoryControl
from nonet.runtime.errors import NotFound


class SlowRepository:
    """Blocks every call until ``release`` is set, and remembers who ran where and how many at once."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.calls: list[str] = []
        self.threads: set[str] = set()
        self.inside = 0
        self.most = 0

    def load(self, name: str, config_override: str | None = None) -> None:
        self._work(f"load {name} {config_override}")

    def unload(self, name: str, timeout: float = 30.0) -> None:
        self._work(f"unload {name}")
        if name == "nobody":
            raise NotFound("unknown model 'nobody'")

    def _work(self, what: str) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.threads.add(threading.current_thread().name)
        self.calls.append(what)
        self.release.wait(20)
        self.inside -= 1


async def test_calls_run_one_by_one_in_their_order_and_leave_the_common_threads_alone() -> None:
    repository = SlowRepository()
    control = RepositoryControl(repository)
    waiting = [asyncio.create_task(control.load(str(number))) for number in range(40)]
    waiting.append(asyncio.create_task(control.unload("last")))
    await asyncio.sleep(0.05)
    # Forty callers wait, and the common pool has all its threads.
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 10) == "free"
    repository.release.set()
    await asyncio.gather(*waiting)
    assert repository.calls == [f"load {number} None" for number in range(40)] + ["unload last"]
    assert repository.most == 1
    assert repository.threads == {"repository_0"}
    control.close()


async def test_the_repositorys_refusals_reach_the_caller_and_the_next_call_works() -> None:
    repository = SlowRepository()
    repository.release.set()
    control = RepositoryControl(repository)
    with pytest.raises(NotFound):
        await control.unload("nobody")
    await control.load("net", "{}")
    assert repository.calls[-1] == "load net {}"
    control.close()


async def test_what_has_not_begun_is_dropped_with_its_caller() -> None:
    repository = SlowRepository()
    control = RepositoryControl(repository)
    first = asyncio.create_task(control.load("first"))
    second = asyncio.create_task(control.load("second"))
    await asyncio.sleep(0.05)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    repository.release.set()
    await first
    await control.load("third")
    assert repository.calls == ["load first None", "load third None"]
    control.close()
