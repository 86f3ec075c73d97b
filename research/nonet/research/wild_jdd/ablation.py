"""Effect A: does training on the ELBO beat training on L2 or L1 when the ground truth is imperfect?

All runs share network, patches, noise, batches and number of steps, per seed; only the loss and the state of
the ground truth differ. Testing is always against clean originals.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nonet.research.wild_jdd.classic import make_network
from nonet.research.wild_jdd.defects import DefectConfig
from nonet.research.wild_jdd.degradation import PriorConfig, VarianceSource
from nonet.research.wild_jdd.network import NETWORKS
from nonet.research.wild_jdd.noise import NoiseRange
from nonet.research.wild_jdd.photographs import PatchSource, load_training_set
from nonet.research.wild_jdd.scoring import PictureSet, load_pictures, score
from nonet.research.wild_jdd.train import Loss, TrainConfig, Trainer

WATCHED = {"kodak": (1, 8), "mcmaster": (1, 5)}  # pictures looked at while a run goes on
LOOKS = 5


@dataclass(frozen=True)
class Variant:
    """One run of the comparison."""

    name: str
    loss: Loss
    spoiled: float = 0.0
    seed: int = 0
    balance: float = 1.0
    source: VarianceSource = VarianceSource.TRUE_MAP
    judged: bool = False
    image_first: float = 0.0

    def config(self, steps: int) -> TrainConfig:
        """Training configuration: the small network, 64-pixel patches."""
        return TrainConfig(
            network=replace(NETWORKS["small"], error_scale=0),
            loss=self.loss,
            prior=PriorConfig(source=self.source, judged=self.judged),
            noise=NoiseRange(clean=0.15, varying=0.3, signal_dependent=0.0),
            patches=PatchSource(size=64, full_size_share=0.15, saturate=0.2),
            defects=DefectConfig(share=self.spoiled),
            steps=steps,
            batch=12,
            rate=2e-3,
            balance=self.balance,
            image_first=self.image_first,
            average=0.995,
            border=6,
            seed=self.seed,
        )


def variants(seeds: Sequence[int] = (0, 1)) -> list[Variant]:
    """Losses with clean and with half-spoiled ground truth, seed by seed, then the loss's own variants."""
    runs = []
    for seed in seeds:
        for share in (0.5, 0.0):
            truth = "half spoiled truth" if share else "clean truth"
            runs.append(Variant(f"elbo, {truth}", Loss.ELBO, share, seed))
            runs.append(Variant(f"elbo with judged truth, {truth}", Loss.ELBO, share, seed, judged=True))
            runs.append(
                Variant(
                    f"l2 then elbo with judged truth, {truth}",
                    Loss.ELBO,
                    share,
                    seed,
                    judged=True,
                    image_first=1 / 3,
                )
            )
            runs.append(Variant(f"l2, {truth}", Loss.L2, share, seed))
            if seed == seeds[0]:
                runs.append(Variant(f"l1, {truth}", Loss.L1, share, seed))
    runs.append(Variant("elbo unbalanced, clean truth", Loss.ELBO, balance=0.0))
    runs.append(
        Variant(
            "elbo with residual variance, half spoiled truth", Loss.ELBO, 0.5, source=VarianceSource.RESIDUAL
        )
    )
    return runs


def train_and_watch(trainer: Trainer, crops: Sequence[PictureSet]) -> dict[int, float]:
    """Train to the end; mean PSNR (10 px cut) on some crops at sigma 5 and 15 by step, against clean truth.

    A loss that fits defects of the truth would rise here first and then fall.
    """
    curve: dict[int, float] = {}
    marks = {round(trainer.config.steps * part / LOOKS) for part in range(1, LOOKS + 1)}
    while trainer.fraction < 1:
        trainer.advance()
        if trainer.step in marks:
            method = make_network(trainer.evaluated_network())
            found = [score(method, each, sigma, seed=7).psnr_cut for each in crops for sigma in (5.0, 15.0)]
            curve[trainer.step] = round(sum(found) / len(found), 3)
    return curve


def run_ablation(
    folder: Path,
    *,
    steps: int,
    seeds: Sequence[int] = (0, 1),
    sigmas: Sequence[float] = (5.0, 15.0),
    report: Callable[[str], None] | None = None,
) -> list[dict[str, object]]:
    """Train and score every variant; finished ones are read from `folder`, so a broken run goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = load_training_set()
    sets = [load_pictures("kodak"), load_pictures("mcmaster")]
    crops = [each.central(256, WATCHED[each.name]) for each in sets]
    rows: list[dict[str, object]] = []
    for variant in variants(seeds):
        done = folder / f"{variant.name.replace(', ', '-').replace(' ', '_')}-{variant.seed}.json"
        if done.is_file():
            rows += json.loads(done.read_text())
            continue
        trainer = Trainer(variant.config(steps), pictures)
        curve = train_and_watch(trainer, crops)
        method = make_network(trainer.evaluated_network())
        found = [
            {
                "variant": variant.name,
                "seed": variant.seed,
                "steps": trainer.step,
                "set": pictures_of.name,
                "sigma": sigma,
                **score(method, pictures_of, sigma, seed=7).to_json(),
                "curve": curve,
            }
            for pictures_of in sets
            for sigma in sigmas
        ]
        done.write_text(json.dumps(found, indent=1))
        rows += found
        if report is not None:
            cells = " ".join(f"{row['set']}@{row['sigma']:g}={row['psnr_cut']:.2f}" for row in found)
            report(f"{variant.name}, seed {variant.seed}: {cells}")
    return rows
