"""A real Prometheus with a configuration of the test's, and what can be asked of it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.running_server import eventually, free_port


class PrometheusServer:
    """The interface of a Prometheus that runs."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def _data(self, path: str, **parameters: str) -> Any:
        reply = self._http.get(f"/api/v1/{path}", params=parameters)
        assert reply.status_code == 200, reply.text
        return reply.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of a PromQL expression: ``metric`` (labels) and ``value`` of each series."""
        data = self._data("query", query=expression)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        found: list[dict[str, Any]] = data["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their ``health``, once each has been evaluated."""

        def rules() -> list[dict[str, Any]]:
            return [rule for group in self._data("rules")["groups"] for rule in group["rules"]]

        eventually(lambda: all(rule["health"] != "unknown" for rule in rules()), "the rules are evaluated")
        return rules()


@contextlib.contextmanager
def running_prometheus(configuration: Mapping[str, Any], folder: Path) -> Iterator[PrometheusServer]:
    """A Prometheus for the length of a ``with`` block; wants the program on the path."""
    program = shutil.which("prometheus")
    assert program is not None
    folder.mkdir(parents=True)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(dict(configuration)))
    address = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={folder / 'prometheus.yml'}", f"--web.listen-address={address}"]
    command += [f"--storage.tsdb.path={folder / 'series'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=20.0) as http:

            def ready() -> bool:
                assert process.poll() is None, (folder / "log").read_text()
                with contextlib.suppress(httpx.TransportError):
                    return http.get("/-/ready").status_code == 200
                return False

            eventually(ready, "Prometheus is ready")
            yield PrometheusServer(http)
    finally:
        process.terminate()
        process.wait()
