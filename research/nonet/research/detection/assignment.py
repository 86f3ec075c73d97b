"""Which places of the maps learn which object: task-aligned assignment, and the loss that follows from it.

Source: C. Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021, arXiv 2108.07755,
sections 3.2 and 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nonet.research.detection.boxes import complete_iou, pairwise_iou

ALPHA, BETA = 0.5, 6.0  # exponents of score and overlap in the alignment
CANDIDATES = 10  # places that may learn one object
BOX_WEIGHT = 4.0


@dataclass(frozen=True)
class Objects:
    """What there is to find in a batch: boxes (B, M, 4) in pixels of the input, classes (B, M) int64, -1
    where a row is empty, and how sure each is (B, M), 1 for what a person marked.
    """

    boxes: Tensor
    classes: Tensor
    scores: Tensor


@torch.no_grad()
def assign(logits: Tensor, boxes: Tensor, objects: Objects, centres: Tensor) -> tuple[Tensor, Tensor]:
    """For each place the object that it learns and how well it fits.

    Args:
        logits, boxes: of the network, (B, A, C) and (B, A, 4).
        centres: of the places (A, 2).

    Returns:
        index (B, A) of the object, any where the fit is 0; target score (B, A) in 0..1.
    """
    real = objects.classes >= 0
    classes = objects.classes.clamp(min=0)
    count = logits.shape[1]
    scores = logits.sigmoid().gather(2, classes[:, None, :].expand(-1, count, -1))  # (B, A, M)
    overlap = pairwise_iou(boxes, objects.boxes)
    low, high = objects.boxes[:, None, :, :2], objects.boxes[:, None, :, 2:]
    inside = ((centres[None, :, None] > low) & (centres[None, :, None] < high)).all(-1) & real[:, None]
    alignment = scores.pow(ALPHA) * overlap.pow(BETA) * inside
    best = alignment.topk(min(CANDIDATES, count), dim=1)
    chosen = torch.zeros_like(alignment, dtype=torch.bool).scatter_(1, best.indices, best.values > 0)
    # A fresh network overlaps little: without this an object far from every box would never be learnt.
    nearest = (centres[None, :, None] - (low + high) / 2).square().sum(-1)
    nearest = nearest.masked_fill(~inside, torch.inf)
    place = nearest.min(1)
    found = torch.isfinite(place.values) & ~chosen.any(1)
    chosen.scatter_(1, place.indices[:, None], chosen.gather(1, place.indices[:, None]) | found[:, None])
    shared = torch.where(chosen, overlap, overlap.new_tensor(-1.0))
    value, index = shared.max(2)  # a place that several objects chose learns the one that it overlaps most
    taken = chosen & functional.one_hot(index, alignment.shape[2]).bool() & (value >= 0)[..., None]
    alignment = alignment * taken
    top = alignment.amax(1, keepdim=True).clamp(min=1e-9)
    reach = (overlap * taken).amax(1, keepdim=True)
    fit = (alignment / top * reach).clamp(min=0.05) * taken * objects.scores[:, None]
    return index, fit.amax(2)


def detection_loss(logits: Tensor, boxes: Tensor, objects: Objects, centres: Tensor) -> Tensor:
    """Binary cross entropy of the scores with the assigned fits, and CIoU of the boxes weighted by them."""
    if objects.classes.shape[1] == 0:
        return functional.binary_cross_entropy_with_logits(
            logits, torch.zeros_like(logits), reduction="sum"
        ) / len(logits)
    index, fit = assign(logits.detach(), boxes.detach(), objects, centres)
    classes = objects.classes.clamp(min=0).gather(1, index)
    target = torch.zeros_like(logits).scatter_(2, classes[..., None], fit[..., None])
    total = fit.sum().clamp(min=1.0)
    scores = functional.binary_cross_entropy_with_logits(logits, target, reduction="sum") / total
    learnt = fit > 0
    wanted = objects.boxes.gather(1, index[..., None].expand(-1, -1, 4))[learnt]
    sides = ((1 - complete_iou(boxes[learnt], wanted)) * fit[learnt]).sum() / total
    return scores + BOX_WEIGHT * sides
