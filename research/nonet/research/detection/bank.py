"""Pictures and their objects as tensors of one size, packed once into a file that training reads."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from nonet.research.detection.pictures import Annotated
from nonet.research.detection.teacher import Teacher

#: Overlap from which an object of the teacher is one that a person marked.
SAME = 0.5
QUALITY = 85


@dataclass(frozen=True)
class Bank:
    """`count` pictures on one side, on a grey square of `side` pixels, top left.

    Args:
        pixels: (count, 3, side, side) uint8.
        sizes: (count, 2) float32, width and height of each.
        boxes: (count, M, 4) float32, corners in pixels of the square.
        classes: (count, M) int64, -1 where a row is empty.
        scores: (count, M) float32: 1 for what a person marked, else the teacher's score.
    """

    pixels: Tensor
    sizes: Tensor
    boxes: Tensor
    classes: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device) -> Bank:
        """The same on a device."""
        return Bank(
            *(each.to(device) for each in (self.pixels, self.sizes, self.boxes, self.classes, self.scores))
        )


def pack(
    pictures: Iterable[Annotated],
    path: Path,
    side: int,
    teacher: Teacher | None = None,
    least: float = 0.1,
    report: Callable[[int], None] = lambda count: None,
) -> None:
    """Write the pictures as JPEG of at most `side` pixels, with their objects, into one file.

    Of pictures that it may add to, what the teacher finds with at least the score `least` is added; an object
    that a person marked stands, whatever the teacher says of it. Raises FileNotFoundError if there are no
    pictures.
    """
    contents: list[bytes] = []
    rows: list[np.ndarray] = []  # (N, 6): corners, class, score
    for number, picture in enumerate(pictures):
        image = picture.decoded()
        marked = np.column_stack((picture.boxes, picture.classes, np.ones(len(picture.classes))))
        if teacher is not None and picture.taught:
            boxes, classes, scores = teacher.find(image, least)
            found = np.column_stack((boxes, classes, scores))
            marked = np.concatenate((marked, found[~_known(boxes, classes, picture)]))
        scale = min(side / max(image.size), side)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        buffer = io.BytesIO()
        image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=QUALITY)
        marked[:, :4] *= scale
        contents.append(buffer.getvalue())
        rows.append(marked.astype(np.float32))
        report(number + 1)
    if not contents:
        raise FileNotFoundError(f"there are no pictures for {path.name} in the data folder")
    tensors = {
        "contents": torch.from_numpy(np.frombuffer(b"".join(contents), np.uint8).copy()),
        "lengths": torch.tensor([len(content) for content in contents]),
        "objects": torch.from_numpy(np.concatenate(rows)),
        "counts": torch.tensor([len(each) for each in rows]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"side": str(side)})
    os.replace(partial, path)


def _known(boxes: np.ndarray, classes: np.ndarray, picture: Annotated) -> np.ndarray:
    """(N,) whether an object overlaps a marked one: of its class by SAME, of any class nearly wholly."""
    if not len(picture.boxes) or not len(boxes):
        return np.zeros(len(boxes), dtype=bool)
    low = np.maximum(boxes[:, None, :2], picture.boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], picture.boxes[None, :, 2:])
    both = (high - low).clip(0).prod(-1)
    areas = [(each[:, 2:] - each[:, :2]).prod(-1) for each in (boxes, picture.boxes)]
    overlap = both / (areas[0][:, None] + areas[1][None] - both)
    same = classes[:, None] == picture.classes[None]
    return ((overlap > SAME) & same | (overlap > 0.8)).any(1)


def load_bank(paths: Iterable[Path], side: int) -> Bank:
    """The pictures of some packed files as one bank. Raises FileNotFoundError for an absent file."""
    pixels: list[np.ndarray] = []
    sizes: list[tuple[int, int]] = []
    rows: list[Tensor] = []
    for path in paths:
        stored = load_file(path)
        blob, place = stored["contents"].numpy().tobytes(), 0
        for length in stored["lengths"].tolist():
            image = np.asarray(Image.open(io.BytesIO(blob[place : place + length])))
            place += length
            square = np.full((side, side, 3), 114, dtype=np.uint8)
            square[: image.shape[0], : image.shape[1]] = image
            pixels.append(square.transpose(2, 0, 1))
            sizes.append((image.shape[1], image.shape[0]))
        rows += torch.split(stored["objects"], stored["counts"].tolist())
    most = max(1, max((len(each) for each in rows), default=0))
    boxes = torch.zeros(len(rows), most, 4)
    classes = torch.full((len(rows), most), -1)
    scores = torch.zeros(len(rows), most)
    for index, each in enumerate(rows):
        boxes[index, : len(each)] = each[:, :4]
        classes[index, : len(each)] = each[:, 4].long()
        scores[index, : len(each)] = each[:, 5]
    return Bank(
        torch.from_numpy(np.stack(pixels)), torch.tensor(sizes, dtype=torch.float32), boxes, classes, scores
    )
