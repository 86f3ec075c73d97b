"""Case 76, and placement under faults: a quick replica, a throttled cheap one and a lossy model of a family.

The replicas are processes of their own; what is asked of them is small, how long it takes is told to them.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.running_server import RunningServer, eventually, running
from tests.support.toy_gateway import ToyReplica, add_toy_models, toy_environment

GOOD, POOR = 0.3, 0.04
"""Seconds of the family's members on the quick replica; the edge is four times as slow."""
QUICK, EDGE = "remote:toy-1", "remote:toy-2"

_numbers = itertools.count()


class Site:
    """The two replicas and the gateway before them."""

    def __init__(self, folder: Path) -> None:
        models = add_toy_models(folder / "models")
        self.quick, self.edge = (ToyReplica(models, folder / name) for name in ("quick", "edge"))
        for replica in (self.quick, self.edge):
            replica.ready()
        self.paces()
        topology = folder / "topology.toml"
        topology.write_text(
            "".join(
                f'[[service]]\nname = "toy"\naddress = "127.0.0.1:{replica.port}"\nlanes = {lanes}\n'
                f"price = {price}\nwatts = {watts}\nhang_seconds = 1.0\n"
                for replica, lanes, price, watts in ((self.quick, 4, 40.0, 400.0), (self.edge, 2, 0.1, 10.0))
            )
        )
        self.topology = topology
        self.repository = models

    def paces(self, edge: float = 4.0) -> None:
        self.quick.pace(good=GOOD, poor=POOR)
        self.edge.pace(good=edge * GOOD, poor=edge * POOR)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    for replica in (made.quick, made.edge):
        replica.kill()


@pytest.fixture(scope="module")
def gateway(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    settings = {"scheduler": {"placement": "cheapest"}, "cache": {"enabled": False}}
    options: dict[str, Any] = {"arguments": ("--topology", str(site.topology))}
    options["environment"] = toy_environment()
    with running(site.repository, tmp_path_factory.mktemp("gateway"), settings, **options) as started:
        both = {QUICK, EDGE}
        eventually(lambda: set(started.http.get("/v1/models/good").json()["devices"]) == both, "both serve")
        learn(started)
        yield started


def measure(server: RunningServer, milliseconds: int, model: str = "auto", **headers: str) -> httpx.Response:
    """One request that no other equals."""
    return server.http.post(
        "/v1/toy/measure",
        content=b"number %d" % next(_numbers),
        params={"model": model},
        headers={"content-type": "image/png", "X-Request-Timeout-Ms": str(milliseconds), **headers},
    )


def together(server: RunningServer, count: int, milliseconds: int, model: str) -> list[httpx.Response]:
    with ThreadPoolExecutor(count) as callers:
        return list(callers.map(lambda _: measure(server, milliseconds, model), range(count)))


def learn(server: RunningServer) -> None:
    """Have each replica compute both models, so that it is known how long they take there."""
    for model in ("poor", "good"):
        for device in (QUICK, EDGE):

            def known(model: str = model, device: str = device) -> bool:
                together(server, 8, 30_000, model)
                name = "nonet_device_requests_total"
                return server.metric(name, model=f"measure.{model}", device=device) > 0

            eventually(known, f"{device} has computed {model}")


def placed(server: RunningServer, milliseconds: int) -> tuple[str, str]:
    """Device and model of the first request with this deadline that is answered: on a busy machine some are
    not."""
    replies: list[httpx.Response] = []

    def answered() -> bool:
        replies.append(measure(server, milliseconds))
        return replies[-1].status_code == 200

    eventually(answered, f"an answer within {milliseconds} ms")
    return replies[-1].headers["X-Device"], replies[-1].json()["model"]


class Load:
    """Four callers one after the other each, for as long as the ``with`` block runs."""

    def __init__(self, server: RunningServer, milliseconds: int, model: str) -> None:
        self._server = server
        self._milliseconds = milliseconds
        self._model = model
        self._over = threading.Event()
        self._callers = [threading.Thread(target=self._call) for _ in range(4)]
        self.answers: list[tuple[int, str]] = []

    def _call(self) -> None:
        while not self._over.is_set():
            reply = measure(self._server, self._milliseconds, self._model)
            self.answers.append((reply.status_code, reply.headers.get("X-Device", "")))

    def __enter__(self) -> Load:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for caller in self._callers:
            caller.join()

    def more(self, count: int, device: str = "") -> None:
        """Wait for so many further answers, of one device if it is named."""
        before = len(self.answers)
        eventually(
            lambda: sum(device in said for _, said in self.answers[before:]) >= count,
            f"{count} more answers of {device or 'any'}",
        )


def test_device_and_model_follow_the_deadline(gateway: RunningServer) -> None:
    for _ in range(2):  # as it tightens, and loosens again
        assert placed(gateway, 20_000) == (EDGE, "good"), "there is time: the cheap device"
        assert placed(gateway, 900) == (QUICK, "good"), "the edge is too slow for the good model"
        assert placed(gateway, 200)[1] == "poor", "no device is quick enough for the good model"
    said = measure(gateway, 900, **{"X-Explain": "true"}).json()["placement"]
    good, poor = said["candidates"]
    assert (good["model"], poor["model"]) == ("good", "poor")
    devices = {each["device"]: each for each in good["devices"]}
    assert (devices[QUICK]["excluded"], devices[EDGE]["excluded"]) == ("", "deadline")
    assert devices[QUICK]["cost"] > devices[EDGE]["cost"] > 0
    assert gateway.metric("nonet_cost_total", device=QUICK) > gateway.metric("nonet_cost_total", device=EDGE)
    assert gateway.metric("nonet_energy_joules_total", device=EDGE) > 0


def test_a_replica_that_becomes_slow_is_left_alone(gateway: RunningServer, site: Site) -> None:
    try:
        with Load(gateway, 1000, "poor") as load:
            load.more(20, EDGE)
            site.paces(edge=75.0)
            load.more(20)

            def well() -> bool:
                latest = load.answers[-30:]
                return {status for status, _ in latest} == {200} and EDGE not in {said for _, said in latest}

            eventually(well, "all are answered in time again, and not by the edge")
            before = len(load.answers)
            load.more(40)
            settled = load.answers[before:]
            site.paces()
            load.more(5, EDGE)
    finally:
        site.paces()
    met = sum(status == 200 for status, _ in settled) / len(settled)
    assert met >= 0.9, Counter(settled)


@pytest.mark.parametrize("trouble", ["kill", "hang"])
def test_a_replica_that_is_lost_loses_no_request(gateway: RunningServer, site: Site, trouble: str) -> None:
    with Load(gateway, 60_000, "poor") as load:
        load.more(20)
        if trouble == "kill":
            site.edge.kill()
        else:
            site.edge.hang()
        load.more(40, QUICK)
        if trouble == "kill":
            site.edge.begin()
            site.edge.ready()
        else:
            site.edge.go_on()
        load.more(10, EDGE)
    assert Counter(status for status, _ in load.answers) == {200: len(load.answers)}


def test_case_76_a_late_execution_is_hedged_and_answers_once(gateway: RunningServer, tmp_path: Path) -> None:
    def contrast(image: bytes) -> httpx.Response:
        inputs = [
            {"name": "image", "datatype": "BYTES", "shape": [1], "data": [image.decode()]},
            {"name": "brightness", "datatype": "FP64", "shape": [1], "data": [1.0]},
        ]
        return gateway.infer("contrast.sharp", inputs)

    def computed(device: str) -> bool:
        with ThreadPoolExecutor(8) as callers:
            list(callers.map(contrast, (b"plain %d" % next(_numbers) for _ in range(8))))
        return gateway.metric("nonet_device_requests_total", model="contrast.sharp", device=device) > 0

    for device in (QUICK, EDGE):
        eventually(lambda device=device: computed(device), f"{device} has computed it")
    end = tmp_path / "end"
    answered = gateway.metric("nv_inference_request_success", model="contrast.sharp")
    won = gateway.metric("nonet_hedges_total", outcome="won")
    try:
        reply = contrast(f"once:{end}".encode())  # the first execution waits for a file that nobody makes
        assert reply.status_code == 200, reply.text
        assert end.with_suffix(".taken").exists()
    finally:
        end.touch()
    assert gateway.metric("nonet_hedges_total", outcome="won") == won + 1
    assert gateway.metric("nv_inference_request_success", model="contrast.sharp") == answered + 1
    executions = gateway.metric("nv_inference_exec_count")
    assert gateway.metric("nonet_hedges_total") <= 0.02 * executions + 1
