"""The matcher as a service: what an expression means among the regions of a picture."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from nonet.runtime.errors import InvalidArgument, ServingError
from nonet.runtime.images.regions import LOOKS as LOOKS_COUNT
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, Timings
from nonet.runtime.row_service import service_info
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.runtime.text_states import TextEncoder, pooled
from nonet.services.grounding.names import (
    BOX_LABELS,
    BOX_SCORES,
    BOXES,
    EXPRESSIONS,
    GROUND_PREFIX,
    IMAGE,
    LOOKS,
    NOTHING,
    SCORES,
    SIZE,
    TOKEN_MASK,
    TOKENS,
)
from nonet.services.grounding.outputs import OUTPUTS, SAME, Kept, best, outputs_of
from nonet.services.grounding.recipe import Recipe
from nonet.services.grounding.texts import decoded

__all__ = ["GroundServable"]

_PICTURES: Final = 8
_PADDING: Final = 8  # regions by which the sizes of the network's executions differ
_USUAL: Final = 16  # regions of a sample
_LABELS: Final = (b"person", b"dog", b"chair", b"car", b"cup", b"traffic light")
_CHECKED: Final = 4
_NAMES_KEPT: Final = 4096
_RULES: Final = 1  # raise when the same regions and expressions would get another answer


class GroundServable:
    """Expressions and the regions of a picture to boxes, best first, and the share of "nothing is meant".

    Takes, for each of N pictures: ``expressions`` BYTES [N, E]; ``boxes`` FP32 [N, R, 4], corners in pixels
    of the upright picture; ``box_scores`` FP32 [N, R], the detector's, 0 where there is no region;
    ``box_labels`` BYTES [N, R], its class names; ``looks`` FP32 [N, R, A] and ``size`` INT64 [N, 2] of
    ``looks.<network>``; ``tokens`` FP32 [N, E, L, D] and ``token_mask`` FP32 [N, E, L] of
    ``texts.<network>``. A gateway makes all but the first of ``image`` BYTES [N].

    Gives ``boxes`` FP32 [N, E, 16, 4] inside the picture, ``scores`` FP32 [N, E, 16] (0 after the last),
    ``labels`` BYTES [N, E, 16], ``nothing`` FP32 [N, E] and ``size``. Of regions that are one thing the best
    stays. What an expression gets depends on no other expression and no other picture.

    Args:
        network: of the family ``regions``; closed by its owner, after this service.
        recipe: of the version.
        width: D.
        encoder: reads the detector's names; None where it is not installed: then no request is complete.
    """

    def __init__(self, network: Servable, recipe: Recipe, width: int, encoder: TextEncoder | None) -> None:
        self._network, self._recipe, self._width, self._encoder = network, recipe, width, encoder
        self._needs_company = False
        self._free = any(spec.name == BOXES and spec.shape[1] == -1 for spec in network.info.inputs)
        self._names: dict[bytes, Array] = {}
        regions = recipe.regions
        self.info = service_info(
            network.info,
            GROUND_PREFIX,
            facts={
                "network": network.info.digest,
                "recipe": dataclasses.asdict(recipe),
                "one thing": SAME,
                "rules": _RULES,
            },
            takes=(
                TensorSpec(EXPRESSIONS, DataType.BYTES, (-1, -1)),
                TensorSpec(IMAGE, DataType.BYTES, (-1,), optional=True),
                TensorSpec(BOXES, DataType.FP32, (-1, regions, 4), optional=True),
                TensorSpec(BOX_SCORES, DataType.FP32, (-1, regions), optional=True),
                TensorSpec(BOX_LABELS, DataType.BYTES, (-1, regions), optional=True),
                TensorSpec(LOOKS, DataType.FP32, (-1, regions, LOOKS_COUNT), optional=True),
                TensorSpec(SIZE, DataType.INT64, (-1, 2), optional=True),
                TensorSpec(TOKENS, DataType.FP32, (-1, -1, recipe.length, width), optional=True),
                TensorSpec(TOKEN_MASK, DataType.FP32, (-1, -1, recipe.length), optional=True),
            ),
            outputs=OUTPUTS,
            max_batch_size=_PICTURES,
            details={"nothing": recipe.nothing},
        )

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        asked = [self._read(request) for request in batch]
        parts = [part for each in asked if isinstance(each, _Asked) for part in each.rows]
        answers = iter(self._run(parts))
        return [self._answer(each, answers) if isinstance(each, _Asked) else each for each in asked]

    def sample_request(self, rows: int) -> InferRequest:
        """Of one expression a picture, about regions that are all there."""
        random = np.random.default_rng(14)
        regions, length = self._recipe.regions, self._recipe.length
        corners = random.uniform(0, 200, (rows, regions, 2))
        boxes = np.concatenate([corners, corners + random.uniform(20, 200, (rows, regions, 2))], 2)
        shapes = {
            BOXES: boxes,
            BOX_SCORES: np.where(np.arange(regions) < _USUAL, 0.5, 0.0) * np.ones((rows, 1)),
            LOOKS: np.zeros((rows, regions, LOOKS_COUNT)),
            TOKENS: random.standard_normal((rows, 1, length, self._width)),
            TOKEN_MASK: np.ones((rows, 1, length)),
        }
        tensors = [Tensor(name, DataType.FP32, value.astype(np.float32)) for name, value in shapes.items()]
        return InferRequest(
            model=self.info.name,
            version=self.info.version,
            inputs=(
                Tensor.of_bytes(EXPRESSIONS, [b"the person on the left"] * rows, (rows, 1)),
                Tensor.of_bytes(BOX_LABELS, list(random.choice(_LABELS, rows * regions)), (rows, regions)),
                Tensor(SIZE, DataType.INT64, np.tile(np.array([640, 480], np.int64), (rows, 1))),
                *tensors,
            ),
        )

    def warm_up(self) -> None:
        """Runs what is around the network, and finds out whether that answers a row alone as in company."""
        sample = {each.name: each.data for each in self.sample_request(_CHECKED).inputs}
        rows = [row for picture in range(_CHECKED) for row in self._rows(sample, picture)]
        together = [_bits(each) for each in self._run(rows)]
        alone = [_bits(each) for row in rows for each in self._run([row])]
        self._needs_company = together != alone
        (outcome,) = self.execute([self.sample_request(1)])
        if isinstance(outcome, ServingError):
            raise outcome

    def close(self) -> None:
        """The network is closed by its owner."""

    # -- reading --------------------------------------------------------------------------------

    def _read(self, request: InferRequest) -> _Asked | ServingError:
        started = time.perf_counter()
        values = {tensor.name: tensor.data for tensor in request.inputs}
        try:
            missing = next((spec.name for spec in self.info.inputs[2:] if spec.name not in values), "")
            if missing:
                raise InvalidArgument(
                    f"inputs: {missing} is missing; send {IMAGE} to have it made", param=missing
                )
            if values[TOKENS].shape[:2] != values[EXPRESSIONS].shape:
                raise InvalidArgument(f"{TOKENS} must be of as many texts as {EXPRESSIONS}", param=TOKENS)
            if values[TOKEN_MASK].shape[:2] != values[EXPRESSIONS].shape:
                raise InvalidArgument(
                    f"{TOKEN_MASK} must be of as many texts as {EXPRESSIONS}", param=TOKEN_MASK
                )
            if (values[SIZE] < 1).any():
                raise InvalidArgument(f"{SIZE} must be a width and a height of 1 or more", param=SIZE)
            rows = [row for picture in range(len(values[EXPRESSIONS])) for row in self._rows(values, picture)]
        except ServingError as error:
            return error
        return _Asked(request, values, rows, time.perf_counter() - started)

    def _rows(self, values: dict[str, Array], picture: int) -> Iterator[InferRequest]:
        """Rows of the network: the regions of a picture with each of its expressions.

        Where the network takes any number of regions they are padded by their own number alone, so that what
        a picture gets is the same in any company.
        """
        width, height = values[SIZE][picture].tolist()
        count = len(values[BOX_SCORES][picture])
        if self._free:
            last = int(np.flatnonzero(values[BOX_SCORES][picture] > 0).max(initial=0)) + 1
            count = min(-(-last // _PADDING) * _PADDING, count)
        scores = values[BOX_SCORES][picture][:count]
        mask = (scores > 0).astype(np.float32)
        boxes = (values[BOXES][picture][:count] / np.array([width, height, width, height], np.float32)).clip(
            0, 1
        )
        names = np.stack([self._name(label) for label in values[BOX_LABELS][picture][:count]])
        columns = {
            "boxes": boxes * mask[:, None],
            "region_mask": mask,
            "region_scores": scores,
            "region_names": names * mask[:, None],
            "region_looks": values[LOOKS][picture][:count] * mask[:, None],
            "aspect": np.float32(width / height),
        }
        info = self._network.info
        tokens, token_mask = values[TOKENS][picture], values[TOKEN_MASK][picture]
        for text, text_mask in zip(tokens, token_mask, strict=True):
            every = {**columns, TOKENS: text, TOKEN_MASK: text_mask}
            inputs = tuple(
                Tensor(name, DataType.FP32, np.asarray(value, np.float32)[None])
                for name, value in every.items()
            )
            yield InferRequest(info.name, inputs, version=info.version)

    def _name(self, label: bytes) -> Array:
        """The state of a class name; of "" zeros."""
        found = self._names.get(label)
        if found is None:
            if len(self._names) >= _NAMES_KEPT:
                self._names.clear()
            (text,) = decoded([label], BOX_LABELS)
            found = np.zeros(self._width, np.float32)
            if text and self._encoder is not None:
                found = pooled(self._encoder.encode(text))
            self._names[label] = found
        return found

    # -- answering ------------------------------------------------------------------------------

    def _run(self, rows: Sequence[InferRequest]) -> Iterator[Outcome]:
        """The network's answer to each row; those of one size go through it together, in as few executions
        as its largest batch allows.

        Where the engine adds up a batch of one in another order than any other, a row without company is run
        twice, or the last bit of an answer would tell how many were asked.
        """
        largest = max(self._network.info.max_batch_size, 1)
        for _, alike in itertools.groupby(rows, lambda row: row.inputs[0].shape):
            together = list(alike)
            for start in range(0, len(together), largest):
                part = together[start : start + largest]
                company = part if len(part) == 1 and self._needs_company else []
                yield from self._network.execute([*part, *company])[: len(part)]

    def _answer(self, asked: _Asked, answers: Iterator[Outcome]) -> Outcome:
        found: list[InferResponse] = []
        failed: ServingError | None = None
        for _ in asked.rows:
            each = next(answers)
            if isinstance(each, InferResponse):
                found.append(each)
            else:
                assert isinstance(each, ServingError)  # a network takes no steps
                failed = failed or each
        if failed is not None:
            return failed
        started = time.perf_counter()
        count, expressions = asked.values[EXPRESSIONS].shape
        outputs = outputs_of(
            [_kept(asked.values, row // expressions, response) for row, response in enumerate(found)],
            (count, expressions),
            asked.values[SIZE],
        )
        timings = Timings(
            decode=asked.decode,
            compute=sum(each.timings.compute / max(each.batch_size, 1) for each in found),
            encode=time.perf_counter() - started,
        )
        return InferResponse(
            self.info.name, self.info.version, outputs, id=asked.request.id, timings=timings, batch_size=count
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """A request that was read, in ``decode`` seconds, into rows of the network, picture after picture."""

    request: InferRequest
    values: dict[str, Array]
    rows: list[InferRequest]
    decode: float


def _bits(answer: Outcome) -> bytes:
    """All numbers of a network's answer. Raises its failure."""
    if isinstance(answer, ServingError):
        raise answer
    assert isinstance(answer, InferResponse)  # a network takes no steps
    return b"".join(tensor.data.tobytes() for tensor in answer.outputs)


def _kept(values: dict[str, Array], picture: int, response: InferResponse) -> Kept:
    """The best regions of one expression."""
    shares = response.output(SCORES).data[0]
    real = np.flatnonzero(values[BOX_SCORES][picture][: len(shares)] > 0)
    labels = [values[BOX_LABELS][picture][row] for row in real.tolist()]
    nothing = float(response.output(NOTHING).data[0])
    return best(values[BOXES][picture][real], shares[real], labels, nothing, values[SIZE][picture])
