"""Names of floors and their order: B2, B1, F1, F2 and the other ways to write them.

There is no floor 0: B1 lies directly below F1. Levels are counted from F1 = 1 up and B1 = -1 down.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nonet.runtime.errors import InvalidArgument

_SCHEMES: tuple[tuple[str, int], ...] = (
    (r"(?P<style>-)(?P<number>\d+)", -1),
    (r"(?P<style>LG|B|P|LL|U)(?P<number>\d+)", -1),
    (r"(?P<number>\d+)(?P<style>B)", -1),
    (r"(?P<style>F|L|G|)(?P<number>\d+)", 1),
    (r"(?P<number>\d+)(?P<style>F|L|)", 1),
)
_WORDS = {"G": 1, "GF": 1, "GROUND": 1, "LG": -1, "B": -1, "BASEMENT": -1, "BF": -1}


def level_of(name: str, override: Mapping[str, int] | None = None) -> int:
    """The level of a floor's name: 1 is the ground floor (F1, 1F, L1, G), -1 the first basement (B1, LG1,
    P1); a plain 0 is taken as directly below 1. ``override`` answers first, by the exact name.

    Raises InvalidArgument for a name without a known meaning.
    """
    if override and name in override:
        return override[name]
    text = name.strip().upper()
    if text in _WORDS:
        return _WORDS[text]
    for scheme, sign in _SCHEMES:
        if match := re.fullmatch(scheme, text):
            return sign * int(match["number"])
    raise InvalidArgument(
        f"'{name}' is not a floor name that can be put in order; give the names of all floors", param="floors"
    )


def order_floors(names: list[str], override: Mapping[str, int] | None = None) -> list[str]:
    """``names`` from the lowest to the highest. Raises InvalidArgument as ``level_of``."""
    return sorted(names, key=lambda name: level_of(name, override))


def name_floors(name: str, position: int, floors: int) -> tuple[str, ...]:
    """Names of ``floors`` neighbouring floors, bottom first, of which number ``position`` is called ``name``.

    The way the name is written is kept: "3F" gives 2F and 4F; below F1 comes B1. A plain number counts on
    through 0. A name without a number stands among its neighbours as "Lobby-1", "Lobby", "Lobby+1".
    """
    steps = range(1 - position, floors + 1 - position)
    if re.fullmatch(r"-?\d+", name.strip()):
        return tuple(str(int(name) + step) for step in steps)
    try:
        level = level_of(name)
    except InvalidArgument:
        return tuple(name if step == 0 else f"{name}{step:+d}" for step in steps)
    after = re.fullmatch(r"\d+[A-Z]", name.strip().upper()) is not None
    up = (re.sub(r"[\d\s]", "", name) if level > 0 else "") or "F"
    down = (re.sub(r"[\d\s]", "", name) if level < 0 else "") or "B"
    if re.fullmatch(r"[A-Za-z]+", name.strip()):  # G, Ground, LG: the neighbours have numbers
        up, down, after = "F", "B", False
    names = []
    for step in steps:
        here = _moved(level, step)
        style = up if here > 0 else down
        written = f"{abs(here)}{style}" if after and here > 0 else f"{style}{abs(here)}"
        names.append(name if step == 0 else written)
    return tuple(names)


def _moved(level: int, step: int) -> int:
    """The level ``step`` floors higher, without a floor 0."""
    counted = (level if level < 0 else level - 1) + step
    return counted if counted < 0 else counted + 1
