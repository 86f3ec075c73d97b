"""Case 64: an execution that does not fit in memory is halved; what does not fit alone is 507; it serves on.

The allocation that fails is a real one: the server's address space is limited when it is ready.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.faults.conftest import Busy
from tests.support import handmade_networks
from tests.support.running_server import RunningServer, assert_refused, eventually, running

ROW = 16  # MiB that a row takes on the way
ROOM = 5 * ROW  # MiB that the process may still take: some rows, not eight


@pytest.fixture(scope="module")
def cramped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("models")
    handmade_networks.add_broad(root, "broad", ROW, batch=8)
    handmade_networks.add_slow(root, "slow", handmade_networks.busy_trips(0.2), batch=0)
    settings = {
        "scheduler": {"lanes": 1, "default_timeout": 300.0},
        "cache": {"enabled": False},
        "repository": {"poll_seconds": 0.0},
    }
    with running(root, tmp_path_factory.mktemp("cramped"), settings) as server:
        # Connections and threads that the requests below need exist before the limit does.
        with ThreadPoolExecutor(8) as pool:
            assert all(reply.status_code == 200 for reply in pool.map(lambda _: ask(server, 1), range(8)))
        limit = server.process.memory_info().vms + (ROOM << 20)
        _, most = resource.prlimit(server.process.pid, resource.RLIMIT_AS)
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit, most))
        yield server
        # What it starts a thread for at its end must not depend on what the cases above left of the room.
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (most, most))


def ask(server: RunningServer, rows: int, value: float = 0.5) -> httpx.Response:
    tensor: dict[str, Any] = {"name": "x", "shape": [rows, 1], "datatype": "FP32", "data": [value] * rows}
    return server.infer("broad", [tensor])


def test_case_64_a_request_that_does_not_fit_is_507_and_the_next_one_is_answered(
    cramped: RunningServer,
) -> None:
    for _ in range(3):
        refused = ask(cramped, 8)
        assert_refused(refused, 507, "out of memory", "send fewer rows")
        reply = ask(cramped, 1)
        assert reply.status_code == 200, reply.text
    assert cramped.popen.poll() is None
    assert cramped.http.get("/v2/health/ready").status_code == 200


def test_case_64_a_batch_that_does_not_fit_is_halved_and_all_its_requests_are_answered(
    cramped: RunningServer,
) -> None:
    alone = [ask(cramped, 1, value).text for value in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        with Busy(cramped):
            asked = [pool.submit(ask, cramped, 1, value) for value in range(1, 9)]
            eventually(lambda: cramped.pending("broad") == 8, "all eight wait for the lane")
        replies = [each.result() for each in asked]
    assert [reply.status_code for reply in replies] == [200] * 8
    assert [reply.text for reply in replies] == alone
    # Eight rows together are more than fits, as the case above shows: they were answered in parts.
    assert {reply.headers["x-batch-size"] for reply in replies} == {"8"}
    assert cramped.popen.poll() is None
