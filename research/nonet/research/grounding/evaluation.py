"""Published matchers on expressions that nothing was trained on or chosen by, beside baselines.

Human expressions and phrases by rule on real photographs, with our own detector and with YOLOX-Nano where it
is at hand, in one pass and at their best; and RefCOCO's held-back pictures by text and boxes alone.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from nonet.research.detection.pictures import coco_names
from nonet.research.fasternet.grocery_files import data_root
from nonet.research.fasternet.onnx_session import open_session
from nonet.research.grounding.photographs import Photograph, reported
from nonet.research.grounding.proposals import OWN, Find, propose, published_detector, yolox
from nonet.research.grounding.refcoco import REPORTED_PICTURES, refcoco_examples
from nonet.research.grounding.scenes import Example, Floats, Scene, part_of
from nonet.research.grounding.scoring import (
    Choose,
    Forward,
    Outcome,
    accuracy_of,
    baselines,
    by_matcher,
    measured,
)
from nonet.research.grounding.states import TextStates, encoder_of
from nonet.research.grounding.wording import KINDS
from nonet.research.systems import EvaluateOptions
from nonet.runtime.images.regions import LOOKS
from nonet.runtime.repository.layout import VersionFolder, read_model, scan
from nonet.runtime.repository.manifest import Manifest, read_manifest

__all__ = ["evaluate_all", "forward_of", "published"]

_BATCH = 16
#: Least score of YOLOX-Nano's boxes; chosen where the matchers' own choices are made.
YOLOX_LEAST = 0.1


@dataclass(frozen=True, eq=False)
class _Ready:
    """A published matcher with what it needs to be asked."""

    folder: VersionFolder
    manifest: Manifest
    forward: Forward


def published(repository: Path) -> list[tuple[VersionFolder, Manifest]]:
    """Newest version of each matcher. Raises FileNotFoundError if there is none."""
    found = []
    for name in scan(repository) if repository.is_dir() else ():
        folder = read_model(repository, name)
        if folder is None or not folder.versions:
            continue
        manifest = read_manifest(folder.versions[-1].path / "manifest.json")
        if (
            manifest is not None
            and manifest.task == "ground"
            and manifest.source.get("system") == "grounding"
        ):
            found.append((folder.versions[-1], manifest))
    if not found:
        raise FileNotFoundError("no matcher in the repository: train one first, nonet train grounding")
    return found


def evaluate_all(options: EvaluateOptions) -> None:
    """Measure, print a table, write facts if asked. Raises FileNotFoundError where something is absent."""
    root = data_root()
    versions = published(options.repository)
    classes = coco_names(root)
    photographs = reported(root)
    console = Console(width=None if os.isatty(1) else 140)
    facts: dict[str, Any] = {
        "command": "nonet evaluate grounding",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hit": "IoU above 0.5",
        "interval": "95 %, by resampling pictures",
        "matchers": {},
    }
    for folder, manifest in versions:
        ready = _Ready(folder, manifest, forward_of(open_session(folder.path / "model.onnx")))
        states = TextStates(None)
        encoder = encoder_of((folder.path / "tokenizer.json").read_bytes())
        told = [each.expression for photograph in photographs for each in photograph.examples]
        states.add([*classes, *told, *_in_mirror(told)], encoder)
        found = _on_photographs(ready, photographs, states, classes, options.repository, root)
        held = [each for each in refcoco_examples(root, classes) if part_of(each.scene.picture) == "report"]
        states.add([each.expression for each in held], encoder)
        found["RefCOCO, marked boxes"] = {"one pass": _on_marked(ready, held, states, classes)}
        facts["matchers"][folder.model] = found
        console.print(_table(folder.model, found))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        console.print(f"results in {options.output}")


def _in_mirror(texts: Sequence[str]) -> list[str]:
    from nonet.research.grounding.wording import mirrored

    return [mirrored(each) for each in texts]


def forward_of(session: onnxruntime.InferenceSession) -> Forward:
    """Shares (B, R + 1) by a published graph."""
    names = [port.name for port in session.get_inputs()]
    length = session.get_inputs()[names.index("tokens")].shape[1]

    def forward(inputs: tuple[np.ndarray, ...]) -> Floats:
        padded = list(inputs)
        for place in (-2, -1):  # tokens and their mask
            missing = length - inputs[place].shape[1]
            widths = [(0, 0), (0, missing), *([(0, 0)] * (inputs[place].ndim - 2))]
            padded[place] = np.pad(inputs[place], widths)
        rows = []
        for start in range(0, len(inputs[0]), _BATCH):
            part = {name: each[start : start + _BATCH] for name, each in zip(names, padded, strict=True)}
            scores, nothing = session.run(["scores", "nothing"], part)
            rows.append(np.concatenate([scores, np.asarray(nothing)[:, None]], axis=1))
        return np.concatenate(rows)

    return forward


def _on_photographs(
    ready: _Ready,
    photographs: Sequence[Photograph],
    states: TextStates,
    classes: list[str],
    repository: Path,
    root: Path,
) -> dict[str, Any]:
    """By detector, quality and method: figures of every group of expressions."""
    names = np.stack([states.whole(name) for name in classes])
    detector: Any = ready.manifest.source.get("detector", {})
    detectors: list[tuple[str, Find, float]] = [
        (OWN, published_detector(repository), float(detector.get("score_threshold", 0.05)))
    ]
    if (root / "yolox_nano_coco" / "yolox_nano.onnx").is_file():
        detectors.append(("yolox_nano", yolox(root), YOLOX_LEAST))
    found: dict[str, Any] = {}
    for label, find, least in detectors:
        for quality in ("one pass", "best"):
            best = quality == "best"
            scenes = [
                (propose(each.picture, each.name, find, least, best), each.examples) for each in photographs
            ]
            methods: dict[str, Choose] = {
                **baselines(states, names, classes),
                "matcher": by_matcher(ready.forward, states, names, best=best),
            }
            found.setdefault(label, {"score_threshold": least})[quality] = {
                method: _groups(measured(scenes, choose)) for method, choose in methods.items()
            }
    return found


def _groups(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Figures of human expressions, also by kind, of phrases by rule, of all, of those that mean nothing."""
    real = [each for each in outcomes if not each.empty]
    human = [each for each in real if each.origin == "human"]
    known = {f"{number:012d}.jpg" for number in REPORTED_PICTURES}
    groups: dict[str, Any] = {
        "human": accuracy_of(human),
        **{f"human, {kind}": accuracy_of([each for each in human if each.kind == kind]) for kind in KINDS},
        "human, pictures no detector of ours learnt from": accuracy_of(
            [each for each in human if each.picture not in known]
        ),
        "phrases by rule": accuracy_of([each for each in real if each.origin != "human"]),
        "all": accuracy_of(real),
    }
    empty = [each for each in outcomes if each.empty]
    groups["nothing meant"] = {
        "count": len(empty),
        "said so": sum(each.hit for each in empty),
        "mean probability": round(float(np.mean([each.nothing for each in empty])), 3) if empty else None,
        "mean probability elsewhere": round(float(np.mean([each.nothing for each in real])), 3),
    }
    return groups


def _on_marked(
    ready: _Ready, held: Sequence[Example], states: TextStates, classes: list[str]
) -> dict[str, Any]:
    """RefCOCO's pictures for reporting: the choice among the boxes that people marked, without looks."""
    names = np.stack([states.whole(name) for name in classes])
    by_scene: dict[str, tuple[Scene, list[Example]]] = {}
    for each in held:
        scene = each.scene
        plain = Scene(
            scene.picture,
            scene.boxes,
            scene.names,
            scene.scores,
            np.zeros((len(scene.boxes), LOOKS), np.float32),
            scene.aspect,
        )
        by_scene.setdefault(scene.picture, (plain, []))[1].append(each)
    methods = {**baselines(states, names, classes), "matcher": by_matcher(ready.forward, states, names)}
    found = {}
    for method, choose in methods.items():
        outcomes = measured(list(by_scene.values()), choose)
        found[method] = {
            "human": accuracy_of(outcomes),
            **{
                f"human, {kind}": accuracy_of([each for each in outcomes if each.kind == kind])
                for kind in KINDS
            },
        }
    return found


def _table(model: str, found: dict[str, Any]) -> Table:
    view = Table(title=f"{model}: accuracy at IoU above 0.5", title_justify="left")
    for heading in ("detector", "quality", "method", "human", "interval", "phrases", "all", "bound"):
        view.add_column(heading, justify="left" if heading in ("detector", "quality", "method") else "right")
    for label, qualities in found.items():
        for quality in ("one pass", "best"):
            for method, groups in qualities.get(quality, {}).items():
                human, phrases, both = (groups.get(name) for name in ("human", "phrases by rule", "all"))
                view.add_row(
                    *(label, quality, method, f"{human['accuracy']:.3f}"),
                    f"{human['low']:.3f} to {human['high']:.3f}",
                    *(f"{each['accuracy']:.3f}" if each else "" for each in (phrases, both)),
                    f"{human['bound']:.3f}",
                )
    return view
