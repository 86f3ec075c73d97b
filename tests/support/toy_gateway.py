"""What a server needs to find the toy service of the tests: its path, and networks of its tasks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support import handmade_networks
from tests.support.running_server import eventually, free_port

TOY = Path(__file__).parents[1] / "toy_service"


def toy_environment() -> dict[str, str]:
    """With the toy service on the path."""
    return {"PYTHONPATH": os.pathsep.join([str(TOY), *filter(None, [os.environ.get("PYTHONPATH", "")])])}


def add_toy_models(root: Path) -> Path:
    """A repository with two networks of the task that measures, and one of the task that asks it."""
    root.mkdir()
    for name, truth in (("poor", 0.1), ("good", 0.9)):
        facts = {"task": "brightness", "family": "eyes", "quality": {"truth": truth}}
        handmade_networks.add_identity(root, name, "FP32", (-1,), facts=facts)
    handmade_networks.add_identity(root, "sharp", "FP32", (-1,), facts={"task": "contrast"})
    return root


def waiting_for(file: Path) -> bytes:
    """An image that the service looks at only when ``file`` is there: until then its execution hangs."""
    return b"wait:" + str(file).encode()


class ToyReplica:
    """One ``nonet service toy``, as fast as it is told, that can be killed, hung and begun again.

    Args:
        models: its repository.
        folder: a new one, for its log.
    """

    def __init__(self, models: Path, folder: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        self._models = models
        self._log = folder / "service.log"
        self._pace = folder / "pace.json"
        self.pace()
        self.begin()

    def pace(self, **seconds: float) -> None:
        """From now on an execution of a network takes so long; of one that is not named, no longer than it
        must."""
        fresh = self._pace.with_suffix(".new")
        fresh.write_text(json.dumps(seconds))
        fresh.replace(self._pace)

    def begin(self) -> None:
        """Start the process; :meth:`ready` says when it serves."""
        command = [sys.executable, "-m", "nonet.cli.main", "service", "toy"]
        command += ["--port", str(self.port), "--repository", str(self._models)]
        environment = {
            **os.environ,
            **toy_environment(),
            "TOY_PACE": str(self._pace),
            "PYTHONUNBUFFERED": "1",
        }
        environment["XDG_CACHE_HOME"] = str(self._log.parent / "cache")
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self._log.parent, env=environment
            )

    def ready(self) -> None:
        """Wait until it serves."""
        eventually(lambda: str(self.port) in self._log.read_text(), "the service is ready", 60.0)

    def hang(self) -> None:
        self.popen.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()
