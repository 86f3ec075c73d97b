"""What stands for a version whose text encoder is not installed: it says so, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from nonet.runtime.errors import NotImplementedHere
from nonet.runtime.extras import how_to_install
from nonet.runtime.requests import InferRequest, Outcome
from nonet.runtime.servable import ModelInfo
from nonet.services.text_to_image.servable import sample_request


class MissingEncoderServable:
    """Answers every request with :class:`NotImplementedHere` (``EXTRA_MISSING``).

    Args:
        info: of the service that would be here.
    """

    def __init__(self, info: ModelInfo) -> None:
        self.info = info

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        return [
            NotImplementedHere(
                "pictures need a text encoder that is not installed here: "
                + how_to_install("images", for_callers=True),
                param="model",
                code="EXTRA_MISSING",
            )
            for _ in batch
        ]

    def sample_request(self, rows: int) -> InferRequest:
        return sample_request(self.info, rows)

    def warm_up(self) -> None:
        """Nothing can be run."""

    def close(self) -> None:
        """Nothing is held."""
