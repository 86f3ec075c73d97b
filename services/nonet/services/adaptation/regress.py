"""Regression as a service: rows or images in, a value, its standard deviation and its expected error out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.images import ImageLimits, Preprocessing, decode_image, preprocess
from nonet.runtime.requests import UNSURE_ROWS, InferRequest, InferResponse, Outcome
from nonet.runtime.row_service import RowService, in_row, service_info
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.services.adaptation.calibration import Calibration
from nonet.services.adaptation.columns import Columns
from nonet.services.adaptation.names import INPUT, SERVICE_PREFIX
from nonet.services.adaptation.sample_image import sample_image

__all__ = ["MOST_ROWS", "RegressServable"]

MOST_ROWS: Final = 4096
"""Rows of one request."""

_RULES: Final = 1  # raise when the reading of a row, or what is made of the network's outputs, changes


class RegressServable(RowService[None]):
    """``inputs`` BYTES [N], each a row as JSON or an encoded image, to ``value``, ``std`` and ``error`` FP32
    [N, D] and ``confident`` BOOL [N].

    The response's parameter ``unsure_rows`` counts the rows that are not confident.

    Args:
        network: gives ``value`` and ``std``; closed by its owner, after this service.
        calibration: of the version.
        columns: of a row; None for images.
        preprocessing: how an image becomes the network's input; None for rows.
        limits: bounds for one image.
    """

    def __init__(
        self,
        network: Servable,
        calibration: Calibration,
        columns: Columns | None,
        preprocessing: Preprocessing | None,
        limits: ImageLimits,
    ) -> None:
        info = network.info
        self._calibration = calibration
        self._columns = columns
        self._preprocessing = preprocessing
        self._limits = limits
        width = next(spec.shape[1] for spec in info.outputs if spec.name == "value")
        source = info.details.get("source")
        about = dict(source) if isinstance(source, Mapping) else {}
        super().__init__(
            network,
            service_info(
                info,
                SERVICE_PREFIX,
                facts={
                    "network": info.digest,
                    "calibration": dataclasses.asdict(calibration),
                    "columns": None if columns is None else dataclasses.asdict(columns),
                    "preprocessing": None if preprocessing is None else preprocessing.to_manifest(),
                    "limits": dataclasses.asdict(limits),
                    "rules": _RULES,
                },
                takes=INPUT,
                outputs=(
                    *(TensorSpec(name, DataType.FP32, (-1, width)) for name in ("value", "std", "error")),
                    TensorSpec("confident", DataType.BOOL, (-1,)),
                ),
                max_batch_size=MOST_ROWS if columns is not None else info.max_batch_size,
                details={
                    "features": [] if columns is None else list(columns.features),
                    "outputs": about.get("outputs", []),
                    "units": about.get("units", []),
                },
            ),
        )

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        return [_counted(outcome) for outcome in super().execute(batch)]

    def _sample(self) -> bytes:
        if self._columns is None:
            assert self._preprocessing is not None
            return sample_image(self._preprocessing.crop)
        return json.dumps([0.0] * self._columns.size).encode()

    def _read(self, rows: Sequence[bytes]) -> tuple[Array, None]:
        if self._columns is None:
            return self._images(rows), None
        values: list[Any] = []
        for row, data in enumerate(rows):
            try:
                values.append(orjson.loads(data))
            except orjson.JSONDecodeError:
                raise InvalidArgument(
                    f"row {row} is not valid JSON; the model takes rows of numbers, no images", param=INPUT
                ) from None
        return self._columns.read_all(values), None

    def _images(self, rows: Sequence[bytes]) -> Array:
        """The pixels [N, 3, H, W]."""
        assert self._preprocessing is not None
        side = self._preprocessing.crop
        pixels = np.empty((len(rows), 3, side, side), dtype=np.float32)
        for row, data in enumerate(rows):
            if data[:1] in (b"[", b"{"):
                raise InvalidArgument("the model takes an image: send the field 'image'", param="image")
            with in_row(row, len(rows), "image"):
                decoded = decode_image(data, limits=self._limits, target=self._preprocessing.target)
            pixels[row] = preprocess(decoded, self._preprocessing)
        return pixels

    def _answer(self, outputs: Mapping[str, Array], noted: None) -> tuple[Tensor, ...]:
        value, std = outputs["value"], outputs["std"]
        return (
            Tensor("value", DataType.FP32, value),
            Tensor("std", DataType.FP32, std),
            Tensor("error", DataType.FP32, self._calibration.error(value, std)),
            Tensor("confident", DataType.BOOL, self._calibration.confident(value, std)),
        )


def _counted(outcome: Outcome) -> Outcome:
    """An answer that says how many of its rows are not confident."""
    if not isinstance(outcome, InferResponse):
        return outcome
    unsure = int(np.count_nonzero(~outcome.output("confident").data))
    return dataclasses.replace(outcome, parameters={UNSURE_ROWS: unsure})
