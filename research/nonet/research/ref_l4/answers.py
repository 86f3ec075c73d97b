"""Boxes out of what large multimodal models write: each family's prompt, its form of answer, its coordinates.

Prompts and scales after section 6.3 of the specification, whose entries marked as recalled are defaults
that a caller can change. An answer without four numbers in the family's form has no box: a refusal stays
one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nonet.research.ref_l4.coordinates import CONVENTIONS, clipped, patch_box, to_pixels
from nonet.research.ref_l4.overlaps import Box

__all__ = ["FAMILIES", "Family", "box_of"]

_NUMBER: Final = r"[-+]?(?:\d+\.\d+|\d+\.?|\.\d+)"
_FOUR: Final = re.compile(
    rf"[\[({{<]\s*({_NUMBER})\s*[,;\s]\s*({_NUMBER})\s*[,;\s]\s*({_NUMBER})\s*[,;\s]\s*({_NUMBER})\s*[\])}}>]"
)
_BARE: Final = re.compile(
    rf"(?<![\w.])({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})(?![\w])"
)
_PAIRS: Final = re.compile(
    rf"\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)\s*,?\s*\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)"
)
_TOKENS: Final = re.compile(r"<loc_?(\d+)>\s*<loc_?(\d+)>\s*<loc_?(\d+)>\s*<loc_?(\d+)>")
_ANGLES: Final = re.compile(r"<(\d+)>\s*<(\d+)>\s*<(\d+)>\s*<(\d+)>")
_PATCHES: Final = re.compile(r"<patch_index_(\d+)>\s*<patch_index_(\d+)>")
_KEYS: Final = ("bbox_2d", "box_2d", "bbox", "box")
_LONGEST: Final = 20_000

Reader = Callable[[str], "list[tuple[float, float, float, float]]"]


def _matches(*patterns: re.Pattern[str]) -> Reader:
    """The groups of four of the first pattern that is there at all."""

    def read(text: str) -> list[tuple[float, float, float, float]]:
        for pattern in patterns:
            found = [_floats(match.groups()) for match in pattern.finditer(text)]
            if found:
                return found
        return []

    return read


def _json(text: str) -> list[tuple[float, float, float, float]]:
    """The boxes of a JSON answer, also one inside a fence of Markdown; brackets in prose as a way out."""
    for start in (match.start() for match in re.finditer(r"[\[{]", text)):
        try:
            value, _ = json.JSONDecoder().raw_decode(text[start:])
        except (ValueError, RecursionError):
            continue
        found = _boxes_in(value)
        if found:
            return found
    return _matches(_FOUR, _BARE)(text)


def _boxes_in(value: Any) -> list[tuple[float, float, float, float]]:
    if isinstance(value, Mapping):
        for key in _KEYS:
            if key in value:
                return _boxes_in(value[key])
        return [box for each in value.values() for box in _boxes_in(each)]
    if isinstance(value, list):
        if len(value) == 4 and all(
            isinstance(each, int | float) and not isinstance(each, bool) for each in value
        ):
            return [_floats(value)]
        return [box for each in value for box in _boxes_in(each)]
    return []


def _floats(values: Sequence[Any]) -> tuple[float, float, float, float]:
    a, b, c, d = (float(each) for each in values)
    return a, b, c, d


@dataclass(frozen=True)
class Family:
    """How a family of models is asked and how it answers.

    Args:
        prompt: with ``{expression}``, and where it says so ``{width}`` and ``{height}``.
        read: the groups of four numbers in an answer.
        convention: what they mean, a name of CONVENTIONS.
    """

    prompt: str
    read: Reader
    convention: str


_ASK: Final = (
    "Find the one object that this sentence describes, and answer with its box alone, as [x1, y1, x2, y2]"
)

FAMILIES: Final = {
    "pixels": Family(
        f"{_ASK} in pixels; the picture is {{width}} wide and {{height}} high. Sentence: {{expression}}",
        _json,
        "pixel",
    ),
    "gpt4v": Family(
        "You are an expert in visual localization. Coordinates run from (0, 0), top left, to ({width}, "
        "{height}). Answer with the corners of the box as (x0, y0, x1, y1). Expression: {expression}",
        _matches(_FOUR, _PAIRS, _BARE),
        "pixel",
    ),
    "cogvlm": Family(
        "Where is {expression}? answer in [[x0,y0,x1,y1]] format.", _matches(_FOUR, _BARE), "bins_1000"
    ),
    "qwen_vl": Family("<ref>{expression}</ref><box>", _matches(_PAIRS, _FOUR), "bins_1000"),
    "qwen2_vl": Family(f"{_ASK} in thousandths of the picture: {{expression}}", _json, "bins_1000"),
    "qwen2_5_vl": Family(
        'Locate "{expression}" and answer as JSON: {{"bbox_2d": [x1, y1, x2, y2]}}', _json, "pixel_resized"
    ),
    "internvl": Family(
        "Please provide the bounding box coordinate of the region this sentence describes: "
        "<ref>{expression}</ref>",
        _matches(_FOUR, _BARE),
        "bins_1000",
    ),
    "florence2": Family("<CAPTION_TO_PHRASE_GROUNDING>{expression}", _matches(_TOKENS), "bins_1000_middle"),
    "grounding_dino": Family("{expression} .", _matches(_FOUR, _BARE), "unit_cxcywh"),
    "owlv2": Family("{expression}", _matches(_FOUR, _BARE), "unit_padded"),
    "shikra": Family(
        "Where is {expression}? Answer with [x1,y1,x2,y2].", _matches(_FOUR), "unit_padded_middle"
    ),
    "minigpt_v2": Family(
        "[refer] give me the location of {expression}", _matches(_ANGLES, _FOUR), "bins_100"
    ),
    "paligemma": Family("detect {expression}", _matches(_TOKENS), "bins_1024_yxyx"),
    "gemini": Family(
        'Find "{expression}" and answer as JSON: {{"box_2d": [ymin, xmin, ymax, xmax]}}, in thousandths.',
        _json,
        "bins_1000_yxyx",
    ),
    "deepseek_vl2": Family("<|ref|>{expression}<|/ref|>", _matches(_FOUR), "bins_999"),
    "kosmos2": Family("<grounding><phrase> {expression}</phrase>", _matches(), ""),
}


def box_of(
    text: str,
    family: str,
    width: float,
    height: float,
    resized: tuple[float, float] | None = None,
    *,
    sort: bool = False,
) -> Box | None:
    """The first box of an answer, in pixels, cut off at the picture's edges; None if there is none.

    Args:
        text: the answer; of a longer one the first 20,000 characters are read.
        family: a name of FAMILIES.
        width, height: of the original picture.
        resized: of the picture as the model saw it.
        sort: whether swapped corners are put in order; officially they are not.
    """
    text = text[:_LONGEST]
    if family == "kosmos2":
        match = _PATCHES.search(text)
        if match is None:
            return None
        return clipped(patch_box(int(match[1]), int(match[2]), width, height), width, height)
    wanted = FAMILIES[family]
    for numbers in wanted.read(text):
        if not all(math.isfinite(each) for each in numbers):
            continue
        box = to_pixels(numbers, CONVENTIONS[wanted.convention], width, height, resized)
        if sort:
            x1, y1, x2, y2 = box
            box = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
        return clipped(box, width, height)
    return None
