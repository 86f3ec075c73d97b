"""Procedural pictures with captions: one to four coloured shapes on a textured grey background, 64 x 64.

They are drawn from prompts of the six categories of GenEval, and are made so that what a picture shows can be
read off exactly (:mod:`nonet.research.snapgen.mini_geneval`): colours are strong, backgrounds are grey, and
shapes do not touch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

SIDE = 64
GAP = 2
"""Pixels of background at least between two shapes, and around them."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (250, 225, 40),
    "green": (40, 170, 60),
    "cyan": (40, 200, 220),
    "blue": (40, 70, 220),
    "purple": (140, 50, 190),
    "pink": (250, 110, 190),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
BACKGROUNDS = ("plain", "striped", "checkered", "dotted", "noisy", "shaded")
RELATIONS = ("left of", "right of", "above", "below")
CATEGORIES = ("single", "two", "counting", "colours", "position", "attribution")
NUMBERS = ("no", "one", "two", "three", "four")
SIZES: dict[str, tuple[int, int]] = {"small": (11, 14), "large": (17, 22)}
"""Sides in pixels; beside two others or more even a large shape is at most 17."""


@dataclass(frozen=True)
class Wanted:
    """What a prompt asks for: `count` shapes; without a `colour` any will do, without a `size` any."""

    shape: str
    colour: str | None = None
    count: int = 1
    size: str | None = None


@dataclass(frozen=True)
class Prompt:
    """A caption, its category, what it asks for, and how the first of two is to lie to the second."""

    text: str
    category: str
    wanted: tuple[Wanted, ...]
    relation: str | None = None
    background: str | None = None


@dataclass(frozen=True)
class Thing:
    """A shape with its colour, the left upper corner of its square box, and the side of that."""

    shape: str
    colour: str
    x: int
    y: int
    side: int

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) in pixels."""
        return self.x + (self.side - 1) / 2, self.y + (self.side - 1) / 2


@dataclass(frozen=True)
class Scene:
    """Things on a background, whose texture and tone come from `seed`."""

    things: tuple[Thing, ...]
    background: str
    seed: int


@cache
def shape_mask(shape: str, side: int) -> NDArray[np.bool_]:
    """The shape in its box (side, side), whose edges it touches; read-only. Raises KeyError for another."""
    middle = (side - 1) / 2
    rows, columns = np.mgrid[:side, :side] - middle
    distance = np.hypot(rows, columns)
    drawn: dict[str, Callable[[], NDArray[np.bool_]]] = {
        "circle": lambda: distance <= side / 2,
        "square": lambda: np.ones((side, side), bool),
        "triangle": lambda: np.abs(columns) <= (rows + middle + 1) / 2,
        "diamond": lambda: np.abs(rows) + np.abs(columns) <= middle + 0.5,
        "cross": lambda: np.minimum(np.abs(rows), np.abs(columns)) <= side / 6,
        "ring": lambda: (distance <= side / 2) & (distance > side / 4),
    }
    mask = drawn[shape]()
    mask.setflags(write=False)
    return mask


def in_relation(
    relation: str, first: tuple[float, float], second: tuple[float, float], margin: float
) -> bool:
    """Whether a centre (x, y) lies to another as told, by more than `margin` pixels along that axis."""
    right, down = first[0] - second[0], first[1] - second[1]
    return {"left of": -right, "right of": right, "above": -down, "below": down}[relation] > margin


def texture(background: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """A background (SIDE, SIDE, 3) in 0..255, nearly grey."""
    tone, contrast = rng.uniform(70, 180), rng.uniform(20, 40)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    width = int(rng.integers(3, 8))
    if background == "striped":
        pattern = ((rows if rng.random() < 0.5 else columns) // width) % 2
    elif background == "checkered":
        pattern = (rows // width + columns // width) % 2
    elif background == "dotted":
        pattern = ((rows % (width + 2)) < 2) & ((columns % (width + 2)) < 2)
    elif background == "noisy":
        pattern = rng.random((SIDE, SIDE))
    elif background == "shaded":
        pattern = (rows + columns) / (2 * SIDE)
    else:
        pattern = np.zeros((SIDE, SIDE))
    tint = rng.uniform(-8, 8, 3)
    return (tone + contrast * pattern.astype(np.float64))[..., None] + tint


def draw(scene: Scene) -> NDArray[np.uint8]:
    """The picture of a scene, (SIDE, SIDE, 3) RGB; the same for the same scene."""
    picture = texture(scene.background, np.random.default_rng(scene.seed))
    for thing in scene.things:
        box = picture[thing.y : thing.y + thing.side, thing.x : thing.x + thing.side]
        box[shape_mask(thing.shape, thing.side)] = COLOURS[thing.colour]
    return np.clip(picture, 0, 255).astype(np.uint8)


def apart(first: Thing, second: Thing) -> bool:
    """Whether GAP pixels of background lie between two boxes."""
    return (
        first.x + first.side + GAP <= second.x
        or second.x + second.side + GAP <= first.x
        or first.y + first.side + GAP <= second.y
        or second.y + second.side + GAP <= first.y
    )


def scene_of(prompt: Prompt, rng: np.random.Generator) -> Scene:
    """A scene that shows what the prompt asks for and no shape more; the rest is random."""
    each = [wanted for wanted in prompt.wanted for _ in range(wanted.count)]
    colours = [wanted.colour or str(rng.choice(list(COLOURS))) for wanted in each]
    background = prompt.background or str(rng.choice(BACKGROUNDS))
    while True:
        things: list[Thing] = []
        for wanted, colour in zip(each, colours, strict=True):
            low, high = SIZES[wanted.size or str(rng.choice(list(SIZES)))]
            side = int(rng.integers(low, (high if len(each) < 3 else min(high, 17)) + 1))
            x, y = rng.integers(GAP, SIDE - side - GAP + 1, 2)
            things.append(Thing(wanted.shape, colour, int(x), int(y), side))
        if not all(apart(a, b) for number, a in enumerate(things) for b in things[:number]):
            continue
        if prompt.relation is not None:
            a, b = things
            if not in_relation(prompt.relation, a.centre, b.centre, (a.side + b.side) / 2):
                continue
        return Scene(tuple(things), background, int(rng.integers(2**32)))


def phrase(wanted: Wanted) -> str:
    """The words for what is wanted: "a large red circle", "three crosses"."""
    noun = wanted.shape
    words = [word for word in (wanted.size, wanted.colour) if word]
    if wanted.count > 1:
        return " ".join([NUMBERS[wanted.count], *words, f"{noun}es" if noun == "cross" else f"{noun}s"])
    article = "an" if (words or [noun])[0][0] in "aeiou" else "a"
    return " ".join([article, *words, noun])


def prompt_of(category: str, rng: np.random.Generator, exact: bool = False) -> Prompt:
    """A random prompt of one of :data:`CATEGORIES`. For training it may also tell sizes, the background, and
    colours where the category needs none, and `attribution` asks for two to four shapes; with `exact` it is
    as GenEval's are. Raises ValueError for an unknown category.
    """
    if category not in CATEGORIES:
        raise ValueError(f"the category must be one of {', '.join(CATEGORIES)}, not {category!r}")
    free = not exact
    number = {"single": 1, "counting": 1, "colours": 1}.get(category, 2)
    if category == "attribution" and free:
        number = int(rng.integers(2, 5))
    coloured = category in ("colours", "attribution") or (free and rng.random() < 0.5)
    shapes = rng.choice(SHAPES, number, replace=False)
    colours = rng.choice(list(COLOURS), number, replace=False)
    wanted = tuple(
        Wanted(
            str(shape),
            str(colour) if coloured else None,
            int(rng.integers(2, 5)) if category == "counting" else 1,
            str(rng.choice(list(SIZES))) if free and number == 1 and rng.random() < 0.3 else None,
        )
        for shape, colour in zip(shapes, colours, strict=True)
    )
    phrases = [phrase(each) for each in wanted]
    relation = str(rng.choice(RELATIONS)) if category == "position" else None
    background = str(rng.choice(BACKGROUNDS)) if free and rng.random() < 0.3 else None
    if relation is not None:
        text = f"{phrases[0]} {relation} {phrases[1]}"
    else:
        text = " and ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))
    if background is not None:
        text += f" on a {background} background"
    return Prompt(text, category, wanted, relation, background)


def captioned(count: int, seed: int) -> list[tuple[Prompt, Scene]]:
    """Pairs for training, of all categories in turn; the same for the same seed."""
    rng = np.random.default_rng(seed)
    prompts = [prompt_of(CATEGORIES[number % len(CATEGORIES)], rng) for number in range(count)]
    return [(prompt, scene_of(prompt, rng)) for prompt in prompts]
