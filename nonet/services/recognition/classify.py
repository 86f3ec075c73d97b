"""Classification as a service: decode, preprocess, one run of the network for the whole batch, softmax."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import PIL
from PIL import Image

from nonet.runtime.errors import InvalidArgument, ServingError
from nonet.runtime.images import ImageLimits, Preprocessing, decode_image, preprocess
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, Timings
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec

SERVICE_PREFIX: Final = "classify."
INPUT: Final = "image"
OUTPUT: Final = "scores"

_RULES: Final = 1  # raise when decoding or preprocessing changes what an image turns into
_SAMPLE_SIZE: Final = (640, 480)
_SAMPLE_QUALITY: Final = 90


class ClassifyServable:
    """Implements :class:`~nonet.runtime.servable.Servable`: ``image`` BYTES [N] to ``scores`` FP32 [N, C].

    Images are decoded in the lane's own thread, one after the other: lanes already keep the cores busy, and a
    pool of decoders would compete with the networks. A request fails alone, as a whole, with the row named if
    it has several. The rows of all sound requests run through the network together, in as few executions as
    its largest batch allows. Scores are the softmax of the logits, computed in double precision.

    Args:
        network: the network; closed by its owner, after this service.
        preprocessing: how an image becomes the network's input.
        limits: bounds for one image.
    """

    def __init__(self, network: Servable, preprocessing: Preprocessing, limits: ImageLimits) -> None:
        self._network = network
        self._preprocessing = preprocessing
        self._limits = limits
        self._info = _service_info(network.info, preprocessing, limits)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        works = [self._prepare(request) for request in batch]
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
            inputs=(Tensor.of_bytes(INPUT, [_sample_photo()] * rows),),
        )

    def warm_up(self) -> None:
        """The network is warm when its service is made; this loads the image decoders. Raises what fails."""
        (outcome,) = self.execute([self.sample_request(1)])
        if isinstance(outcome, ServingError):
            raise outcome

    def close(self) -> None:
        """Nothing of its own to free: the network is closed by its owner."""

    def _prepare(self, request: InferRequest) -> _Work | ServingError:
        started = time.perf_counter()
        tensor = request.input(INPUT)
        images: list[bytes] = [] if tensor is None else tensor.data.reshape(-1).tolist()
        if not images:
            return InvalidArgument(f"{INPUT}: at least one image is needed", param=INPUT)
        side = self._preprocessing.crop
        pixels = np.empty((len(images), 3, side, side), dtype=np.float32)
        for row, data in enumerate(images):
            try:
                decoded = decode_image(data, limits=self._limits, target=self._preprocessing.target)
            except ServingError as error:
                return _of_row(error, row) if len(images) > 1 else error
            pixels[row] = preprocess(decoded, self._preprocessing)
        return _Work(request, tuple(self._parts(pixels)), time.perf_counter() - started)

    def _parts(self, pixels: Array) -> Iterator[InferRequest]:
        """Requests to the network, none larger than its largest batch."""
        info = self._network.info
        step = max(1, info.max_batch_size)
        for start in range(0, len(pixels), step):
            rows = Tensor(info.inputs[0].name, DataType.FP32, pixels[start : start + step])
            yield InferRequest(model=info.name, version=info.version, inputs=(rows,))

    def _finish(self, work: _Work, answers: Sequence[Outcome]) -> Outcome:
        logits: list[Array] = []
        compute, largest = 0.0, 1
        for answer in answers:
            if isinstance(answer, ServingError):
                return answer
            logits.append(answer.outputs[0].data)
            compute += answer.timings.compute
            largest = max(largest, answer.batch_size)
        started = time.perf_counter()
        scores = softmax(np.concatenate(logits) if len(logits) > 1 else logits[0])
        return InferResponse(
            model=self._info.name,
            version=self._info.version,
            outputs=(Tensor(OUTPUT, DataType.FP32, scores),),
            id=work.request.id,
            timings=Timings(decode=work.decode, compute=compute, encode=time.perf_counter() - started),
            batch_size=largest,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Work:
    """A request whose images were decoded, in ``decode`` seconds, into requests to the network."""

    request: InferRequest
    parts: tuple[InferRequest, ...]
    decode: float


def softmax(logits: Array) -> Array:
    """Probabilities FP32 [N, C] of logits [N, C], without overflow; each row depends on that row alone."""
    scores = np.empty(logits.shape, dtype=np.float32)
    for row, values in enumerate(logits):
        exponentials = np.exp(values.astype(np.float64) - values.max())
        scores[row] = exponentials / exponentials.sum()
    return scores


def _of_row(error: ServingError, row: int) -> ServingError:
    """The same failure, naming the row of the request that caused it."""
    message = f"row {row} of '{INPUT}': {error.message.removeprefix(f'{INPUT}: ')}"
    return type(error)(message, param=error.param, code=error.code, retry_after=error.retry_after)


def _service_info(network: ModelInfo, preprocessing: Preprocessing, limits: ImageLimits) -> ModelInfo:
    facts = {
        "network": network.digest,
        "preprocessing": preprocessing.to_manifest(),
        "limits": dataclasses.asdict(limits),
        "decoder": ["pillow", PIL.__version__, _RULES],
    }
    classes = network.outputs[0].shape[1]
    batch = network.max_batch_size
    return ModelInfo(
        name=SERVICE_PREFIX + network.name,
        version=network.version,
        digest=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        platform="nonet_service",
        inputs=(TensorSpec(INPUT, DataType.BYTES, (-1,)),),
        outputs=(TensorSpec(OUTPUT, DataType.FP32, (-1, classes)),),
        max_batch_size=batch,
        task=network.task,
        family=network.family,
        quality=network.quality,
        network=network.name,
        labels=network.labels,
        allow_nonfinite=network.allow_nonfinite,
        cacheable=network.cacheable,
        config={
            "name": SERVICE_PREFIX + network.name,
            "platform": "nonet_service",
            "max_batch_size": batch,
            "input": [
                {"name": INPUT, "data_type": "TYPE_STRING", "dims": [1], "reshape": {"shape": []}},
            ],
            "output": [{"name": OUTPUT, "data_type": "TYPE_FP32", "dims": [classes]}],
        },
        details={
            **network.details,
            "network": network.name,
            "preprocessing": preprocessing.to_manifest(),
            "family": network.family,
            "quality": dict(network.quality),
        },
    )


@functools.cache
def _sample_photo() -> bytes:
    """A JPEG of the size and detail of a web photograph, the same on every call."""
    random = np.random.default_rng(0)
    width, height = _SAMPLE_SIZE
    shapes = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize(_SAMPLE_SIZE, Image.Resampling.BICUBIC), dtype=np.int16)
    grain = random.integers(-12, 13, (height, width, 1), dtype=np.int16)
    buffer = io.BytesIO()
    photo = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
    photo.save(buffer, "JPEG", quality=_SAMPLE_QUALITY)
    return buffer.getvalue()
