"""Several gateways and workers that share a Redis, the folder of the jobs and the repository."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.support.building_gateway import toy_settings
from tests.support.redis_server import RedisServer
from tests.support.running_server import RunningServer, assert_clean_log, eventually, write_settings

LEASE = 5.0


class Site:
    """Machines that share a Redis, the folder of the jobs and the repository.

    ``base`` makes the settings of each, of further fields of the section ``jobs``.
    """

    def __init__(
        self,
        server: RedisServer,
        folder: Path,
        start: Callable[..., RunningServer],
        base: Callable[..., dict[str, dict[str, Any]]] = toy_settings,
    ) -> None:
        self.redis = server
        self._base = base
        self.folder = folder / "shared"
        self.repository = folder / "models"
        self.repository.mkdir(exist_ok=True)
        self.environment = {"NONET_JOBS__STORE": server.url}
        self._start = start
        self._own = folder
        self._works: list[Work] = []

    def settings(self, concurrency: int, **jobs: Any) -> dict[str, dict[str, Any]]:
        given = {"path": str(self.folder), "concurrency": concurrency, "lease_seconds": LEASE, **jobs}
        return self._base(store_timeout=1.0, **given)

    def gateway(self, concurrency: int = 1, **options: Any) -> RunningServer:
        """A gateway that runs so many jobs itself."""
        others = {name: options.pop(name) for name in ("auth", "repository") if name in options}
        jobs = {name: options.pop(name) for name in list(options) if name != "prefix"}
        settings = self.settings(concurrency, **jobs)
        for section, fields in others.items():
            settings[section] = {**settings.get(section, {}), **fields}
        return self._start(self.repository, settings, environment=self.environment, **options)

    def work(
        self, repository: Path | None = None, *, lacks: str = "", works: bool = True, **jobs: Any
    ) -> Work:
        """A ``nonet work`` process, with a repository of its own if one is given.

        ``lacks`` names modules that its installation does not have; without ``works`` nobody waits for it.
        """
        config = write_settings(self._own / f"work{len(self._works)}.toml", self.settings(1, **jobs))
        environment = {**self.environment, **(without(lacks, self._own / "lacks") if lacks else {})}
        made = Work(config, repository or self.repository, environment)
        self._works.append(made)
        if works:
            made.wait_working()
        return made

    def close(self) -> None:
        for work in self._works:
            work.stop()
            assert_clean_log(work.log)


def without(modules: str, folder: Path) -> dict[str, str]:
    """The environment of Python processes whose installation lacks modules, named with spaces between."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        "_find = importlib.util.find_spec\n"
        f"_absent = {modules.split()!r}\n"
        "importlib.util.find_spec = lambda name, *a: None if name in _absent else _find(name, *a)\n"
        "sys.modules.update(dict.fromkeys(_absent))\n"
    )
    return {"PYTHONPATH": ":".join((str(folder), *filter(None, sys.path)))}


class Work:
    """One ``nonet work`` process, started when made."""

    def __init__(self, config: Path, repository: Path, environment: dict[str, str]) -> None:
        self._log_path = config.with_suffix(".log")
        words = ("-m", "nonet.cli.main", "work", "--config", str(config), "--repository", str(repository))
        with self._log_path.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=config.parent,
                env={**psutil.Process().environ(), **environment},
            )

    def wait_working(self) -> None:
        eventually(lambda: "works on jobs" in self.log, "it says that it works")

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def stop(self) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(60)
