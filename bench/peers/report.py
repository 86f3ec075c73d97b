"""The page and the plot of what ``run.py`` has measured: ``python bench/peers/report.py [FOLDER]``.

Writes ``docs/results/peers.md`` and ``docs/results/peers.svg`` (or both beside FOLDER) from the JSON files
in ``docs/results/peers`` (or FOLDER). Where there are several rounds a figure is their median, with the
range behind it.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from peers import DEADLINE_MS, PEERS, ROOT

Round = dict[str, Any]


def rounds(folder: Path) -> dict[str, list[Round]]:
    """What was measured, by peer, in the order in which they are listed."""
    found: dict[str, list[Round]] = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        one: Round = json.loads(path.read_text())
        found[one["peer"]].append(one)
    return {peer.name: found[peer.name] for peer in PEERS if peer.name in found}


def figure(values: Sequence[float], digits: int = 1) -> str:
    """The median, and the range if there are several."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) < 2:
        return middle
    return f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def closed_rows(measured: dict[str, list[Round]], kind: str) -> list[list[str]]:
    """A row for each peer that has this protocol: answers a second and milliseconds of processor."""
    rows = []
    for name, all_rounds in measured.items():
        cells = list(zip(*(each[kind] for each in all_rounds), strict=True))
        if not cells:
            continue
        rates = [figure([one["rate"] for one in cell]) for cell in cells]
        used = [figure([one["cpu_ms"] for one in cell]) for cell in cells]
        rows.append([name, *rates, *used, figure([one["p99_ms"] for one in cells[-1]])])
    return rows


def goodput_rows(measured: dict[str, list[Round]]) -> list[list[str]]:
    """A row for each peer: share of its own capacity that was answered in time, by offered load."""
    rows = []
    for name, all_rounds in measured.items():
        row = [name]
        for index in range(len(all_rounds[0]["offered"])):
            shares = [each["offered"][index]["goodput"] / each["closed"][-1]["rate"] for each in all_rounds]
            row.append(figure(shares, 2))
        rows.append(row)
    return rows


def plot(measured: dict[str, list[Round]], path: Path) -> None:
    """Clients against rate, clients against processor time, offered load against goodput."""
    drawing, axes = pyplot.subplots(1, 3, figsize=(13, 4.2))

    def draw(
        axis: Any, name: str, style: str, xs: Sequence[float], get: Callable[[Round], list[float]]
    ) -> None:
        lines = zip(*(get(each) for each in measured[name]), strict=True)
        axis.plot(xs, [statistics.median(cell) for cell in lines], style, label=name)

    for name, all_rounds in measured.items():
        style = "o-" if name == "Nonet" else "o--"
        clients = [cell["clients"] for cell in all_rounds[0]["closed"]]
        loads = [cell["load"] for cell in all_rounds[0]["offered"]]
        draw(axes[0], name, style, clients, lambda each: [cell["rate"] for cell in each["closed"]])
        draw(axes[1], name, style, clients, lambda each: [cell["cpu_ms"] for cell in each["closed"]])
        draw(axes[2], name, style, loads, lambda each: [cell["goodput"] for cell in each["offered"]])
    for axis, title, below in (
        (axes[0], "answers a second", "clients"),
        (axes[1], "processor time of an answer, ms", "clients"),
        (axes[2], f"answers a second within {DEADLINE_MS} ms", "offered load, in capacities"),
    ):
        axis.set_title(title)
        axis.set_xlabel(below)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[2].legend(fontsize="small")
    drawing.tight_layout()
    drawing.savefig(path, metadata={"Date": None})


def main(folder: Path) -> None:
    """Write page and plot."""
    measured = rounds(folder)
    if not measured:
        raise SystemExit(f"nothing measured in {folder}")
    first = next(iter(measured.values()))[0]
    loads = [f"{cell['load']:g}x" for cell in first["offered"]]
    clients = [cell["clients"] for cell in first["closed"]]
    closed = [
        "",
        *(f"{each} clients, 1/s" for each in clients),
        *(f"{each}, CPU ms" for each in clients),
        "p99 ms",
    ]
    many = len(next(iter(measured.values())))
    parts = [
        "# The same network behind Nonet and its peers",
        "`make bench-peers`; what is measured and how says `bench/peers/run.py`, raw figures are in "
        f"`peers/`. {first['processor']}, {first['processors']} processors, Python {first['python']}; the "
        f"server on one, the client on another; {many} rounds of {first['seconds']:g} s for each cell.",
        "![rates, processor time, goodput](peers.svg)",
        "## HTTP, closed loop",
        table(closed, closed_rows(measured, "closed")),
        "## gRPC, closed loop",
        table(closed, closed_rows(measured, "closed_grpc")),
        f"## Goodput with deadlines of {DEADLINE_MS} ms",
        "As a share of the rate that the same server had with the most clients in the same round, over HTTP.",
        table(["offered", *loads], goodput_rows(measured)),
        "KServe's Python server has no batching; all others batch what waits, up to 16. Nonet and Triton are "
        "told the deadline, the others have no way to be.",
    ]
    page = folder.with_suffix(".md")
    page.write_text("\n\n".join(parts) + "\n")
    plot(measured, folder.with_suffix(".svg"))
    print(f"wrote {page}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "results" / "peers")
