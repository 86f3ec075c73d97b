"""What words of an expression mean for where and how: mirrored texts, colours, and the kind of expression."""

from __future__ import annotations

import re
from typing import Final

from nonet.runtime.images.regions import COLOURS

__all__ = ["KINDS", "colours_meant", "kind_of", "mirrored"]

KINDS: Final = ("category", "attribute", "spatial", "relation")

_SIDES: Final = re.compile(r"\b(left|right|lft|rght)", re.IGNORECASE)
_SWAP: Final = {"left": "right", "right": "left", "lft": "rght", "rght": "lft"}
#: From here on a text speaks of something else than what is meant.
_OTHER: Final = re.compile(
    r"\b(next|near|nearest|closest|behind|beside|front|under|below|above|by|between|over|of the|to the|"
    r"against|facing|touching|holding|riding|on)\b"
)
_COLOUR_WORDS: Final = {
    **{name: name for name in COLOURS},
    "gray": "grey",
    "silver": "grey",
    "maroon": "red",
    "beige": "tan",
    "khaki": "tan",
    "blond": "tan",
    "blonde": "tan",
    "navy": "blue",
    "teal": "blue",
    "golden": "yellow",
    "dark": "black",
    "gold": "yellow",
    "violet": "purple",
}
_RELATION: Final = re.compile(
    r"\b(next to|near|nearest|closest to|behind|beside|in front of|under|below|above|between|over|"
    r"on top of|against|facing|touching|holding|riding|wearing|other than|not|left of|right of|of the|"
    r"looking|with|standing|sitting|walking|eating|on the|on a|"
    r"in the (?!middle|left|right|back|front|center))\b"
)
_SPATIAL: Final = re.compile(
    r"\b(left|right|lft|rght|leftmost|rightmost|topmost|bottommost|top|bottom|upper|lower|middle|center|"
    r"centre|corner|far|farthest|front|back|background|foreground|first|second|third|fourth|biggest|"
    r"largest|smallest|closest|nearest|side|row|end|edge)\b"
)
_ATTRIBUTE: Final = re.compile(
    r"\b(big|small|little|large|tall|short|young|old|striped|stripes|dark|light|shirt|hat|jacket|dress|"
    r"pants|plaid|wooden|empty|full|bald|blonde|hair|glasses|open|half|whole)\b"
)


def mirrored(expression: str) -> str:
    """The text that means in the mirrored picture what this one means: left and right change places."""

    def swap(match: re.Match[str]) -> str:
        word = match.group(0)
        other = _SWAP[word.lower()]
        return other.capitalize() if word[0].isupper() else other

    return _SIDES.sub(swap, expression)


def colours_meant(expression: str) -> tuple[str, ...]:
    """Colours that the text says of what it means, not of what stands beside it; names of
    :data:`~nonet.runtime.images.regions.COLOURS`, none twice.
    """
    text = expression.lower()
    other = _OTHER.search(text)
    own = text[: other.start()] if other and other.start() > 0 else text
    found = [_COLOUR_WORDS[word] for word in re.findall(r"[a-z]+", own) if word in _COLOUR_WORDS]
    return tuple(dict.fromkeys(found))


def kind_of(expression: str) -> str:
    """One of :data:`KINDS`, by the hardest thing that the text asks for: a relation to something else or an
    action, a place or an order, a quality, or nothing but what it is.
    """
    text = expression.lower()
    if _RELATION.search(text):
        return "relation"
    if _SPATIAL.search(text):
        return "spatial"
    words = re.findall(r"[a-z]+", text)
    if _ATTRIBUTE.search(text) or any(word in _COLOUR_WORDS for word in words):
        return "attribute"
    return "category"
