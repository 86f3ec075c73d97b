"""What choosing a service costs with 4 to 10,000 ready versions. ``make bench-catalog``.

Each version is a service with a network of its own, of the task that is asked or of another one. All sizes
are measured in turns, round by round, and the median of the rounds counts; figures are ratios against the
smallest size of the same run, so that they hold on other machines. ``change`` withdraws a version and
publishes it again, then chooses once: what the index costs when it is kept, not when it is read.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nonet.gateway.core.routing import Router
from nonet.runtime.catalog import Catalog
from nonet.runtime.requests import InferRequest, Outcome
from nonet.runtime.servable import ModelInfo

ROOT = Path(__file__).resolve().parents[1]
SIZES = (4, 100, 1_000, 10_000)
TASK, OTHER = "classification", "floor_identification"
ASKED = 2
"""Services of the task that are there at every size: a family of two."""

HOW_TO_READ = """\
`same task`: all versions are of the task that is asked; `other task`: all but two. `a network`: the request
names one. `a family` has two members. `auto`: the request names none and the versions have no family, so that
all of them are candidates where they are of the same task. Only if none of them can answer in time does this
cost more with more of them: each is asked for its time, so that the fastest is taken. `change` is a version
withdrawn, published and chosen: after a change of a task's own service the list of its services is copied
once, eight bytes each, which is what grows. The last column is the smallest size's time in microseconds, the
only figure that depends on the machine."""


@dataclasses.dataclass(frozen=True)
class Published:
    """A servable that is only ever chosen."""

    info: ModelInfo

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        raise NotImplementedError

    def sample_request(self, rows: int) -> InferRequest:
        raise NotImplementedError

    def warm_up(self) -> None:
        return None

    def close(self) -> None:
        return None


def service(number: int, task: str, family: str = "") -> Published:
    """One version of a service of its own, its quality different from its neighbours'."""
    return Published(
        ModelInfo(
            name=f"{task}.{number}",
            version="1",
            digest="",
            platform="nonet_service",
            inputs=(),
            outputs=(),
            task=task,
            family=family,
            network=f"{task}_{number}",
            quality={"top1": (number * 7919 % 1000) / 1000},
        )
    )


def cases(size: int, task: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is measured with ``size`` versions, of which all but a family of two are of ``task``."""
    catalog = Catalog()
    router = Router(catalog, lambda info, priority, deadline: 0.0, ())
    plain = Catalog()
    unnamed = Router(plain, lambda info, priority, deadline: 0.0, ())
    for number in range(size):
        catalog.publish(service(number, task if number >= ASKED else TASK, "" if number >= ASKED else "pair"))
        plain.publish(service(number, task if number >= ASKED else TASK))
    moved = service(size - 1, task)

    def change() -> None:
        catalog.retire(moved.info.name, "1")
        catalog.publish(moved)
        router.choose(TASK, f"{TASK}_0", deadline=None)

    yield "a network", lambda: router.choose(TASK, f"{TASK}_0", deadline=None)
    yield "a network, with a deadline", lambda: router.choose(TASK, f"{TASK}_0", deadline=1.0)
    yield "a family", lambda: router.choose(TASK, "pair", deadline=1.0)
    yield "auto", lambda: unnamed.choose(TASK, "auto", deadline=None)
    yield "auto, with a deadline", lambda: unnamed.choose(TASK, "auto", deadline=1.0)
    yield "auto, nobody in time", lambda: unnamed.choose(TASK, "auto", deadline=-1.0)
    yield "change", change


def measure(rounds: int, calls: int) -> dict[tuple[str, str], list[float]]:
    """Seconds a call by (request, whose task the versions are of), a figure for each size."""
    found: dict[tuple[str, str], list[float]] = {}
    for label, task in (("same task", TASK), ("other task", OTHER)):
        by_size = [dict(cases(size, task)) for size in SIZES]
        for name in by_size[0]:
            samples: list[list[float]] = [[] for _ in SIZES]
            for _ in range(rounds):
                for place, each in enumerate(by_size):
                    samples[place].append(timed(each[name], calls))
            found[name, label] = [statistics.median(times) for times in samples]
    return found


def timed(call: Callable[[], object], calls: int) -> float:
    """Seconds of processor time a call takes."""
    call()
    begun = time.thread_time()
    for _ in range(calls):
        call()
    return (time.thread_time() - begun) / calls


def table(found: dict[tuple[str, str], list[float]]) -> list[str]:
    """The figures as Markdown, each a ratio against the smallest size."""
    sizes = " | ".join(f"{size:,}" for size in SIZES)
    lines = [f"| request | versions are of the | {sizes} | us with {SIZES[0]} |"]
    lines.append("|---|---|" + "---:|" * (len(SIZES) + 1))
    for (name, label), times in found.items():
        ratios = " | ".join(f"{each / times[0]:.2f}" for each in times)
        lines.append(f"| {name} | {label} | {ratios} | {times[0] * 1e6:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=200, help="in each round")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/catalog.md")
    arguments = parser.parse_args()
    lines = [
        "# Choosing a service among many",
        "",
        f"`make bench-catalog` ({arguments.rounds} rounds of {arguments.calls} calls), "
        f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} CPUs, {platform.machine()}, "
        f"Python {platform.python_version()}. `Router.choose` by the number of ready versions, as ratios "
        f"against {SIZES[0]} of them; medians of processor time.",
        "",
        *table(measure(arguments.rounds, arguments.calls)),
        "",
        HOW_TO_READ,
    ]
    print("\n".join(lines))
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
