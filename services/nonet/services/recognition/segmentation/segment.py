"""Segmentation as a service: decode, preprocess, one run of the network for a whole batch, masks of
pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
import PIL

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.images import ImageLimits, Preprocessing, decode_image, preprocess
from nonet.runtime.requests import Parameter
from nonet.runtime.row_service import RowService, in_row, service_info
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.services.recognition.sample_photo import sample_photo
from nonet.services.recognition.segmentation.overlay import overlay_png
from nonet.services.recognition.segmentation.pixel_masks import MaskKind, PixelMasks, pixel_masks
from nonet.services.recognition.segmentation.run_length import counts_of, counts_text

__all__ = ["INPUT", "MASKS", "OUTPUTS", "OVERLAY", "SERVICE_PREFIX", "SegmentServable"]

SERVICE_PREFIX: Final = "segment."
INPUT: Final = "image"
MASKS, OVERLAY = OUTPUTS = ("masks", "overlay")

_RULES: Final = 1  # raise when the way from an image to its masks changes what they are


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """What an answer needs beside the logits: whether the overlays are wanted, and each image's size."""

    overlay: bool
    sizes: Sequence[tuple[int, int]]


class SegmentServable(RowService[_Asked]):
    """``image`` BYTES [N] to ``masks`` BYTES [N], JSON, and ``overlay`` BYTES [N], PNG.

    Each text is ``{"image": {"width", "height"}, "classes", "masks": [{"label", "area", "rle"}]}``: a mask
    for each class that is in the image, in the order of the classes, in pixels of the image as it is shown.
    An overlay is empty unless the parameter ``output`` is ``overlay``. A request fails alone, as a whole,
    with the row named if it has several.

    Args:
        network: the network; closed by its owner, after this service.
        preprocessing: how an image becomes the network's input; the whole of it, stretched.
        classes: names of the masks, in the order of the logits without a background.
        kind: what the logits say.
        limits: bounds for one image.
    """

    def __init__(
        self,
        network: Servable,
        preprocessing: Preprocessing,
        classes: Sequence[str],
        kind: MaskKind,
        limits: ImageLimits,
    ) -> None:
        self._preprocessing = preprocessing
        self._classes = tuple(classes)
        self._kind: MaskKind = kind
        self._limits = limits
        info = network.info
        facts = {"preprocessing": preprocessing.to_manifest(), "classes": list(classes), "masks": kind}
        super().__init__(
            network,
            service_info(
                info,
                SERVICE_PREFIX,
                facts={
                    **facts,
                    "network": info.digest,
                    "limits": dataclasses.asdict(limits),
                    "decoder": ["pillow", PIL.__version__, _RULES],
                },
                takes=INPUT,
                outputs=tuple(TensorSpec(name, DataType.BYTES, (-1,)) for name in OUTPUTS),
                max_batch_size=info.max_batch_size,
                details=facts,
            ),
        )

    def _sample(self) -> bytes:
        return sample_photo()

    def _read_asked(self, rows: Sequence[bytes], parameters: Mapping[str, Parameter]) -> tuple[Array, _Asked]:
        """The pixels [N, 3, H, W]."""
        output = parameters.get("output", MASKS)
        if output not in OUTPUTS:
            raise InvalidArgument(
                f"output must be {' or '.join(OUTPUTS)}, not {str(output)[:80]!r}", param="output"
            )
        pixels, sizes = self._read(rows)
        return pixels, dataclasses.replace(sizes, overlay=output == OVERLAY)

    def _read(self, rows: Sequence[bytes]) -> tuple[Array, _Asked]:
        side = self._preprocessing.crop
        pixels = np.empty((len(rows), 3, side, side), dtype=np.float32)
        sizes = []
        for row, data in enumerate(rows):
            with in_row(row, len(rows), INPUT):
                decoded = decode_image(data, limits=self._limits, target=self._preprocessing.target)
            pixels[row] = preprocess(decoded, self._preprocessing)
            sizes.append((decoded.width, decoded.height))
        return pixels, _Asked(False, sizes)

    def _answer(self, outputs: Mapping[str, Array], noted: _Asked) -> tuple[Tensor, ...]:
        (logits,) = outputs.values()
        texts, overlays = [], []
        for layers, (width, height) in zip(logits, noted.sizes, strict=True):
            found = pixel_masks(layers, width, height, self._kind)
            texts.append(orjson.dumps(self._described(found)))
            overlays.append(overlay_png(found.index_map(), len(self._classes)) if noted.overlay else b"")
        return Tensor.of_bytes(MASKS, texts), Tensor.of_bytes(OVERLAY, overlays)

    def _described(self, found: PixelMasks) -> dict[str, Any]:
        masks = []
        for index, label in enumerate(self._classes):
            if not found.grid[index].any():
                continue
            counts = counts_of(found.strips(index))
            rle = {"size": [found.height, found.width], "counts": counts_text(counts)}
            masks.append({"label": label, "area": int(counts[1::2].sum()), "rle": rle})
        return {
            "image": {"width": found.width, "height": found.height},
            "classes": self._classes,
            "masks": masks,
        }
