"""From latents to pixels: the version's decoder, many pictures at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from nonet.runtime.companion_networks import open_session
from nonet.runtime.errors import ModelOutputInvalid, ModelRefused
from nonet.runtime.tensors import Array

DECODER_FILE: Final = "decoder.onnx"
_TOGETHER: Final = 16  # pictures of one run: more need memory and save nothing


class PictureDecoder:
    """``latents`` FP32 [N, C, H, W], in the network's own scale, to ``image`` FP32 [N, 3, R H, R W] in 0..1.

    Thread-safe.

    Args:
        content: of the file.
        reduction: R.

    Raises ModelRefused for a file that is no such network.
    """

    def __init__(self, content: bytes, reduction: int) -> None:
        self._session = open_session(content, DECODER_FILE, {"latents"}, {"image"})
        self._reduction = reduction

    def check(self, latent: tuple[int, int, int]) -> None:
        """Raises ModelRefused unless a latent [C, H, W] becomes a picture of its size."""
        try:
            self.decode([np.zeros(latent, np.float32)])
        except Exception as error:  # ONNX Runtime raises classes of its own
            raise ModelRefused(f"its {DECODER_FILE} makes no picture of latents {list(latent)}") from error

    def decode(self, latents: Sequence[Array]) -> list[Array]:
        """The pictures FP32 [3, H, W] of latents [C, h, w], which may differ in size; in order.

        Raises ModelOutputInvalid for what is no picture.
        """
        pictures: list[Array] = [np.empty(0)] * len(latents)
        places: dict[tuple[int, ...], list[int]] = {}
        for place, each in enumerate(latents):
            places.setdefault(each.shape, []).append(place)
        for shape, of_shape in places.items():
            wanted = (3, shape[1] * self._reduction, shape[2] * self._reduction)
            for start in range(0, len(of_shape), _TOGETHER):
                part = of_shape[start : start + _TOGETHER]
                (made,) = self._session.run(["image"], {"latents": np.stack([latents[one] for one in part])})
                if made.shape != (len(part), *wanted) or not np.isfinite(made).all():
                    raise ModelOutputInvalid(
                        f"{DECODER_FILE} gave {list(made.shape)}, or numbers that are none"
                    )
                for place, picture in zip(part, made, strict=True):
                    pictures[place] = picture
        return pictures
