"""Fitting and identifying floors as they grow: time and memory of a fit from 1,000 to 100,000 scans, and
identification beside scikit-learn's nearest neighbours.

Example: python bench/floors.py --sizes 1000,3000,10000 --output docs/results/floors_growth.json
Needs nonet[research]; the plot beside the JSON needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

READINGS = 60
FLOORS = 6
APS = 60
SPEED_SCANS = 5000
LEAST_SECONDS = 1.0
ROUNDS = 5


def made_up(count: int, seed: int = 0):
    """Scans of six halls of 120 x 60 m with 60 readings each at most, and their floors."""
    from nonet.runtime.scans import Scans

    generator = np.random.default_rng(seed)
    home = np.repeat(np.arange(FLOORS), APS)
    source = np.column_stack([generator.random((len(home), 2)) * [120, 60], 4.0 * home + 2])
    floor = generator.integers(0, FLOORS, count)
    place = np.column_stack([generator.random((count, 2)) * [120, 60], 4.0 * floor])
    parts = []
    for start in range(0, count, 2000):
        block = slice(start, start + 2000)
        distance = np.linalg.norm(place[block, None] - source[None], axis=2)
        slabs = np.abs(floor[block, None] - home[None])
        rssi = -38 - 25 * np.log10(np.maximum(distance, 1)) - 12 * slabs
        rssi = np.minimum(rssi + generator.normal(0, 3, rssi.shape), -1)
        loudest = np.argpartition(-rssi, READINGS, axis=1)[:, :READINGS]
        scan = np.repeat(np.arange(start, start + len(rssi)), READINGS)
        parts.append((scan, loudest.ravel(), np.take_along_axis(rssi, loudest, 1).ravel()))
    scan, ap, value = (np.concatenate(each) for each in zip(*parts, strict=True))
    names = tuple(f"s{index}" for index in range(count)), tuple(f"ap{index}" for index in range(len(home)))
    return Scans.from_readings(*names, scan, ap, np.maximum(value, -120)), floor


def fit_once(count: int) -> dict[str, float]:
    """One fit in this process: CPU and wall seconds, peak memory, accuracy."""
    import resource

    from nonet.research.fis_one.building import FitOptions, FloorLabel
    from nonet.research.fis_one.fit import fit_building

    scans, floor = made_up(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    label = FloorLabel(scans.ids[int(np.flatnonzero(floor == 0)[0])], "F1")
    fitted = fit_building(scans, label, FitOptions(floors=FLOORS))
    used = fitted.floor_of_scan >= 0
    return {
        "scans": count,
        "readings": len(scans.rssi),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "start_mib": round(before / 1024),
        "accuracy": round(float((fitted.floor_of_scan == floor)[used].mean()), 4),
    }


def identify_speed() -> dict[str, float]:
    """Scans a second in batches of 256 through the published graph, and through kNN on the same rows."""
    import onnxruntime
    from sklearn.neighbors import KNeighborsClassifier

    from nonet.research.fis_one.building import FitOptions, FloorLabel
    from nonet.research.fis_one.fit import fit_building
    from nonet.research.fis_one.serving_graph import build_serving_graph

    scans, floor = made_up(SPEED_SCANS)
    label = FloorLabel(scans.ids[int(np.flatnonzero(floor == 0)[0])], "F1")
    fitted = fit_building(scans, label, FitOptions(floors=FLOORS))
    rows = scans.dense(fitted.transmitters)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        build_serving_graph(fitted.network), options, providers=["CPUExecutionProvider"]
    )
    model = KNeighborsClassifier(5).fit(rows, fitted.floor_of_scan)

    def rate(answer) -> float:
        """Scans a CPU second, over at least a second of it."""
        started, scans = time.process_time(), 0
        while (used := time.process_time() - started) < LEAST_SECONDS:
            for start in range(0, len(rows), 256):
                answer(rows[start : start + 256])
            scans += len(rows)
        return scans / used

    answers = (lambda block: session.run(None, {"rssi": block}), model.predict)
    for answer in answers:
        answer(rows[:256])
    rounds = [tuple(rate(answer) for answer in answers) for _ in range(ROUNDS)]
    ours, theirs = (float(np.median(rates)) for rates in zip(*rounds, strict=True))
    ratios = [one / other for one, other in rounds]
    return {
        "fitted_scans": SPEED_SCANS,
        "transmitters": len(fitted.transmitters),
        "rounds": ROUNDS,
        "scans_per_cpu_second": round(ours),
        "knn_scans_per_cpu_second": round(theirs),
        "ratio": round(float(np.median(ratios)), 1),
        "least_ratio": round(min(ratios), 1),
        "greatest_ratio": round(max(ratios), 1),
    }


def draw(rows: list[dict[str, float]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    sizes = [row["scans"] for row in rows]
    left.loglog(sizes, [row["cpu_seconds"] for row in rows], "o-")
    left.set_ylabel("CPU seconds of a fit")
    right.loglog(sizes, [row["peak_mib"] for row in rows], "o-")
    right.set_ylabel("peak memory of the process, MiB")
    for each in (left, right):
        each.set_xlabel(f"scans of {READINGS} readings")
        each.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=110, metadata={"Software": "nonet"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,3000,10000,20000,30000,100000")
    parser.add_argument("--output", type=Path, default=Path("docs/results/floors_growth.json"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(fit_once(arguments.one)))
        return
    rows = []
    for size in arguments.sizes.split(","):  # a process each: peak memory is the process's
        command = [sys.executable, __file__, "--one", size]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    speed = identify_speed()
    print(speed)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"growth": rows, "identification": speed}, indent=1) + "\n")
    try:
        draw(rows, arguments.output.with_suffix(".png"))
    except ModuleNotFoundError:
        print("not drawn: pip install matplotlib")


if __name__ == "__main__":
    main()
