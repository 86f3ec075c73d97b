"""Several gateways and workers that share a Redis, the folder of the jobs and the repository."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from floor_house import toy_settings
from redis_house import RedisHouse
from serving import RunningServer, assert_clean_log, eventually, write_settings

LEASE = 5.0


class Site:
    """Machines that share a Redis, the folder of the jobs and the repository.

    ``base`` makes the settings of each, of further fields of the section ``jobs``.
    """

    def __init__(
        self,
        house: RedisHouse,
        folder: Path,
        start: Callable[..., RunningServer],
        base: Callable[..., dict[str, dict[str, Any]]] = toy_settings,
    ) -> None:
        self.house = house
        self._base = base
        self.folder = folder / "shared"
        self.repository = folder / "models"
        self.repository.mkdir(exist_ok=True)
        self.environment = {"NONET_JOBS__STORE": house.url}
        self._start = start
        self._own = folder
        self._works: list[Work] = []

    def settings(self, concurrency: int, **jobs: Any) -> dict[str, dict[str, Any]]:
        given = {"path": str(self.folder), "concurrency": concurrency, "lease_seconds": LEASE, **jobs}
        return self._base(store_timeout=1.0, **given)

    def gateway(self, concurrency: int = 1, **options: Any) -> RunningServer:
        """A gateway that runs so many jobs itself."""
        jobs = {name: options.pop(name) for name in list(options) if name not in ("prefix", "auth")}
        settings = self.settings(concurrency, **jobs)
        if "auth" in options:
            settings["auth"] = options.pop("auth")
        return self._start(self.repository, settings, environment=self.environment, **options)

    def work(self, **jobs: Any) -> Work:
        """A ``nonet work`` process."""
        config = write_settings(self._own / f"work{len(self._works)}.toml", self.settings(1, **jobs))
        made = Work(config, self.repository, self.environment)
        self._works.append(made)
        return made

    def close(self) -> None:
        for work in self._works:
            work.stop()
            assert_clean_log(work.log)


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
        eventually(lambda: "works on jobs" in self.log, "it says that it works")

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def stop(self) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(60)
