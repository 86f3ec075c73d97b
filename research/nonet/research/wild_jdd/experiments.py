"""The paper's claims that need their own training: effect A (imperfect truth) and effect C (adapting); and
the scores of the methods to compare with, which take long and change with no training; and the published
network's noise map on a real chart.

    python -m nonet.research.wild_jdd.experiments imperfect-truth --steps 500 --folder runs/wild_jdd
    python -m nonet.research.wild_jdd.experiments adaptation --steps 700 --folder runs/wild_jdd
    python -m nonet.research.wild_jdd.experiments references --folder runs/wild_jdd
    python -m nonet.research.wild_jdd.experiments chart --folder runs/wild_jdd

The first two go on where they were interrupted. All end by writing their rows as JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from nonet.research.wild_jdd.ablation import run_ablation
from nonet.research.wild_jdd.effects import Adaptation, LevelNoise, adapt_all, noise_by_level
from nonet.research.wild_jdd.evaluate import run_references
from nonet.research.wild_jdd.finetune import FinetuneConfig
from nonet.research.wild_jdd.network import NETWORKS
from nonet.research.wild_jdd.noise import NoiseRange
from nonet.research.wild_jdd.photographs import PatchSource, data_folder
from nonet.research.wild_jdd.restorer import load_published_model
from nonet.research.wild_jdd.scoring import TEST_SETS, load_pictures
from nonet.research.wild_jdd.train import TrainConfig, Trainer

NARROW = 15.0  # highest level of the network that is adapted
ADAPTED = {"kodak": (1, 5, 8, 10), "mcmaster": (1, 3, 5, 8)}


def narrow_config(steps: int, seed: int) -> TrainConfig:
    """The small network, trained on levels up to 15 only, so that higher ones are new to it."""
    return TrainConfig(
        network=NETWORKS["small"],
        noise=NoiseRange(high=NARROW, clean=0.1, varying=0.3, signal_dependent=0.0),
        patches=PatchSource(size=64, saturate=0.2),
        steps=steps,
        batch=12,
        rate=2e-3,
        balance=1.0,
        average=0.995,
        border=6,
        seed=seed,
    )


def trained_trainer(folder: Path, steps: int, seed: int) -> Trainer:
    """The narrow network, trained now or read from `folder`."""
    path = folder / f"narrow-{steps}-{seed}.safetensors"
    trainer = Trainer.resume(path) if path.is_file() else Trainer(narrow_config(steps, seed))
    while trainer.fraction < 1:
        trainer.advance()
        if trainer.step % 200 == 0:
            trainer.save(path)
    trainer.save(path)
    return trainer


def adaptation(
    folder: Path, steps: int, *, seed: int = 5, config: FinetuneConfig | None = None
) -> list[Adaptation]:
    """Effect C on central 256x256 crops of eight test pictures."""
    network = trained_trainer(folder, steps, seed).evaluated_network()
    rows = []
    for name, numbers in ADAPTED.items():
        crops = load_pictures(name).central(256, numbers)
        rows += adapt_all(
            network,
            crops,
            replace(config or FinetuneConfig(), trained_level=NARROW),
            report=print,
        )
    return rows


def chart(repository: Path) -> list[LevelNoise]:
    """Noise by level of the 10-bit chart capture, measured and as the published network maps it."""
    samples = np.fromfile(data_folder() / "raw_bayer" / "openisp_1920x1080_rggb_u16.raw", dtype="<u2")
    readings = torch.from_numpy(samples.reshape(1, 1, 1080, 1920).astype(np.float32) / 1023)
    return noise_by_level(readings, load_published_model(repository, "wild_jdd").restorer(readings))


def summary(rows: Sequence[Adaptation]) -> list[str]:
    """One line per noise: mean before, and mean gain with and without the mask."""
    lines = []
    for noise in dict.fromkeys(row.noise for row in rows):
        of_noise = [row for row in rows if row.noise == noise]
        count = len(of_noise)
        before = sum(row.before for row in of_noise) / count
        masked = sum(row.masked - row.before for row in of_noise) / count
        unmasked = sum(row.unmasked - row.before for row in of_noise) / count
        lines.append(
            f"{noise}: {before:.2f} dB, masked {masked:+.2f}, unmasked {unmasked:+.2f} ({count} pictures)"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one experiment from the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("experiment", choices=["imperfect-truth", "adaptation", "references", "chart"])
    parser.add_argument("--folder", type=Path, default=Path("runs/wild_jdd"))
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds of imperfect-truth")
    parser.add_argument("--trust", type=float, default=FinetuneConfig.trust)
    parser.add_argument("--rate", type=float, default=FinetuneConfig.rate)
    parser.add_argument("--adapt-steps", type=int, default=FinetuneConfig.steps)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.experiment == "imperfect-truth":
        rows = run_ablation(given.folder, steps=given.steps, seeds=range(given.seeds), report=print)
    elif given.experiment == "references":
        sets = [load_pictures(name) for name in TEST_SETS]
        rows, left_out = run_references(sets, report=print)
        print(*(f"not measured: {name}" for name in left_out), sep="\n")
    elif given.experiment == "chart":
        rows = [asdict(row) for row in chart(given.repository)]
        print(*rows, sep="\n")
    else:
        config = replace(FinetuneConfig(), trust=given.trust, rate=given.rate, steps=given.adapt_steps)
        found = adaptation(given.folder, given.steps, config=config)
        print(*summary(found), sep="\n")
        rows = [asdict(row) for row in found]
    target = given.folder / f"{given.experiment}.json"
    target.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"rows in {target}")


if __name__ == "__main__":
    main()
