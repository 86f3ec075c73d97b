"""Drawings become captioned pictures whose colours are those that the captions say."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nonet.research.snapgen.drawing import GROUNDS, draw, lay_on
from nonet.research.snapgen.emoji_files import ARCHIVES, STYLES, TRAIN, Pair, fetch, read_pairs
from nonet.research.snapgen.examples import GROUND, RECOLOURED, article, examples_of
from nonet.research.snapgen.recolouring import TARGETS, recolour, recoloured_name, ruling_hue

DISC = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32" viewBox="0 0 32 32">'
    '<circle cx="10" cy="16" r="6" fill="#e33"/><circle cx="10" cy="14" r="2" fill="#fff"/></svg>'
)
INDEX = Path(os.environ.get("NONET_DATA", "../shared/data")) / "emoji_captions" / "pairs.csv"


def pair(name: str, style: str = "noto") -> Pair:
    return Pair("@iconify-json/noto@1.2.9", "x", style, name, ("round", "sign"), "objects")


def a_training_name() -> str:
    return next(name for name in ("ball", "disc", "dot", "spot") if pair(name).part == TRAIN)


def test_a_drawing_fills_the_middle_whatever_its_place_in_the_document() -> None:
    drawn = draw(DISC, 64)
    assert drawn is not None
    rows, columns = np.nonzero(drawn[..., 3] > 127)
    assert (rows.max() - rows.min(), columns.max() - columns.min()) == (55, 55)
    assert abs(rows.mean() - 31.5) < 1
    assert abs(columns.mean() - 31.5) < 1


def test_an_empty_document_is_no_drawing() -> None:
    assert draw('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>', 64) is None


def test_a_ground_shows_where_nothing_is_drawn() -> None:
    drawn = draw(DISC, 64)
    assert drawn is not None
    laid = lay_on(drawn, GROUNDS["blue"])
    assert tuple(laid[0, 0]) == GROUNDS["blue"]
    assert tuple(laid[50, 32]) != GROUNDS["blue"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_recoloured_drawing_is_ruled_by_its_new_colour_and_keeps_its_white(target: str) -> None:
    drawn = draw(DISC, 64)
    assert drawn is not None
    ruling = ruling_hue(drawn)
    assert ruling.name == "red"
    assert ruling.share > 0.8
    changed = recolour(drawn, ruling.hue, target)
    assert ruling_hue(changed).name == target
    assert np.array_equal(changed[..., 3], drawn[..., 3])
    white = (drawn[..., :3].min(-1) > 250) & (drawn[..., 3] == 255)
    assert white.any()
    assert np.abs(changed[white].astype(int) - drawn[white].astype(int)).max() <= 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [("red apple", "blue apple"), ("cat face", "blue cat face"), ("black and white flag", None)],
)
def test_the_caption_says_the_new_colour(name: str, expected: str | None) -> None:
    assert recoloured_name(name, "blue") == expected


def test_captions_name_the_colour_and_the_ground_that_the_pixels_have() -> None:
    drawn = draw(DISC, 64)
    assert drawn is not None
    kinds = set()
    for style in STYLES:
        for name in (f"thing{number}" for number in range(12)):
            for example in examples_of(pair(name, style), drawn):
                kinds.add(example.kind)
                corner = tuple(int(value) for value in example.pixels[0, 0])
                assert corner == GROUNDS[example.ground]
                on_ground = f"on {article(example.ground + ' background')}"
                assert all((on_ground in said) == (example.ground != "white") for said in example.captions)
                if example.kind == RECOLOURED:
                    assert example.colour != "red"
                    assert all(f"{example.colour} {name}" in said for said in example.captions)
                    shown = np.dstack([example.pixels, drawn[..., 3]])
                    assert ruling_hue(shown).name == example.colour
    assert {GROUND, RECOLOURED} <= kinds


def test_pairs_held_back_are_shown_once_and_never_changed() -> None:
    drawn = draw(DISC, 64)
    assert drawn is not None
    held = [name for name in (f"thing{i}" for i in range(200)) if pair(name).part != TRAIN]
    assert 8 < len(held) < 45  # about 12 %
    assert all(len(list(examples_of(pair(name), drawn))) == 1 for name in held)


def test_examples_do_not_depend_on_the_other_pairs() -> None:
    drawn = draw(DISC, 64)
    assert drawn is not None
    name = a_training_name()
    first, again = (list(examples_of(pair(name), drawn)) for _ in range(2))
    assert [each.captions for each in first] == [each.captions for each in again]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(first, again, strict=True))


def test_an_archive_that_is_not_the_listed_one_is_refused(tmp_path: Path) -> None:
    for file, _ in ARCHIVES.values():
        (tmp_path / file).write_bytes(b"something else")
    with pytest.raises(ValueError, match="SHA-256"):
        fetch(tmp_path)


@pytest.mark.skipif(not INDEX.exists(), reason="the index of emoji pictures is not there")
def test_the_index_gives_pictures_free_to_use_alone() -> None:
    pairs = read_pairs(INDEX.parents[1])
    assert {each.style for each in pairs} == set(STYLES)
    assert {each.source for each in pairs} == set(ARCHIVES)
    held = sum(each.part != TRAIN for each in pairs) / len(pairs)
    assert 0.08 < held < 0.16
