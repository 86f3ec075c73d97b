"""Procedural scenes and the detector that reads them: whatever is drawn is read back exactly."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.research.snapgen import mini_geneval
from nonet.research.snapgen.mini_geneval import Found, detect, obeyed
from nonet.research.snapgen.scenes import (
    BACKGROUNDS,
    CATEGORIES,
    COLOURS,
    RELATIONS,
    SHAPES,
    SIDE,
    Prompt,
    Scene,
    Thing,
    Wanted,
    captioned,
    draw,
    prompt_of,
    scene_of,
    shape_mask,
)

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CATEGORIES), seeds)
def test_the_detector_reads_every_scene_back(category: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    prompt = prompt_of(category, rng)
    scene = scene_of(prompt, rng)
    found = detect(draw(scene))
    expected = Counter((each.shape, each.colour, each.centre, each.side) for each in scene.things)
    assert Counter((each.shape, each.colour, each.centre, each.side) for each in found) == expected
    assert obeyed(prompt, found)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(SHAPES), st.sampled_from(list(COLOURS)), st.sampled_from(BACKGROUNDS), seeds)
def test_every_shape_in_every_colour_is_known_at_every_size(
    shape: str, colour: str, background: str, seed: int
) -> None:
    for side in range(11, 23):
        scene = Scene((Thing(shape, colour, 5, 9, side),), background, seed)
        (found,) = detect(draw(scene))
        assert (found.shape, found.colour, found.side) == (shape, colour, side)


@settings(max_examples=24, deadline=None)
@given(st.sampled_from(BACKGROUNDS), seeds)
def test_a_background_alone_shows_nothing(background: str, seed: int) -> None:
    assert detect(draw(Scene((), background, seed))) == []


@settings(max_examples=12, deadline=None)
@given(seeds)
def test_a_prompt_of_another_shape_colour_number_or_relation_is_not_obeyed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for category in CATEGORIES:
        prompt = prompt_of(category, rng, exact=True)
        found = detect(draw(scene_of(prompt, rng)))
        first = prompt.wanted[0]
        shapes = {wanted.shape for wanted in prompt.wanted}
        others = [replace(first, shape=shape) for shape in SHAPES if shape not in shapes]
        if first.colour is not None:
            others += [replace(first, colour=colour) for colour in COLOURS if colour != first.colour]
        if first.count > 1:
            others += [replace(first, count=count) for count in (2, 3, 4) if count != first.count]
        for other in others:
            assert not obeyed(replace(prompt, wanted=(other, *prompt.wanted[1:])), found)
        if prompt.relation is not None:
            opposite = RELATIONS[RELATIONS.index(prompt.relation) ^ 1]
            assert not obeyed(replace(prompt, relation=opposite), found)
            assert obeyed(replace(prompt, relation=opposite, wanted=prompt.wanted[::-1]), found)


def test_attributes_that_changed_places_are_noticed() -> None:
    prompt = Prompt("", "attribution", (Wanted("circle", "red"), Wanted("square", "blue")))
    swapped = [Found("circle", "blue", (10, 10), 12), Found("square", "red", (40, 40), 12)]
    assert not obeyed(prompt, swapped)
    assert obeyed(
        prompt, [replace(each, colour={"red": "blue", "blue": "red"}[each.colour]) for each in swapped]
    )


def test_prompts_say_what_they_want() -> None:
    rng = np.random.default_rng(0)
    for category in CATEGORIES:
        for _ in range(50):
            prompt = prompt_of(category, rng)
            for wanted in prompt.wanted:
                assert wanted.shape in prompt.text
                assert wanted.colour is None or wanted.colour in prompt.text
                assert wanted.count == 1 or f"{['two', 'three', 'four'][wanted.count - 2]} " in prompt.text
            assert prompt.background is None or prompt.background in prompt.text
            assert (prompt.relation is not None) is (category == "position")
    with pytest.raises(ValueError, match="category"):
        prompt_of("texture", rng)


def test_scenes_have_one_to_four_things_of_all_shapes_colours_and_backgrounds() -> None:
    pairs = captioned(600, 1)
    things = [thing for _, scene in pairs for thing in scene.things]
    assert {len(scene.things) for _, scene in pairs} == {1, 2, 3, 4}
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {scene.background for _, scene in pairs} == set(BACKGROUNDS)
    assert captioned(12, 7) == captioned(12, 7) != captioned(12, 8)
    assert draw(pairs[0][1]).shape == (SIDE, SIDE, 3)
    assert np.array_equal(draw(pairs[0][1]), draw(pairs[0][1]))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_touches_all_edges_of_its_box(shape: str) -> None:
    for side in range(8, 30):
        mask = shape_mask(shape, side)
        assert mask[0].any()
        assert mask[-1].any()
        assert mask[:, 0].any()
        assert mask[:, -1].any()


def test_the_score_is_the_mean_of_the_categories() -> None:
    asked = mini_geneval.prompts(4, 0)
    assert Counter(prompt.category for prompt in asked) == dict.fromkeys(CATEGORIES, 4)
    assert len({prompt.text for prompt in asked}) == len(asked)
    rng = np.random.default_rng(0)
    perfect = mini_geneval.scores(asked, lambda prompt: draw(scene_of(prompt, rng)))
    assert perfect == dict.fromkeys((*CATEGORIES, "overall"), 1.0)
    grey = np.full((SIDE, SIDE, 3), 128, np.uint8)
    circle = draw(Scene((Thing("circle", "red", 9, 9, 13),), "plain", 0))
    assert mini_geneval.scores(asked, lambda prompt: grey)["overall"] == 0
    half = mini_geneval.scores(asked, lambda prompt: circle if prompt.category == "single" else grey)
    assert half["overall"] == pytest.approx(half["single"] / 6)


def test_a_smear_is_of_no_shape_and_a_speck_is_nothing() -> None:
    picture = np.full((SIDE, SIDE, 3), 128, np.uint8)
    picture[5:7, 5:7] = COLOURS["red"]
    for number in range(20):
        picture[20 + number, 20 + number : 22 + number] = COLOURS["blue"]
    (found,) = detect(picture)
    assert found.shape is None
    assert found.colour == "blue"
