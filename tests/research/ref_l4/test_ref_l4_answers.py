"""What models write becomes boxes in pixels: every convention there and back, every family in any prose."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.research.ref_l4.answers import FAMILIES, box_of
from nonet.research.ref_l4.baselines import NamedBox, by_name_and_place, centre, largest, whole
from nonet.research.ref_l4.coordinates import CONVENTIONS, clipped, from_pixels, patch_box, to_pixels
from nonet.runtime.errors import InvalidArgument

SIDES = st.integers(32, 4000)
SHARES = st.tuples(st.floats(0, 0.45), st.floats(0, 0.45), st.floats(0.55, 1), st.floats(0.55, 1))
PROSE = st.sampled_from(["", "Sure! ", "The object (a cup) is here: ", "In picture 2, I found 1 match. "])
REFUSALS = ["", "I cannot help with that.", "There are 3 dogs, 2 cats.", "[no box]", "<box></box>"]

#: How each family writes four numbers.
FORMS = {
    "pixels": "[{0:.1f}, {1:.1f}, {2:.1f}, {3:.1f}]",
    "gpt4v": "({0:.0f}, {1:.0f}, {2:.0f}, {3:.0f})",
    "cogvlm": "[[{0:03.0f},{1:03.0f},{2:03.0f},{3:03.0f}]]",
    "qwen_vl": "<box>({0:.0f},{1:.0f}),({2:.0f},{3:.0f})</box>",
    "qwen2_vl": '```json\n[{{"bbox_2d": [{0:.0f}, {1:.0f}, {2:.0f}, {3:.0f}], "label": "x"}}]\n```',
    "qwen2_5_vl": '{{"bbox_2d": [{0:.0f}, {1:.0f}, {2:.0f}, {3:.0f}]}}',
    "internvl": "<ref>x</ref><box>[[{0:.0f}, {1:.0f}, {2:.0f}, {3:.0f}]]</box>",
    "florence2": "x<loc_{0:.0f}><loc_{1:.0f}><loc_{2:.0f}><loc_{3:.0f}>",
    "grounding_dino": "[{0:.4f}, {1:.4f}, {2:.4f}, {3:.4f}]",
    "owlv2": "[{0:.4f}, {1:.4f}, {2:.4f}, {3:.4f}]",
    "shikra": "[{0:.3f},{1:.3f},{2:.3f},{3:.3f}]",
    "minigpt_v2": "{{<{0:.0f}><{1:.0f}><{2:.0f}><{3:.0f}>}}",
    "paligemma": "<loc{0:04.0f}><loc{1:04.0f}><loc{2:04.0f}><loc{3:04.0f}> x",
    "gemini": '[{{"box_2d": [{0:.0f}, {1:.0f}, {2:.0f}, {3:.0f}]}}]',
    "deepseek_vl2": "<|det|>[[{0:.0f}, {1:.0f}, {2:.0f}, {3:.0f}]]<|/det|>",
}


@given(SIDES, SIDES, SHARES, st.sampled_from(sorted(CONVENTIONS)))
def test_every_convention_goes_there_and_back(
    width: int, height: int, shares: tuple[float, ...], name: str
) -> None:
    box = (shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height)
    resized = (width / 3, height / 2)
    numbers = from_pixels(box, CONVENTIONS[name], width, height, resized)
    assert to_pixels(numbers, CONVENTIONS[name], width, height, resized) == pytest.approx(box, abs=1e-6)


def test_a_padded_square_is_as_wide_as_the_longer_side() -> None:
    box = to_pixels((0.25, 0.25, 0.5, 0.5), CONVENTIONS["unit_padded"], 1080, 1920)
    assert box == (480, 480, 960, 960)
    middle = to_pixels((0.5, 0.5, 0.5, 0.5), CONVENTIONS["unit_padded_middle"], 1080, 1920)
    assert middle == (540, 960, 540, 960)
    with pytest.raises(InvalidArgument, match="size that the model saw"):
        to_pixels((0, 0, 1, 1), CONVENTIONS["pixel_resized"], 10, 10)
    assert patch_box(0, 32 * 32 - 1, 320, 640) == (0, 0, 320, 640)
    assert clipped((-5, 3, 900, 7), 100, 50) == (0, 3, 100, 7)


def test_every_family_has_a_form_here() -> None:
    assert set(FORMS) | {"kosmos2"} == set(FAMILIES)
    for family in FAMILIES.values():
        asked = family.prompt.format(expression="the red cup", width=640, height=480)
        assert "the red cup" in asked


@given(SIDES, SIDES, SHARES, st.sampled_from(sorted(FORMS)), PROSE, PROSE)
@settings(max_examples=300)
def test_a_well_formed_answer_is_read_within_half_a_bin(
    width: int, height: int, shares: tuple[float, ...], family: str, before: str, after: str
) -> None:
    box = (shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height)
    convention = CONVENTIONS[FAMILIES[family].convention]
    numbers = from_pixels(box, convention, width, height, (width, height))
    if convention.offset:
        numbers = [max(0.0, each) for each in numbers]
    text = before + FORMS[family].format(*numbers) + " " + after
    found = box_of(text, family, width, height, (width, height))
    assert found is not None, text
    side = max(width, height)
    half = {0.0: 0.51, 1.0: side * 1e-3}.get(convention.side, 0.51 * side / (convention.side or 1))
    assert found == pytest.approx(box, abs=half + 1e-6)


@given(st.sampled_from(REFUSALS), st.sampled_from(sorted(FAMILIES)))
def test_an_answer_without_a_box_has_none(text: str, family: str) -> None:
    assert box_of(text, family, 640, 480, (640, 480)) is None


@given(st.text(max_size=400), st.sampled_from(sorted(FAMILIES)))
@settings(max_examples=300)
def test_whatever_is_written_a_box_lies_in_the_picture(text: str, family: str) -> None:
    found = box_of(text, family, 640, 480, (640, 480))
    if found is not None:
        assert all(0 <= each <= 640 for each in found[::2])
        assert all(0 <= each <= 480 for each in found[1::2])


def test_first_of_several_swapped_corners_and_patches() -> None:
    assert box_of("[1, 2, 3, 4] or [5, 6, 7, 8]", "gpt4v", 100, 100) == (1, 2, 3, 4)
    assert box_of("[30, 40, 10, 20]", "gpt4v", 100, 100) == (30, 40, 10, 20)
    assert box_of("[30, 40, 10, 20]", "gpt4v", 100, 100, sort=True) == (10, 20, 30, 40)
    said = "<object><patch_index_0033><patch_index_0066></object>"
    assert box_of(said, "kosmos2", 320, 320) == (10, 10, 30, 30)
    assert box_of("[1e999, 2, 3, 4]", "pixels", 100, 100) is None


def test_the_grounder_without_weights_knows_names_and_places() -> None:
    boxes = [
        NamedBox("person", (0, 0, 20, 60)),
        NamedBox("person", (50, 10, 70, 60)),
        NamedBox("dog", (80, 40, 100, 60)),
    ]
    for expression, index in {
        "man on the left": 0,
        "the rightmost woman": 1,
        "puppy": 2,
        "the smallest person": 1,
        "person": 0,
        "something else": 0,
        "people in the middle": 1,
    }.items():
        assert by_name_and_place(expression, boxes, 100, 60) == boxes[index].box, expression
    assert largest([], 100, 60) == whole(100, 60) == by_name_and_place("x", [], 100, 60)
    assert centre(100, 60) == (25, 15, 75, 45)
