"""Scores of the published versions: what their pictures show, how near to real ones, and at what cost."""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nonet.research.snapgen import prompts as asked_for
from nonet.research.snapgen.bank import Bank
from nonet.research.snapgen.decoder_training import psnr
from nonet.research.snapgen.diffusing import HeldLoss
from nonet.research.snapgen.emoji_files import HELD_PAIR
from nonet.research.snapgen.gallery import grid_prompts, write_curve, write_grid
from nonet.research.snapgen.generation import Texts, sample
from nonet.research.snapgen.packing import read_rows
from nonet.research.snapgen.scores import Retrieval, frechet_distance, hue_score
from nonet.research.snapgen.text_states import TextEncoder
from nonet.research.systems import EvaluateOptions

PACKED = Path("runs/snapgen/packed64")
#: Prompts of each kind, and of colours.
COUNT, COLOURS = 64, 56
_FEATURES = "efficientnet_lite0_grocery"


class Version:
    """A published version as the server runs it: one thread of ONNX Runtime.

    Args:
        folder: of the version.

    Callable like the network: latents, time, context, mask -> velocity, all torch tensors.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.parent.name
        self.source: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))[
            "source"
        ]
        self.tokenizer = folder / "tokenizer.json"
        self._network = _session(folder / "model.onnx")
        self._decoder = _session(folder / "decoder.onnx")
        self.stochastic = self.source["sampler"] == "few_step"

    def __call__(self, latents: Tensor, time: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        given = {"latents": latents, "time": time, "context": context, "context_mask": mask}
        arrays = {name: np.ascontiguousarray(value.numpy()) for name, value in given.items()}
        return torch.from_numpy(self._network.run(["velocity"], arrays)[0])

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in 0..1."""
        parts = [self._decoder.run(["image"], {"latents": each.numpy()})[0] for each in latents.split(16)]
        return torch.from_numpy(np.concatenate(parts))

    def make(self, texts: Texts, side: int, steps: int | None = None, seed: int = 0) -> Tensor:
        """Latents of prompts, by the sampler and the guidance of the manifest."""
        return sample(
            self,
            texts,
            (32, side // 8, side // 8),
            steps=steps or int(self.source["steps"]),
            guidance=float(self.source["guidance_scale"]),
            seed=seed,
            stochastic=self.stochastic,
        )


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def versions(repository: Path) -> list[Version]:
    """The newest version of every model of the emoji family. Raises FileNotFoundError if there is none."""
    found = []
    for model in sorted(repository.glob("*emoji*")):
        numbers = sorted(int(each.name) for each in model.iterdir() if each.name.isdigit())
        if numbers:
            found.append(Version(model / str(numbers[-1])))
    if not found:
        raise FileNotFoundError(f"no model of the emoji family in {repository}: train and publish one")
    return found


def evaluate_all(options: EvaluateOptions) -> None:
    """Scores of every version, as a table and as a file if asked; `options.weights` may name what is packed.

    Raises FileNotFoundError where there is no version or nothing is packed.
    """
    folder = options.weights or PACKED
    bank = Bank(folder)
    found = versions(options.repository)
    scores = {each.name: score_version(each, bank, folder, options.repository) for each in found}
    facts = {
        "command": "nonet evaluate snapgen",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seed": 0,
        "prompts": {"each": COUNT, "colours": COLOURS},
        "real_pictures": real_pictures(bank, options.repository, folder),
        "versions": scores,
    }
    console = Console(width=None if os.isatty(1) else 140)
    console.print(_table(scores))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        for each in found:
            texts = Texts.of(TextEncoder(each.tokenizer), grid_prompts(bank))
            pictures = each.decode(each.make(texts, bank.side))
            write_grid(pictures, options.output.with_name(f"{each.name}.webp"))
        runs = [(name, folder.parent / name) for name in ("emoji_teacher", "emoji", "emoji_few_step")]
        write_curve(
            [(name, run) for name, run in runs if (run / "log.jsonl").exists()],
            options.output.with_name("snapgen_loss.png"),
        )
        console.print(f"results, grids and the loss curve in {options.output.parent}")


def score_version(version: Version, bank: Bank, folder: Path, repository: Path) -> dict[str, Any]:
    """All scores of a version."""
    encoder, retrieval = TextEncoder(version.tokenizer), Retrieval(bank)
    facts: dict[str, Any] = {"sampler": version.source["sampler"], "steps": version.source["steps"]}
    begun = time.process_time()
    made = 0
    for label, asked in asked_for.parts(bank, COUNT).items():
        latents = version.make(Texts.of(encoder, asked.prompts), bank.side)
        made += len(latents)
        facts[label] = _rounded(retrieval.score(latents, asked.names))
        if label == "held_back_pairs":
            facts["cpu_seconds_per_picture"] = round((time.process_time() - begun) / made, 3)
            facts["frechet"] = _frechet(version.decode(latents), folder, bank, repository)
            if not version.stochastic:
                few = version.make(Texts.of(encoder, asked.prompts), bank.side, steps=4)
                facts["held_back_pairs_euler_4"] = _rounded(retrieval.score(few, asked.names))
    hues = asked_for.colours(bank, COLOURS)
    pictures = version.decode(version.make(Texts.of(encoder, hues.prompts), bank.side))
    facts["colour_asked_for"] = round(hue_score(pictures, hues.names), 3)
    if not version.stochastic:
        facts["loss"] = _rounded(HeldLoss(bank)(version))
    held = bank.of_part(HELD_PAIR)
    wanted = read_rows(folder, "pictures")[held].float() / 255
    facts["decoder_psnr"] = round(psnr(version.decode(bank.latents(held)), wanted), 2)
    return facts


def real_pictures(bank: Bank, repository: Path, folder: Path) -> dict[str, Any]:
    """What real pictures would score: those held back among all others, and their Fréchet distance to as
    many of the training."""
    facts: dict[str, Any] = {}
    retrieval = Retrieval(bank)
    held = bank.of_part(HELD_PAIR)
    names = [str(bank.examples[int(i)]["name"]) for i in held]
    facts["held_back_pairs"] = _rounded(retrieval.score(bank.latents(held), names, leave_out_itself=True))
    training = read_rows(folder, "pictures")[bank.of_part("train")[:: len(bank) // COUNT][:COUNT]]
    facts["frechet"] = _frechet(training.float() / 255, folder, bank, repository)
    return facts


def _frechet(pictures: Tensor, folder: Path, bank: Bank, repository: Path) -> float | None:
    """Distance of pictures to those held back by features of our grocery classifier; None without it."""
    graph = repository / _FEATURES / "1" / "model.onnx"
    if not graph.exists():
        return None
    from nonet.research.snapgen.picture_features import PictureFeatures

    features = PictureFeatures(graph)
    real = read_rows(folder, "pictures")[bank.of_part(HELD_PAIR)].float() / 255
    return round(frechet_distance(features(pictures), features(real)), 3)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _table(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="emoji family: share of pictures whose nearest real ones bear the name asked for")
    for column in ("model", "steps", "training", "held back", "unseen", "colour", "Fréchet", "CPU s/picture"):
        table.add_column(column)
    for name, facts in scores.items():
        shares = [
            f"{facts[part]['top1']:.2f} / {facts[part]['top10']:.2f}"
            for part in ("training_pairs", "held_back_pairs", "unseen_names")
        ]
        table.add_row(
            name,
            str(facts["steps"]),
            *shares,
            f"{facts['colour_asked_for']:.2f}",
            str(facts["frechet"]),
            f"{facts['cpu_seconds_per_picture']:.3f}",
        )
    return table
