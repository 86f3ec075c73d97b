"""A new version answers live requests beside the one that serves, unseen, and takes over only if it is no
worse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import helper

from nonet.runtime.repository.manifest import Manifest
from nonet.runtime.repository.publish import publish_version
from tests.support import handmade_regressors as handmade
from tests.support.adapting_gateway import adapting_settings
from tests.support.handmade_networks import Port, network
from tests.support.running_server import RunningServer, eventually

ROWS = 8
JOB = "nonet job job_1"


@pytest.fixture
def start(own_repository: Path, start_server: Callable[..., RunningServer]) -> Callable[[], RunningServer]:
    """Starts a server with version 1 of ``prices``."""

    def started() -> RunningServer:
        handmade.publish_linear(own_repository, "prices", companions=True)
        return start_server(own_repository, adapting_settings())

    return started


def shadow(server: RunningServer, models: Path, *, rows: int, graph: bytes | None = None) -> str:
    """Publish a shadow of ``prices``, loaded; ``graph`` in the place of its own."""
    if graph is None:
        version = handmade.publish_linear(models, "prices", companions=True, command=JOB, shadow_rows=rows)
    else:
        newest = max(models.glob("prices/[0-9]*"), key=lambda path: int(path.name))
        manifest = Manifest.model_validate_json((newest / "manifest.json").read_bytes())
        files = {name: (newest / name).read_bytes() for name in manifest.files} | {"model.onnx": graph}
        config = (models / "prices" / "config.pbtxt").read_text()
        changed = manifest.model_copy(update={"command": JOB, "shadow_rows": rows})
        version = publish_version(models, "prices", files, config, changed).version
    assert server.http.post("/v2/repository/models/prices/load").status_code == 200
    return version


def ask(server: RunningServer, *, unsure: int = 0, version: str = "", rows: int = ROWS) -> dict[str, Any]:
    """The answer to some rows of which the model is unsure of some; no two requests are equal."""
    table = [[float(next(_fresh)), 1.0, 9.0 if row < unsure else 0.0] for row in range(rows)]
    words = {"version": version} if version else {}
    reply: httpx.Response = server.http.post("/v1/regress/prices", json={"inputs": table, **words})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


_fresh = iter(range(1, 1_000_000))


def compared(server: RunningServer) -> float:
    return server.metric("nonet_shadow_rows_total", model="regress.prices")


def ask_and_compare(server: RunningServer, **how: Any) -> str:
    """The version that answered; its shadow has answered too."""
    before = compared(server)
    answer = ask(server, **how)
    eventually(lambda: compared(server) > before, "the shadow has answered the same rows")
    return str(answer["version"])


def ended(server: RunningServer, outcome: str) -> float:
    return server.metric("nonet_shadow_runs_ended_total", model="regress.prices", outcome=outcome)


def test_a_shadow_answers_nobody_and_takes_over_when_it_was_as_good(
    own_repository: Path, start: Callable[[], RunningServer]
) -> None:
    server = start()
    assert shadow(server, own_repository, rows=2 * ROWS) == "2"
    assert server.http.get("/v2/models/prices").json()["versions"] == ["1", "2"]
    assert ask_and_compare(server, unsure=2) == "1"
    # Half of its rows are missing: it waits, as long as nobody asks.
    assert server.http.post("/v2/repository/models/prices/load").status_code == 200
    assert server.http.get("/v2/models/prices").json()["versions"] == ["1", "2"]
    assert ask_and_compare(server, unsure=2) == "1"
    eventually(lambda: ask(server)["version"] == "3", "what was the shadow serves")
    assert ended(server, "switched") == 1
    manifest = json.loads((own_repository / "prices" / "3" / "manifest.json").read_text())
    assert manifest["command"] == JOB
    assert manifest["shadow_rows"] == 0
    evidence = manifest["source"]["shadow"]
    assert evidence == {
        "beside_version": "1",
        "rows": 2 * ROWS,
        "unsure": 4,
        "unsure_before": 4,
        "relative_difference": 0.0,
    }
    assert server.http.get("/v2/models/prices").json()["versions"] == ["3"]


def test_a_shadow_that_is_unsure_of_more_never_serves(
    own_repository: Path, start: Callable[[], RunningServer]
) -> None:
    server = start()
    unsure = network(
        [
            helper.make_node("MatMul", ["inputs", "weights"], ["value"]),
            helper.make_node("MatMul", ["inputs", "ones"], ["sum"]),
            helper.make_node("Abs", ["sum"], ["std"]),
        ],
        [Port("inputs", "FP32", (3,))],
        [Port("value", "FP32", (1,)), Port("std", "FP32", (1,))],
        {"weights": np.float32([[1], [10], [0]]), "ones": np.ones((3, 1), np.float32)},
    )
    assert shadow(server, own_repository, rows=ROWS, graph=unsure) == "2"
    assert ask_and_compare(server, unsure=1) == "1"
    eventually(lambda: ask(server)["version"] == "3", "version 1 is there again")
    assert ended(server, "dropped") == 1
    manifest = json.loads((own_repository / "prices" / "3" / "manifest.json").read_text())
    assert manifest["command"] == (
        "version 1 again, for version 2: it was unsure of 8 of 8 rows, version 1 of 1"
    )
    one, three = ((own_repository / "prices" / each / "model.onnx").read_bytes() for each in ("1", "3"))
    assert one == three


def test_a_shadow_that_fails_on_what_was_answered_never_serves(
    own_repository: Path, start: Callable[[], RunningServer]
) -> None:
    server = start()
    fails = network(  # the root of what is below zero is no number
        [
            helper.make_node("MatMul", ["inputs", "weights"], ["value"]),
            helper.make_node("MatMul", ["inputs", "noise"], ["negated"]),
            helper.make_node("Add", ["negated", "most"], ["room"]),
            helper.make_node("Sqrt", ["room"], ["std"]),
        ],
        [Port("inputs", "FP32", (3,))],
        [Port("value", "FP32", (1,)), Port("std", "FP32", (1,))],
        {
            "weights": np.float32([[1], [10], [0]]),
            "noise": np.float32([[0], [0], [-1]]),
            "most": np.float32([8.5]),
        },
    )
    assert shadow(server, own_repository, rows=10 * ROWS, graph=fails) == "2"
    assert ask_and_compare(server) == "1"
    assert ask(server, unsure=1)["version"] == "1"  # its caller sees nothing of what the shadow does
    eventually(lambda: ask(server)["version"] == "3", "version 1 is there again")
    manifest = json.loads((own_repository / "prices" / "3" / "manifest.json").read_text())
    assert manifest["command"].startswith("version 1 again, for version 2: it failed on a request")


def test_a_shadow_can_be_asked_by_its_number_and_is_not_compared_with_itself(
    own_repository: Path, start: Callable[[], RunningServer]
) -> None:
    server = start()
    shadow(server, own_repository, rows=ROWS)
    rows = [[1.0, 2.0, 0.0]]
    tensor = [{"name": "inputs", "datatype": "FP32", "shape": [1, 3], "data": rows}]
    for _ in range(3):
        reply = server.http.post("/v2/models/prices/versions/2/infer", json={"inputs": tensor})
        assert reply.json()["model_version"] == "2"
    assert compared(server) == 0


def test_a_newer_shadow_takes_the_place_of_one_and_a_version_of_somebody_ends_it(
    own_repository: Path, start: Callable[[], RunningServer]
) -> None:
    server = start()
    shadow(server, own_repository, rows=100)
    assert shadow(server, own_repository, rows=100) == "3"
    assert server.http.get("/v2/models/prices").json()["versions"] == ["1", "3"]
    handmade.publish_linear(own_repository, "prices", companions=True)
    assert server.http.post("/v2/repository/models/prices/load").status_code == 200
    assert server.http.get("/v2/models/prices").json()["versions"] == ["4"]
    assert ask(server)["version"] == "4"


def test_a_shadow_that_cannot_be_loaded_gets_nothing(
    own_repository: Path, start: Callable[[], RunningServer]
) -> None:
    """Case 75: a version that is not ready gets no share of the requests."""
    server = start()
    version = handmade.publish_linear(own_repository, "prices", companions=True, shadow_rows=ROWS)
    (own_repository / "prices" / version / "model.onnx").write_bytes(b"damaged")
    assert server.http.post("/v2/repository/models/prices/load").status_code == 409
    assert {ask(server)["version"] for _ in range(3)} == {"1"}
    assert compared(server) == 0


def test_the_only_version_serves_though_it_is_called_a_shadow(
    own_repository: Path, start_server: Callable[..., RunningServer]
) -> None:
    handmade.publish_linear(own_repository, "prices", companions=True, shadow_rows=ROWS)
    server = start_server(own_repository, adapting_settings())
    assert ask(server)["version"] == "1"
