"""Masks lie on the picture's own pixels, whatever its size, and large pictures are bounded in work."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nonet.services.recognition.segmentation import pixel_masks as module
from nonet.services.recognition.segmentation.overlay import overlay_png
from nonet.services.recognition.segmentation.pixel_masks import PixelMasks, pixel_masks
from nonet.services.recognition.segmentation.run_length import counts_of


def by_columns(masks: PixelMasks, index: int) -> np.ndarray:
    """A class's mask [height, width], put together of its strips."""
    flat = np.concatenate(list(masks.strips(index)))
    return flat.reshape(masks.width, masks.height).T


def halves(classes: int = 1) -> np.ndarray:
    """Logits [classes, 8, 8] of a mask on the left half."""
    logits = np.full((classes, 8, 8), -4.0, np.float32)
    logits[:, :, :4] = 4.0
    return logits


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 2), (8, 8), (64, 48), (201, 3), (20_000, 1)])
def test_the_left_half_is_the_left_half_at_every_size(width: int, height: int) -> None:
    found = by_columns(pixel_masks(halves(), width, height, "independent"), 0)
    assert found.shape == (height, width)
    assert found[:, : width // 2].all()
    assert not found[:, (width + 1) // 2 :].any()


def test_exclusive_classes_leave_the_background_out() -> None:
    logits = np.stack([np.zeros((8, 8), np.float32), halves()[0], -halves()[0] / 2])
    masks = pixel_masks(logits, 16, 16, "exclusive")
    assert len(masks.grid) == 2
    left, right = by_columns(masks, 0), by_columns(masks, 1)
    assert left[:, :8].all()
    assert right[:, 8:].all()
    assert not (left & right).any()
    nothing = pixel_masks(np.zeros((3, 8, 8), np.float32), 16, 16, "exclusive")
    assert not nothing.grid.any()


def test_overlaps_of_independent_classes_show_the_last() -> None:
    masks = pixel_masks(halves(2), 16, 12, "independent")
    assert set(np.unique(masks.index_map())) == {0, 2}
    assert masks.index_map().shape == (12, 16)


@settings(max_examples=25)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**31))
def test_a_coarser_grid_puts_each_pixel_in_the_place_that_holds_it(
    width: int, height: int, seed: int
) -> None:
    grid = np.random.default_rng(seed).random((2, min(7, height), min(5, width))) > 0.5
    masks = PixelMasks(grid, width, height)
    rows = [int((row + 0.5) * grid.shape[1] / height) for row in range(height)]
    columns = [int((column + 0.5) * grid.shape[2] / width) for column in range(width)]
    for index in range(2):
        np.testing.assert_array_equal(by_columns(masks, index), grid[index][np.ix_(rows, columns)])
        assert counts_of(masks.strips(index))[1::2].sum() == by_columns(masks, index).sum()
    shown = np.where(grid[1], 2, np.where(grid[0], 1, 0))[np.ix_(rows, columns)]
    np.testing.assert_array_equal(masks.index_map(), shown)


def test_strips_of_a_large_picture_are_small_and_its_grid_bounded() -> None:
    masks = pixel_masks(halves(), 4000, 4000, "independent")
    assert masks.grid.size <= module._FINEST * 1.01
    sizes = [len(strip) for strip in masks.strips(0)]
    assert max(sizes) <= module._STRIP
    assert sum(sizes) == 16_000_000
    counts = counts_of(masks.strips(0))
    assert counts.tolist() == [0, 8_000_000, 8_000_000]


def test_an_overlay_is_transparent_where_no_mask_is() -> None:
    shown = np.array([[0, 1], [2, 2]], np.uint8)
    with Image.open(io.BytesIO(overlay_png(shown, 2))) as opened:
        pixels = np.asarray(opened.convert("RGBA"))
    assert (pixels[..., 3] > 0).tolist() == [[False, True], [True, True]]
    assert pixels[1, 0].tolist() == pixels[1, 1].tolist() != pixels[0, 1].tolist()
