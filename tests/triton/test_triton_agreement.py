"""What `nonet triton-config` writes, served by a real Triton: equal requests have equal answers there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from nonet.cli import main as cli
from nonet.runtime.scans import Scans
from nonet.services.recognition.sample_photo import sample_photo
from tests.support import toy_worker
from tests.support.running_server import RunningServer, eventually, running
from tests.support.triton_server import TritonServer, needs_triton

pytestmark = [needs_triton, pytest.mark.server]

ROOT = Path(__file__).parents[2]
SHIPPED = ("fasternet_nano_grocery", "fasternet_nano_fod")
SCAN = b'{"m0": -50, "m1": -61}'


@dataclasses.dataclass
class Pair:
    """The same models in a gateway of its own, in Triton, and in a gateway in front of that Triton."""

    embedded: RunningServer
    triton: TritonServer
    before: RunningServer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("agreement") / "models"
    for name in SHIPPED:
        shutil.copytree(ROOT / "model_repository" / name, root / name)
    scans = Scans.build([("a", {f"m{number}": -50.0 for number in range(6)})])
    toy_worker.publish(root, "home", scans, {"fact": 1}, 0, "job")
    return root


@pytest.fixture(scope="module")
def written(models: Path) -> Path:
    folder = models.parent / "triton"
    line = ["triton-config", str(folder), "--repository", str(models), "--backend", "python"]
    assert cli.main(line) == 0
    return folder


@pytest.fixture(scope="module")
def pair(models: Path, written: Path) -> Iterator[Pair]:
    folder = models.parent
    settings = {"scheduler": {"lanes": 1}, "repository": {"poll_seconds": 0.0}}
    with contextlib.ExitStack() as stack:
        triton = TritonServer(written, folder / "t")  # all three start side by side
        stack.callback(triton.stop)
        topology = folder / "topology.toml"
        topology.write_text(
            f'[[service]]\nname = "gpu"\nkind = "triton"\naddress = "{triton.address}"\n'
            "shared_memory = 1048576\n"
        )
        embedded = stack.enter_context(running(models, folder / "embedded", settings, wait=False))
        arguments = ("--topology", str(topology))
        before = stack.enter_context(
            running(models, folder / "before", settings, arguments=arguments, wait=False)
        )
        triton.wait_ready()
        for server in (embedded, before):
            server.wait_ready()
        served = {"classify.fasternet_nano_grocery", "detect.fasternet_nano_fod", "identify.floors_home"}
        served |= {"floors_home", *SHIPPED}
        eventually(lambda: served <= names(before.http), "all models of Triton are served")
        yield Pair(embedded, triton, before)


def names(http: httpx.Client) -> set[str]:
    return {each["name"] for each in http.post("/v2/repository/index", json={}).json()}


def texts(name: str, *values: bytes) -> list[dict[str, Any]]:
    """An input BYTES [N]."""
    return [{"name": name, "shape": [len(values)], "datatype": "BYTES", "values": values}]


def infer(http: httpx.Client, model: str, inputs: list[dict[str, Any]]) -> httpx.Response:
    """An inference request with the binary extension, answered in JSON."""
    body, entries = b"", []
    for each in inputs:
        data = b"".join(len(value).to_bytes(4, "little") + value for value in each["values"])
        plain = {name: each[name] for name in ("name", "shape", "datatype")}
        entries.append({**plain, "parameters": {"binary_data_size": len(data)}})
        body += data
    head = json.dumps({"inputs": entries}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return http.post(f"/v2/models/{model}/infer", content=head + body, headers=headers)


def outputs(reply: httpx.Response) -> dict[str, Any]:
    """Type, shape and values by name; the servers write the same FP32 in other decimals."""
    assert reply.status_code == 200, reply.text
    found = {}
    for each in reply.json()["outputs"]:
        data = np.float32(each["data"]).tolist() if each["datatype"] == "FP32" else each["data"]
        found[each["name"]] = (each["datatype"], each["shape"], data)
    return found


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("classify.fasternet_nano_grocery", texts("image", sample_photo(), sample_photo())),
        ("detect.fasternet_nano_fod", texts("image", sample_photo())),
        ("identify.floors_home", texts("scan", SCAN, b'{"m5": -40}', SCAN)),
    ],
)
def test_a_service_answers_the_same_request_the_same(
    pair: Pair, model: str, inputs: list[dict[str, Any]]
) -> None:
    expected = outputs(infer(pair.embedded.http, model, inputs))
    assert outputs(infer(pair.triton.http, model, inputs)) == expected
    assert outputs(infer(pair.before.http, model, inputs)) == expected


def test_a_network_answers_the_same_request_the_same_up_to_its_batch(pair: Pair) -> None:
    pixels = np.random.default_rng(7).standard_normal((2, 3, 128, 128), dtype=np.float32)
    body = {"inputs": [{"name": "image", "shape": [2, 3, 128, 128], "datatype": "FP32"}]}
    body["inputs"][0]["data"] = pixels.ravel().tolist()
    replies = [
        http.post(f"/v2/models/{SHIPPED[0]}/infer", json=body)
        for http in (pair.embedded.http, pair.triton.http, pair.before.http)
    ]
    expected, *others = (outputs(reply)["logits"] for reply in replies)
    for kind, shape, data in others:
        assert (kind, shape) == expected[:2]
        assert np.array(data) == pytest.approx(np.array(expected[2]), rel=1e-5, abs=1e-5)


def test_a_task_through_a_gateway_before_triton_is_the_task(pair: Pair) -> None:
    replies = [
        server.http.post("/v1/classify", files={"image": sample_photo()}, data={"top_k": 3})
        for server in (pair.embedded, pair.before)
    ]
    assert [reply.status_code for reply in replies] == [200, 200]
    assert replies[0].json() == replies[1].json()
    assert replies[1].headers["x-device"] == "remote:gpu-1"


def test_what_is_refused_is_refused_with_the_same_words(pair: Pair) -> None:
    replies = [
        server.http.post("/v1/detect", files={"image": b"no picture"})
        for server in (pair.embedded, pair.before)
    ]
    assert [reply.status_code for reply in replies] == [415, 415]
    assert replies[0].json() == replies[1].json()
    mixed = texts("image", sample_photo(), b"")
    told = [
        infer(http, "classify.fasternet_nano_grocery", mixed).json()["error"]
        for http in (pair.embedded.http, pair.before.http)
    ]
    assert told[0] == told[1]
    assert "row 1" in told[0]


def test_the_models_are_described_as_where_they_come_from(pair: Pair) -> None:
    cards = [
        {each["id"]: each for each in server.http.get("/v1/models").json()["data"]}
        for server in (pair.embedded, pair.before)
    ]
    assert cards[0].keys() == cards[1].keys()
    for name, card in cards[0].items():
        assert {**cards[1][name], "devices": []} == {**card, "devices": []}


def test_a_folder_that_is_not_empty_is_left_alone(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(each.name for each in written.iterdir())
    assert cli.main(["triton-config", str(written), "--repository", str(ROOT / "model_repository")]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert sorted(each.name for each in written.iterdir()) == before
