"""Accuracy of published networks on the grocery data, through what is served.

Nothing of the training code takes part: encoded pictures are decoded and prepared by the product's own path,
the answers come from `model.onnx` in ONNX Runtime.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nonet.research.fasternet.grocery_files import grocery_rows, load_classes
from nonet.research.fasternet.onnx_session import open_session, run
from nonet.runtime.images import Preprocessing, decode_image, preprocess
from nonet.runtime.repository.layout import VersionFolder, read_model, scan
from nonet.runtime.repository.manifest import Manifest, read_manifest

FAMILY = "grocery"
_BATCH = 32


@dataclass(frozen=True)
class Score:
    """One row of the results: top-1 in percent, 95 % interval of the fine figure, size and cost of one
    picture.
    """

    name: str
    version: str
    split: str
    pictures: int
    fine: float
    fine_low: float
    fine_high: float
    coarse: float
    parameters: int
    macs: int
    megabytes: float
    paper_imagenet: float | None


@dataclass(frozen=True)
class Baseline:
    """The comparison that needs no network of ours."""

    name: str
    fine: float
    coarse: float
    source: str


#: Measured for the data set's documentation by its preparers; `nonet evaluate --baseline` measures it again.
STATED_BASELINE = Baseline(
    "linear probe, frozen EfficientNet-Lite0", 62.9, 75.2, "as stated with the data set"
)


def members(repository: Path) -> list[tuple[VersionFolder, Manifest]]:
    """Newest version of each network of the family, smallest file first. Raises FileNotFoundError if there is
    none.
    """
    found = []
    for name in scan(repository) if repository.is_dir() else ():
        folder = read_model(repository, name)
        if folder is None or not folder.versions:
            continue
        newest = folder.versions[-1]
        manifest = read_manifest(newest.path / "manifest.json")
        if manifest is not None and manifest.family == FAMILY:
            found.append((newest, manifest))
    if not found:
        raise FileNotFoundError(f"no network of the family '{FAMILY}' in the repository: train one first")
    return sorted(found, key=lambda item: (item[0].path / "model.onnx").stat().st_size)


def pictures(
    root: Path, split: str, spec: Preprocessing
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches (images (B, 3, H, W) fp32, fine (B,), coarse (B,)) through the served path."""
    rows = grocery_rows(root, split)
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        images = [
            preprocess(
                decode_image((root / "grocery_128" / row["image"]).read_bytes(), target=spec.target), spec
            )
            for row in part
        ]
        yield (
            np.stack(images),
            np.array([int(row["fine_id"]) for row in part]),
            np.array([int(row["coarse_id"]) for row in part]),
        )


def interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion, in percent."""
    z, p = 1.96, correct / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * ((p * (1 - p) / count + z * z / (4 * count * count)) ** 0.5)
    return 100 * (middle - reach), 100 * (middle + reach)


def graph_size(path: Path) -> tuple[int, int]:
    """(parameters, multiply-accumulates of a picture) of a graph whose weights are all in convolutions."""
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    sizes = {value.name: list(value.dims) for value in model.graph.initializer}
    shapes: dict[str, list[int]] = {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    }
    for node in model.graph.node:  # the weights of a quantised graph stand before such a node
        if node.op_type == "DequantizeLinear" and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
    weights = macs = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            weights += sum(int(np.prod(sizes[name])) for name in node.input[1:])
            macs += int(np.prod(shapes[node.output[0]]) * np.prod(sizes[node.input[1]][1:]))
    return weights, macs


def score(root: Path, folder: VersionFolder, manifest: Manifest, split: str) -> Score:
    """Measure one network on one split."""
    assert manifest.preprocessing is not None
    spec = Preprocessing.from_manifest(manifest.preprocessing.model_dump())
    session = open_session(folder.path / "model.onnx")
    to_coarse = np.array(load_classes(root).coarse_of_fine)
    right_fine = right_coarse = count = 0
    for images, fine, coarse in pictures(root, split, spec):
        guess = run(session, images)[0].argmax(1)
        right_fine += int((guess == fine).sum())
        right_coarse += int((to_coarse[guess] == coarse).sum())
        count += len(fine)
    low, high = interval(right_fine, count)
    graph = folder.path / "model.onnx"
    weights, macs = graph_size(graph)
    published = manifest.source.get("paper_imagenet_top1")
    return Score(
        name=folder.model,
        version=folder.version,
        split=split,
        pictures=count,
        fine=100 * right_fine / count,
        fine_low=low,
        fine_high=high,
        coarse=100 * right_coarse / count,
        parameters=weights,
        macs=macs,
        megabytes=graph.stat().st_size / 1e6,
        paper_imagenet=float(published) if isinstance(published, int | float) else None,
    )


def as_json(scores: list[Score], baselines: list[Baseline], facts: dict[str, Any]) -> str:
    """The results file."""
    content = {
        **facts,
        "members": [asdict(item) for item in scores],
        "baselines": [asdict(item) for item in baselines],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
