"""Words of expressions: mirrored texts, colours, classes, kinds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.research.grounding.nouns import SAID, class_of_instance, classes_named, first_class
from nonet.research.grounding.wording import colours_meant, kind_of, mirrored


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("the left dog", "the right dog"),
        ("Leftmost cup, right of the bowl", "Rightmost cup, left of the bowl"),
        ("the bright copyright sign", "the bright copyright sign"),
        ("second from lft", "second from rght"),
    ],
)
def test_left_and_right_change_places(text: str, turned: str) -> None:
    assert mirrored(text) == turned


@given(st.text(alphabet="lefrightbc t", max_size=30))
def test_mirrored_twice_is_the_text_itself(text: str) -> None:
    assert mirrored(mirrored(text)) == text


@pytest.mark.parametrize(
    ("text", "colours"),
    [
        ("girl in the red shirt", ("red",)),
        ("gray and white cat", ("grey", "white")),
        ("man next to the red car", ()),
        ("the white car behind the blue bus", ("white",)),
    ],
)
def test_only_colours_of_what_is_meant_count(text: str, colours: tuple[str, ...]) -> None:
    assert colours_meant(text) == colours


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("zebra", "category"),
        ("the red car", "attribute"),
        ("second dog from the left", "spatial"),
        ("the left one", "spatial"),
        ("cup next to the laptop", "relation"),
        ("man holding a bat", "relation"),
    ],
)
def test_the_kind_is_that_of_the_hardest_word(text: str, kind: str) -> None:
    assert kind_of(text) == kind


def test_the_first_noun_that_is_there_is_meant() -> None:
    there = {"person", "dog", "couch"}
    assert first_class("puppy on the sofa", there) == "dog"
    assert first_class("the sofa", there) == "couch"
    assert first_class("shirt of the dog", there) == "dog"
    assert first_class("red shirt", there) == "person"
    assert first_class("the umbrella", there) is None


def test_an_object_is_what_most_call_it() -> None:
    said = ["the guy", "left man", "bat", "striped"]
    assert class_of_instance(said, list(SAID)) == ("person", 0.5)
    assert class_of_instance(["striped"], list(SAID)) == (None, 0.0)
    assert "hot dog" in classes_named("hot dog with mustard")
    assert "dog" not in classes_named("hot dog with mustard")
