"""The reviewed lists of RefCOCO, RefCOCO+ and RefCOCOg, and what leaving out the flagged expressions
changes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonet.research.ref_l4.metrics import accuracy
from nonet.runtime.errors import InvalidArgument

__all__ = ["Reviewed", "effect", "kept_rows", "read_reviewed"]

Key = tuple[int, int, int]
"""COCO's number of the picture, that of the annotation, and the position among the expressions of that
one."""


@dataclass(frozen=True)
class Reviewed:
    """Of each expression its text and whether it was kept."""

    kept: Mapping[Key, tuple[str, bool]]

    @property
    def removed(self) -> int:
        """How many were left out."""
        return sum(not kept for _, kept in self.kept.values())


def read_reviewed(path: Path) -> Reviewed:
    """A file ``refcoco*_reviewed.json``, or JSON lines with `image_id`, `ann_id`, `pos`, `expression` and
    `caption_quality` (0: left out; specification, section 5.2).

    Raises InvalidArgument for another file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            return Reviewed(
                {
                    (int(row["image_id"]), int(row["ann_id"]), int(row["pos"])): (
                        str(row["expression"]),
                        bool(row["caption_quality"]),
                    )
                    for row in rows
                }
            )
        return Reviewed(_coco_like(json.loads(text)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(f"{path.name} is no reviewed list: {error}", param="reviewed") from None


def _coco_like(content: Mapping[str, Any]) -> dict[Key, tuple[str, bool]]:
    """One record of `images` and one of `annotations` for each expression; those of an object are in the
    order of their numbers."""
    pictures = {int(each["id"]): each for each in content["images"]}
    found: dict[Key, tuple[str, bool]] = {}
    seen: dict[tuple[int, int], int] = {}
    for each in sorted(content["annotations"], key=lambda record: int(record["id"])):
        picture = pictures[int(each["image_id"])]
        group = (int(picture["original_id"]), int(each["original_id"]))
        position = seen.get(group, 0)
        seen[group] = position + 1
        found[(*group, position)] = (str(picture["caption"]), bool(each["caption_quality"]))
    return found


def kept_rows(rows: Sequence[Mapping[str, Any]], reviewed: Reviewed) -> tuple[list[int], NDArray[np.bool_]]:
    """Which of the rows of a RefCOCO list the review knows (their indices), and which of those it kept.

    Raises InvalidArgument if a text differs.
    """
    known, kept = [], []
    for index, row in enumerate(rows):
        entry = reviewed.kept.get((int(row["image_id"]), int(row["ann_id"]), int(row["pos"])))
        if entry is None:
            continue
        if entry[0].lower() != str(row["expression"]).lower():
            raise InvalidArgument(
                f"the reviewed list has another text for {row['expression']!r}", param="reviewed"
            )
        known.append(index)
        kept.append(entry[1])
    return known, np.array(kept, dtype=bool)


def effect(ious: NDArray[np.float32], kept: NDArray[np.bool_], threshold: float = 0.5) -> dict[str, Any]:
    """Accuracy of all, of the kept and of the removed, which add up:
    ``n acc_all = n_kept acc_kept + n_removed acc_removed`` (specification, section 4.2)."""
    return {
        "count": len(ious),
        "kept": int(kept.sum()),
        "removed": int((~kept).sum()),
        "acc_all": accuracy(ious, threshold),
        "acc_kept": accuracy(ious[kept], threshold),
        "acc_removed": accuracy(ious[~kept], threshold),
    }
