"""Open grounding models in the format of the library transformers: the folder of a checkpoint as a service.

Grounding DINO, Florence-2 and the chat models of the Qwen-VL line are run by that library's own classes and
preprocessing, with the weights that their authors published. This is for a process of its own (``nonet
service grounding --checkpoint NAME=FOLDER``): it is the only part of serving that loads PyTorch, and only
where a checkpoint is named.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL

from nonet.runtime.errors import InsufficientStorage, InvalidArgument, ModelRefused, ServingError
from nonet.runtime.extras import how_to_install
from nonet.runtime.images import ImageLimits, decode_image
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, Timings
from nonet.runtime.row_service import in_row, service_info
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.task import ServiceLimits
from nonet.runtime.tensors import DataType, Tensor, TensorSpec
from nonet.services.grounding.expressions import check_expressions
from nonet.services.grounding.names import DETECTOR, EXPRESSIONS, GROUND_PREFIX, IMAGE, QUALITY, TASK
from nonet.services.grounding.open_readers import READERS, Reader
from nonet.services.grounding.outputs import OUTPUTS, Kept, best, outputs_of
from nonet.services.grounding.sample import sample_picture
from nonet.services.grounding.texts import decoded

__all__ = ["FAMILY", "OpenModelServable", "open_checkpoint"]

FAMILY: Final = "open"
EXTRA: Final = "open-models"
_CONFIG: Final = "config.json"
_LARGEST_CONFIG: Final = 1 << 20
_RULES: Final = 1  # raise when a picture or a text would become other inputs, or an answer other boxes


def open_checkpoint(name: str, folder: Path, device: str, limits: ServiceLimits) -> Servable:
    """``ground.<name>``: the checkpoint in ``folder``, loaded.

    Args:
        name: of the model for callers.
        folder: as ``save_pretrained`` writes it and hubs hold it; weights as safetensors alone, and no code
            of the checkpoint's own is run.
        device: where it runs, as PyTorch names it: ``cpu``, ``cuda``, ``cuda:1`` (a GPU: unverified).
        limits: of one request.

    Raises ModelRefused for a folder that is no such checkpoint, a kind that is not read here, a library that
    is not installed, and what the library has against it.
    """
    kind = _kind(folder)
    if kind not in READERS:
        raise ModelRefused(f"'{folder}' holds a {kind or 'model of no kind'}; read are {', '.join(READERS)}")
    for module in ("torch", "transformers"):
        try:
            importlib.import_module(module)
        except ImportError:
            raise ModelRefused(f"it needs {module}: {how_to_install(EXTRA)}") from None
    try:
        reader = READERS[kind](folder, device)
    except Exception as error:  # the library raises what it likes for a folder that it cannot read
        text = " ".join(str(error).split())[:300]
        raise ModelRefused(f"transformers cannot load '{folder}' as a {kind}: {text}") from error
    network = ModelInfo(
        name,
        "1",
        _digest(folder),
        "transformers",
        (),
        (),
        task=TASK,
        family=FAMILY,
        details={"source": {"system": kind, "folder": folder.name}},
    )
    bounds = ImageLimits(encoded_bytes=limits.image_bytes, pixels=limits.image_pixels)
    return OpenModelServable(network, reader, device, bounds)


class OpenModelServable:
    """``image`` BYTES [N] and ``expressions`` BYTES [N, E] to what every grounding service gives.

    The model reads one picture and one expression at a time. A score is the model's own: of Grounding DINO
    the largest probability of one of the expression's tokens; of a model that writes its boxes the geometric
    mean of the probabilities of the tokens that a box is written with. "Nothing" is what the best box lacks
    to 1; neither is calibrated.

    Args:
        network: name, digest and kind of the checkpoint.
        reader: of its kind.
        device: where it runs.
        limits: bounds for one image.
    """

    def __init__(self, network: ModelInfo, reader: Reader, device: str, limits: ImageLimits) -> None:
        self._reader, self._limits = reader, limits
        self._alone = (
            threading.Lock()
        )  # one execution at a time: its memory is the largest part of the process
        libraries = [
            [each, importlib.metadata.version(each)] for each in ("torch", "transformers", "tokenizers")
        ]
        self.info = service_info(
            network,
            GROUND_PREFIX,
            facts={
                "checkpoint": network.digest,
                "device": device,
                "libraries": [*libraries, ["pillow", PIL.__version__]],
                "rules": _RULES,
            },
            takes=(
                TensorSpec(EXPRESSIONS, DataType.BYTES, (-1, -1)),
                TensorSpec(IMAGE, DataType.BYTES, (-1,)),
            ),
            outputs=OUTPUTS,
            max_batch_size=1,
            details={"nothing": 1 - reader.threshold},
        )

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for request in batch:
            try:
                outcomes.append(self._answered(request))
            except ServingError as error:
                outcomes.append(error)
        return outcomes

    def sample_request(self, rows: int) -> InferRequest:
        expressions = Tensor.of_bytes(EXPRESSIONS, [b"the small one on the left"] * rows, (rows, 1))
        return InferRequest(self.info.name, (expressions, Tensor.of_bytes(IMAGE, [sample_picture()] * rows)))

    def warm_up(self) -> None:
        """Run once."""
        (outcome,) = self.execute([self.sample_request(1)])
        if isinstance(outcome, ServingError):
            raise outcome

    def close(self) -> None:
        """Nothing is held but memory."""

    def _answered(self, request: InferRequest) -> InferResponse:
        values = {tensor.name: tensor.data for tensor in request.inputs}
        for name in (DETECTOR, QUALITY):
            if name in request.parameters:
                raise InvalidArgument(
                    f"this model finds boxes itself, and one way: leave '{name}' out", param=name
                )
        texts = [check_expressions(decoded(row, EXPRESSIONS)) for row in values[EXPRESSIONS]]
        kept: list[Kept] = []
        sizes: list[tuple[int, int]] = []
        started = time.perf_counter()
        reading = 0.0
        for row, (data, expressions) in enumerate(zip(values[IMAGE], texts, strict=True)):
            begun = time.perf_counter()
            with in_row(row, len(texts), IMAGE):
                picture = decode_image(data, limits=self._limits)
            sizes.append((picture.width, picture.height))
            reading += time.perf_counter() - begun
            kept += [self._found(picture.image, text) for text in expressions]
        outputs = outputs_of(kept, values[EXPRESSIONS].shape, np.array(sizes, np.int64))
        timings = Timings(decode=reading, compute=time.perf_counter() - started - reading)
        return InferResponse(self.info.name, self.info.version, outputs, timings=timings)

    def _found(self, picture: Any, text: str) -> Kept:
        try:
            with self._alone:
                boxes, scores = self._reader.find(picture, text)
        except (MemoryError, RuntimeError) as error:
            # PyTorch has one class for this on a GPU and a bare RuntimeError on a CPU.
            if isinstance(error, MemoryError) or "memory" in str(error).lower():
                raise InsufficientStorage("there is not enough memory for this picture now") from error
            raise
        sound = np.isfinite(boxes).all(1) & np.isfinite(scores)
        boxes, scores = boxes[sound], scores[sound]
        top = float(scores.max(initial=0.0))
        return best(boxes, scores, [text.encode()] * len(boxes), 1 - top, np.array(picture.size))


def _kind(folder: Path) -> str:
    """What the checkpoint says that it is. Raises ModelRefused without a readable configuration."""
    path = folder / _CONFIG
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ModelRefused(f"{path} is larger than {_LARGEST_CONFIG} bytes")
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        raise ModelRefused(f"'{folder}' holds no {_CONFIG} of a checkpoint") from None
    return str(value.get("model_type", "")) if isinstance(value, dict) else ""


def _digest(folder: Path) -> str:
    """Of all files of the checkpoint: it enters the key of every cached answer."""
    state = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        state.update(json.dumps([path.name, content]).encode())
    return state.hexdigest()
