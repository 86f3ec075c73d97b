"""Expressions as a network reads them: a model of its own, so that they are read while a picture is searched,
and kept for the next picture."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from nonet.runtime.errors import InvalidArgument, NotImplementedHere, ServingError
from nonet.runtime.extras import how_to_install
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, Timings
from nonet.runtime.row_service import service_info
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.runtime.text_states import TextEncoder
from nonet.services.grounding.names import (
    MOST_EXPRESSIONS,
    TEXT,
    TEXTS_PREFIX,
    TOKEN_MASK,
    TOKENS,
)
from nonet.services.grounding.recipe import Recipe

__all__ = ["TextsServable", "decoded"]

_RULES: Final = 1  # raise when a text would get other states


class TextsServable:
    """``text`` BYTES [N] to ``tokens`` FP32 [N, L, D] and ``token_mask`` FP32 [N, L].

    Args:
        network: the grounding network that reads them.
        recipe: of the version.
        width: D.
        encoder: of the recipe; None where it is not installed: then every request is answered with what to
            install.
    """

    def __init__(self, network: ModelInfo, recipe: Recipe, width: int, encoder: TextEncoder | None) -> None:
        self._encoder = encoder
        info = service_info(
            network,
            TEXTS_PREFIX,
            # Its tokenizer is a file of the version.
            facts={"version": network.digest, "recipe": dataclasses.asdict(recipe), "rules": _RULES},
            takes=(TensorSpec(TEXT, DataType.BYTES, (-1,)),),
            outputs=(
                TensorSpec(TOKENS, DataType.FP32, (-1, recipe.length, width)),
                TensorSpec(TOKEN_MASK, DataType.FP32, (-1, recipe.length)),
            ),
            max_batch_size=MOST_EXPRESSIONS,
            details={},
        )
        self.info = dataclasses.replace(
            info, task="", family="", quality={}, labels=(), network="", details={}
        )

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        encoder = self._encoder
        if encoder is None:
            return [_missing() for _ in batch]
        asked: list[list[str] | ServingError] = []
        for request in batch:
            try:
                tensor = request.input(TEXT)
                assert tensor is not None  # the request was validated
                asked.append(decoded(tensor.data, TEXT))
            except ServingError as error:
                asked.append(error)
        started = time.perf_counter()
        states = iter(encoder.encode_all([text for each in asked if isinstance(each, list) for text in each]))
        seconds = time.perf_counter() - started
        outcomes: list[Outcome] = []
        for each in asked:
            if isinstance(each, ServingError):
                outcomes.append(each)
                continue
            mine = [next(states) for _ in each]
            outputs = (
                Tensor(TOKENS, DataType.FP32, np.stack([one.context for one in mine])),
                Tensor(TOKEN_MASK, DataType.FP32, np.stack([one.mask for one in mine])),
            )
            timings = Timings(compute=seconds)
            outcomes.append(InferResponse(self.info.name, self.info.version, outputs, timings=timings))
        return outcomes

    def sample_request(self, rows: int) -> InferRequest:
        """Of one text over and over: measured again it is found, not read, so what texts cost is learnt from
        those that are asked, and the start need not wait for hundreds."""
        texts = [b"the small one on the left"] * rows
        return InferRequest(self.info.name, (Tensor.of_bytes(TEXT, texts),), version=self.info.version)

    def warm_up(self) -> None:
        """Read one text."""
        if self._encoder is None:
            return
        (outcome,) = self.execute([self.sample_request(1)])
        if isinstance(outcome, ServingError):
            raise outcome

    def close(self) -> None:
        """Nothing is held."""


def decoded(texts: Sequence[bytes] | Array, name: str) -> list[str]:
    """The texts. Raises InvalidArgument for bytes that are not UTF-8; ``name`` is the input's."""
    try:
        return [bytes(text).decode("utf-8") for text in texts]
    except UnicodeDecodeError:
        raise InvalidArgument(f"{name} is not valid UTF-8", param=name) from None


def _missing() -> ServingError:
    return NotImplementedHere(
        "expressions need a text encoder that is not installed here: "
        + how_to_install("images", for_callers=True),
        param="model",
        code="EXTRA_MISSING",
    )
