"""Regression where the service is a process of its own, `nonet service adaptation`, behind a gateway."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support import handmade_regressors as handmade
from tests.support.running_server import RunningServer, assert_refused, eventually, free_port


def test_a_gateway_answers_through_the_service_and_counts_unsure_rows(
    tmp_path: Path, own_repository: Path, start_server: Callable[..., RunningServer]
) -> None:
    handmade.publish_linear(own_repository, "prices", companions=True)
    port = free_port()
    command = [sys.executable, "-m", "nonet.cli.main", "service", "adaptation", "--port", str(port)]
    service = subprocess.Popen([*command, "--repository", str(own_repository)], cwd=tmp_path)
    try:
        topology = tmp_path / "topology.toml"
        topology.write_text(f'[[service]]\nname = "adaptation"\naddress = "127.0.0.1:{port}"\n')
        (tmp_path / "empty").mkdir()
        gateway = start_server(tmp_path / "empty", arguments=("--topology", str(topology)))

        def answers() -> bool:
            reply = gateway.http.post("/v1/regress/prices", json={"inputs": [[1, 2, 0], [1, 2, 9]]})
            return reply.status_code == 200 and reply.json()["predictions"][0]["value"] == 21.0

        eventually(answers, "the service answers", guard=60.0)
        assert gateway.metric("nonet_unsure_rows_total", model="regress.prices") == 1
        reply = gateway.http.post("/v1/regress/prices", json={"inputs": [[1, 2, "x"]]})
        assert_refused(reply, 400, "row 0, column 'noise' must be a number, got 'x'")
        reply = gateway.http.post("/v1/adapt/prices", json={"inputs": [[1, 2, 3]]})
        assert_refused(reply, 501, "kept by another process")
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)
