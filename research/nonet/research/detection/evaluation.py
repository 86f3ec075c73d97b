"""Every published detector measured on what was held back, beside its teacher, by precision and CPU time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from rich.table import Table

from nonet.research.detection.scoring import finder_of, measure_finder
from nonet.research.detection.teacher import SIDE, Teacher
from nonet.research.fasternet.evaluation import graph_size
from nonet.research.fasternet.onnx_session import open_session
from nonet.runtime.images import Preprocessing
from nonet.runtime.repository.layout import VersionFolder, read_model, scan
from nonet.runtime.repository.manifest import Manifest, read_manifest

ROUNDS = 15


@dataclass(frozen=True)
class Score:
    """One detector on one split: precisions in 0..1, CPU milliseconds of one thread for one picture."""

    name: str
    family: str
    parameters: int
    macs: int
    milliseconds: float
    quality: dict[str, Any]


def published(repository: Path) -> list[tuple[VersionFolder, Manifest]]:
    """Newest version of each detector. Raises FileNotFoundError if there is none."""
    found = []
    for name in scan(repository) if repository.is_dir() else ():
        folder = read_model(repository, name)
        if folder is None or not folder.versions:
            continue
        manifest = read_manifest(folder.versions[-1].path / "manifest.json")
        if manifest is not None and manifest.task == "detection":
            found.append((folder.versions[-1], manifest))
    if not found:
        raise FileNotFoundError("no detector in the repository: train one first")
    return found


def evaluate_all(repository: Path, root: Path, split: str) -> list[Score]:
    """The published detectors, and last the teacher of the family `coco` where its graph is at hand."""
    rows: list[tuple[str, str, Path, Any]] = []
    for folder, manifest in published(repository):
        assert manifest.preprocessing is not None
        graph = folder.path / "model.onnx"
        spec = Preprocessing.from_manifest(manifest.preprocessing.model_dump())
        rows.append((folder.model, manifest.family, graph, finder_of(open_session(graph), spec)))
    teacher = root / "yolox_nano_coco" / "yolox_nano.onnx"
    if teacher.is_file() and any(family == "coco" for _, family, _, _ in rows):
        known = Teacher(teacher)
        rows.append(("YOLOX-Nano (teacher)", "coco", teacher, lambda each: known.find(each.decoded(), 0.005)))
    times = interleaved([graph for _, _, graph, _ in rows])
    return [
        Score(name, family, *graph_size(graph), spent, measure_finder(find, family, root, split))
        for (name, family, graph, find), spent in zip(rows, times, strict=True)
    ]


def interleaved(graphs: Sequence[Path]) -> list[float]:
    """CPU milliseconds of one picture through each graph, one thread: the least of rounds that take turns, so
    that what else the machine does falls on all of them.
    """
    runs: list[tuple[onnxruntime.InferenceSession, dict[str, np.ndarray]]] = []
    for graph in graphs:
        session = open_session(graph)
        port = session.get_inputs()[0]
        side = port.shape[-1] if isinstance(port.shape[-1], int) else SIDE
        pixels = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
        runs.append((session, {port.name: pixels}))
    best = [float("inf")] * len(runs)
    for _ in range(ROUNDS):
        for index, (session, inputs) in enumerate(runs):
            start = time.process_time()
            session.run(None, inputs)
            best[index] = min(best[index], time.process_time() - start)
    return [1000 * each for each in best]


def table(scores: Sequence[Score], split: str) -> Table:
    """The results, a row for each detector."""
    view = Table(title=f"detectors, {split} split", title_justify="left")
    for heading in ("model", "parameters", "MACs", "CPU ms", "AP50", "AP75", "AP", "also"):
        view.add_column(heading, justify="left" if heading in ("model", "also") else "right")
    for row in scores:
        also = {"animals_ap50": "animals AP50", "ap50_any_class": "any class AP50"}
        view.add_row(
            row.name,
            f"{row.parameters / 1e6:.2f} M",
            f"{row.macs / 1e6:.0f} M",
            f"{row.milliseconds:.1f}",
            *(f"{row.quality[key]:.3f}" for key in ("ap50", "ap75", "ap")),
            ", ".join(f"{name} {row.quality[key]:.3f}" for key, name in also.items() if key in row.quality),
        )
    return view


def as_facts(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """The rows as plain values."""
    return [asdict(each) for each in scores]
