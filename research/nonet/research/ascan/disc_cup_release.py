"""Disc and cup, trained, measured through what serves beside simple baselines, and published as a version."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save

from nonet.research.ascan.disc_cup import NestedMasks, Trained, prepared, preprocessing
from nonet.research.ascan.disc_cup_files import FOLDER, LABELS, photographs
from nonet.research.ascan.disc_cup_scores import Score, score_graph
from nonet.research.ascan.fusion import fuse
from nonet.research.fasternet.onnx_export import check_batch_invariant, check_equal_to_torch, to_onnx
from nonet.research.fasternet.onnx_session import open_session, run
from nonet.research.fasternet.release import CHECK_ROWS, strip_origins
from nonet.research.systems import TrainOptions
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.manifest import DataSource, Manifest
from nonet.runtime.repository.manifest import Preprocessing as StatedPreprocessing
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import DataType, TensorSpec

FAMILY: Final = "disc_cup"
MODEL: Final = "ascan_disc_cup"
TASK: Final = "segmentation"
LICENCE: Final = "research use only, as the photographs it learnt from; not for diagnosis"
_MAX_BATCH: Final = 8


def finish(options: TrainOptions, root: Path, trained: Trained) -> list[str]:
    """Export, measure once on the photographs held back, and publish; returns lines that say what was done.

    Raises ExportError if the graph differs from PyTorch or is not batch-invariant.
    """
    side = trained.recipe.side
    spec = preprocessing(side)
    names = photographs(root, "val")[:CHECK_ROWS]
    images = np.stack([prepared(root, name, spec) for name in names])
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        to_onnx(NestedMasks(fuse(trained.network)).eval(), side, graph, ("logits",))
        strip_origins(graph)
        session = open_session(graph)
        check_equal_to_torch(session, NestedMasks(trained.network).eval(), torch.from_numpy(images))
        check_batch_invariant(session, images)
        # The photographs held back are for the published network alone: a toy is measured on the others.
        score = score_graph(graph, spec, root, "test" if options.preset == "disc_cup" else "val")
        lines = [_line(options, score)]
        if options.publish:
            made_up = _made_up(side)
            logits = run(session, made_up)[0]
            manifest = _manifest(options, trained, score, StatedPreprocessing(**spec.to_manifest()))
            config = build_config(
                _name(options),
                max_batch_size=_MAX_BATCH,
                inputs=[TensorSpec("image", DataType.FP32, (-1, 3, side, side))],
                outputs=[TensorSpec("logits", DataType.FP32, (-1, *logits.shape[1:]))],
                label_file="labels.txt",
            )
            files: dict[str, bytes | Path] = {
                "model.onnx": graph,
                "check.safetensors": save({"image": made_up, "logits": logits}),
            }
            version = publish_version(
                options.repository, _name(options), files, config, manifest, labels=LABELS, replace=True
            )
            lines.append(f"published as {version.model}, version {version.version}")
    return lines


def _made_up(side: int) -> np.ndarray:
    """Two smooth pictures (2, 3, side, side) fp32 for the check set: nobody's photographs are published."""
    coarse = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
    return F.interpolate(torch.from_numpy(coarse), size=(side, side), mode="bicubic").numpy()


def _name(options: TrainOptions) -> str:
    return MODEL if options.preset == "disc_cup" else f"{MODEL}_{options.preset}"


def _line(options: TrainOptions, score: Score) -> str:
    found = ", ".join(f"{label} {value:.3f}" for label, value in zip(LABELS, score.dice, strict=True))
    return f"{_name(options)}: Dice on {score.photographs} photographs ({score.split}): {found}"


def _manifest(options: TrainOptions, trained: Trained, score: Score, stated: StatedPreprocessing) -> Manifest:
    command = [f"nonet train ascan --preset {options.preset}", f"--seed {options.seed}"]
    if options.device != "cpu":
        command.append(f"--device {options.device}")
    if options.minutes:
        command.append(f"--minutes {options.minutes:g}")
    variant, head = trained.recipe.variant, trained.recipe.head
    return Manifest(
        files={"model.onnx": "0" * 64},  # publish_version puts the real hashes here
        source={
            "system": "ascan",
            "paper": "arXiv 2411.04967",
            "variant": f"{variant.layout}, stem {variant.stem}, widths {'/'.join(map(str, variant.widths))}",
            "head": f"UperNet of width {head.width}, pooled to {'/'.join(map(str, head.pooled))}",
            "masks": "independent",
            **trained.facts,
        },
        command=" ".join(command),
        data=(
            DataSource(
                name=f"{FOLDER} (train)",
                licence="research use",
                origin="Drishti-GS1, Sivaswamy et al., ISBI 2014 and JSM Biomedical Imaging 2015",
            ),
        ),
        quality=score.quality(),
        licence=LICENCE,
        credit="Trained by Nonet from random weights. Photographs: Aravind Eye Hospital, Madurai, and IIIT "
        "Hyderabad.",
        task=TASK,
        family=FAMILY,
        preprocessing=stated,
        check_set="check.safetensors",
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
