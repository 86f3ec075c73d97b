"""Floor identification as a service: scans as JSON in, a distribution over the floors out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.row_service import RowService, service_info
from nonet.runtime.scans import SILENT, STRONGEST, WEAKEST, described, out_of_range, transmitter_key
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.services.floor_identification.foreign_transmitters import WEAKEST as WEAKEST_COUNTED
from nonet.services.floor_identification.foreign_transmitters import beside_strangers

SERVICE_PREFIX: Final = "identify."
INPUT: Final = "scan"

_RULES: Final = 3  # raise when a scan gets another answer than before
_MAX_BATCH: Final = 1024
_MOST_READINGS: Final = 100_000
_LONGEST: Final = 8 << 20
_LOUDEST_STORED: Final = -1.0
_SAMPLE_READINGS: Final = 60
_NOTHING: Final = 1e-6  # less than this is no probability


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Heard:
    """For each scan (N): transmitters of the building, those of them with a reading that counts, and unknown
    ones with such a reading."""

    heard: Array
    acquainted: Array
    strangers: Array


class IdentifyServable(RowService[_Heard]):
    """``scan`` BYTES [N], each a JSON object of transmitter to dBm (-150 to 0, where 0 is not heard), to

    - ``floor`` BYTES [N]: name of the likeliest floor, empty if nothing tells;
    - ``confidence`` FP32 [N]: probability that it is right: that of the floor times that of the building;
    - ``distribution`` FP32 [N, K]: over the floors (``labels``), given that it is this building;
    - ``known`` FP32 [N]: probability that the scan is of this building at all;
    - ``heard`` INT32 [N]: transmitters of the building that the scan holds.

    Transmitters that the building does not know have no say in the floor; where they are more than the known
    ones they count against ``known`` (see ``strangers``). Nothing tells where a scan was taken that holds
    none it knows, that hears all of them too weakly to count, or whose known ones are heard together in it
    with a probability below a millionth: it has no floor, an even distribution, and is known with probability
    0. A request fails with the row named.

    Args:
        network: the fitted building; closed by its owner, after this service.
        transmitters: the columns of its input.
        facts: what is to be said of the building.
    """

    def __init__(self, network: Servable, transmitters: Sequence[str], facts: Mapping[str, Any]) -> None:
        # By their keys too: a building may have been fitted when fewer spellings of an address were known.
        self._column = {transmitter_key(name): index for index, name in enumerate(transmitters)}
        self._column |= {name: index for index, name in enumerate(transmitters)}
        self._width = len(transmitters)
        self._floors = [floor.encode() for floor in network.info.labels]
        self._usual = orjson.dumps(dict.fromkeys(list(transmitters)[:_SAMPLE_READINGS], -60))
        floors = len(self._floors)
        super().__init__(
            network,
            service_info(
                network.info,
                SERVICE_PREFIX,
                facts=[network.info.digest, _RULES],
                takes=INPUT,
                outputs=(
                    TensorSpec("floor", DataType.BYTES, (-1,)),
                    TensorSpec("confidence", DataType.FP32, (-1,)),
                    TensorSpec("distribution", DataType.FP32, (-1, floors)),
                    TensorSpec("known", DataType.FP32, (-1,)),
                    TensorSpec("heard", DataType.INT32, (-1,)),
                ),
                max_batch_size=_MAX_BATCH,
                details={"building": dict(facts)},
            ),
        )

    def _sample(self) -> bytes:
        return self._usual

    def _read(self, rows: Sequence[bytes]) -> tuple[Array, _Heard]:
        """The readings in dBm [N, M], 0 for what is not heard, and what each scan holds."""
        rssi = np.zeros((len(rows), self._width), np.float32)
        strangers = np.zeros(len(rows), np.int32)
        for row, data in enumerate(rows):
            try:
                strangers[row] = self._fill(rssi[row], data)
            except InvalidArgument as error:
                raise InvalidArgument(f"scan {row}: {error.message}", param=INPUT, code=error.code) from None
        heard = np.count_nonzero(rssi, axis=1).astype(np.int32)
        acquainted = np.count_nonzero((rssi >= WEAKEST_COUNTED) & (rssi < 0), axis=1)
        return rssi, _Heard(heard, acquainted, strangers)

    def _fill(self, row: Array, data: bytes) -> int:
        """Write the readings of known transmitters into ``row``; returns how many others have a reading that
        counts. Raises InvalidArgument."""
        if len(data) > _LONGEST:
            raise InvalidArgument(f"it is longer than {_LONGEST} bytes")
        try:
            readings = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise InvalidArgument("it is not valid JSON") from None
        if not isinstance(readings, dict):
            raise InvalidArgument("it must be a JSON object: transmitter to dBm")
        if len(readings) > _MOST_READINGS:
            raise InvalidArgument(f"it has more than {_MOST_READINGS} readings")
        strangers: set[str] = set()
        for name, power in readings.items():
            if isinstance(power, bool) or not isinstance(power, int | float):
                raise InvalidArgument(
                    f"rssi must be a number of dBm, got {described(power)} for {name[:40]!r}"
                )
            if not WEAKEST <= power <= STRONGEST:
                raise InvalidArgument(f"transmitter {name[:40]!r}: {out_of_range(power)}")
            if power == SILENT:
                continue
            column = self._column.get(name)
            if column is None:
                column = self._column.get(transmitter_key(name), -1)
            if column < 0:
                if power >= WEAKEST_COUNTED:
                    strangers.add(transmitter_key(name))
            else:
                power = min(power, _LOUDEST_STORED)
                # Two spellings of one transmitter: the stronger reading counts, as in a fit.
                row[column] = power if row[column] == 0 else max(power, row[column])
        return len(strangers)

    def _answer(self, outputs: Mapping[str, Array], noted: _Heard) -> tuple[Tensor, ...]:
        known = outputs["known"].reshape(-1).clip(0, 1)
        nothing = (noted.heard == 0) | (known < _NOTHING)
        known = beside_strangers(known, noted.acquainted, noted.strangers)
        known = np.where(nothing, np.float32(0), known)
        even = np.float32(1.0 / len(self._floors))
        distribution = np.where(nothing[:, None], even, outputs["distribution"])
        confidence = (distribution.max(axis=1) * known).astype(np.float32)
        best = distribution.argmax(axis=1)
        floors = [b"" if empty else self._floors[floor] for floor, empty in zip(best, nothing, strict=True)]
        return (
            Tensor.of_bytes("floor", floors),
            Tensor("confidence", DataType.FP32, confidence),
            Tensor("distribution", DataType.FP32, distribution),
            Tensor("known", DataType.FP32, known),
            Tensor("heard", DataType.INT32, noted.heard),
        )
