"""Rows of the network, run so that what a row gets does not depend on the others in its batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np

from nonet.runtime.requests import InferRequest, InferResponse, Outcome
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Array, DataType, Tensor
from nonet.runtime.text_states import EncodedText

logger = logging.getLogger(__name__)

_CHECKED: Final = (2, 3, 5)
"""Rows of the executions that are held against each other."""


class NetworkRows:
    """A row is never run alone: a product of one row with a matrix is summed in another order than one of
    several (a matrix-vector kernel), so its last bit differs; from two rows on an engine on the CPU takes the
    same order for each. A row without company is run twice.

    Args:
        network: ``latents``, ``time``, ``context``, ``context_mask`` to ``velocity``.
    """

    def __init__(self, network: Servable) -> None:
        self._network = network

    def row(self, latents: Array, time: float, text: EncodedText) -> InferRequest:
        """One row: latents FP32 [C, H, W] at a time, with a text."""
        info = self._network.info
        columns = (
            ("latents", latents),
            ("time", np.float32(time)),
            ("context", text.context),
            ("context_mask", text.mask),
        )
        inputs = tuple(Tensor(name, DataType.FP32, np.asarray(value)[None]) for name, value in columns)
        return InferRequest(info.name, inputs, version=info.version)

    def execute(self, rows: Sequence[InferRequest]) -> list[Outcome]:
        """The answers of rows of one size, in as few executions as the network's largest batch allows."""
        largest = max(self._network.info.max_batch_size, 1)
        answers: list[Outcome] = []
        for start in range(0, len(rows), largest):
            part = list(rows[start : start + largest])
            company = part if len(part) == 1 else []
            answers += self._network.execute(part + company)[: len(part)]
        return answers

    def check(self, latents: Array) -> None:
        """Log it if the network's answer to a row does depend on how many there are, on this engine."""
        width = next(spec.shape for spec in self._network.info.inputs if spec.name == "context")
        random = np.random.default_rng(0)
        rows = [
            self.row(
                latents + np.float32(place),
                1.0 - place / 10,
                EncodedText(
                    random.standard_normal(width[1:], dtype=np.float32),
                    np.ones(width[1], np.float32),
                    1,
                    False,
                ),
            )
            for place in range(max(_CHECKED))
        ]
        found = [self.execute(rows[:count])[:2] for count in _CHECKED]
        if len({_bytes(each) for each in found}) > 1:
            logger.warning(
                "model %s: the same seed may give pixels that differ in their last bit from batch to batch",
                self._network.info.name,
            )


def _bytes(answers: Sequence[Outcome]) -> bytes:
    return b"".join(
        answer.output("velocity").data.tobytes() for answer in answers if isinstance(answer, InferResponse)
    )
