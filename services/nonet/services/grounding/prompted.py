"""Networks that take a picture and a text and find boxes themselves, as Grounding DINO does (S. Liu et al.,
arXiv 2303.05499), exported with the inputs and outputs of transformers."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import PIL
from PIL import Image

from nonet.runtime.errors import ModelRefused, ServingError
from nonet.runtime.extras import how_to_install
from nonet.runtime.images import DecodedImage, ImageLimits
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.row_service import service_info
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import Array, Tensor, TensorSpec
from nonet.services.grounding.names import GROUND_PREFIX
from nonet.services.grounding.outputs import OUTPUTS, Kept, best
from nonet.services.grounding.picture_servable import TAKES, PictureServable

__all__ = [
    "FAMILY",
    "PromptRecipe",
    "PromptedServable",
    "as_prompted",
    "open_tokenizer",
    "prompt_recipe_of",
]

FAMILY: Final = "prompted"
"""Of versions whose import names no other."""
PICTURE: Final = "pixel_values"
_TEXT_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
_PIXEL_MASK: Final = "pixel_mask"
_LOGITS: Final = "logits"
_BOXES: Final = "pred_boxes"
_LEAST: Final = 0.01
_CONSIDERED: Final = 100
_RULES: Final = 1  # raise when a picture or a text would become other inputs, or outputs other boxes


@dataclasses.dataclass(frozen=True, slots=True)
class PromptRecipe:
    """How such a network is fed, as its version's manifest says it under ``source.prompted``.

    Args:
        shortest, longest: of the picture's sides in pixels, as the processor resizes it; where the graph has
            one size, the picture is stretched to that.
        mean, std: of red, green and blue, on the scale 0 to 1.
        length: tokens at most.
        nothing: score of nothing, from which no box is the answer: 1 minus the threshold of boxes.
    """

    shortest: int
    longest: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    length: int
    nothing: float

    def to_manifest(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }


def prompt_recipe_of(info: ModelInfo) -> PromptRecipe | None:
    """The recipe of a version; None for one of another kind. Raises ModelRefused for one that is none."""
    stated = (info.details.get("source") or {}).get("prompted")
    if stated is None:
        return None
    try:
        means, stds = (tuple(float(each) for each in stated[name]) for name in ("mean", "std"))
        recipe = PromptRecipe(
            shortest=int(stated["shortest"]),
            longest=int(stated["longest"]),
            mean=(means[0], means[1], means[2]),
            std=(stds[0], stds[1], stds[2]),
            length=int(stated["length"]),
            nothing=float(stated["nothing"]),
        )
        sound = 1 <= recipe.shortest <= recipe.longest <= 4096 and min(recipe.std) > 0
        sound = sound and 2 <= recipe.length <= 1024 and 0 <= recipe.nothing <= 1
    except (KeyError, TypeError, ValueError, IndexError):
        sound = False
    if not sound:
        raise ModelRefused(
            "its manifest's source.prompted must say shortest, longest, mean, std, length, nothing"
        )
    return recipe


def as_prompted(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    """ "" if these are the inputs and outputs of such a network, else what is missing."""
    shapes = {spec.name: len(spec.shape) for spec in inputs}
    if shapes.get(PICTURE) != 4 or shapes.get("input_ids") != 2:
        return (
            f"a grounding network takes {PICTURE} and input_ids, this takes {', '.join(shapes) or 'nothing'}"
        )
    if unknown := shapes.keys() - {PICTURE, _PIXEL_MASK, *_TEXT_INPUTS}:
        return f"it takes {', '.join(sorted(unknown))}, which nothing here can give"
    given = {spec.name: len(spec.shape) for spec in outputs}
    if given.get(_LOGITS) != 3 or given.get(_BOXES) != 3:
        return f"a grounding network gives {_LOGITS} and {_BOXES}, this gives {', '.join(given)}"
    return ""


def open_tokenizer(content: bytes, length: int) -> Any:
    """A tokenizer of the library :mod:`tokenizers` that cuts after ``length`` tokens. Raises ModelRefused."""
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ImportError:
        raise ModelRefused(f"it needs the library tokenizers: {how_to_install('images')}") from None
    try:
        reader = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the binding raises a plain Exception
        raise ModelRefused("its tokenizer.json is not one of the tokenizers library") from error
    reader.no_padding()
    reader.enable_truncation(length)
    return reader


class PromptedServable(PictureServable[Array]):
    """``ground.<network>`` of such a network.

    It runs for every expression of every picture: it reads both together. A box's score is the
    largest probability of one of the expression's tokens, "nothing" what the best box lacks to 1.

    Args:
        network: closed by its owner, after this service.
        recipe: of the version.
        tokenizer: of :mod:`tokenizers`, as the network was trained with.
        limits: bounds for one image.
    """

    def __init__(self, network: Servable, recipe: PromptRecipe, tokenizer: Any, limits: ImageLimits) -> None:
        info = service_info(
            network.info,
            GROUND_PREFIX,
            facts={
                "network": network.info.digest,
                "recipe": recipe.to_manifest(),
                "limits": dataclasses.asdict(limits),
                "decoder": ["pillow", PIL.__version__, _RULES],
            },
            takes=TAKES,
            outputs=OUTPUTS,
            max_batch_size=1,
            details={"nothing": recipe.nothing},
        )
        super().__init__(info, limits, recipe.longest)
        self._network, self._recipe, self._tokenizer = network, recipe, tokenizer
        self._inputs = {spec.name: spec for spec in network.info.inputs}

    def _prepare(self, picture: DecodedImage) -> Array:
        return self._pixels(picture.image)

    def _pixels(self, picture: Image.Image) -> Array:
        """FP32 [1, 3, H, W]."""
        height, width = self._inputs[PICTURE].shape[2:]
        if height < 1 or width < 1:
            scale = min(self._recipe.shortest / min(picture.size), self._recipe.longest / max(picture.size))
            width, height = (max(1, round(side * scale)) for side in picture.size)
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        mean, std = np.array(self._recipe.mean, np.float32), np.array(self._recipe.std, np.float32)
        values = (np.asarray(resized, np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None])

    def _find(self, prepared: Array, text: str, size: Array) -> Kept:
        encoding = self._tokenizer.encode(_caption(text))
        ids = np.array([encoding.ids], np.int64)
        made: Mapping[str, Array] = {
            PICTURE: prepared,
            _PIXEL_MASK: np.ones((1, *prepared.shape[2:]), np.int64),
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        info = self._network.info
        inputs = tuple(
            Tensor(name, spec.datatype, made[name].astype(spec.datatype.numpy))
            for name, spec in self._inputs.items()
        )
        (outcome,) = self._network.execute([InferRequest(info.name, inputs, version=info.version)])
        if isinstance(outcome, ServingError):
            raise outcome
        assert isinstance(outcome, InferResponse)  # a network takes no steps
        # Its text is between two special tokens and ends in a full stop.
        logits = outcome.output(_LOGITS).data[0, :, 1 : max(2, ids.shape[1] - 2)].astype(np.float64)
        scores = (1 / (1 + np.exp(-logits.clip(-60, 60)))).max(1).astype(np.float32)
        chosen = np.argsort(-scores, kind="stable")[:_CONSIDERED]
        chosen = chosen[scores[chosen] >= _LEAST]
        centre, extent = np.split(outcome.output(_BOXES).data[0][chosen].astype(np.float64), 2, 1)
        corners = np.concatenate([centre - extent / 2, centre + extent / 2], 1) * np.tile(size, 2)
        top = float(scores[chosen].max(initial=0.0))
        return best(corners, scores[chosen], [text.encode()] * len(chosen), 1 - top, size)


def _caption(text: str) -> str:
    """The text as the network was trained with it: lower case, a full stop at its end."""
    text = text.strip().lower()
    if not text.endswith("."):
        text += "."
    return text
