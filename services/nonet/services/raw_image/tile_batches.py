"""One execution of the network on tiles of one capture or of several: cut, infer, render.

Whoever develops a capture, a request that waits or a job, goes through here; so both come to the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nonet.runtime.errors import ServingError
from nonet.runtime.requests import InferRequest, InferResponse, RequestedOutput
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import DataType, Tensor
from nonet.services.raw_image.development import Development

_IMAGE, _STD = "image", "std"


def run_tiles(
    network: Servable, parts: Sequence[tuple[Development, Sequence[int]]]
) -> list[ServingError | int]:
    """Develop some tiles of each capture.

    The tiles of a capture are a request of their own, so that one capture cannot fail the others; the
    network's answer for a tile does not depend on its batch.

    Args:
        network: the restoration network.
        parts: captures on their way, each with the numbers of its tiles.

    Returns for each of ``parts`` how many requests the network took together, or why its tiles failed.
    """
    info = network.info
    seen = [np.stack([development.planes(index) for index in tiles]) for development, tiles in parts]
    outcomes = network.execute(
        [
            InferRequest(
                model=info.name,
                version=info.version,
                inputs=(Tensor(info.inputs[0].name, DataType.FP32, planes),),
                outputs=tuple(RequestedOutput(name) for name in _wanted(development)),
            )
            for (development, _), planes in zip(parts, seen, strict=True)
        ]
    )
    done: list[ServingError | int] = []
    for (development, tiles), planes, outcome in zip(parts, seen, outcomes, strict=True):
        if isinstance(outcome, ServingError):
            done.append(outcome)
            continue
        assert isinstance(outcome, InferResponse)  # a network takes no steps
        images = outcome.output(_IMAGE).data
        deviations = outcome.output(_STD).data if _STD in _wanted(development) else None
        for place, index in enumerate(tiles):
            development.place(
                index, planes[place], images[place], None if deviations is None else deviations[place]
            )
        done.append(outcome.batch_size)
    return done


def _wanted(development: Development) -> tuple[str, ...]:
    return (_IMAGE, _STD) if development.options.uncertainty else (_IMAGE,)
