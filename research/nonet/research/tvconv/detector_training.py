"""Training of the face detector on a teacher's faces, and how much of what the teacher finds it finds too."""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nonet.research.fasternet.training import load_checkpoint, parameter_groups, save_checkpoint
from nonet.research.tvconv.detector import STRIDES, DetectorConfig, FaceDetector, cell_corners, decode
from nonet.research.tvconv.detector_data import Photograph, View, random_view, whole_view
from nonet.research.tvconv.face_training import Report, update_average
from nonet.research.tvconv.yunet import Face, best_apart, overlap

#: Sizes of faces (square root of the area, in pixels of the input) that the cells of each stride learn.
RANGES = ((0.0, 32.0), (24.0, 72.0), (56.0, math.inf))
_REACH = 1.0  # cells: how far from a face's middle a cell may be that learns it
_SMALLEST = 7.0


@dataclass(frozen=True)
class DetectorRecipe:
    """One training run. `minutes`: wall time that leads the schedule if given; else `steps` does."""

    network: DetectorConfig = field(default_factory=DetectorConfig)
    steps: int = 1500
    batch: int = 16
    lr: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 50
    average: float = 0.99
    seed: int = 0
    minutes: float = 0.0


@dataclass(frozen=True)
class Targets:
    """What the cells of one view learn: `positive` and `counted` (cells,) bool, `values` (cells, 14)."""

    positive: Tensor
    counted: Tensor
    values: Tensor


def targets_of(view: View, size: int) -> Targets:
    """A cell learns the smallest sure face whose middle is within a cell of its own middle and whose size
    suits its stride. Cells within any other face count for nothing."""
    corners, strides = cell_corners(size)
    middles = corners + strides[:, None] / 2
    count = len(corners)
    positive, counted = torch.zeros(count, dtype=torch.bool), torch.ones(count, dtype=torch.bool)
    values = torch.zeros(count, 14)
    sizes = np.sqrt(np.clip(np.prod(view.boxes[:, 2:] - view.boxes[:, :2], axis=1), 0, None))
    for number in np.argsort(-sizes):
        box = torch.from_numpy(view.boxes[number]).float()
        inside = ((middles >= box[:2]) & (middles <= box[2:])).all(1)
        middle = (box[:2] + box[2:]) / 2
        seen = bool(((middle >= 0) & (middle < size)).all())
        if not view.sure[number] or sizes[number] < _SMALLEST or not seen:
            counted &= ~inside
            continue
        low, high = torch.tensor(RANGES).unbind(1)
        level = torch.bucketize(strides, torch.tensor(STRIDES, dtype=strides.dtype))
        suits = (sizes[number] >= low[level]) & (sizes[number] < high[level])
        near = ((middles - middle).abs() <= _REACH * strides[:, None]).all(1)
        chosen = near & suits
        counted &= ~(inside & ~chosen & near)
        counted |= chosen
        positive |= chosen
        spread = strides[chosen, None]
        points = torch.from_numpy(view.landmarks[number]).float()
        values[chosen] = torch.cat(
            [
                (middle - corners[chosen]) / spread,
                torch.log((box[2:] - box[:2]) / spread),
                ((points - corners[chosen, None]) / spread[..., None]).flatten(1),
            ],
            1,
        )
    return Targets(positive, counted | positive, values)


def loss_of(answers: Tensor, targets: Sequence[Targets]) -> Tensor:
    """Focal loss of the scores (Lin et al., ICCV 2017) and smooth L1 of boxes and landmarks, in shares of the
    face's size, per positive cell."""
    positive = torch.stack([each.positive for each in targets])
    counted = torch.stack([each.counted for each in targets])
    values = torch.stack([each.values for each in targets])
    count = positive.sum().clamp(min=1)
    truth = positive.float()
    entropy = F.binary_cross_entropy_with_logits(answers[..., 0], truth, reduction="none")
    probability = answers[..., 0].sigmoid()
    miss = torch.where(positive, 1 - probability, probability)
    scores = (0.5 * miss**2 * entropy * counted).sum() / count
    found, wanted = answers[..., 1:][positive], values[positive]
    if not len(found):
        return scores
    extent = torch.exp(wanted[:, 2:4].mean(1, keepdim=True))  # the face's size in cells
    places = torch.cat([found[:, :2] - wanted[:, :2], found[:, 4:] - wanted[:, 4:]], 1) / extent
    sizes = found[:, 2:4] - wanted[:, 2:4]
    offsets = F.smooth_l1_loss(places, torch.zeros_like(places), beta=0.05, reduction="none")
    lengths = F.smooth_l1_loss(sizes, torch.zeros_like(sizes), beta=0.1, reduction="none")
    return 2 * scores + 10 * offsets.mean() + 2 * lengths.mean()


def train_detector(
    recipe: DetectorRecipe,
    photographs: Sequence[Photograph],
    checkpoint: Path,
    *,
    device: torch.device | None = None,
    resume: bool = False,
    report: Report = lambda line: None,
    save_every: float = 60.0,
    stop_after: int | None = None,
) -> FaceDetector:
    """Train a detector and return it with averaged weights, in eval mode on the CPU.

    Every step draws its views from (seed, step) alone. With `resume` a checkpoint is continued; ValueError if
    it is of another recipe. `stop_after` ends the call after that many steps, as an interruption would.
    Raises FloatingPointError when the loss is no longer finite.
    """
    device = device or torch.device("cpu")
    torch.manual_seed(recipe.seed)
    network = FaceDetector(recipe.network).to(device)
    averaged = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(parameter_groups(network, recipe.weight_decay), lr=recipe.lr)
    step, earlier = 0, 0.0
    facts = json.dumps(asdict(replace(recipe, minutes=0.0, steps=0)))
    if resume and checkpoint.exists():
        stored = load_checkpoint(checkpoint)
        if stored["recipe"] != facts:
            raise ValueError("the checkpoint was made with another recipe: start again without --resume")
        network.load_state_dict(stored["network"])  # type: ignore[arg-type]
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
            "network": network.state_dict(),
            "averaged": averaged.state_dict(),
            "optimiser": optimiser.state_dict(),
        }
        save_checkpoint(checkpoint, content)
        loss = {} if math.isnan(smooth) else {"loss": round(smooth, 3)}
        report({"step": step, "seconds": round(seconds()), **loss})

    while stop_after is None or step - first < stop_after:
        share = seconds() / (60 * recipe.minutes) if recipe.minutes else step / recipe.steps
        if share >= 1:
            break
        for group in optimiser.param_groups:
            rise = min(1.0, (step + 1) / recipe.warmup)
            group["lr"] = recipe.lr * rise * 0.5 * (1.001 + math.cos(math.pi * share))
        dice = random.Random(f"{recipe.seed} {step}")
        views = [
            random_view(dice.choice(photographs), recipe.network.size, dice) for _ in range(recipe.batch)
        ]
        targets = [targets_of(view, recipe.network.size) for view in views]
        pixels = torch.from_numpy(np.stack([view.pixels for view in views])).to(device).float()
        network.train()
        loss = loss_of(network(pixels), [_to(each, device) for each in targets])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        update_average(averaged, network, min(recipe.average, (1 + step) / (10 + step)))
        step += 1
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss became {value} at step {step}")
        smooth = value if math.isnan(smooth) else 0.95 * smooth + 0.05 * value
        if time.monotonic() - saved > save_every:
            save()
            saved = time.monotonic()
    save()
    return averaged.cpu().eval()


def is_finished(checkpoint: Path, recipe: DetectorRecipe) -> bool:
    """Whether the run in a checkpoint has done all of its schedule: it then needs no photographs."""
    if not checkpoint.is_file():
        return False
    stored = load_checkpoint(checkpoint)
    if recipe.minutes:
        return float(stored["seconds"]) >= 60 * recipe.minutes  # type: ignore[arg-type]
    return int(stored["step"]) >= recipe.steps  # type: ignore[call-overload]


def _to(targets: Targets, device: torch.device) -> Targets:
    return Targets(targets.positive.to(device), targets.counted.to(device), targets.values.to(device))


@dataclass(frozen=True)
class Agreement:
    """A detector beside its teacher: `faces` that the teacher is sure of; `recall` and `precision` at an
    overlap of 0.5 (a find that the teacher half sees counts for neither); `landmark_error`: mean distance of
    landmarks in shares of the distance between the eyes."""

    faces: int
    recall: float
    precision: float
    landmark_error: float


@torch.no_grad()
def find_faces(network: FaceDetector, pixels: np.ndarray, score: float = 0.5) -> list[Face]:
    """The faces of one view (3, S, S), best first."""
    answers = network(torch.from_numpy(pixels).float()[None])
    scores, boxes, points = decode(answers, network.config.size)
    return best_apart(
        [
            Face(boxes[0, cell].numpy(), float(scores[0, cell]), points[0, cell].numpy())
            for cell in torch.nonzero(scores[0] >= score).flatten().tolist()
        ]
    )


def agreement(
    network: FaceDetector, photographs: Sequence[Photograph], score: float = 0.5, smallest: float = 12.0
) -> Agreement:
    """Measure a detector against its teacher on whole photographs, on faces of at least `smallest` pixels."""
    wanted = right = found = 0
    errors: list[float] = []
    for photograph in photographs:
        view = whole_view(photograph, network.config.size)
        finds = find_faces(network, view.pixels, score)
        used: set[int] = set()
        doubtful: set[int] = set()
        for box, points, sure in zip(view.boxes, view.landmarks, view.sure, strict=True):
            matches = [n for n, face in enumerate(finds) if overlap(face.box, box) >= 0.5]
            if not sure or math.sqrt(float(np.prod(box[2:] - box[:2]))) < smallest:
                doubtful.update(matches)
                continue
            wanted += 1
            if matches:
                right += 1
                used.add(matches[0])
                eyes = float(np.linalg.norm(points[1] - points[0]))
                away = np.linalg.norm(finds[matches[0]].landmarks - points, axis=1)
                errors.append(float(away.mean()) / max(eyes, 1e-6))
        found += len(set(range(len(finds))) - (doubtful - used))
    return Agreement(
        wanted, right / max(1, wanted), right / max(1, found), float(np.mean(errors)) if errors else math.nan
    )
