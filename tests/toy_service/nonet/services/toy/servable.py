"""Brightness as a service that works in steps: each looks at a further share of the image's bytes.

An image that begins with ``wait:`` and the name of a file hangs the execution until that file is there.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nonet.runtime.requests import Continued, InferRequest, InferResponse, Outcome
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import DataType, Tensor, TensorSpec

TASK = "brightness"
SERVICE_PREFIX = "measure."
INPUT = "image"


def wait(file: Path) -> None:
    """Until ``file`` is there."""
    while not file.exists():
        time.sleep(0.01)


def pause(network: str) -> None:
    """As long as the file TOY_PACE says, in JSON, that an execution of ``network`` takes."""
    if pace := os.environ.get("TOY_PACE"):
        time.sleep(json.loads(Path(pace).read_text()).get(network, 0.0))


class MeasureServable:
    """``image`` BYTES [N] to ``brightness`` FP64 [N], the mean byte times the parameter ``scale``, after as
    many executions as the parameter ``steps`` says."""

    def __init__(self, network: Servable) -> None:
        info = network.info
        self.info: ModelInfo = ModelInfo(
            name=SERVICE_PREFIX + info.name,
            version=info.version,
            digest=f"{TASK} {info.digest}",
            platform="nonet_service",
            inputs=(TensorSpec(INPUT, DataType.BYTES, (-1,)),),
            outputs=(TensorSpec("brightness", DataType.FP64, (-1,)),),
            max_batch_size=4,
            task=TASK,
            family=info.family,
            quality=info.quality,
            network=info.name,
            details=info.details,
            decoupled=True,
        )

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        pause(self.info.network)
        return [self._step(request) for request in batch]

    def _step(self, request: InferRequest) -> Outcome:
        step = (request.state or 0) + 1
        steps = int(request.parameters.get("steps", 1))
        answer = self._answer(request, step / steps)
        if step < steps:
            return Continued(step, dataclasses.replace(answer, parameters={"step": step}, final=False))
        return dataclasses.replace(answer, parameters={"step": step})

    def _answer(self, request: InferRequest, share: float) -> InferResponse:
        scale = float(request.parameters.get("scale", 1.0))
        for row in request.inputs[0].data:
            if row.startswith(b"wait:"):
                wait(Path(row[5:].decode()))
        rows = [np.frombuffer(row, np.uint8) for row in request.inputs[0].data]
        means = [float(row[: max(1, int(len(row) * share))].mean()) * scale for row in rows]
        tensor = Tensor("brightness", DataType.FP64, np.array(means, np.float64))
        return InferResponse(self.info.name, self.info.version, (tensor,))

    def sample_request(self, rows: int) -> InferRequest:
        return InferRequest(self.info.name, (Tensor.of_bytes(INPUT, [b"sample"] * rows),))

    def warm_up(self) -> None:
        self.execute([self.sample_request(1)])

    def close(self) -> None:
        """Nothing is held."""


def derive(network: Servable) -> Sequence[Servable]:
    """``[measure.<network>]`` for networks of the task, nothing for any other."""
    return (MeasureServable(network),) if network.info.task == TASK else ()
