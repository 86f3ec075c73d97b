"""Cases 65-67 and defect 8: models come, change and go under load; broken ones are never served."""

from __future__ import annotations

import gc
import io
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support import handmade_networks
from tests.support.bare_sockets import Wire, infer_bytes
from tests.support.running_server import RunningServer, assert_no_leak, assert_refused, eventually
from tests.support.slow_requests import fresh_value, slow_input

Start = Callable[..., RunningServer]
QUICK = {"repository": {"poll_seconds": 0.2}, "scheduler": {"lanes": 2}}
MANUAL = {"repository": {"poll_seconds": 0.0}, "scheduler": {"lanes": 1}}


def one(value: float) -> list[dict[str, Any]]:
    return [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [value]}]


def scaled_bytes(folder: Path, factor: float) -> bytes:
    """The file of a network that multiplies by ``factor``."""
    aside = folder / f"aside{factor}"
    aside.mkdir(exist_ok=True)
    model = handmade_networks.add_scaled(aside, "scaled", factor, 1) / "model.onnx"
    data = model.read_bytes()
    shutil.rmtree(aside)
    return data


def index(server: RunningServer) -> dict[tuple[str, str], dict[str, str]]:
    reply = server.http.post("/v2/repository/index")
    assert reply.status_code == 200, reply.text
    return {(entry["name"], entry.get("version", "")): entry for entry in reply.json()}


class Load:
    """Threads that ask ``scaled`` without a pause and keep every answer; a ``with`` block."""

    def __init__(self, server: RunningServer, threads: int = 4) -> None:
        self._server = server
        self._stop = threading.Event()
        self.factors: list[float] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        with httpx.Client(base_url=self._server.url, timeout=30) as client:
            while not self._stop.is_set():
                value = fresh_value()
                reply = client.post("/v2/models/scaled/infer", json={"inputs": one(value)})
                if reply.status_code == 200:
                    self.factors.append(round(reply.json()["outputs"][0]["data"][0] / value))
                else:
                    self.failures.append(f"{reply.status_code} {reply.text[:200]}")

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_case_65_new_versions_under_load_fail_no_request(
    start_server: Start, own_repository: Path, tmp_path: Path
) -> None:
    handmade_networks.add_scaled(own_repository, "scaled", 10, 1)
    server = start_server(own_repository, QUICK)
    with Load(server) as load:
        eventually(lambda: load.factors, "the first version answers")
        for version in (2, 3, 4):
            factor = 10 * version
            files = {"model.onnx": scaled_bytes(tmp_path, factor)}
            handmade_networks.write_version(own_repository, "scaled", version, files)
            eventually(lambda f=factor: load.factors[-1:] == [f], f"version {version} answers")
    assert load.failures == []
    assert set(load.factors) == {10, 20, 30, 40}
    assert {version for name, version in index(server) if name == "scaled"} >= {"4"}


def test_case_65_a_bad_new_version_leaves_the_old_one_serving_and_is_explained(
    start_server: Start, own_repository: Path
) -> None:
    handmade_networks.add_scaled(own_repository, "scaled", 10, 1)
    server = start_server(own_repository, QUICK)
    with Load(server) as load:
        eventually(lambda: load.factors, "the first version answers")
        handmade_networks.write_version(own_repository, "scaled", 2, {"model.onnx": b"this is no network"})
        eventually(lambda: ("scaled", "2") in index(server), "the index shows the bad version")
        eventually(lambda: index(server)[("scaled", "2")].get("reason"), "the index says why")
    assert load.failures == []
    assert set(load.factors) == {10}
    entry = index(server)[("scaled", "2")]
    assert entry["state"] != "READY"
    assert_no_leak(json.dumps(entry))
    assert index(server)[("scaled", "1")]["state"] == "READY"
    assert server.http.get("/v2/health/ready").status_code == 200
    assert server.http.get("/v2/models/scaled/ready").status_code == 200
    assert server.http.get("/v2/models/scaled/versions/2/ready").status_code == 503


def test_case_65_a_version_without_a_manifest_takes_no_service_away(
    start_server: Start, own_repository: Path
) -> None:
    """Without a manifest a network has no task: were it served, ``/v1/classify`` would lose the model."""
    first = handmade_networks.add_classifier(own_repository, "shop", 4, family="shops", top1=0.9)
    server = start_server(own_repository, QUICK)
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, "PNG")

    def classified() -> int:
        reply = server.http.post("/v1/classify", params={"model": "shop"}, content=buffer.getvalue())
        return reply.status_code

    assert classified() == 200
    second = own_repository / "shop" / "2"
    second.mkdir()
    shutil.copy(first / "model.onnx", second)
    eventually(
        lambda: "manifest.json" in index(server).get(("shop", "2"), {}).get("reason", ""), "the reason"
    )
    assert classified() == 200
    assert index(server)[("classify.shop", "1")]["state"] == "READY"
    shutil.copy(first / "check.safetensors", second)
    shutil.copy(first / "manifest.json", second)
    eventually(lambda: index(server).get(("classify.shop", "2"), {}).get("state") == "READY", "version 2")
    assert classified() == 200


def test_case_65_a_version_replaced_in_place_answers_with_the_new_files(
    start_server: Start, own_repository: Path, tmp_path: Path
) -> None:
    """Same number, other files: served anew, and nothing of the old answers comes from the cache."""
    handmade_networks.add_scaled(own_repository, "scaled", 10, 1)
    server = start_server(own_repository, QUICK)
    assert server.infer("scaled", one(1.0)).json()["outputs"][0]["data"] == [10.0]
    (own_repository / "scaled" / "1").rename(tmp_path / "old")
    handmade_networks.write_version(own_repository, "scaled", 1, {"model.onnx": scaled_bytes(tmp_path, 30)})
    eventually(
        lambda: server.infer("scaled", one(1.0)).json().get("outputs", [{}])[0].get("data") == [30.0],
        "the new files answer",
    )


def test_case_65_a_removed_model_disappears(
    start_server: Start, own_repository: Path, tmp_path: Path
) -> None:
    handmade_networks.add_scaled(own_repository, "scaled", 10, 1)
    handmade_networks.add_scaled(own_repository, "other", 10, 1)
    server = start_server(own_repository, QUICK)
    (own_repository / "other").rename(tmp_path / "gone")
    eventually(lambda: server.infer("other", one(1.0)).status_code in (404, 503), "it is no longer served")
    assert server.infer("scaled", one(1.0)).status_code == 200


def damage(version: Path, how: str) -> None:
    model = version / "model.onnx"
    data = model.read_bytes()
    if how == "truncated":
        model.write_bytes(data[: len(data) // 2])
    elif how == "one byte flipped":
        model.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    elif how == "another network":
        model.write_bytes(handmade_networks.classifier(4))
    elif how == "another factor":
        place = data.index(np.float32(10).tobytes())
        model.write_bytes(data[:place] + np.float32(11).tobytes() + data[place + 4 :])
    elif how == "empty":
        model.write_bytes(b"")
    elif how == "missing":
        model.unlink()
    elif how == "manifest is no JSON":
        (version / "manifest.json").write_text("{")
    elif how == "manifest names a file outside":
        text = (version / "manifest.json").read_text()
        (version / "manifest.json").write_text(text.replace("model.onnx", "../../../outside"))
    elif how == "a pickle":
        (version / "model.onnx").write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.")
        files = {"model.onnx": (version / "model.onnx").read_bytes()}
        (version / "manifest.json").write_bytes(handmade_networks.manifest(files))


DAMAGES = [
    "truncated",
    "one byte flipped",
    "another network",
    "another factor",
    "empty",
    "missing",
    "manifest is no JSON",
    "manifest names a file outside",
    "a pickle",
]


def test_case_66_damaged_versions_are_not_loaded_and_the_reason_is_told(
    start_server: Start, own_repository: Path
) -> None:
    names = {how: f"damaged_{number}" for number, how in enumerate(DAMAGES)}
    for how, name in names.items():
        damage(handmade_networks.add_scaled(own_repository, name, 10, 1), how)
    handmade_networks.add_scaled(own_repository, "fine", 10, 1)
    server = start_server(own_repository, MANUAL)
    assert server.infer("fine", one(1.0)).status_code == 200
    assert server.metric("nonet_models_failed") == len(names), "there is nothing to alert on"
    lines = index(server)
    for how, name in names.items():
        assert_refused(server.infer(name, one(1.0)), 503)
        (entry,) = [entry for (model, _), entry in lines.items() if model == name]
        assert entry["state"] != "READY", how
        assert entry["reason"], how
        assert_no_leak(entry["reason"])
        loading = server.http.post(f"/v2/repository/models/{name}/load")
        assert 400 <= loading.status_code < 600, how
        assert loading.status_code != 500, (how, loading.text)
        assert_no_leak(loading.text)
        assert name in server.log, f"the log does not mention {how}"


def test_case_66_a_half_copied_version_is_loaded_only_once_it_is_whole(
    start_server: Start, own_repository: Path, tmp_path: Path
) -> None:
    """A careless ``cp``: the folder is there, the manifest too, and the file grows while we look."""
    handmade_networks.add_scaled(own_repository, "scaled", 10, 1)
    server = start_server(own_repository, QUICK)
    data = scaled_bytes(tmp_path, 20)
    version = own_repository / "scaled" / "2"
    with Load(server, 2) as load:
        eventually(lambda: load.factors, "the first version answers")
        version.mkdir()
        (version / "manifest.json").write_bytes(handmade_networks.manifest({"model.onnx": data}))
        with (version / "model.onnx").open("wb") as file:
            for start in range(0, len(data), max(1, len(data) // 4)):
                file.write(data[start : start + max(1, len(data) // 4)])
                file.flush()
                time.sleep(0.3)
        eventually(lambda: load.factors[-1:] == [20], "the whole version answers")
    assert load.failures == []
    assert set(load.factors) == {10, 20}


def test_case_66_load_and_unload_over_the_repository_api(start_server: Start, own_repository: Path) -> None:
    handmade_networks.add_scaled(own_repository, "scaled", 10, 1)
    server = start_server(own_repository, MANUAL)
    for _ in range(3):
        assert server.http.post("/v2/repository/models/scaled/unload").status_code == 200
        assert server.http.get("/v2/models/scaled/ready").status_code != 200
        assert server.infer("scaled", one(1.0)).status_code in (404, 503)
        assert server.http.post("/v2/repository/models/scaled/load").status_code == 200
        assert server.infer("scaled", one(1.0)).json()["outputs"][0]["data"] == [10.0]


def test_case_67_unload_waits_for_the_requests_in_flight(start_server: Start, small_repository: Path) -> None:
    server = start_server(small_repository, MANUAL)
    values = [fresh_value() for _ in range(4)]
    wires = [Wire(server.http_port) for _ in values]
    for wire, value in zip(wires, values, strict=True):
        wire.send(infer_bytes("slow", slow_input(value)))
    eventually(lambda: server.pending("slow") >= 1, "requests run and wait")
    assert server.http.post("/v2/repository/models/slow/unload").status_code == 200
    for wire, value in zip(wires, values, strict=True):
        reply = wire.reply()
        assert reply.status == 200, reply.body
        assert json.loads(reply.body)["outputs"][0]["data"] == [value]
        wire.close()
    assert server.infer("slow", slow_input(fresh_value())).status_code in (404, 503)
    assert server.http.post("/v2/repository/models/slow/load").status_code == 200
    assert server.infer("slow", slow_input(fresh_value())).status_code == 200


def test_case_67_unload_gives_the_memory_back(start_server: Start, own_repository: Path) -> None:
    """Five rounds of 96 MiB of weights: memory after the last unload is that after the first, within 5 %."""
    handmade_networks.add_heavy(own_repository, "heavy", 96)
    handmade_networks.add_scaled(own_repository, "scaled", 10, 1)
    server = start_server(own_repository, MANUAL | {"cache": {"enabled": False}})
    x = [{"name": "x", "datatype": "FP32", "shape": [1, 1024], "data": [1.0] * 1024}]
    unloaded, loaded = [], []
    for _ in range(5):
        assert server.http.post("/v2/repository/models/heavy/load").status_code == 200
        assert (
            server.infer("heavy", x, outputs=[{"name": "y", "parameters": {"classification": 1}}]).status_code
            == 200
        )
        loaded.append(server.rss())
        assert server.http.post("/v2/repository/models/heavy/unload").status_code == 200
        gc.collect()
        unloaded.append(server.rss())
    assert min(loaded) - max(unloaded) > 64 << 20, f"unloading freed nothing: {loaded} {unloaded}"
    assert unloaded[-1] < unloaded[0] * 1.05, f"memory stays behind: {unloaded}"


def test_at_rest_no_memory_is_held_for_the_largest_batch(start_server: Start, own_repository: Path) -> None:
    """Warm-up and calibration run 64 rows of 2 MiB: once ready, and after a load, they are given back."""
    handmade_networks.add_broad(own_repository, "broad", 2, batch=64)
    server = start_server(own_repository, MANUAL)
    assert server.most_memory() - server.rss() > 96 << 20
    settled = server.rss()
    assert server.http.post("/v2/repository/models/broad/unload").status_code == 200
    assert server.http.post("/v2/repository/models/broad/load").status_code == 200
    eventually(lambda: server.rss() < settled + (32 << 20), "what calibration took is given back")


def test_defect_8_health_is_not_ready_while_no_model_can_answer(
    start_server: Start, own_repository: Path, tmp_path: Path
) -> None:
    """Its only model is broken: alive, but not ready; ready as soon as the model is repaired."""
    version = handmade_networks.add_scaled(own_repository, "scaled", 10, 1)
    whole = (version / "model.onnx").read_bytes()
    damage(version, "truncated")
    server = start_server(own_repository, QUICK, wait=False)
    eventually(lambda: alive(server), "the server is alive")
    assert server.http.get("/v2/health/ready").status_code == 503
    assert server.http.get("/v2/models/scaled/ready").status_code == 503
    (version / "model.onnx").write_bytes(whole)
    eventually(lambda: server.http.get("/v2/health/ready").status_code == 200, "it is ready after the repair")
    assert server.infer("scaled", one(1.0)).status_code == 200


def test_defect_8_health_stops_being_ready_when_the_last_model_goes(
    start_server: Start, own_repository: Path
) -> None:
    handmade_networks.add_scaled(own_repository, "scaled", 10, 1)
    server = start_server(own_repository, MANUAL)
    assert server.http.get("/v2/health/ready").status_code == 200
    server.http.post("/v2/repository/models/scaled/unload")
    assert server.http.get("/v2/health/ready").status_code == 503
    assert server.http.get("/v2/health/live").status_code == 200
    server.http.post("/v2/repository/models/scaled/load")
    assert server.http.get("/v2/health/ready").status_code == 200


def alive(server: RunningServer) -> bool:
    try:
        return server.http.get("/v2/health/live").status_code == 200
    except httpx.TransportError:
        assert server.popen.poll() is None, server.log
        return False


@pytest.mark.parametrize("strict", [True, False])
def test_case_66_a_version_without_a_manifest_is_served_unless_strict(
    start_server: Start, own_repository: Path, strict: bool
) -> None:
    version = handmade_networks.add_scaled(own_repository, "plain", 10, 1)
    (version / "manifest.json").unlink()
    handmade_networks.add_scaled(own_repository, "scaled", 10, 1)
    server = start_server(own_repository, {"repository": {"poll_seconds": 0.0, "strict": strict}})
    assert server.infer("plain", one(1.0)).status_code == (503 if strict else 200)
    assert server.infer("scaled", one(1.0)).status_code == 200
