"""Variants and engines of each classifier against fp32 ONNX Runtime on this machine, in one run.

    python bench/variants.py [--repository model_repository] [--rounds 60] [--output docs/results/variants.md]

Every network with an int8 variant is run by every installed engine in every precision it has here, and so is
the variant; all loaded at once, one thread each, through the code that serves. They take turns, A B C A B C,
so that what else the machine does falls on all of them, and the figure is the least process CPU time of all
rounds. `chosen` is what `nonet models profile` would take: the fastest of the accepted ones by the geometric
mean over the batch sizes, the default unless it is beaten by 5 %.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nonet.runtime.backends import BackendOptions, LoadedNetwork, installed_backends
from nonet.runtime.hardware import cpu_features, cpu_name, machine_fingerprint
from nonet.runtime.repository.checks import read_check_set
from nonet.runtime.repository.config import read_config
from nonet.runtime.repository.integrity import FileHasher
from nonet.runtime.repository.layout import CONFIG_FILE, scan
from nonet.runtime.repository.loader import PreparedVersion, prepare_version
from nonet.runtime.repository.selection import profile_version

SIZES = (1, 8)
Row = tuple[str, str, str, dict[int, float], str]


def versions(root: Path) -> Iterator[PreparedVersion]:
    """The newest version of every model."""
    for folder in scan(root).values():
        config = read_config(folder.path / CONFIG_FILE)
        yield prepare_version(root, folder, folder.versions[-1], config, hasher=FileHasher())


def least_times(
    networks: list[LoadedNetwork], feeds: list[dict[str, np.ndarray]], rounds: int
) -> list[float]:
    """CPU milliseconds of each, taking turns."""
    best = [float("inf")] * len(networks)
    for turn in range(rounds + 3):
        for index, (network, feed) in enumerate(zip(networks, feeds, strict=True)):
            started = time.process_time()
            network.infer(feed, OUTPUTS[id(network)])
            if turn >= 3:
                best[index] = min(best[index], 1000 * (time.process_time() - started))
    return best


OUTPUTS: dict[int, list[str]] = {}


def measure(original: PreparedVersion, variant: PreparedVersion, rounds: int) -> list[Row]:
    """A row for each engine and precision of the two, the default of the original first."""
    options = BackendOptions(concurrency=1)
    loaded: list[tuple[PreparedVersion, str, str, LoadedNetwork]] = []
    verdicts: dict[tuple[str, str, str], str] = {}
    for version in (original, variant):
        profile = profile_version(version, options, machine_fingerprint(), batch_sizes=SIZES, budget=0.5)
        for index, each in enumerate(profile.engines):
            chosen = "chosen" if index == profile.chosen else "accepted"
            verdicts[version.name, each.engine, each.precision] = chosen if each.accepted else each.reason
        for engine in installed_backends():
            for precision in engine.precisions():
                config = version.config
                network = engine.load(
                    version.model_file, config.inputs, config.outputs, precision=precision, options=options
                )
                OUTPUTS[id(network)] = [spec.name for spec in config.outputs]
                loaded.append((version, engine.name, precision, network))
    times: dict[int, list[float]] = {}
    for rows in SIZES:
        feeds = []
        for version, *_ in loaded:
            assert version.check_set is not None
            check = read_check_set(version.check_set, version.config.inputs, version.config.outputs)
            feeds.append({name: array[:rows] for name, array in check.inputs.items()})
        times[rows] = least_times([network for *_, network in loaded], feeds, rounds)
    table = []
    for index, (version, engine_name, precision, network) in enumerate(loaded):
        shown = "int8" if version is variant and precision == "fp32" else precision
        spent = {rows: times[rows][index] for rows in SIZES}
        table.append(
            (version.name, engine_name, shown, spent, verdicts[version.name, engine_name, precision])
        )
        network.unload()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    known = {version.name: version for version in versions(given.repository)}
    lines = [
        "# Engines and variants against fp32 ONNX Runtime",
        "",
        f"`python bench/variants.py --rounds {given.rounds}`, {datetime.date.today()}; {cpu_name()}, "
        f"{', '.join(cpu_features())}; one thread; least CPU milliseconds of the rounds, all in turns, and "
        "in brackets the speed against fp32 ONNX Runtime.",
        "",
        "| model | engine | precision | batch 1 | batch 8 | top-1, % | answers |",
        "|---|---|---|---|---|---|---|",
    ]
    for version in known.values():
        manifest = version.manifest
        if manifest is None or manifest.variant is None or manifest.variant.of not in known:
            continue
        rows = measure(known[manifest.variant.of], version, given.rounds)
        base = rows[0][3]
        for name, engine, precision, spent, verdict in rows:
            cells = " | ".join(f"{spent[size]:.2f} ({base[size] / spent[size]:.2f}x)" for size in SIZES)
            quality = known[name].manifest
            top1 = 100 * float(quality.quality["top1"]) if quality else float("nan")
            lines.append(f"| `{name}` | {engine} | {precision} | {cells} | {top1:.2f} | {verdict} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if given.output is not None:
        given.output.write_text(text)


if __name__ == "__main__":
    main()
