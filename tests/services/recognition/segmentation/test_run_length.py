"""Run lengths are COCO's: a decoder written from the format's description reads them, and COCO's own
agrees."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nonet.services.recognition.segmentation.run_length import counts_of, counts_text

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def encoded(mask: np.ndarray, cuts: tuple[int, ...] = ()) -> str:
    """A mask [height, width] whose columns come in strips with the given ends."""
    flat = mask.ravel(order="F")
    edges = sorted({0, len(flat), *(cut % (len(flat) + 1) for cut in cuts)})
    return counts_text(counts_of(flat[start:end] for start, end in pairwise(edges)))


def decoded(text: str, height: int, width: int) -> np.ndarray:
    """One character at a time, as the format is described."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            group = ord(text[place]) - 48
            value |= (group & 31) << shift
            more, place, shift = bool(group & 32), place + 1, shift + 5
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    pixels = np.concatenate([np.full(count, index % 2) for index, count in enumerate(counts)])
    return pixels.astype(bool).reshape(width, height).T


@given(MASKS, st.lists(st.integers(0, 2000), max_size=4).map(tuple))
def test_a_mask_comes_back_whatever_strips_it_came_in(mask: np.ndarray, cuts: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(decoded(encoded(mask, cuts), *mask.shape), mask)


@given(MASKS)
def test_it_is_what_coco_writes(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encoded(mask).encode() == theirs["counts"]


@pytest.mark.parametrize("runs", [[0, 70_000_000], [5, 64_000_000, 1, 3], [2**31, 1, 2**40, 7, 1, 2**33]])
def test_long_runs_are_written_whole(runs: list[int]) -> None:
    text, found, place = counts_text(np.array(runs)), [], 0
    while place < len(text):
        value, shift, group = 0, 0, 32
        while group & 32:
            group = ord(text[place]) - 48
            value, shift, place = value | (group & 31) << shift, shift + 5, place + 1
        value -= (group & 16) and 1 << shift
        found.append(value + (found[-2] if len(found) > 2 else 0))
    assert found == runs


@pytest.mark.parametrize(
    ("mask", "counts"),
    [
        (np.zeros((2, 3), bool), [6]),
        (np.ones((2, 3), bool), [0, 6]),
        (np.array([[0, 1], [0, 0]], bool), [2, 1, 1]),
    ],
)
def test_counts_begin_with_unset_pixels(mask: np.ndarray, counts: list[int]) -> None:
    assert counts_of([mask.ravel(order="F")]).tolist() == counts
