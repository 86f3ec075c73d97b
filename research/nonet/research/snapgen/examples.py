"""Captioned pictures made of the emoji drawings: as they are, on coloured grounds, and recoloured.

Colours, grounds and their words are drawn by a generator seeded with the pair's own name, so that an example
is the same whatever other pairs there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nonet.research.snapgen.drawing import GROUNDS, Pixels, lay_on
from nonet.research.snapgen.emoji_files import STYLES, TRAIN, Pair
from nonet.research.snapgen.recolouring import (
    COLOUR_WORDS,
    LEAST_SHARE,
    TARGETS,
    recolour,
    recoloured_name,
    ruling_hue,
)

#: What an example shows: the drawing on white, on a named ground, or recoloured (on white or on a ground).
PLAIN, GROUND, RECOLOURED = "plain", "ground", "recoloured"


@dataclass(frozen=True)
class Example:
    """One picture and what may be said of it.

    Attributes:
        pixels: (side, side, 3).
        captions: of which training takes one at random; the first is "name, style".
        name, style, part: of the pair.
        kind: PLAIN, GROUND or RECOLOURED.
        colour: that a recoloured one was given, else "".
        ground: colour word of the ground.
    """

    pixels: Pixels
    captions: tuple[str, ...]
    name: str
    style: str
    part: str
    kind: str
    colour: str = ""
    ground: str = "white"


def article(noun: str) -> str:
    """The noun with "a" or "an"; as it is where it is plural or has an article."""
    first, last = noun.split()[0], noun.split()[-1]
    if first in {"the", "a", "an"} or (last.endswith("s") and not last.endswith("ss")):
        return noun
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def examples_of(pair: Pair, drawing: Pixels) -> Iterator[Example]:
    """The examples of one drawing (side, side, 4): the plain one first. Pairs held back have no others."""
    seed = hashlib.sha256(f"{pair.style}/{pair.name}".encode()).digest()[:8]
    generator = np.random.default_rng(int.from_bytes(seed, "big"))
    style, name = STYLES[pair.style], pair.name
    ruling = ruling_hue(drawing)
    ruled = ruling.share >= LEAST_SHARE
    captions = [f"{name}, {style}", article(name)]
    known = set(name.lower().split())
    others = [word for word in pair.keywords if word.lower() not in known]
    if others:
        chosen = generator.choice(others, size=min(2, len(others)), replace=False)
        captions.append(f"{name}, {', '.join(chosen)}, {style}")
    if ruled and not any(word.lower() in COLOUR_WORDS for word in name.split()):
        captions.append(f"{ruling.name} {name}, {style}")
    yield Example(lay_on(drawing, GROUNDS["white"]), tuple(captions), name, pair.style, pair.part, PLAIN)
    if pair.part != TRAIN:
        return
    grounds = [word for word in GROUNDS if word != "white"]
    if generator.random() < 0.6:
        ground = str(generator.choice(grounds))
        yield Example(
            lay_on(drawing, GROUNDS[ground]),
            _grounded(name, ground, style),
            name,
            pair.style,
            pair.part,
            GROUND,
            ground=ground,
        )
    if not ruled:
        return
    targets = [word for word in TARGETS if word != ruling.name]
    for target in generator.choice(targets, size=2, replace=False):
        renamed = recoloured_name(name, str(target))
        if renamed is None:
            return
        changed = recolour(drawing, ruling.hue, str(target))
        on_ground = generator.random() < 0.25
        ground = str(generator.choice(grounds)) if on_ground else "white"
        said = _grounded(renamed, ground, style) if on_ground else (f"{renamed}, {style}", article(renamed))
        yield Example(
            lay_on(changed, GROUNDS[ground]),
            said,
            name,
            pair.style,
            pair.part,
            RECOLOURED,
            str(target),
            ground,
        )


def _grounded(name: str, ground: str, style: str) -> tuple[str, ...]:
    behind = article(f"{ground} background")
    return f"{name} on {behind}, {style}", f"{article(name)} on {behind}"
