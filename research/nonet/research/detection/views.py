"""Random views of the pictures of a bank, with the objects in them: what a detector sees in one step.

Everything is tensor arithmetic on the bank's device, a batch at a time. A view depends on the generator
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nonet.research.detection.assignment import Objects
from nonet.research.detection.bank import Bank

GREY = 114 / 255
SMALLEST = 4.0  # pixels: objects with a shorter side are not asked for
VISIBLE = 0.3  # share of an object that a view must show for it to be asked for


@dataclass(frozen=True)
class Augmentation:
    """How much views differ.

    Args:
        zoom: smallest and largest size of a picture against the one that just fits.
        plain: share of views that show the whole picture at its place, only mirrored.
        stretch: largest ratio of the two scales.
        turn: whether views are also turned upside down (no photographs of a world with an up).
        light: largest change of brightness, contrast and saturation.
        focus: share of views that are placed so that one of the picture's objects is in them.
    """

    zoom: tuple[float, float] = (0.5, 1.8)
    plain: float = 0.25
    stretch: float = 1.15
    turn: bool = False
    light: float = 0.3
    focus: float = 0.0


def views(
    bank: Bank, index: Tensor, side: int, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Objects]:
    """A view (B, 3, side, side) in [0, 1] of each picture of `index` (B,), and its objects."""
    count = len(index)
    device = bank.pixels.device

    def random(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device) * (high - low) + low

    sizes = bank.sizes[index]
    fit = side / sizes.amax(1)
    plain = random(count) < augmentation.plain
    low, high = (torch.tensor(value).log().item() for value in augmentation.zoom)
    zoom = random(count, low=low, high=high).exp().masked_fill(plain, 1.0)
    skew = (random(count, low=-1, high=1) * torch.tensor(augmentation.stretch).log() / 2).exp()
    skew = skew.masked_fill(plain, 1.0)
    scale = torch.stack((fit * zoom * skew, fit * zoom / skew), dim=1)  # (B, 2) view pixels a picture pixel
    room = side - sizes * scale  # negative where the picture is larger than the view
    mirrored = torch.stack(
        (random(count) < 0.5, (random(count) < 0.5) & augmentation.turn), dim=1
    )  # (B, 2), of the picture itself
    offset = random(count, 2) * room
    if augmentation.focus:
        wanted = random(count, 2, low=0.2, high=0.8) * side
        focused = random(count) < augmentation.focus
        centre, known = _some_object(bank, index, random(count, bank.classes.shape[1]))
        centre = torch.where(mirrored, sizes - centre, centre) * scale
        placed = torch.minimum(torch.maximum(wanted - centre, room.clamp(max=0)), room.clamp(min=0))
        offset = torch.where((focused & known)[:, None], placed, offset)
    offset = torch.where(plain[:, None], torch.zeros_like(offset), offset)
    sign = torch.where(mirrored, -1.0, 1.0)
    # view = offset + scale * (picture, or size - picture where mirrored)
    start = offset + torch.where(mirrored, sizes * scale, torch.zeros_like(scale))
    slope = scale * sign
    images, inside = _render(bank, index, side, start, slope)
    images = torch.where(inside, _relight(images, random, augmentation.light), GREY)
    return images, _objects(bank, index, side, start, slope)


def mosaics(
    bank: Bank, index: Tensor, side: int, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Objects]:
    """Views (B, 3, side, side) of four pictures each, in two rows of two; `index` is (B, 4)."""
    count, half = len(index), side // 2
    images, objects = views(bank, index.flatten(), half, augmentation, generator)
    images = images.reshape(count, 2, 2, 3, half, half).permute(0, 3, 1, 4, 2, 5)
    corner = torch.tensor([[0.0, 0.0], [half, 0.0], [0.0, half], [half, half]], device=images.device)
    boxes = objects.boxes.reshape(count, 4, -1, 4) + corner.repeat(1, 2)[None, :, None]
    return images.reshape(count, 3, side, side), Objects(
        boxes.reshape(count, -1, 4),
        objects.classes.reshape(count, -1),
        objects.scores.reshape(count, -1),
    )


def join(parts: list[tuple[Tensor, Objects]]) -> tuple[Tensor, Objects]:
    """Several batches as one, its empty rows at the end and no more of them than need be."""
    most = max(objects.classes.shape[1] for _, objects in parts)

    def widen(value: Tensor, empty: float) -> Tensor:
        shape = [0, 0] * (value.ndim - 2) + [0, most - value.shape[1]]
        return functional.pad(value, shape, value=empty)

    boxes = torch.cat([widen(objects.boxes, 0) for _, objects in parts])
    classes = torch.cat([widen(objects.classes, -1) for _, objects in parts])
    scores = torch.cat([widen(objects.scores, 0) for _, objects in parts])
    order = (classes < 0).to(torch.uint8).argsort(dim=1, stable=True)
    used = int((classes >= 0).sum(1).max())
    order = order[:, : max(1, used)]
    return torch.cat([images for images, _ in parts]), Objects(
        boxes.gather(1, order[..., None].expand(-1, -1, 4)), classes.gather(1, order), scores.gather(1, order)
    )


def _render(bank: Bank, index: Tensor, side: int, start: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """The pictures where `start` and `slope` (B, 2) put them, and where they are (B, 1, side, side)."""
    line = torch.arange(side, device=start.device) + 0.5
    x = (line[None] - start[:, :1]) / slope[:, :1]  # (B, side), in picture pixels
    y = (line[None] - start[:, 1:]) / slope[:, 1:]
    sizes = bank.sizes[index]
    whole = bank.pixels.shape[-1]
    grid = torch.stack(
        (
            (2 * x / whole - 1)[:, None, :].expand(-1, side, -1),
            (2 * y / whole - 1)[:, :, None].expand(-1, -1, side),
        ),
        dim=-1,
    )
    pixels = bank.pixels[index].float() / 255
    images = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    inside = ((x >= 0) & (x <= sizes[:, :1]))[:, None, None, :] & ((y >= 0) & (y <= sizes[:, 1:]))[
        :, None, :, None
    ]
    return images, inside


def _some_object(bank: Bank, index: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
    """The centre (B, 2) of an object of each picture, the one with the highest chance (B, M), and whether
    there is one.
    """
    real = bank.classes[index] >= 0
    chosen = torch.where(real, chance, -1.0).argmax(1)
    boxes = bank.boxes[index, chosen]
    return (boxes[:, :2] + boxes[:, 2:]) / 2, real.any(1)


def _objects(bank: Bank, index: Tensor, side: int, start: Tensor, slope: Tensor) -> Objects:
    boxes = bank.boxes[index] * slope.repeat(1, 2)[:, None] + start.repeat(1, 2)[:, None]
    low, high = torch.minimum(boxes[..., :2], boxes[..., 2:]), torch.maximum(boxes[..., :2], boxes[..., 2:])
    whole = (high - low).prod(-1)
    low, high = low.clamp(0, side), high.clamp(0, side)
    seen = high - low
    kept = (bank.classes[index] >= 0) & (seen.amin(-1) >= SMALLEST) & (seen.prod(-1) >= VISIBLE * whole)
    return Objects(
        torch.cat((low, high), dim=-1),
        bank.classes[index].masked_fill(~kept, -1),
        bank.scores[index],
    )


def _relight(images: Tensor, random: Callable[..., Tensor], light: float) -> Tensor:
    """Brightness, contrast and saturation of each picture changed by up to `light`."""
    bright, contrast, colour = (random(len(images), 1, 1, 1, low=1 - light, high=1 + light) for _ in range(3))
    images = images * bright
    middle = images.mean((1, 2, 3), keepdim=True)
    images = (images - middle) * contrast + middle
    grey = images.mean(1, keepdim=True)
    return ((images - grey) * colour + grey).clamp(0, 1)
