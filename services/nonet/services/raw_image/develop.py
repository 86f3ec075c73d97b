"""Raw development as a service: the tiles of all captures of a batch go through the network together."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from nonet.runtime.clock import Clock, MonotonicClock
from nonet.runtime.errors import InsufficientStorage, InvalidArgument, ServingError
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, Timings
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.services.raw_image.capture_cost import TILE_CORE
from nonet.services.raw_image.development import RULES, Development
from nonet.services.raw_image.limits import PARAM, RawLimits
from nonet.services.raw_image.options import read_options
from nonet.services.raw_image.reading import read_capture
from nonet.services.raw_image.tile_batches import run_tiles
from nonet.services.raw_image.tile_timing import Pace
from nonet.services.raw_image.tiling import TileForm

SERVICE_PREFIX: Final = "develop."
INPUT: Final = PARAM
PICTURE, DETAILS = "picture", "details"

_MAX_BATCH: Final = 8
_TOGETHER: Final = 8_000_000


class DevelopServable:
    """Implements :class:`~nonet.runtime.servable.Servable`: ``raw`` BYTES [N] to ``picture`` and ``details``
    BYTES [N], a row being a capture; the request's parameters say how (:mod:`.options`).

    Tiles of all captures fill the network's batches together, so several small captures cost what one large
    one costs; an answer is bit-equal to the one the capture gets alone, since the network's tiles do not
    depend on their batch. Captures are worked on together up to eight megapixels; a larger one goes alone, so
    memory is bounded by one large capture for each lane. A request fails alone, as a whole.

    Between batches of tiles deadlines are looked at: a capture that cannot be done in time any more is given
    up with what it would have needed; before that, the scheduler predicts it by its cost
    (:mod:`.capture_cost`).

    Args:
        network: the network; closed by its owner, after this service.
        form: its tiles.
        limits: bounds for one capture.
        clock: the clock of deadlines.
    """

    def __init__(
        self, network: Servable, form: TileForm, limits: RawLimits, clock: Clock | None = None
    ) -> None:
        self._network = network
        self._form = form
        self._limits = limits
        self._clock = clock or MonotonicClock()
        self._pace = Pace()
        self._info = _service_info(network.info, form, limits)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        jobs = [_Job(request) for request in batch]
        waiting: list[_Row] = []
        for job in jobs:
            for row, data in enumerate(job.files):
                opened = self._open(job, row, data)
                if opened is None:
                    break
                waiting.append(opened)
                if sum(each.pixels for each in waiting) >= _TOGETHER:
                    self._develop(waiting)
                    waiting = []
        self._develop(waiting)
        return [self._outcome(job) for job in jobs]

    def sample_request(self, rows: int) -> InferRequest:
        return InferRequest(
            model=self._info.name,
            version=self._info.version,
            inputs=(Tensor.of_bytes(INPUT, [_sample_mosaic(self._form.core - 2)] * rows),),
            parameters={"cfa": "RGGB"},
        )

    def warm_up(self) -> None:
        """The network is warm when its service is made; this loads the codecs and learns the pace of a tile.
        Raises what fails."""
        (outcome,) = self.execute([self.sample_request(1)])
        if isinstance(outcome, ServingError):
            raise outcome

    def close(self) -> None:
        """Nothing of its own to free: the network is closed by its owner."""

    def _open(self, job: _Job, row: int, data: bytes) -> _Row | None:
        """Read a capture of a request; None, with the request's failure noted, if that cannot be done."""
        started = time.perf_counter()
        try:
            options = read_options(job.request.parameters)
            capture = read_capture(data, options, self._limits, seconds=self._left(job.request))
            development = Development(capture, options, self._form)
        except ServingError as error:
            job.failure = _of_row(error, row) if len(job.files) > 1 else error
            return None
        except MemoryError:
            job.failure = InsufficientStorage("there is not enough memory for this capture now")
            return None
        finally:
            job.decode += time.perf_counter() - started
        return _Row(job, development)

    def _left(self, request: InferRequest) -> float:
        """Seconds before the deadline; without one, all the time that reading may take."""
        if request.deadline is None:
            return self._limits.camera_seconds * 2
        return request.deadline - self._clock.now()

    def _develop(self, rows: Sequence[_Row]) -> None:
        """Run all tiles of some captures through the network and finish those that succeed."""
        tiles = ((row, index) for row in rows for index in range(row.development.tiles))
        step = max(1, self._network.info.max_batch_size)
        while wave := list(itertools.islice(self._possible(tiles), step)):
            self._run(wave)
        for row in rows:
            if row.job.failure is None:
                started = time.perf_counter()
                row.job.pictures.append(row.development.encoded())
                row.job.details.append(json.dumps(row.development.details()).encode())
                row.job.encode += time.perf_counter() - started

    def _possible(self, tiles: Iterable[tuple[_Row, int]]) -> Iterator[tuple[_Row, int]]:
        """The tiles of requests that have not failed and can still be in time."""
        for row, index in tiles:
            job = row.job
            if job.failure is None and job.request.deadline is not None:
                development = row.development
                capture = development.capture
                job.failure = self._pace.objection(
                    development.tiles - index,
                    self._left(job.request),
                    f"{capture.width} x {capture.height} pixels",
                )
            if job.failure is None:
                yield row, index

    def _run(self, wave: Sequence[tuple[_Row, int]]) -> None:
        """One execution of the network, and what it says of the pace."""
        parts = [
            (row, [index for _, index in members])
            for row, members in itertools.groupby(wave, key=lambda pair: pair[0])
        ]
        started = time.perf_counter()
        done = run_tiles(self._network, [(row.development, indices) for row, indices in parts])
        for (row, _), outcome in zip(parts, done, strict=True):
            if isinstance(outcome, ServingError):
                row.job.failure = outcome
            else:
                row.job.largest = max(row.job.largest, outcome)
        seconds = time.perf_counter() - started
        for row, indices in parts:
            row.job.compute += seconds * len(indices) / len(wave)
        self._pace.learn(len(wave), seconds)

    def _outcome(self, job: _Job) -> Outcome:
        if job.failure is not None:
            return job.failure
        return InferResponse(
            model=self._info.name,
            version=self._info.version,
            outputs=(Tensor.of_bytes(PICTURE, job.pictures), Tensor.of_bytes(DETAILS, job.details)),
            id=job.request.id,
            timings=Timings(decode=job.decode, compute=job.compute, encode=job.encode),
            batch_size=job.largest,
        )


class _Job:
    """A request and what has become of it."""

    def __init__(self, request: InferRequest) -> None:
        self.request = request
        tensor = request.input(INPUT)
        self.files: list[bytes] = [] if tensor is None else tensor.data.reshape(-1).tolist()
        self.failure: ServingError | None = None
        if not self.files:
            self.failure = InvalidArgument(f"{INPUT}: at least one capture is needed", param=INPUT)
        self.pictures: list[bytes] = []
        self.details: list[bytes] = []
        self.decode = self.compute = self.encode = 0.0
        self.largest = 1


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """One capture of a request."""

    job: _Job
    development: Development

    @property
    def pixels(self) -> int:
        return self.development.capture.pixels


def _of_row(error: ServingError, row: int) -> ServingError:
    """The same failure, naming the row of the request that caused it."""
    message = f"row {row} of '{INPUT}': {error.message.removeprefix(f'{INPUT}: ')}"
    return type(error)(message, param=error.param, code=error.code, retry_after=error.retry_after)


def _service_info(network: ModelInfo, form: TileForm, limits: RawLimits) -> ModelInfo:
    facts = {
        "network": network.digest,
        "tiles": dataclasses.asdict(form),
        "limits": dataclasses.asdict(limits),
        "rules": RULES,
    }

    def port(name: str) -> dict[str, Any]:
        return {"name": name, "data_type": "TYPE_STRING", "dims": [1], "reshape": {"shape": []}}

    return ModelInfo(
        name=SERVICE_PREFIX + network.name,
        version=network.version,
        digest=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        platform="nonet_service",
        inputs=(TensorSpec(INPUT, DataType.BYTES, (-1,)),),
        outputs=(TensorSpec(PICTURE, DataType.BYTES, (-1,)), TensorSpec(DETAILS, DataType.BYTES, (-1,))),
        max_batch_size=_MAX_BATCH,
        task=network.task,
        family=network.family,
        quality=network.quality,
        network=network.name,
        cacheable=network.cacheable,
        shadow_rows=network.shadow_rows,
        config={
            "name": SERVICE_PREFIX + network.name,
            "platform": "nonet_service",
            "max_batch_size": _MAX_BATCH,
            "input": [port(INPUT)],
            "output": [port(PICTURE), port(DETAILS)],
        },
        details={
            **network.details,
            TILE_CORE: form.core,
            "network": network.name,
            "family": network.family,
            "quality": dict(network.quality),
        },
    )


@functools.cache
def _sample_mosaic(side: int) -> bytes:
    """An NPY mosaic of smooth shapes with noise, the same on every call."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:side, 0:side] / side
    smooth = 20_000 * (1 + np.sin(7 * rows) * np.cos(5 * columns)) + random.normal(0, 300, (side, side))
    buffer = io.BytesIO()
    mosaic: Array = smooth.clip(0, 65_535).astype(np.uint16)
    np.save(buffer, mosaic, allow_pickle=False)
    return buffer.getvalue()
