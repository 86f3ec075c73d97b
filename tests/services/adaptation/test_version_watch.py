"""A version of a job that is unsure of more live rows than the one before is followed by that one again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.support import handmade_regressors as handmade
from tests.support.adapting_gateway import adapting_settings
from tests.support.running_server import RunningServer, eventually

ROWS = 40


def ask(server: RunningServer, *, unsure: int) -> str:
    """Answer a block of rows of which the model is unsure of some; the version that answered."""
    rows = [[1.0, 1.0, 9.0 if row < unsure else 0.0] for row in range(ROWS)]
    reply: httpx.Response = server.http.post("/v1/regress/prices", json={"inputs": rows})
    assert reply.status_code == 200, reply.text
    version: str = reply.json()["version"]
    return version


def publish(server: RunningServer, models: Path, command: str) -> str:
    """A further version, loaded."""
    version = handmade.publish_linear(models, "prices", companions=True, command=command)
    assert server.http.post("/v2/repository/models/prices/load").status_code == 200
    return version


def test_a_worse_version_is_followed_by_the_one_before(
    own_repository: Path, start_server: Callable[..., RunningServer]
) -> None:
    handmade.publish_linear(own_repository, "prices", companions=True)
    settings = adapting_settings()
    settings["repository"]["watch_rows"] = ROWS
    server = start_server(own_repository, settings)
    assert ask(server, unsure=4) == "1"

    # As good as the one before: it stays, and so does one that nobody's job has made.
    assert publish(server, own_repository, "nonet job job_good") == "2"
    assert [ask(server, unsure=5) for _ in range(3)] == ["2"] * 3
    assert publish(server, own_repository, "nonet train it") == "3"
    assert [ask(server, unsure=30) for _ in range(2)] == ["3"] * 2
    assert ask(server, unsure=4) == "3"

    assert publish(server, own_repository, "nonet job job_worse") == "4"
    assert ask(server, unsure=5) == "4"
    assert ask(server, unsure=ROWS) == "4"
    eventually(lambda: ask(server, unsure=0) == "5", "version 3 is there again as version 5")
    manifest = json.loads((own_repository / "prices" / "5" / "manifest.json").read_text())
    assert manifest["command"].startswith("version 3 again, for version 4: it was unsure of 100% of 40 rows")
    assert server.metric("nonet_versions_put_back_total", model="regress.prices") == 1
    # What was put back is compared with nothing.
    assert [ask(server, unsure=ROWS) for _ in range(3)] == ["5"] * 3
    assert not (own_repository / "prices" / "6").exists()
