"""Geometry of boxes [x1, y1, x2, y2], in any unit: areas, overlaps and the loss between two boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def area(boxes: Tensor) -> Tensor:
    """Areas (...) of boxes (..., 4); a box whose corners are the wrong way round has none."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union (..., N, M) of boxes (..., N, 4) and (..., M, 4)."""
    low = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    high = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    return both / (area(first)[..., :, None] + area(second)[..., None, :] - both).clamp(min=1e-9)


def complete_iou(first: Tensor, second: Tensor) -> Tensor:
    """CIoU (N,) of boxes (N, 4) with boxes (N, 4): IoU less the distance of the centres and the difference of
    the aspect ratios. At most 1.

    Source: Z. Zheng et al., "Distance-IoU Loss", AAAI 2020, arXiv 1911.08287, equations 7 to 11.
    """
    low = torch.maximum(first[:, :2], second[:, :2])
    high = torch.minimum(first[:, 2:], second[:, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    iou = both / (area(first) + area(second) - both).clamp(min=1e-9)
    hull = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    diagonal = hull.square().sum(-1).clamp(min=1e-9)
    apart = (first[:, :2] + first[:, 2:] - second[:, :2] - second[:, 2:]).square().sum(-1) / 4
    size_a, size_b = first[:, 2:] - first[:, :2], second[:, 2:] - second[:, :2]
    angle = torch.atan(size_a[:, 0] / size_a[:, 1].clamp(min=1e-6)) - torch.atan(
        size_b[:, 0] / size_b[:, 1].clamp(min=1e-6)
    )
    aspect = 4 / math.pi**2 * angle.square()
    weight = (aspect / (1 - iou + aspect).clamp(min=1e-9)).detach()
    return iou - apart / diagonal - weight * aspect
