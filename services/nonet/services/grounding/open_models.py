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
from pathlib import Path
from typing import Final

import numpy as np
import PIL
from PIL import Image

from nonet.runtime.errors import InsufficientStorage, ModelRefused
from nonet.runtime.extras import how_to_install
from nonet.runtime.images import DecodedImage, ImageLimits
from nonet.runtime.row_service import service_info
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.task import ServiceLimits
from nonet.runtime.tensors import Array
from nonet.services.grounding.names import GROUND_PREFIX, TASK
from nonet.services.grounding.open_readers import READERS, Reader
from nonet.services.grounding.outputs import OUTPUTS, Kept, best
from nonet.services.grounding.picture_servable import TAKES, PictureServable

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


class OpenModelServable(PictureServable[Image.Image]):
    """``ground.<name>`` of a loaded checkpoint.

    A score is the model's own: of Grounding DINO the largest probability of one of the expression's tokens;
    of a model that writes its boxes the geometric mean of the probabilities of the tokens that a box is
    written with. "Nothing" is what the best box lacks to 1; neither is calibrated.

    Args:
        network: name, digest and kind of the checkpoint.
        reader: of its kind.
        device: where it runs.
        limits: bounds for one image.
    """

    def __init__(self, network: ModelInfo, reader: Reader, device: str, limits: ImageLimits) -> None:
        libraries = [
            [each, importlib.metadata.version(each)] for each in ("torch", "transformers", "tokenizers")
        ]
        info = service_info(
            network,
            GROUND_PREFIX,
            facts={
                "checkpoint": network.digest,
                "device": device,
                "libraries": [*libraries, ["pillow", PIL.__version__]],
                "rules": _RULES,
            },
            takes=TAKES,
            outputs=OUTPUTS,
            max_batch_size=1,
            details={"nothing": 1 - reader.threshold},
        )
        super().__init__(info, limits)
        self._reader = reader
        self._alone = threading.Lock()  # two executions would need its memory twice

    def _prepare(self, picture: DecodedImage) -> Image.Image:
        return picture.image

    def _find(self, prepared: Image.Image, text: str, size: Array) -> Kept:
        try:
            with self._alone:
                boxes, scores = self._reader.find(prepared, text)
        except (MemoryError, RuntimeError) as error:
            # PyTorch has one class for this on a GPU and a bare RuntimeError on a CPU.
            if isinstance(error, MemoryError) or "memory" in str(error).lower():
                raise InsufficientStorage("there is not enough memory for this picture now") from error
            raise
        sound = np.isfinite(boxes).all(1) & np.isfinite(scores)
        boxes, scores = boxes[sound], scores[sound]
        top = float(scores.max(initial=0.0))
        return best(boxes, scores, [text.encode()] * len(boxes), 1 - top, size)


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
