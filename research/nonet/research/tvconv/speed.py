"""How fast TVConv is in ONNX Runtime on a CPU, beside depthwise convolutions, in each form that ONNX has."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from nonet.research.fasternet.onnx_export import to_onnx
from nonet.research.fasternet.onnx_session import open_session, run
from nonet.research.tvconv.layer import GeneratorConfig
from nonet.research.tvconv.mobilenet import FaceNet, FaceNetConfig
from nonet.research.tvconv.serving_graph import FORMS, Form, ServingForm, random_statistics

#: The authors' generator decides nothing of an exported graph's speed; this one makes it in no time.
_TINY = GeneratorConfig(1, 1, 0)


@dataclass(frozen=True)
class Timing:
    """One network: shortest time of one run in milliseconds, by batch."""

    network: str
    form: str
    milliseconds: dict[int, float]


def compare(
    widths: tuple[float, ...] = (0.1, 0.5, 1.0), batches: tuple[int, ...] = (1, 16), rounds: int = 12
) -> list[Timing]:
    """Time the paper's face network of each width with depthwise convolutions and with TVConv in each form,
    one thread, in turns: what else the machine does meets all of them alike."""
    cases: list[tuple[str, str, onnxruntime.InferenceSession]] = []
    with tempfile.TemporaryDirectory() as folder:
        for width in widths:
            for form in ("depthwise", *FORMS):
                path = Path(folder) / f"{width}_{form}.onnx"
                export(width, form, path)
                cases.append((f"x{width}", form, open_session(path)))
    pictures = np.random.default_rng(0).standard_normal((max(batches), 3, 96, 96), dtype=np.float32)
    best: dict[tuple[int, int], float] = {}
    for _ in range(rounds):
        for number, (_, _, session) in enumerate(cases):
            for batch in batches:
                started = time.perf_counter()
                run(session, pictures[:batch])
                taken = 1e3 * (time.perf_counter() - started)
                best[number, batch] = min(best.get((number, batch), taken), taken)
    return [
        Timing(network, form, {batch: round(best[number, batch], 2) for batch in batches})
        for number, (network, form, _) in enumerate(cases)
    ]


def export(width: float, form: str, path: Path) -> None:
    """Write the paper's network with random weights in one form."""
    torch.manual_seed(0)
    operator = "depthwise" if form == "depthwise" else "tvconv"
    network = FaceNet(FaceNetConfig(operator, width, generator=_TINY))
    random_statistics(network)
    chosen: Form = "shift" if form == "depthwise" else form  # type: ignore[assignment]
    to_onnx(ServingForm(network, chosen).eval(), 96, path, ("embedding",))
