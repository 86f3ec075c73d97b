"""Pictures from text as a service that works in steps: each execution is one step of every request in it.

Requests share the network whatever their prompts, steps, guidance scales and seeds: a row of the network has
a time of its own, and only a guided picture brings an unconditional row. A request joins at the next step
and leaves when its pictures are done, as the scheduler decides between executions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from nonet.runtime.errors import ModelOutputInvalid, ServingError
from nonet.runtime.requests import Continued, InferRequest, InferResponse, Outcome
from nonet.runtime.row_service import service_info
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.runtime.text_states import EncodedText, TextEncoder
from nonet.services.text_to_image.network_rows import NetworkRows
from nonet.services.text_to_image.picture_decoder import PictureDecoder
from nonet.services.text_to_image.picture_file import encode_picture
from nonet.services.text_to_image.recipe import Recipe
from nonet.services.text_to_image.row_plans import INPUTS, RowPlan, read_rows
from nonet.services.text_to_image.safety_filter import SafetyFilter, withheld
from nonet.services.text_to_image.sampling import estimated_picture, flow_times, guided, next_latents, noise

logger = logging.getLogger(__name__)

SERVICE_PREFIX: Final = "generate."
MOST_PICTURES: Final = 10
"""Of one request, as OpenAI has it."""

OUTPUTS: Final = (
    TensorSpec("image", DataType.BYTES, (-1,)),
    TensorSpec("seed", DataType.INT64, (-1,)),
    TensorSpec("steps", DataType.INT32, (-1,)),
    TensorSpec("guidance_scale", DataType.FP32, (-1,)),
    TensorSpec("size", DataType.INT32, (-1, 2)),
    TensorSpec("prompt_tokens", DataType.INT32, (-1,)),
    TensorSpec("prompt_cut", DataType.BOOL, (-1,)),
    TensorSpec("step", DataType.INT32, (-1,)),
    TensorSpec("partial_image_index", DataType.INT32, (-1,)),
)

_RULES: Final = 1  # raise when sampling or encoding changes what a request turns into


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """One picture under way: what is asked, its texts, and latents FP32 [C, H, W] after ``step`` steps."""

    plan: RowPlan
    text: EncodedText
    against: EncodedText | None
    times: tuple[float, ...]
    latents: Array
    step: int = 0

    @property
    def done(self) -> bool:
        return self.step == self.plan.steps


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _State:
    """A request between two steps: its pictures, how many steps it took, how many partial answers it gave."""

    rows: tuple[_Row, ...]
    steps: int = 0
    shown: int = 0


class GenerateServable:
    """``prompt`` BYTES [N], and optional inputs for each picture (:data:`INPUTS`), to files ``image`` BYTES
    [N] and what is known of each (:data:`OUTPUTS`): the seed, the steps, the size as width and height, the
    tokens of the prompt, whether it was cut, the step that the picture is of, and of a partial picture its
    number from 0, else -1.

    Inputs left out are the version's own: ``steps`` 0, ``guidance_scale`` -1, ``size`` "auto" say the same.
    A request fails alone, as a whole. Equal inputs give equal pixels, alone and in any batch.

    Args:
        network: ``latents``, ``time``, ``context``, ``context_mask`` to ``velocity``; closed by its owner,
            after this service.
        recipe: how the version makes pictures.
        encoder: of its prompts.
        decoder: of its latents.
        safety: what pictures must pass, None for nothing.
        facts: everything else that decides the answers, JSON-able.
        decoding_cost: see :func:`generate_info`.
    """

    def __init__(
        self,
        network: Servable,
        recipe: Recipe,
        encoder: TextEncoder,
        decoder: PictureDecoder,
        safety: SafetyFilter | None,
        facts: Any,
        decoding_cost: float = 0.0,
    ) -> None:
        self._network, self._network_rows, self._recipe = network, NetworkRows(network), recipe
        self._encoder, self._decoder, self._safety = encoder, decoder, safety
        info = network.info
        self._channels = next(spec for spec in info.inputs if spec.name == "latents").shape[1]
        self._info = generate_info(info, recipe, facts, decoding_cost)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        works = [self._begin(request) for request in batch]
        velocities = self._velocities(works)
        moved: list[_Moved | ServingError] = []
        for work in works:
            if isinstance(work, ServingError):
                moved.append(work)
                continue
            try:
                moved.append(self._move(work, velocities))
            except ServingError as error:
                moved.append(error)
        self._picture(moved)
        return [self._finish(request, each) for request, each in zip(batch, moved, strict=True)]

    def sample_request(self, rows: int) -> InferRequest:
        """Pictures as the version makes them, two steps: the first, which is what executions are counted in,
        makes no pixels."""
        return sample_request(self._info, rows)

    def warm_up(self) -> None:
        """The network is warm when its service is made; this loads the rest. Raises what fails."""
        request = self.sample_request(1)
        while isinstance(outcome := self.execute([request])[0], Continued):
            request = dataclasses.replace(request, state=outcome.state)
        if isinstance(outcome, ServingError):
            raise outcome
        self._network_rows.check(self._noise())

    def close(self) -> None:
        """Nothing of its own to free: the network is closed by its owner."""

    def _noise(self) -> Array:
        return noise(0, 0, (self._channels, *self._recipe.latent(self._recipe.sizes[0])))

    # -- the way of a request through a step ------------------------------------------------------

    def _begin(self, request: InferRequest) -> _State | ServingError:
        """Where the request stands; before its first step, at the noise."""
        if request.state is not None:
            state: _State = request.state
            return state
        try:
            return _State(tuple(map(self._row, read_rows(request, self._recipe))))
        except ServingError as error:
            return error

    def _row(self, plan: RowPlan) -> _Row:
        shape = (self._channels, *self._recipe.latent(plan.size))
        return _Row(
            plan=plan,
            text=self._encoder.encode(plan.prompt),
            against=self._encoder.encode(plan.negative_prompt) if plan.branches == 2 else None,
            times=flow_times(plan.steps, self._recipe.shift),
            latents=noise(plan.seed, 0, shape),
        )

    def _velocities(self, works: Sequence[_State | ServingError]) -> dict[int, list[Outcome]]:
        """What the network says of each picture under way, by its identity: one answer for each branch.

        One execution for each size of latents, however many requests there are.
        """
        asked: dict[tuple[int, ...], list[tuple[int, InferRequest]]] = {}
        for work in works:
            for row in work.rows if isinstance(work, _State) else ():
                for text in (row.text, row.against) if not row.done else ():
                    if text is not None:
                        asked.setdefault(row.latents.shape, []).append(
                            (id(row), self._network_rows.row(row.latents, row.times[row.step], text))
                        )
        found: dict[int, list[Outcome]] = {}
        for rows in asked.values():
            answers = self._network_rows.execute([request for _, request in rows])
            for (place, _), answer in zip(rows, answers, strict=True):
                found.setdefault(place, []).append(answer)
        return found

    def _move(self, state: _State, velocities: dict[int, list[Outcome]]) -> _Moved:
        """Take every picture of a request one step on. Raises the failure of any of them."""
        rows, estimates = [], []
        for row in state.rows:
            if row.done:
                rows.append(row)
                estimates.append(row.latents)
                continue
            velocity = _velocity(velocities[id(row)], row.plan.guidance_scale)
            now, following = row.times[row.step], row.times[row.step + 1]
            fresh = (row.plan.seed, row.step + 1)
            latents = next_latents(self._recipe.sampler, row.latents, velocity, now, following, fresh)
            rows.append(dataclasses.replace(row, latents=latents, step=row.step + 1))
            estimates.append(estimated_picture(row.latents, velocity, now))
        moved = _State(tuple(rows), state.steps + 1, state.shown)
        if all(row.done for row in rows):
            return _Moved(moved, [row.latents for row in rows])
        if moved.steps in _partial_steps(state):
            shown = dataclasses.replace(moved, shown=state.shown + 1)
            return _Moved(shown, estimates, partial=state.shown)
        return _Moved(moved, [])

    def _picture(self, moved: list[_Moved | ServingError]) -> None:
        """Make pixels of what is to be shown, all requests together."""
        showing = [each for each in moved if isinstance(each, _Moved) and each.to_decode]
        if not showing:
            return
        try:
            pixels: Iterator[Array] = iter(
                self._decoder.decode([one for each in showing for one in each.to_decode])
            )
            for each in showing:
                each.pictures = [next(pixels) for _ in each.to_decode]
            return
        except Exception:
            if len(showing) == 1:
                logger.warning(
                    "model %s: no picture could be made of latents", self._info.name, exc_info=True
                )
        failed = ModelOutputInvalid(f"model '{self._info.name}' gave latents that make no picture")
        for place, one in enumerate(moved):
            if isinstance(one, _Moved) and one.to_decode:
                if len(showing) == 1:
                    moved[place] = failed
                else:  # one by one, so that none fails for another
                    alone: list[_Moved | ServingError] = [one]
                    self._picture(alone)
                    moved[place] = alone[0]

    def _finish(self, request: InferRequest, moved: _Moved | ServingError) -> Outcome:
        if isinstance(moved, ServingError):
            return moved
        final = moved.partial is None
        if not moved.to_decode:
            return Continued(moved.state)
        if self._safety is not None and any(map(self._safety.is_unsafe, moved.pictures)):
            return withheld() if final else Continued(moved.state)
        answer = self._answer(request, moved)
        return answer if final else Continued(moved.state, answer)

    def _answer(self, request: InferRequest, moved: _Moved) -> InferResponse:
        rows = moved.state.rows
        files = [self._file(row, picture) for row, picture in zip(rows, moved.pictures, strict=True)]
        number = -1 if moved.partial is None else moved.partial
        columns: dict[str, list[Any]] = {
            "seed": [row.plan.seed for row in rows],
            "steps": [row.plan.steps for row in rows],
            "guidance_scale": [row.plan.guidance_scale for row in rows],
            "size": [row.plan.size for row in rows],
            "prompt_tokens": [row.text.tokens for row in rows],
            "prompt_cut": [row.text.cut for row in rows],
            "step": [row.step for row in rows],
            "partial_image_index": [number] * len(rows),
        }
        tensors = [Tensor.of_bytes("image", files)]
        for spec in OUTPUTS[1:]:
            values = np.array(columns[spec.name], dtype=spec.datatype.numpy)
            tensors.append(Tensor(spec.name, spec.datatype, values))
        return InferResponse(
            self._info.name, self._info.version, tuple(tensors), id=request.id, final=moved.partial is None
        )

    def _file(self, row: _Row, picture: Array) -> bytes:
        plan = row.plan
        facts = {
            "model": self._network.info.name,
            "version": self._info.version,
            "seed": plan.seed,
            "steps": plan.steps,
            "guidance_scale": plan.guidance_scale,
            "prompt_sha256": hashlib.sha256(plan.prompt.encode()).hexdigest(),
        }
        return encode_picture(picture, plan.output_format, plan.output_compression, facts)


@dataclasses.dataclass(slots=True, eq=False)
class _Moved:
    """A request after a step: latents of what is to be shown (none: nothing), and the pictures of them.
    ``partial`` is the number of a partial answer, None for the last."""

    state: _State
    to_decode: list[Array]
    pictures: list[Array] = dataclasses.field(default_factory=list)
    partial: int | None = None


def sample_request(info: ModelInfo, rows: int) -> InferRequest:
    """Two steps of ``rows`` pictures."""
    inputs = (
        Tensor.of_bytes("prompt", [b"a red apple"] * rows),
        Tensor("steps", DataType.INT32, np.full(rows, 2, np.int32)),
    )
    return InferRequest(info.name, inputs, version=info.version)


def generate_info(network: ModelInfo, recipe: Recipe, facts: Any, decoding_cost: float = 0.0) -> ModelInfo:
    """What is known of the service of a network; ``decoding_cost`` is how many steps of a picture take as
    long as making its pixels."""
    together = max(network.max_batch_size // (2 if recipe.guided else 1), MOST_PICTURES)
    info = service_info(
        network,
        SERVICE_PREFIX,
        facts={
            "network": network.digest,
            "rules": _RULES,
            "recipe": dataclasses.asdict(recipe),
            "more": facts,
        },
        takes="prompt",
        outputs=OUTPUTS,
        max_batch_size=together,
        details={"decoding_cost": decoding_cost},
    )
    inputs = [
        {
            "name": spec.name,
            "data_type": f"TYPE_{_CONFIG_TYPES.get(spec.datatype, spec.datatype)}",
            "dims": [1],
            "reshape": {"shape": []},
            "optional": spec.optional,
        }
        for spec in INPUTS
    ]
    config = {**info.config, "input": inputs, "model_transaction_policy": {"decoupled": True}}
    return dataclasses.replace(info, inputs=INPUTS, decoupled=True, config=config)


_CONFIG_TYPES: Final = {DataType.BYTES: "STRING"}


def _velocity(branches: Sequence[Outcome], scale: float) -> Array:
    """The velocity that a picture follows, of the answers of its branches. Raises what failed."""
    found = []
    for answer in branches:
        if isinstance(answer, ServingError):
            raise answer
        assert isinstance(answer, InferResponse)  # a network takes no steps
        found.append(answer.output("velocity").data[0])
    return found[0] if len(found) == 1 else guided(found[0], found[1], scale)


def _partial_steps(state: _State) -> frozenset[int]:
    """After which steps of a request a partial answer is given: evenly between the noise and the picture."""
    steps = max(row.plan.steps for row in state.rows)
    wanted = max(row.plan.partial_images for row in state.rows)
    places = (round(number * steps / (wanted + 1)) for number in range(1, wanted + 1))
    return frozenset(place for place in places if 0 < place < steps)
