"""Training of face embeddings: additive-margin softmax over the persons of the training part.

Wang et al., "Additive Margin Softmax for Face Verification", IEEE SPL 2018, with TVConv's margin and scale
(CVPR 2022, section 4.1). Every step draws its faces and its randomness from (seed, step) alone.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nonet.research.fasternet.training import Order, load_checkpoint, save_checkpoint
from nonet.research.tvconv.augment import FaceViews, random_views, whole_faces
from nonet.research.tvconv.face_files import Faces
from nonet.research.tvconv.layer import GeneratorConfig
from nonet.research.tvconv.mobilenet import SMALL_STAGES, FaceNet, FaceNetConfig, embed
from nonet.research.tvconv.verification import all_pairs, curve, similarities

Report = Callable[[dict[str, float | int | str]], None]


@dataclass(frozen=True)
class FaceRecipe:
    """One training run. `minutes`: wall time that leads the schedule if given; else `steps` does."""

    network: FaceNetConfig = field(
        default_factory=lambda: FaceNetConfig(
            width=0.5,
            size=64,
            stem_stride=2,
            dropout=0.1,
            embedding=128,
            generator=GeneratorConfig(4, 32, 2),
            stages=SMALL_STAGES,
        )
    )
    steps: int = 1200
    batch: int = 32
    lr: float = 3e-3
    weight_decay: float = 0.02
    warmup: int = 40
    margin: float = 0.2
    scale: float = 16.0
    average: float = 0.98  # share of the old weights kept at each step
    views: FaceViews = field(default_factory=FaceViews)
    seed: int = 0
    minutes: float = 0.0


class MarginHead(nn.Module):
    """Embeddings (N, D) and persons (N,) -> the loss: cross entropy of `scale` (cos - margin of the right
    one).

    The rows of `weight` (persons, D) are one direction for each person.
    """

    def __init__(self, length: int, persons: int, margin: float, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(persons, length))
        nn.init.xavier_normal_(self.weight)
        self.margin, self.scale = margin, scale

    def forward(self, embeddings: Tensor, persons: Tensor) -> Tensor:
        cosines = F.linear(F.normalize(embeddings), F.normalize(self.weight))  # (N, persons)
        margins = self.margin * F.one_hot(persons, len(self.weight))
        return F.cross_entropy(self.scale * (cosines - margins), persons)


class FaceModule(nn.Module):
    """A face network with its head."""

    def __init__(self, recipe: FaceRecipe, persons: int) -> None:
        super().__init__()
        self.network = FaceNet(recipe.network)
        self.head = MarginHead(recipe.network.embedding, persons, recipe.margin, recipe.scale)

    def forward(self, views: Tensor, persons: Tensor) -> Tensor:
        loss: Tensor = self.head(self.network(views), persons)
        return loss


def as_tensor(faces: Faces) -> Tensor:
    """The pictures as (N, 3, S, S) uint8."""
    return torch.from_numpy(faces.pictures).permute(0, 3, 1, 2).contiguous()


def equal_error(network: nn.Module, faces: Faces, size: int) -> float:
    """Equal error rate of a network on all pairs within the data sets."""
    embeddings = embed(network, whole_faces(as_tensor(faces), size)).cpu().numpy()
    pairs = all_pairs(faces)
    return curve(similarities(embeddings, pairs), pairs.same).equal_error[0]


def train_faces(
    recipe: FaceRecipe,
    train: Faces,
    val: Faces,
    checkpoint: Path,
    *,
    device: torch.device | None = None,
    resume: bool = False,
    report: Report = lambda line: None,
    save_every: float = 60.0,
    stop_after: int | None = None,
) -> FaceNet:
    """Train a network on `train` and return it with averaged weights, in eval mode on the CPU.

    `val` is measured for the log at each checkpoint; nothing is chosen by it here. With `resume` a checkpoint
    is continued; ValueError if it is of another recipe. `stop_after` ends the call after that many steps,
    as an interruption would. Raises FloatingPointError when the loss is no longer finite.
    """
    device = device or torch.device("cpu")
    torch.manual_seed(recipe.seed)
    module = FaceModule(recipe, len(train.names)).to(device)
    averaged = copy.deepcopy(module)
    optimiser = torch.optim.AdamW(module.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    pictures, persons = as_tensor(train), torch.from_numpy(train.persons)
    order = Order(len(train), recipe.batch, recipe.seed)
    step, earlier = 0, 0.0
    facts = json.dumps(asdict(replace(recipe, minutes=0.0, steps=0)))
    if resume and checkpoint.exists():
        stored = load_checkpoint(checkpoint)
        if stored["recipe"] != facts:
            raise ValueError("the checkpoint was made with another recipe: start again without --resume")
        module.load_state_dict(stored["module"])  # type: ignore[arg-type]
        averaged.load_state_dict(stored["averaged"])  # type: ignore[arg-type]
        optimiser.load_state_dict(stored["optimiser"])  # type: ignore[arg-type]
        step, earlier = int(stored["step"]), float(stored["seconds"])  # type: ignore[call-overload,arg-type]
    began = saved = time.monotonic()
    first, smooth = step, math.nan

    def seconds() -> float:
        return earlier + time.monotonic() - began

    def save() -> None:
        content = {
            "recipe": facts,
            "step": step,
            "seconds": seconds(),
            "module": module.state_dict(),
            "averaged": averaged.state_dict(),
            "optimiser": optimiser.state_dict(),
        }
        save_checkpoint(checkpoint, content)
        rate = equal_error(averaged.network, val, recipe.network.size)
        loss = {} if math.isnan(smooth) else {"loss": round(smooth, 3)}
        report({"step": step, "seconds": round(seconds()), **loss, "val_eer": round(rate, 4)})

    while stop_after is None or step - first < stop_after:
        share = seconds() / (60 * recipe.minutes) if recipe.minutes else step / recipe.steps
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step, share)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout draws from the global generator
        chosen = order.at(step)
        views = random_views(pictures[chosen], recipe.network.size, recipe.views, generator).to(device)
        module.train()
        loss = module(views, persons[chosen].to(device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimiser.step()
        update_average(averaged, module, min(recipe.average, (1 + step) / (10 + step)))
        step += 1
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss became {value} at step {step}")
        smooth = value if math.isnan(smooth) else 0.95 * smooth + 0.05 * value
        if time.monotonic() - saved > save_every:
            save()
            saved = time.monotonic()
    save()
    return averaged.network.cpu().eval()


def learning_rate(recipe: FaceRecipe, step: int, share: float) -> float:
    """A linear rise over the warm-up, times half a cosine down to nearly nothing at the end."""
    return recipe.lr * min(1.0, (step + 1) / recipe.warmup) * 0.5 * (1.001 + math.cos(math.pi * share))


@torch.no_grad()
def update_average(averaged: nn.Module, module: nn.Module, keep: float) -> None:
    """Exponential moving average of weights and statistics."""
    now = module.state_dict()
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            value.lerp_(now[name], 1 - keep)
        else:
            value.copy_(now[name])
