"""Views that the teacher has answered, kept for reuse.

The teacher's answer to a view costs half of a student's step. Storing a few passes of views with their
answers and drawing from them again removes that cost (Z. Shen, E. Xing, "A fast knowledge distillation
framework for visual recognition", ECCV 2022). A reused view is mirrored at random, which the teacher was
trained to ignore.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nonet.research.fasternet.training import Order


@dataclass(frozen=True)
class Lesson:
    """Views (B, 3, S, S) in [0, 1] at the student's size, label distributions (B, C), teacher features and
    logits.
    """

    images: Tensor
    targets: Tensor
    features: Tensor
    logits: Tensor


class LessonBank:
    """Gives the lesson of a step: made by `make(chosen, generator)` in the first `passes` epochs, reused
    later.

    Images are kept as uint8 of `size` pixels, features as float16. A run that is resumed makes again what it
    lacks.
    """

    def __init__(
        self, order: Order, make: Callable[[Tensor, torch.Generator], Lesson], passes: int, size: int
    ) -> None:
        self._order, self._make, self._passes, self._size = order, make, passes, size
        self._kept: dict[int, Lesson] = {}

    def at(self, step: int, generator: torch.Generator) -> Lesson:
        filling = self._passes * self._order.per_epoch
        place = step if step < filling else self._shuffled(step)
        lesson = self._kept.get(place)
        if lesson is None:
            # Made from the place alone, so that a resumed run makes the same lesson.
            own = torch.Generator().manual_seed(self._order.seed * 1_000_003 + place)
            lesson = self._keep(place, self._make(self._order.at(place), own))
        images = lesson.images.float().div_(255)
        if step >= filling:
            mirrored = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return Lesson(images, lesson.targets, lesson.features.float(), lesson.logits)

    def _shuffled(self, step: int) -> int:
        """Which kept batch a later step reuses: each once per round, in an order of that round's own."""
        filling = self._passes * self._order.per_epoch
        turn, index = divmod(step, filling)
        generator = torch.Generator().manual_seed(self._order.seed * 1_000_003 + 7_919 * turn)
        return int(torch.randperm(filling, generator=generator)[index])

    def _keep(self, place: int, lesson: Lesson) -> Lesson:
        images = lesson.images
        if images.shape[-1] != self._size:
            images = functional.interpolate(
                images, size=self._size, mode="bilinear", antialias=True, align_corners=False
            )
        kept = Lesson(
            images.clamp(0, 1).mul(255).round().to(torch.uint8),
            lesson.targets,
            lesson.features.half(),
            lesson.logits,
        )
        self._kept[place] = kept
        return kept
