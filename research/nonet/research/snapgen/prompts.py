"""What networks are asked for when they are judged: pairs seen and held back, unseen names, compositions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nonet.research.snapgen.bank import Bank
from nonet.research.snapgen.emoji_files import HELD_NAME, HELD_PAIR, STYLES, TRAIN
from nonet.research.snapgen.examples import PLAIN
from nonet.research.snapgen.recolouring import COLOUR_WORDS, TARGETS

#: Asked for in words that no caption of the training has.
COMPOSITIONS = (
    "a blue apple on an orange background, 3D style",
    "a purple cat face on a yellow background, flat style",
    "a green car on a pink background",
    "a pink elephant on a blue background, noto style",
    "a yellow house on a purple background, flat style",
    "a red guitar on a green background, 3D style",
    "an orange butterfly on a black background",
    "a blue mushroom on a yellow background, gradient style",
    "a green heart on a red background, 3D style",
    "a purple grinning face on a green background",
    "a red umbrella on a yellow background, noto style",
    "a pink fish on a black background, flat style",
    "a yellow rocket on a purple background, 3D style",
    "a blue pizza on a red background, flat style",
    "an orange soccer ball on a blue background, gradient style",
    "a green crown on a black background, noto style",
)


@dataclass(frozen=True)
class Asked:
    """Prompts and the names of what they ask for."""

    prompts: list[str]
    names: list[str]


def of_part(bank: Bank, part: str, count: int, seed: int = 0) -> Asked:
    """Up to `count` prompts "name, style" of drawings of a part, drawn at random by the seed."""
    plain = [each for each in bank.examples if each["part"] == part and each["kind"] == PLAIN]
    order = np.random.default_rng(seed).permutation(len(plain))[:count]
    chosen = [plain[i] for i in order]
    prompts = [f"{each['name']}, {STYLES[str(each['style'])]}" for each in chosen]
    return Asked(prompts, [str(each["name"]) for each in chosen])


def parts(bank: Bank, count: int) -> dict[str, Asked]:
    """Prompts of pairs of the training, of pairs held back, and of names that no picture of it showed."""
    wanted = (("training_pairs", TRAIN), ("held_back_pairs", HELD_PAIR), ("unseen_names", HELD_NAME))
    return {label: of_part(bank, part, count) for label, part in wanted}


def colours(bank: Bank, count: int, seed: int = 0) -> Asked:
    """Prompts for colours that the training never gave to a name; `names` are the colours."""
    known = set(bank.captions)
    random = np.random.default_rng(seed)
    recoloured = sorted({str(each["name"]) for each in bank.examples if each["colour"]})
    plain = [name for name in recoloured if not COLOUR_WORDS & set(name.lower().split())]
    prompts: list[str] = []
    asked: list[str] = []
    for name in random.permutation(plain):
        colour, style = str(random.choice(list(TARGETS))), str(random.choice(list(STYLES.values())))
        if not any(f"{colour} {name}, {each}" in known for each in STYLES.values()):
            prompts.append(f"{colour} {name}, {style}")
            asked.append(colour)
        if len(prompts) == count:
            break
    return Asked(prompts, asked)
