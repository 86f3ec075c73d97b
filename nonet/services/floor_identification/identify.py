"""Floor identification as a service: scans as JSON in, a distribution over the floors out."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson

from nonet.runtime.errors import InvalidArgument, ServingError
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, Timings
from nonet.runtime.scans import STRONGEST, WEAKEST, transmitter_key
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.services.floor_identification.strangers import WEAKEST as WEAKEST_COUNTED
from nonet.services.floor_identification.strangers import beside_strangers

SERVICE_PREFIX: Final = "identify."
INPUT: Final = "scan"

_RULES: Final = 2  # raise when a scan gets another answer than before
_MAX_BATCH: Final = 1024
_MOST_READINGS: Final = 100_000
_LONGEST: Final = 8 << 20
_LOUDEST_STORED: Final = -1.0
_SAMPLE_READINGS: Final = 60


class IdentifyServable:
    """Implements :class:`~nonet.runtime.servable.Servable`: ``scan`` BYTES [N], each a JSON object of
    transmitter to dBm (-150 to 0), to

    - ``floor`` BYTES [N]: name of the likeliest floor, empty if nothing of the building was heard;
    - ``confidence`` FP32 [N]: probability that it is right: that of the floor times that of the building;
    - ``distribution`` FP32 [N, K]: over the floors (``labels``), given that it is this building;
    - ``known`` FP32 [N]: probability that the scan is of this building at all;
    - ``heard`` INT32 [N]: transmitters of the building that the scan holds.

    Transmitters that the building does not know have no say in the floor; where they are more than the known
    ones they count against ``known`` (see ``strangers``). A scan that holds none it knows has a uniform
    distribution, and is known with probability 0. A request fails alone, as a whole, with the row named; the
    scans of all sound requests go through the network together.

    Args:
        network: the fitted building; closed by its owner, after this service.
        transmitters: the columns of its input.
        facts: what is to be said of the building.
    """

    def __init__(self, network: Servable, transmitters: Sequence[str], facts: Mapping[str, Any]) -> None:
        self._network = network
        self._column = {name: index for index, name in enumerate(transmitters)}
        self._floors = [floor.encode() for floor in network.info.labels]
        self._info = _service_info(network.info, facts)
        self._sample = orjson.dumps(dict.fromkeys(list(transmitters)[:_SAMPLE_READINGS], -60))

    @property
    def info(self) -> ModelInfo:
        return self._info

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        works = [self._read(request) for request in batch]
        parts = [part for work in works if isinstance(work, _Work) for part in work.parts]
        answers = iter(self._network.execute(parts) if parts else ())
        return [
            self._finish(work, list(itertools.islice(answers, len(work.parts))))
            if isinstance(work, _Work)
            else work
            for work in works
        ]

    def sample_request(self, rows: int) -> InferRequest:
        return InferRequest(
            model=self._info.name,
            version=self._info.version,
            inputs=(Tensor.of_bytes(INPUT, [self._sample] * rows),),
        )

    def warm_up(self) -> None:
        """Raises what fails."""
        (outcome,) = self.execute([self.sample_request(1)])
        if isinstance(outcome, ServingError):
            raise outcome

    def close(self) -> None:
        """Nothing of its own to free: the network is closed by its owner."""

    def _read(self, request: InferRequest) -> _Work | ServingError:
        started = time.perf_counter()
        tensor = request.input(INPUT)
        scans: list[bytes] = [] if tensor is None else tensor.data.reshape(-1).tolist()
        if not scans:
            return InvalidArgument(f"{INPUT}: at least one scan is needed", param=INPUT)
        rssi = np.zeros((len(scans), len(self._column)), np.float32)
        strangers = np.zeros(len(scans), np.int32)
        for row, data in enumerate(scans):
            try:
                strangers[row] = self._fill(rssi[row], data)
            except InvalidArgument as error:
                return InvalidArgument(f"scan {row}: {error.message}", param=INPUT, code=error.code)
        heard = np.count_nonzero(rssi, axis=1).astype(np.int32)
        acquainted = np.count_nonzero((rssi >= WEAKEST_COUNTED) & (rssi < 0), axis=1)
        parts = tuple(self._parts(rssi))
        return _Work(request, parts, heard, acquainted, strangers, time.perf_counter() - started)

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
                raise InvalidArgument(f"rssi must be a number of dBm, got {power!r:.40} for {name[:40]!r}")
            if not WEAKEST <= power <= STRONGEST:
                raise InvalidArgument(
                    f"rssi must be {WEAKEST:.0f} to {STRONGEST:.0f} dBm, got {power:g} for {name[:40]!r}"
                )
            column = self._column.get(name)
            if column is None:
                column = self._column.get(_key(name), -1)
            if column < 0:
                if power >= WEAKEST_COUNTED:
                    strangers.add(_key(name))
            else:
                power = min(power, _LOUDEST_STORED)
                # Two spellings of one transmitter: the stronger reading counts, as in a fit.
                row[column] = power if row[column] == 0 else max(power, row[column])
        return len(strangers)

    def _parts(self, rssi: Array) -> Iterator[InferRequest]:
        """Requests to the network, none larger than its largest batch."""
        info = self._network.info
        step = max(1, info.max_batch_size)
        for start in range(0, len(rssi), step):
            rows = Tensor(info.inputs[0].name, DataType.FP32, rssi[start : start + step])
            yield InferRequest(model=info.name, version=info.version, inputs=(rows,))

    def _finish(self, work: _Work, answers: Sequence[Outcome]) -> Outcome:
        compute, largest = 0.0, 1
        found: list[InferResponse] = []
        for answer in answers:
            if isinstance(answer, ServingError):
                return answer
            found.append(answer)
            compute += answer.timings.compute
            largest = max(largest, answer.batch_size)
        started = time.perf_counter()
        distribution = np.concatenate([each.output("distribution").data for each in found])
        known = np.concatenate([each.output("known").data for each in found]).reshape(-1)
        nothing = work.heard == 0
        distribution[nothing] = 1.0 / distribution.shape[1]
        known = beside_strangers(known.clip(0, 1), work.acquainted, work.strangers)
        known = np.where(nothing, np.float32(0), known).astype(np.float32)
        best = distribution.argmax(axis=1)
        confidence = (distribution.max(axis=1) * known).astype(np.float32)
        floors = [b"" if empty else self._floors[floor] for floor, empty in zip(best, nothing, strict=True)]
        return InferResponse(
            model=self._info.name,
            version=self._info.version,
            outputs=(
                Tensor.of_bytes("floor", floors),
                Tensor("confidence", DataType.FP32, confidence),
                Tensor("distribution", DataType.FP32, distribution),
                Tensor("known", DataType.FP32, known),
                Tensor("heard", DataType.INT32, work.heard),
            ),
            id=work.request.id,
            timings=Timings(decode=work.decode, compute=compute, encode=time.perf_counter() - started),
            batch_size=largest,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Work:
    """A request whose scans were read, in ``decode`` seconds, into requests to the network.

    For each scan: known transmitters, those of them with a reading that counts, and unknown ones with such.
    """

    request: InferRequest
    parts: tuple[InferRequest, ...]
    heard: Array
    acquainted: Array
    strangers: Array
    decode: float


@functools.lru_cache(maxsize=65_536)
def _key(name: str) -> str:
    return transmitter_key(name)


def _service_info(network: ModelInfo, facts: Mapping[str, Any]) -> ModelInfo:
    digest = hashlib.sha256(json.dumps([network.digest, _RULES]).encode()).hexdigest()
    floors = len(network.labels)

    def port(name: str, kind: str) -> dict[str, Any]:
        return {"name": name, "data_type": kind, "dims": [1], "reshape": {"shape": []}}

    return ModelInfo(
        name=SERVICE_PREFIX + network.name,
        version=network.version,
        digest=digest,
        platform="nonet_service",
        inputs=(TensorSpec(INPUT, DataType.BYTES, (-1,)),),
        outputs=(
            TensorSpec("floor", DataType.BYTES, (-1,)),
            TensorSpec("confidence", DataType.FP32, (-1,)),
            TensorSpec("distribution", DataType.FP32, (-1, floors)),
            TensorSpec("known", DataType.FP32, (-1,)),
            TensorSpec("heard", DataType.INT32, (-1,)),
        ),
        max_batch_size=_MAX_BATCH,
        task=network.task,
        family=network.family,
        quality=network.quality,
        network=network.name,
        labels=network.labels,
        cacheable=network.cacheable,
        config={
            "name": SERVICE_PREFIX + network.name,
            "platform": "nonet_service",
            "max_batch_size": _MAX_BATCH,
            "input": [port(INPUT, "TYPE_STRING")],
            "output": [
                port("floor", "TYPE_STRING"),
                port("confidence", "TYPE_FP32"),
                {"name": "distribution", "data_type": "TYPE_FP32", "dims": [floors]},
                port("known", "TYPE_FP32"),
                port("heard", "TYPE_INT32"),
            ],
        },
        details={
            **network.details,
            "network": network.name,
            "family": network.family,
            "quality": dict(network.quality),
            "building": dict(facts),
        },
    )
