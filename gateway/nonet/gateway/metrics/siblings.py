"""Adds up what several gateway processes on the same ports have counted, so that any of them can tell all.

Each writes its numbers into a file of its own in a folder of theirs twice a second, and reads those of the
others when it is scraped. The file of a process that has died stays: what it counted is still counted, or a
counter would go backwards; its gauges, which tell of a moment, are left out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

SECONDS = 0.5
"""Between two writings: so old the numbers of the others are at most."""

_LARGEST = frozenset(
    {
        "nonet_build_info",
        "nonet_jobs",
        "nonet_jobs_unserved",
        "nonet_models_failed",
        "nonet_models_loaded",
        "nonet_webhooks",
        "process_max_fds",
        "python_info",
    }
)
"""Gauges that are the same for all of them."""
_SMALLEST = frozenset({"nonet_ready", "process_start_time_seconds"})
_MEAN = frozenset({"nonet_device_utilisation_ratio"})

_Family = dict[str, Any]


class Siblings:
    """See the module's text.

    Args:
        folder: of the files; the same for all of them, and nobody else's.
        process: id of this process.
        alive: whether a process, by its id, lives.
    """

    def __init__(self, folder: Path, process: int, alive: Callable[[int], bool] | None = None) -> None:
        self._folder = folder
        self._process = process
        self._alive = alive or _lives

    def write(self, collectors: Iterable[Collector]) -> None:
        """Tell the others what this process has counted by now. In any thread."""
        file = self._folder / f"{self._process}.json"
        fresh = file.with_suffix(".new")
        fresh.write_bytes(orjson.dumps(_families(collectors)))
        fresh.replace(file)

    def total(self, collectors: Iterable[Collector]) -> Collector:
        """The numbers of all, those of this process as they are now. In any thread."""
        told = [_families(collectors)]
        for file in sorted(self._folder.glob("*.json")):
            process = int(file.stem)
            if process == self._process:
                continue
            with contextlib.suppress(OSError):
                families: list[_Family] = orjson.loads(file.read_bytes())
                if not self._alive(process):
                    families = [family for family in families if family["type"] != "gauge"]
                told.append(families)
        return _Total(told)


class _Total(Collector):
    def __init__(self, told: list[list[_Family]]) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        metrics: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
        for family in (family for families in self._told for family in families):
            name = family["name"]
            if name not in metrics:
                metrics[name] = Metric(name, family["documentation"], family["type"])
                values[name] = {}
            for sample, labels, value in family["samples"]:
                values[name].setdefault((sample, tuple(map(tuple, labels))), []).append(value)
        for name, metric in metrics.items():
            together = _together(name)
            for (sample, labels), found in values[name].items():
                metric.add_sample(sample, dict(labels), together(found))
            yield metric


def _together(name: str) -> Callable[[list[float]], float]:
    if name in _LARGEST:
        return max
    if name in _SMALLEST:
        return min
    if name in _MEAN:
        return lambda values: sum(values) / len(values)
    return sum


def _families(collectors: Iterable[Collector]) -> list[_Family]:
    return [
        {
            "name": metric.name,
            "documentation": metric.documentation,
            "type": metric.type,
            # In the order of the labels, which a page keeps.
            "samples": [
                (sample.name, list(sample.labels.items()), sample.value) for sample in metric.samples
            ],
        }
        for collector in collectors
        for metric in collector.collect()
    ]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
