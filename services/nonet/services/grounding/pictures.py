"""What is computed of a picture once, whatever is asked about it: how its regions look, and views of it.

Both are models of their own, so that the cache keeps what they found for the next request about the picture.
"""

from __future__ import annotations

import abc
import dataclasses
import io
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import PIL
from PIL import Image

from nonet.runtime.errors import ServingError
from nonet.runtime.images import DecodedImage, ImageLimits, decode_image
from nonet.runtime.images.regions import LOOKS as LOOKS_COUNT
from nonet.runtime.images.regions import LOOKS_VERSION, looks_of
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, Timings
from nonet.runtime.row_service import in_row, service_info
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.services.grounding.names import (
    BOXES,
    FRAMES,
    IMAGE,
    LOOKS,
    LOOKS_PREFIX,
    SIZE,
    VIEWS,
    VIEWS_PREFIX,
)
from nonet.services.grounding.sample import sample_picture

__all__ = ["LooksServable", "ViewsServable", "tile_frames"]

_TARGET: Final = (640, 640)
"""Looks are sampled on grids that are coarser than a picture of this size."""
_VIEW_SIDE: Final = 1280
"""Longest side of the picture that views are cut from: a tile of it is as large as what detectors take."""
_TILE: Final = 0.6
"""Share of a side that a tile shows: an object as wide as the overlap, a fifth, is whole in one of them."""
_VIEWS: Final = 5
_QUALITY: Final = 95
_MOST: Final = 8
_RULES: Final = 1  # raise when a picture would get other looks or views


class _PictureServable(abc.ABC):
    """A service whose rows are pictures and need no network.

    Args:
        info: of the service.
        limits: bounds for one image.
        target: width and height that a large picture may be decoded down to.
    """

    def __init__(self, info: ModelInfo, limits: ImageLimits, target: tuple[int, int]) -> None:
        self.info = info
        self._limits, self._target = limits, target

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for request in batch:
            try:
                outcomes.append(self._answered(request))
            except ServingError as error:
                outcomes.append(error)
        return outcomes

    def warm_up(self) -> None:
        """Run once."""
        (outcome,) = self.execute([self.sample_request(1)])
        if isinstance(outcome, ServingError):
            raise outcome

    def close(self) -> None:  # noqa: B027
        """Nothing is held."""

    @abc.abstractmethod
    def sample_request(self, rows: int) -> InferRequest: ...

    @abc.abstractmethod
    def _row(self, decoded: DecodedImage, row: int, request: InferRequest) -> dict[str, Any]:
        """The outputs of one row, by name."""

    def _answered(self, request: InferRequest) -> InferResponse:
        images = _input(request, IMAGE)
        found: list[dict[str, Any]] = []
        spent = [0.0, 0.0]
        for row, data in enumerate(images):
            started = time.perf_counter()
            with in_row(row, len(images), IMAGE):
                decoded = decode_image(data, limits=self._limits, target=self._target)
            read = time.perf_counter()
            found.append(self._row(decoded, row, request))
            spent[0] += read - started
            spent[1] += time.perf_counter() - read
        outputs = []
        for spec in self.info.outputs:
            values = np.empty((len(found), *spec.shape[1:]), spec.datatype.numpy)
            for row, each in enumerate(found):
                values[row] = each[spec.name]
            outputs.append(Tensor(spec.name, spec.datatype, values))
        timings = Timings(decode=spent[0], compute=spent[1])
        return InferResponse(self.info.name, self.info.version, tuple(outputs), timings=timings)


class LooksServable(_PictureServable):
    """``image`` BYTES [N] and ``boxes`` FP32 [N, R, 4] to ``looks`` FP32 [N, R, A] and ``size`` INT64 [N, 2].

    Boxes are corners x1, y1, x2, y2 in pixels of the upright picture; looks are of
    :mod:`nonet.runtime.images.regions`; size is width and height.

    Args:
        network: the grounding network that looks are for.
        regions: R.
        limits: bounds for one image.
    """

    def __init__(self, network: ModelInfo, regions: int, limits: ImageLimits) -> None:
        self._regions = regions
        takes = (
            TensorSpec(IMAGE, DataType.BYTES, (-1,)),
            TensorSpec(BOXES, DataType.FP32, (-1, regions, 4)),
        )
        gives = (
            TensorSpec(LOOKS, DataType.FP32, (-1, regions, LOOKS_COUNT)),
            TensorSpec(SIZE, DataType.INT64, (-1, 2)),
        )
        facts = [LOOKS_VERSION, regions]
        super().__init__(_info(network, LOOKS_PREFIX, takes, gives, facts, limits), limits, _TARGET)

    def sample_request(self, rows: int) -> InferRequest:
        boxes = np.tile(np.array([0, 0, 100, 100], np.float32), (rows, self._regions, 1))
        pictures = Tensor.of_bytes(IMAGE, [sample_picture()] * rows)
        return InferRequest(self.info.name, (pictures, Tensor(BOXES, DataType.FP32, boxes)))

    def _row(self, decoded: DecodedImage, row: int, request: InferRequest) -> dict[str, Any]:
        size = np.array([decoded.width, decoded.height])
        boxes = _input(request, BOXES)[row] / np.tile(size, 2)
        return {LOOKS: looks_of(decoded.pixels, boxes), SIZE: size}


class ViewsServable(_PictureServable):
    """``image`` BYTES [N] to ``views`` BYTES [N, 5], encoded pictures, and ``frames`` FP32 [N, 5, 4], the
    part of the picture that each shows, in its pixels.

    The first view is the whole picture mirrored left to right, the others are four overlapping tiles.

    Args:
        network: the grounding network that views are for.
        limits: bounds for one image.
    """

    def __init__(self, network: ModelInfo, limits: ImageLimits) -> None:
        takes = (TensorSpec(IMAGE, DataType.BYTES, (-1,)),)
        gives = (
            TensorSpec(VIEWS, DataType.BYTES, (-1, _VIEWS)),
            TensorSpec(FRAMES, DataType.FP32, (-1, _VIEWS, 4)),
        )
        info = _info(network, VIEWS_PREFIX, takes, gives, [_TILE, _VIEW_SIDE], limits)
        super().__init__(info, limits, (_VIEW_SIDE, _VIEW_SIDE))

    def sample_request(self, rows: int) -> InferRequest:
        return InferRequest(self.info.name, (Tensor.of_bytes(IMAGE, [sample_picture()] * rows),))

    def _row(self, decoded: DecodedImage, row: int, request: InferRequest) -> dict[str, Any]:
        picture = decoded.image
        longest = max(picture.size)
        if longest > _VIEW_SIDE:
            size = tuple(max(1, round(side * _VIEW_SIDE / longest)) for side in picture.size)
            picture = picture.resize((size[0], size[1]), Image.Resampling.BILINEAR)
        width, height = picture.size
        tiles = tile_frames(width, height)
        views = [picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
        views += [picture.crop(frame) for frame in tiles]
        frames = np.array([(0, 0, width, height), *tiles], np.float64)
        scale = np.array([decoded.width / width, decoded.height / height])
        return {VIEWS: [_encoded(view) for view in views], FRAMES: frames * np.tile(scale, 2)}


def tile_frames(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """The four overlapping tiles of a picture, in whole pixels: upper left, upper right, lower left, lower
    right."""
    across, down = max(1, round(width * _TILE)), max(1, round(height * _TILE))
    return [
        (left, top, left + across, top + down) for top in (0, height - down) for left in (0, width - across)
    ]


def _encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def _input(request: InferRequest, name: str) -> Array:
    tensor = request.input(name)
    assert tensor is not None  # the request was validated
    return tensor.data


def _info(
    network: ModelInfo,
    prefix: str,
    takes: Sequence[TensorSpec],
    gives: Sequence[TensorSpec],
    facts: Any,
    limits: ImageLimits,
) -> ModelInfo:
    """Of a service that belongs to a grounding network and answers no task: nobody chooses it by one."""
    details: Mapping[str, Any] = {}
    info = service_info(
        network,
        prefix,
        facts={
            "of": prefix,
            "facts": facts,
            "limits": dataclasses.asdict(limits),
            "decoder": ["pillow", PIL.__version__, _RULES],
        },
        takes=takes,
        outputs=gives,
        max_batch_size=_MOST,
        details=details,
    )
    return dataclasses.replace(info, task="", family="", quality={}, labels=(), network="", details={})
