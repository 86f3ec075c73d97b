"""The handmade text-to-image network as a servable that keeps what it gets, and requests to its service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from nonet.runtime.errors import ModelOutputInvalid, ServingError
from nonet.runtime.requests import Continued, InferRequest, InferResponse, Outcome
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import DataType, Tensor, TensorSpec
from tests.support import handmade_diffusion as handmade

PLACES = handmade.CHANNELS, handmade.LENGTH, handmade.WIDTH


class CountedNetwork:
    """A real network on ONNX Runtime, run at once for all requests of a batch, as the core's own does.

    Attributes:
        batches: the inputs of each execution.
        fails_at: a time whose rows fail, None for none.

    Args:
        batch: its largest.
        files: further files of the version, by default sound ones.
        changes: of the manifest's ``source``.
    """

    def __init__(self, *, batch: int = 16, files: Mapping[str, bytes] | None = None, **changes: Any) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            handmade.velocity_network(), options, providers=["CPUExecutionProvider"]
        )
        channels, length, width = PLACES
        shapes = {
            "latents": (-1, channels, -1, -1),
            "time": (-1,),
            "context": (-1, length, width),
            "context_mask": (-1, length),
        }
        self.info = ModelInfo(
            name="shapes",
            version="3",
            digest="d1",
            platform="onnxruntime_onnx",
            inputs=tuple(TensorSpec(name, DataType.FP32, shape) for name, shape in shapes.items()),
            outputs=(TensorSpec("velocity", DataType.FP32, (-1, channels, -1, -1)),),
            max_batch_size=batch,
            task="text_to_image",
            family="shapes",
            quality={"retrieval": 0.5},
            details={"source": handmade.source(**changes)},
        )
        self._files = files or {
            "decoder.onnx": handmade.decoder_network(),
            "tokenizer.json": handmade.tokenizer(),
        }
        self.batches: list[dict[str, np.ndarray]] = []
        self.fails_at: float | None = None

    def read_file(self, name: str) -> bytes:
        return self._files[name]

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        feeds = {
            spec.name: np.concatenate([self._data(each, spec.name) for each in batch])
            for spec in self.info.inputs
        }
        self.batches.append(feeds)
        (velocity,) = self._session.run(["velocity"], feeds)
        outcomes: list[Outcome] = []
        for row, time in enumerate(feeds["time"]):
            if self.fails_at is not None and time == np.float32(self.fails_at):
                outcomes.append(ModelOutputInvalid("output 'velocity' holds NaN"))
            else:
                tensor = Tensor("velocity", DataType.FP32, velocity[row : row + 1].copy())
                outcomes.append(InferResponse("shapes", "3", (tensor,)))
        return outcomes

    @staticmethod
    def _data(request: InferRequest, name: str) -> np.ndarray:
        tensor = request.input(name)
        assert tensor is not None
        return tensor.data

    def sample_request(self, rows: int) -> InferRequest:
        raise NotImplementedError

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


def asked(*prompts: str, state: Any = None, **columns: Any) -> InferRequest:
    """A request for a picture of each prompt; a column is one value for all, or one for each."""
    inputs = [Tensor.of_bytes("prompt", [prompt.encode() for prompt in prompts])]
    kinds = {"seed": np.int64, "guidance_scale": np.float32}
    for name, given in columns.items():
        values = given if isinstance(given, list) else [given] * len(prompts)
        if isinstance(values[0], str):
            inputs.append(Tensor.of_bytes(name, [value.encode() for value in values]))
        else:
            inputs.append(Tensor.of(name, np.array(values, kinds.get(name, np.int32))))
    return InferRequest("generate.shapes", tuple(inputs), state=state)


def run(
    service: Servable, *requests: InferRequest, shown: dict[int, list[InferResponse]] | None = None
) -> list[InferResponse | ServingError]:
    """Step requests together, those that are finished leaving, until none is left."""
    ends: dict[int, InferResponse | ServingError] = {}
    under_way = dict(enumerate(requests))
    while under_way:
        outcomes = service.execute(list(under_way.values()))
        for place, outcome in zip(list(under_way), outcomes, strict=True):
            if isinstance(outcome, Continued):
                if outcome.partial is not None and shown is not None:
                    shown.setdefault(place, []).append(outcome.partial)
                under_way[place] = stepped(under_way[place], outcome)
            else:
                ends[place] = outcome
                del under_way[place]
    return [ends[place] for place in range(len(requests))]


def stepped(request: InferRequest, outcome: Continued) -> InferRequest:
    """The request before its next step, as the core would send it."""
    return InferRequest(request.model, request.inputs, state=outcome.state)


def files(answer: InferResponse | ServingError) -> list[bytes]:
    """The pictures of an answer."""
    assert isinstance(answer, InferResponse), answer
    found: list[bytes] = answer.output("image").data.tolist()
    return found
