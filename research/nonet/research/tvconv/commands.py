"""`nonet train tvconv` and `nonet evaluate tvconv`: runs with their files, progress and tables."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from nonet.research.fasternet.grocery_files import data_root
from nonet.research.systems import EvaluateOptions, TrainOptions
from nonet.research.tvconv.face_files import PARTS, Faces, load_faces
from nonet.research.tvconv.face_scores import (
    FaceScore,
    as_facts,
    baseline_scores,
    best_threshold,
    graph_embeddings,
    score,
    scores_of,
)
from nonet.runtime.errors import InvalidArgument, NotFound
from nonet.runtime.repository.layout import read_model
from nonet.runtime.repository.manifest import read_manifest

if TYPE_CHECKING:
    from nonet.research.tvconv.speed import Timing

MODEL = "tvconv_faces"
PAPER = (
    "The paper (abstract): up to +4.21 points of mean accuracy at equal multiply-adds, up to 3.1 times fewer "
    "of them and 2.3 times the throughput at like accuracy, after 329 thousand faces of 10,572 persons."
)
LEAST_RECALL = 0.8
"""Share of the faces that its teacher is sure of which a detector must find to be published with the
network."""

_TINY_STEPS = 3


def train(options: TrainOptions) -> None:
    """Train the face network, the same one with depthwise convolutions, and the detector; then publish.

    Raises InvalidArgument for a variant or `compiled`, a device that is not there, or absent data.
    """
    import torch

    from nonet.research.devices import usable_device

    if options.variant is not None:
        raise InvalidArgument("tvconv has no variants; choose by --preset", param="variant")
    if options.compiled:
        raise InvalidArgument("tvconv does not compile its networks; leave out --compile", param="compile")
    torch.set_num_threads(options.threads)
    run = FaceRun(options, options.data or data_root(), usable_device(options.device))
    run.train()
    if options.publish:
        console().print(f"published {run.publish()}")


@dataclass
class FaceRun:
    """One run of a preset: three networks, each with its checkpoint, trained one after the other.

    `--minutes` is the wall time of each of the three.
    """

    options: TrainOptions
    root: Path
    device: object
    networks: dict[str, object] = field(default_factory=dict)

    def train(self) -> None:
        """Train what is not trained yet; with `resume`, go on where it stopped."""
        import torch

        from nonet.research.tvconv.detector_data import load_photographs
        from nonet.research.tvconv.detector_training import DetectorRecipe, is_finished, train_detector
        from nonet.research.tvconv.face_training import FaceRecipe, train_faces

        assert isinstance(self.device, torch.device)
        options, tiny = self.options, self.options.preset == "tiny"
        faces = replace(FaceRecipe(), seed=options.seed, minutes=options.minutes or 0.0)
        detector = replace(DetectorRecipe(), seed=options.seed, minutes=options.minutes or 0.0)
        if tiny:
            faces, detector = replace(faces, steps=_TINY_STEPS), replace(detector, steps=_TINY_STEPS, batch=2)
        self.parts = {part: load_faces(self.root, part) for part in PARTS}
        for operator in ("tvconv", "depthwise"):
            self.networks[operator] = train_faces(
                replace(faces, network=replace(faces.network, operator=operator)),
                self.parts["train"],
                self.parts["val"],
                self.checkpoint(operator),
                device=self.device,
                resume=options.resume,
                report=reporter(operator),
            )
        done = options.resume and is_finished(self.checkpoint("detector"), detector)
        self.networks["detector"] = train_detector(
            detector,
            [] if done else load_photographs(self.root, "train"),
            self.checkpoint("detector"),
            device=self.device,
            resume=options.resume,
            report=reporter("detector"),
        )

    def checkpoint(self, name: str) -> Path:
        """File of one network's run."""
        return self.options.runs / self.options.preset / f"{name}.pt"

    def publish(self) -> Path:
        """Measure on the persons held back, and write a version; with the detector if it is good enough."""
        from nonet.research.tvconv.augment import whole_faces
        from nonet.research.tvconv.detector import FaceDetector
        from nonet.research.tvconv.face_release import FaceRelease, publish_faces
        from nonet.research.tvconv.face_training import as_tensor
        from nonet.research.tvconv.mobilenet import FaceNet, embed

        network, control = self.networks["tvconv"], self.networks["depthwise"]
        detector = self.networks["detector"]
        assert isinstance(network, FaceNet)
        assert isinstance(control, FaceNet)
        assert isinstance(detector, FaceDetector)
        size = network.config.size

        def by(of: FaceNet) -> Callable[[Faces], object]:
            return lambda faces: embed(of, whole_faces(as_tensor(faces), size)).double().numpy()

        val, test = self.parts["val"], self.parts["test"]
        threshold = best_threshold(by(network)(val), val)  # type: ignore[arg-type]
        found = {
            part: score(part, by(network)(faces), faces, threshold)  # type: ignore[arg-type]
            for part, faces in (("val", val), ("test", test))
        }
        plain = {
            part: scores_of(part, by(control), val, faces)  # type: ignore[arg-type]
            for part, faces in (("val", val), ("test", test))
        }
        seen = self._detection(detector, by(network), threshold)
        found_enough = float(seen["detector_recall"]) >= LEAST_RECALL
        console().print(f"the detector{'' if found_enough else ', too poor to be published'}: {seen}")
        quality = {
            **as_facts(found["test"]),
            **as_facts(found["val"], "val_"),
            **as_facts(plain["test"], "depthwise_"),
            **as_facts(plain["val"], "depthwise_val_"),
            **(seen if found_enough else {}),
            "dataset": "caltech_faces and orl_faces",
            "split": "test: persons held back",
        }
        release = FaceRelease(
            command=command_line(self.options), threshold=threshold, quality=quality, facts=self._facts()
        )
        folder = publish_faces(
            self.options.repository,
            MODEL,
            network,
            detector if found_enough else None,
            release,
            replace=False,
        )
        return folder.path

    def _detection(
        self, detector: object, embed_faces: Callable[[Faces], object], threshold: float
    ) -> dict[str, float | int | str]:
        """What the detector finds of what its teacher finds, and verification on photographs end to end."""
        from nonet.research.tvconv.detector import FaceDetector
        from nonet.research.tvconv.detector_data import load_photographs
        from nonet.research.tvconv.detector_scores import photographed_faces
        from nonet.research.tvconv.detector_training import agreement

        assert isinstance(detector, FaceDetector)
        seen = agreement(detector, load_photographs(self.root, "test"))
        faces, photographs = photographed_faces(self.root, "test", detector, 0.5)
        facts: dict[str, float | int | str] = {
            "detector_faces": seen.faces,
            "detector_recall": round(seen.recall, 4),
            "detector_precision": round(seen.precision, 4),
            "detector_landmark_error": round(seen.landmark_error, 4),
            "photographs": photographs,
            "photographs_found": len(faces),
        }
        if len(set(faces.persons.tolist())) > 1:
            own = score("photographs", embed_faces(faces), faces, threshold)  # type: ignore[arg-type]
            facts |= {"photographs_eer": own.eer, "photographs_accuracy": own.accuracy}
        return facts

    def _facts(self) -> dict[str, object]:
        """What the manifest says of the runs."""
        from nonet.research.fasternet.training import load_checkpoint

        runs = {}
        for name in self.networks:
            stored = load_checkpoint(self.checkpoint(name))
            seconds = float(stored["seconds"])  # type: ignore[arg-type]
            runs[name] = f"{stored['step']} steps in {seconds / 60:.0f} minutes"
        return {"seed": str(self.options.seed), "device": self.options.device, "runs": runs}


def reporter(stage: str) -> Callable[[dict[str, float | int | str]], None]:
    """A line of JSON for each report: runs are followed in a log."""
    return lambda line: print(json.dumps({"stage": stage, **line}), flush=True)


def command_line(options: TrainOptions) -> str:
    """The command of a run, for its manifest."""
    parts = [f"nonet train tvconv --preset {options.preset}", f"--seed {options.seed}"]
    if options.device != "cpu":
        parts.append(f"--device {options.device}")
    if options.minutes:
        parts.append(f"--minutes {options.minutes:g}")
    return " ".join(parts)


def console() -> Console:
    return Console(width=None if os.isatty(1) else 140)


def evaluate(options: EvaluateOptions) -> None:
    """Verification of the published network beside simple ones, and TVConv's speed beside depthwise.

    `--split val|test`; the method `speed` times the paper's networks, `faces` verifies; without a method
    both. Raises InvalidArgument for another split or method, NotFound without a published network.
    """
    if options.split not in ("val", "test"):
        raise InvalidArgument("tvconv has the splits val and test", param="split")
    methods = options.methods or ("faces", "speed")
    if unknown := set(methods) - {"faces", "speed"}:
        raise InvalidArgument(f"unknown method '{min(unknown)}'; known: faces, speed", param="method")
    out, results = console(), {"command": f"nonet evaluate tvconv --split {options.split}"}
    if "faces" in methods:
        scores, facts = face_scores(options)
        out.print(face_table(scores, options.split))
        out.print(f"The same network with depthwise convolutions, measured when it was trained: {facts}")
        results["faces"] = [asdict(each) for each in scores]  # type: ignore[assignment]
        results["depthwise"] = facts  # type: ignore[assignment]
    if "speed" in methods:
        from nonet.research.tvconv.speed import compare

        timings = compare()
        out.print(speed_table(timings))
        results["speed"] = [asdict(each) for each in timings]  # type: ignore[assignment]
    out.print(PAPER)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        out.print(f"results in {options.output}")


def face_scores(options: EvaluateOptions) -> tuple[list[FaceScore], dict[str, float | int | str]]:
    """The published network and the baselines on one split, and the manifest's figures of depthwise."""
    model = read_model(options.repository, MODEL)
    if model is None or not model.versions:
        raise NotFound(f"there is no {MODEL} in {options.repository}: train it first", param="model")
    newest = max(model.versions, key=lambda version: int(version.version))
    manifest = read_manifest(newest.path / "manifest.json")
    assert manifest is not None
    assert manifest.preprocessing is not None
    root = data_root()
    train_faces, val = load_faces(root, "train"), load_faces(root, "val")
    faces = val if options.split == "val" else load_faces(root, options.split)
    embeddings = graph_embeddings(newest.path / "model.onnx", faces, manifest.preprocessing.crop)
    own = score(MODEL, embeddings, faces, float(manifest.source["threshold"]))
    prefix = "depthwise_val_" if options.split == "val" else "depthwise_"
    facts = {
        name: value
        for name, value in manifest.quality.items()
        if name.startswith(prefix) and (prefix != "depthwise_" or not name.startswith("depthwise_val_"))
    }
    return [own, *baseline_scores(train_faces, val, faces)], facts


def face_table(scores: list[FaceScore], split: str) -> Table:
    """Verification figures as a table."""
    first = scores[0]
    view = Table(
        title=f"{first.persons} persons of {split}, {first.pictures} pictures, {first.pairs} pairs",
        title_justify="left",
    )
    for heading in ("", "EER %", *first.eer_by_set, "AUC", "accepted at 1 % FA", "ten-fold %", "accuracy %"):
        view.add_column(heading, justify="right" if heading else "left")
    for row in scores:
        view.add_row(
            row.name,
            f"{100 * row.eer:.1f}",
            *(f"{100 * value:.1f}" for value in row.eer_by_set.values()),
            f"{row.auc:.3f}",
            f"{100 * row.accepted:.1f}",
            f"{100 * row.ten_fold:.1f}",
            f"{100 * row.accuracy:.1f}",
        )
    return view


def speed_table(timings: list[Timing]) -> Table:
    """Times as a table, each beside depthwise of the same width."""
    batches = list(timings[0].milliseconds)
    view = Table(title="ONNX Runtime, one thread, 96 x 96, shortest of twelve runs", title_justify="left")
    for heading in ("network", "form", *(f"batch {batch}: ms (x depthwise)" for batch in batches)):
        view.add_column(heading, justify="left" if heading in ("network", "form") else "right")
    base = {each.network: each.milliseconds for each in timings if each.form == "depthwise"}
    for each in timings:
        cells = (
            f"{each.milliseconds[batch]:.2f} ({each.milliseconds[batch] / base[each.network][batch]:.2f})"
            for batch in batches
        )
        view.add_row(each.network, each.form, *cells)
    return view
