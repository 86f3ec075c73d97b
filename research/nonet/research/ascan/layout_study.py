"""Does it matter where the attention is? Small AsCANs of equal cost learn real photographs.

    python -m nonet.research.ascan.layout_study --steps 300 --seeds 2 --output layouts.json

The photographs are CIFAR-10's 32,000 of `cifar10_jpeg`, enlarged to 64 px: a random tenth is held back and
measured once at the end; the recipe was fixed before, for all layouts alike. A few minutes a network, so the
accuracies are those of a short training.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nonet.research.ascan.counting import macs, parameters
from nonet.research.ascan.layouts import LAYOUTS, at_equal_macs
from nonet.research.ascan.network import AsCAN, Variant
from nonet.research.fasternet.grocery_files import data_root
from nonet.research.fasternet.training import Order, Schedule, parameter_groups

SIDE = 64
COMPARED = ("asymmetric", "symmetric", "reversed")
BASE = Variant(16, (16, 32, 64, 128), LAYOUTS["asymmetric"], head_dim=16)
_SPLIT_SEED = 20261130
_MEAN, _STD = 0.47, 0.25


@dataclass(frozen=True)
class Row:
    """One network, trained."""

    layout: str
    seed: int
    widths: tuple[int, ...]
    parameters: int
    macs: int
    top1: float  # percent of the photographs held back
    cpu_seconds: float  # of the training
    photographs: int


@dataclass(frozen=True)
class Photographs:
    """uint8 (N, 3, 32, 32) and classes (N,)."""

    images: Tensor
    classes: Tensor


def load(archive: Path) -> tuple[Photographs, Photographs]:
    """The photographs to learn from, and the tenth of each class that is held back."""
    images, classes = [], []
    names: dict[str, int] = {}
    with tarfile.open(archive) as members:
        for member in members:
            content = members.extractfile(member)
            if content is None or not member.name.endswith(".jpg"):
                continue
            label = member.name.split("/")[-2]
            with Image.open(io.BytesIO(content.read())) as opened:
                images.append(np.asarray(opened.convert("RGB")))
            classes.append(names.setdefault(label, len(names)))
    everything = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())
    labels = torch.tensor(classes)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    held = len(labels) // 10
    parts = order[held:], order[:held]
    learnt, kept = (Photographs(everything[part], labels[part]) for part in parts)
    return learnt, kept


def prepared(images: Tensor) -> Tensor:
    """(B, 3, 64, 64) as the networks take it."""
    values = (images.float() / 255 - _MEAN) / _STD
    return F.interpolate(values, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


def train(variant: Variant, photographs: Photographs, schedule: Schedule) -> AsCAN:
    """A network after `schedule.steps` steps; mirrored at random, moved by up to 4 of the 32 pixels."""
    torch.manual_seed(schedule.seed)
    network = AsCAN(variant, 10)
    optimiser = torch.optim.AdamW(
        parameter_groups(network, schedule.weight_decay), lr=schedule.lr, fused=True
    )
    order = Order(len(photographs.classes), schedule.batch, schedule.seed)
    generator = torch.Generator().manual_seed(schedule.seed)
    for step in range(schedule.steps):
        chosen = order.at(step)
        images = photographs.images[chosen]
        mirrored = torch.rand(len(chosen), generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        top, left = torch.randint(0, 9, (2,), generator=generator).tolist()
        images = F.pad(images, (4, 4, 4, 4))[:, :, top : top + 32, left : left + 32]
        for group in optimiser.param_groups:
            group["lr"] = schedule.lr_at(step)
        loss = F.cross_entropy(network(prepared(images)), photographs.classes[chosen], label_smoothing=0.1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), schedule.clip)
        optimiser.step()
    return network.eval()


@torch.no_grad()
def top1(network: AsCAN, photographs: Photographs) -> float:
    """Percent of right answers."""
    right = 0
    for part, classes in zip(photographs.images.split(256), photographs.classes.split(256), strict=True):
        right += int((network(prepared(part)).argmax(1) == classes).sum())
    return 100 * right / len(photographs.classes)


def study(
    archive: Path, steps: int, seeds: Sequence[int], report: Callable[[str], object] = print
) -> list[Row]:
    """Train and measure each layout with each seed, seeds outermost, so that an early end leaves whole
    ones."""
    learnt, held = load(archive)
    rows = []
    for seed in seeds:
        for name in COMPARED:
            variant = at_equal_macs(BASE, name, SIDE)
            schedule = Schedule(steps=steps, batch=64, lr=2e-3, warmup=steps // 10, seed=seed)
            began = time.process_time()
            network = train(variant, learnt, schedule)
            spent = time.process_time() - began
            cost = macs(network, SIDE)
            accuracy = top1(network, held)
            seen = steps * schedule.batch
            rows.append(Row(name, seed, variant.widths, parameters(network), cost, accuracy, spent, seen))
            report(f"{name}, seed {seed}: {accuracy:.1f} %, {cost / 1e6:.1f} MMAC, {spent:.0f} s of CPU")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module's text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    archive = data_root() / "cifar10_jpeg" / "train.tar.xz"
    rows = study(archive, given.steps, range(given.seeds), lambda line: print(line, flush=True))
    command = f"python -m nonet.research.ascan.layout_study --steps {given.steps} --seeds {given.seeds}"
    content = {"command": command, "data": "cifar10_jpeg", "rows": [asdict(row) for row in rows]}
    given.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"rows in {given.output}")


if __name__ == "__main__":
    main()
