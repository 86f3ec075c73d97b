"""Token states of every text that is trained or measured on, computed once and kept in a file.

The encoder is the one that the server runs (:mod:`nonet.runtime.text_states`), so that a network is trained
with the numbers that it is served with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nonet.runtime.text_states import ENCODERS, EncodedText, TextEncoder, load_encoder, pooled

__all__ = ["ENCODER", "ENCODER_SHA256", "LENGTH", "WIDTH", "TextStates", "encoder_of"]

LENGTH, WIDTH = 32, 384
ENCODER = next(iter(ENCODERS))
ENCODER_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"

_KEPT_AT_ONCE = 8000

Told = Callable[[int], None]


def encoder_of(tokenizer: bytes) -> TextEncoder:
    """The encoder that published versions name. Raises what ``load_encoder`` does."""
    return load_encoder(ENCODER, ENCODER_SHA256, tokenizer, LENGTH)


class TextStates:
    """Texts by number, their states one after the other in half precision.

    Args:
        folder: of the two files; made where it is absent. What is in it is never computed again. Without a
            folder the states are kept in memory alone.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._numbers: dict[str, int] = {}
        self._starts = np.zeros(1, np.int64)
        self._states: npt.NDArray[np.float16] = np.zeros((0, WIDTH), np.float16)
        if folder is not None and (folder / "texts.json").exists():
            stored = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
            self._numbers = {text: number for number, text in enumerate(stored["texts"])}
            self._starts = np.array(stored["starts"], np.int64)
            # A run that was cut off between the two files leaves states that no text names.
            self._states = np.load(folder / "states.npy", mmap_mode="r")[: self._starts[-1]]

    def add(self, texts: Iterable[str], encoder: TextEncoder, told: Told = lambda count: None) -> None:
        """Encode what is not there yet and keep it; ``told`` hears how many are left, now and then."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._numbers]
        for start in range(0, len(missing), _KEPT_AT_ONCE):
            told(len(missing) - start)
            self._append(missing[start : start + _KEPT_AT_ONCE], encoder)

    def _append(self, texts: list[str], encoder: TextEncoder) -> None:
        parts = [each.context[: each.tokens].astype(np.float16) for each in encoder.encode_all(texts)]
        self._states = np.concatenate([self._states, *parts])
        self._starts = np.concatenate(
            [self._starts, self._starts[-1] + np.cumsum([len(part) for part in parts])]
        )
        for text in texts:
            self._numbers[text] = len(self._numbers)
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        np.save(self._folder / "new.npy", self._states)
        (self._folder / "new.npy").replace(self._folder / "states.npy")
        facts = {"texts": list(self._numbers), "starts": self._starts.tolist()}
        (self._folder / "new.json").write_text(json.dumps(facts), encoding="utf-8")
        (self._folder / "new.json").replace(self._folder / "texts.json")

    def of(self, text: str) -> npt.NDArray[np.float16]:
        """(tokens, WIDTH). Raises KeyError for a text that was not added."""
        number = self._numbers[text]
        return self._states[self._starts[number] : self._starts[number + 1]]

    def whole(self, text: str) -> npt.NDArray[np.float32]:
        """(WIDTH,) of length 1: the text as one state."""
        states = self.of(text).astype(np.float32)
        return pooled(EncodedText(states, np.ones(len(states), np.float32), len(states), False))

    def together(self, texts: list[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """States (B, L, WIDTH) and mask (B, L) of several texts, L the longest's tokens."""
        found = [self.of(text) for text in texts]
        length = max(len(each) for each in found)
        states = np.zeros((len(found), length, WIDTH), np.float32)
        mask = np.zeros((len(found), length), np.float32)
        for row, each in enumerate(found):
            states[row, : len(each)] = each
            mask[row, : len(each)] = 1
        return states, mask
