"""`nonet train ascan`: a small asymmetric AsCAN with a light UperNet learns optic disc and cup.

The whole photograph goes in, stretched to a square; the network answers for each place whether it is disc and
whether it is cup (two independent masks, the cup never outside the disc). Every lesson turns, scales, shifts,
mirrors and recolours its photographs anew.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from nonet.research.ascan.disc_cup_files import LABELS, masks, photographs, picture_file
from nonet.research.ascan.network import MEAN, STD, Variant
from nonet.research.ascan.upernet import Head, UperNet
from nonet.research.devices import fast_bfloat16, usable_device
from nonet.research.fasternet.device_training import Learner, fit_together, stop_on_signals
from nonet.research.fasternet.training import Report, Schedule
from nonet.research.systems import TrainOptions
from nonet.runtime.images import Preprocessing, decode_image, preprocess

#: Photographs are kept at this multiple of the network's side, so that views that are enlarged stay sharp.
_STORED = 1.5


@dataclass(frozen=True)
class Recipe:
    """What is trained, on which views, for how long."""

    variant: Variant
    head: Head
    side: int = 256
    turn: float = 20.0  # degrees, either way
    scale: float = 1.25  # largest enlargement, and its inverse the smallest
    shift: float = 0.1  # of the side, either way
    colour: float = 0.25  # largest relative change of brightness, contrast and each channel
    schedule: Schedule = field(
        default_factory=lambda: Schedule(
            steps=1200, batch=8, lr=2e-3, min_lr=2e-5, warmup=60, ema=0.99, bfloat16=False
        )
    )


RECIPES = {
    "tiny": Recipe(
        Variant(8, (8, 16, 32, 32), "C|C|CT|CT"),
        Head(8, (1,)),
        side=64,
        schedule=Schedule(steps=20, batch=4, lr=2e-3, warmup=5, ema=0.9, bfloat16=False),
    ),
    "disc_cup": Recipe(Variant(16, (24, 32, 96, 160), "CC|CCT|CTT|CTT", 0.1), Head(32, (1, 2, 4))),
}


@dataclass(frozen=True)
class Views:
    """Photographs uint8 (N, 3, S, S) and masks uint8 (N, 2, S, S), stretched to squares."""

    pictures: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Lesson:
    """Normalised pictures (B, 3, S, S) and masks (B, 2, S, S) of 0 to 1."""

    pictures: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Trained:
    """The averaged network, in eval mode on the CPU, its recipe, and facts for the manifest."""

    network: UperNet
    recipe: Recipe
    facts: dict[str, object]


def preprocessing(side: int) -> Preprocessing:
    """The whole photograph, stretched to a square."""
    return Preprocessing(side, side, "bilinear", MEAN, STD, resize_type="standard")


def load_views(root: Path, split: str, side: int) -> Views:
    """The photographs of a split at (side, side)."""
    pictures, marked = [], []
    for name in photographs(root, split):
        picture = decode_image(picture_file(root, name).read_bytes()).image
        pictures.append(np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR)))
        layers = [
            np.asarray(Image.fromarray(layer).resize((side, side), Image.Resampling.BOX))
            for layer in masks(root, name).astype(np.uint8) * 255
        ]
        marked.append(np.stack(layers))
    stacked = np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))
    return Views(torch.from_numpy(stacked), torch.from_numpy(np.stack(marked)))


def lesson(views: Views, chosen: Tensor, generator: torch.Generator, recipe: Recipe) -> Lesson:
    """Random views (B, side, side) of the chosen photographs; all randomness is the generator's."""
    device, count = views.pictures.device, len(chosen)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator, device=device)

    angle = draw(-1, 1) * math.radians(recipe.turn)
    scale = torch.exp(draw(-1, 1) * math.log(recipe.scale))
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    shift = draw(-1, 1, 2) * 2 * recipe.shift
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = torch.stack([cosine * mirror, -sine, shift[:, 0], sine * mirror, cosine, shift[:, 1]], 1)
    grid = F.affine_grid(rows.reshape(-1, 2, 3), [count, 3, recipe.side, recipe.side], align_corners=False)
    both = torch.cat([views.pictures[chosen], views.masks[chosen]], 1).float() / 255
    seen = F.grid_sample(both, grid, align_corners=False)
    pictures, marked = seen[:, :3], seen[:, 3:]
    span = recipe.colour
    mean = pictures.mean((1, 2, 3), keepdim=True)
    contrast, light = draw(1 - span, 1 + span, 2, 1, 1, 1).unbind(1)
    tint = draw(1 - span / 2, 1 + span / 2, 3, 1, 1)
    pictures = (((pictures - mean) * contrast + mean * light) * tint).clamp(0, 1)
    return Lesson(normalised(pictures), marked)


def normalised(pictures: Tensor) -> Tensor:
    """RGB of 0 to 1 as the network takes it."""
    mean = torch.tensor(MEAN, device=pictures.device)[:, None, None]
    std = torch.tensor(STD, device=pictures.device)[:, None, None]
    return (pictures - mean) / std


def mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of each place and 1 - Dice of each mask, at the resolution of `truth` (B, K, S, S)."""
    fine = F.interpolate(logits, size=truth.shape[-2:], mode="bilinear", align_corners=False).float()
    share = torch.sigmoid(fine)
    common = (share * truth).sum((2, 3))
    overlap = (2 * common + 1) / (share.sum((2, 3)) + truth.sum((2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(fine, truth) + (1 - overlap).mean()


class NestedMasks(nn.Module):
    """Logits of disc and cup in which a place is cup only as far as it is disc."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        disc, cup = self.network(image).split(1, 1)
        return torch.cat([disc, torch.minimum(disc, cup)], 1)


@torch.no_grad()
def soft_scores(network: nn.Module, views: Views) -> list[float]:
    """Mean Dice of each mask, at the size of the views."""
    network.eval()
    pictures = normalised(views.pictures.float() / 255)
    found = [NestedMasks(network)(each[None])[0] for each in pictures]
    fine = F.interpolate(torch.stack(found), size=views.masks.shape[-2:], mode="bilinear") > 0
    truth = views.masks >= 128
    common = (fine & truth).sum((2, 3)).double()
    dice = 2 * common / (fine.sum((2, 3)) + truth.sum((2, 3))).clamp(min=1)
    return [round(float(value), 4) for value in dice.mean(0)]


def train_disc_cup(options: TrainOptions, root: Path, report: Report) -> Trained:
    """Train a preset; checkpoints lie in the run's folder. Raises InvalidArgument for a device that is not
    there.
    """
    recipe = RECIPES[options.preset]
    device = usable_device(options.device)
    torch.set_num_threads(options.threads)
    schedule = _schedule(recipe.schedule, options, device)
    train = load_views(root, "train", round(recipe.side * _STORED))
    val = load_views(root, "val", recipe.side)
    train, val = (Views(each.pictures.to(device), each.masks.to(device)) for each in (train, val))
    torch.manual_seed(options.seed)
    network = UperNet(recipe.variant, recipe.head, len(LABELS))
    learner: Learner[Lesson] = Learner(
        "network",
        network.to(device),
        lambda forward, given: mask_loss(forward(given.pictures), given.masks),
        schedule,
        compiler=torch.compile if options.compiled else None,
    )
    run = options.runs / f"ascan-{options.preset}-{options.seed}"
    seen: dict[str, object] = {}

    def saved(share: float, views: int, seconds: float) -> None:
        scores = dict(zip(LABELS, soft_scores(_averaged(learner), val), strict=True))
        seen.update(
            run=f"{views} views of {recipe.side} px in {seconds / 60:.1f} minutes on {device.type}, "
            f"{100 * share:.0f} % of the schedule",
            validation=json.dumps(scores),
        )
        report({"share": round(share, 3), "views": views, **scores})

    with stop_on_signals() as stopping:
        fit_together(
            [learner],
            lambda chosen, generator, share: lesson(train, chosen, generator, recipe),
            schedule,
            len(train.pictures),
            device,
            run / "training.pt",
            resume=options.resume,
            report=report,
            saved=saved,
            stopping=stopping,
        )
    return Trained(_averaged(learner).cpu(), recipe, {"seed": options.seed, **seen})


def _schedule(schedule: Schedule, options: TrainOptions, device: torch.device) -> Schedule:
    return replace(
        schedule,
        seed=options.seed,
        minutes=options.minutes or 0.0,
        bfloat16=device.type == "cuda" and fast_bfloat16(device),
    )


def _averaged(learner: Learner[Lesson]) -> UperNet:
    module = copy.deepcopy(learner.module)
    module.load_state_dict(learner.average.state)
    assert isinstance(module, UperNet)
    return module.eval().requires_grad_(False)


def prepared(root: Path, name: str, spec: Preprocessing) -> np.ndarray:
    """A photograph as the server prepares it: (3, S, S) fp32."""
    return preprocess(decode_image(picture_file(root, name).read_bytes(), target=spec.target), spec)
