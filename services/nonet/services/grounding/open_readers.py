"""How each kind of open grounding model is asked about a picture, and how its answer becomes boxes."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from PIL import Image

from nonet.runtime.tensors import Array

__all__ = ["READERS", "Reader", "boxes_in"]

_LEAST: Final = 0.01
_BINS: Final = 1000
_WRITTEN: Final = 256  # tokens of an answer at most
_NUMBER: Final = r"(-?\d+(?:\.\d+)?)"
_FOUR: Final = re.compile(rf"{_NUMBER}\s*,\s*{_NUMBER}\D{{1,4}}{_NUMBER}\s*,\s*{_NUMBER}")
_KEYS: Final = ("bbox_2d", "box_2d", "bbox", "box")
_MOST: Final = 64  # boxes of one answer


class Reader(Protocol):
    """A loaded model; ``threshold``: the score from which its best box is an answer."""

    threshold: float

    def find(self, picture: Image.Image, text: str) -> tuple[Array, Array]:
        """Boxes (R, 4), corners in pixels of ``picture`` (RGB), and their scores (R,), 0 to 1."""
        ...


class DinoReader:
    """Grounding DINO (S. Liu et al., arXiv 2303.05499) and its descendants of the same class."""

    threshold = 0.25

    def __init__(self, folder: Path, device: str) -> None:
        library = importlib.import_module("transformers")
        self._torch, self._device = importlib.import_module("torch"), device
        self._processor = library.AutoProcessor.from_pretrained(folder, local_files_only=True)
        self._network = _loaded(library.AutoModelForZeroShotObjectDetection, folder, device)

    def find(self, picture: Image.Image, text: str) -> tuple[Array, Array]:
        caption = _plain(text).lower()
        caption = caption if caption.endswith(".") else f"{caption}."
        inputs = self._processor(images=picture, text=[caption], return_tensors="pt", truncation=True)
        inputs = inputs.to(self._device)
        with self._torch.inference_mode():
            outputs = self._network(**inputs)
        (found,) = self._processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=_LEAST, target_sizes=[picture.size[::-1]]
        )
        boxes, scores = (found[name].float().cpu().numpy() for name in ("boxes", "scores"))
        order = np.argsort(-scores, kind="stable")[:_MOST]
        return boxes[order].astype(np.float64), scores[order]


class FlorenceReader:
    """Florence-2 (B. Xiao et al., arXiv 2311.06242): it writes a place as four tokens, in thousandths."""

    threshold = 0.1
    _TASK = "<CAPTION_TO_PHRASE_GROUNDING>"

    def __init__(self, folder: Path, device: str) -> None:
        library = importlib.import_module("transformers")
        self._torch, self._device = importlib.import_module("torch"), device
        self._processor = library.AutoProcessor.from_pretrained(folder, local_files_only=True)
        self._network = _loaded(library.AutoModelForImageTextToText, folder, device)
        tokenizer = self._processor.tokenizer
        places = tokenizer.convert_tokens_to_ids([f"<loc_{place}>" for place in range(_BINS)])
        if tokenizer.unk_token_id in places:
            raise ValueError("its vocabulary lacks the tokens <loc_0> to <loc_999>")
        self._places = {token: place for place, token in enumerate(places)}

    def find(self, picture: Image.Image, text: str) -> tuple[Array, Array]:
        inputs = self._processor(text=f"{self._TASK}{_plain(text)}", images=picture, return_tensors="pt")
        tokens, probabilities = _written(self._torch, self._network, inputs.to(self._device))
        boxes: list[list[float]] = []
        scores: list[float] = []
        run: list[int] = []
        for index, token in enumerate(tokens):
            run = [*run, index] if token in self._places else []
            if len(run) == 4 and len(boxes) < _MOST:
                boxes.append([(self._places[tokens[each]] + 0.5) / _BINS for each in run])
                scores.append(float(np.exp(np.log(probabilities[run]).mean())))
                run = []
        corners = np.array(boxes, np.float64).reshape(-1, 4) * np.tile(picture.size, 2)
        return _ordered(corners), np.array(scores, np.float32)


class ChatReader:
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL: asked in a sentence, they answer in JSON or in plain numbers.

    Qwen2.5-VL writes pixels of the picture as it was resized for it, the other two thousandths of the
    picture's sides (S. Bai et al., arXiv 2502.13923, section 2.1).
    """

    threshold = 0.1
    _PICTURE = "<|image_pad|>"

    def __init__(self, folder: Path, device: str) -> None:
        library = importlib.import_module("transformers")
        self._torch, self._device = importlib.import_module("torch"), device
        # The two parts of its processor that pictures need; the third, for films, needs torchvision.
        self._pictures = library.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        self._tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._network = _loaded(library.AutoModelForImageTextToText, folder, device)
        config = self._network.config
        self._in_pixels = config.model_type == "qwen2_5_vl"
        self._picture_token = config.image_token_id
        self._patch = config.vision_config.patch_size
        self._merged = config.vision_config.spatial_merge_size**2

    def find(self, picture: Image.Image, text: str) -> tuple[Array, Array]:
        seen = self._pictures(images=[picture], return_tensors="pt")
        _, down, across = seen["image_grid_thw"][0].tolist()
        question = (
            f'Locate "{_plain(text)}" in the picture. Answer in JSON alone: '
            '[{"bbox_2d": [x1, y1, x2, y2], "label": "..."}], or [] if it is not there.'
        )
        asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        prompt = self._tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        prompt = prompt.replace(self._PICTURE, self._PICTURE * (down * across // self._merged), 1)
        read = self._tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        inputs = {
            "input_ids": read["input_ids"],
            "attention_mask": read["attention_mask"],
            "mm_token_type_ids": (read["input_ids"] == self._picture_token).int(),
            "pixel_values": seen["pixel_values"],
            "image_grid_thw": seen["image_grid_thw"],
        }
        inputs = {name: each.to(self._device) for name, each in inputs.items()}
        tokens, probabilities = _written(self._torch, self._network, inputs)
        sides = (across * self._patch, down * self._patch) if self._in_pixels else (_BINS, _BINS)
        boxes = np.array(boxes_in(self._tokenizer.decode(tokens)), np.float64).reshape(-1, 4)
        score = float(np.exp(np.log(probabilities).mean())) if len(probabilities) else 0.0
        corners = boxes / np.tile(sides, 2) * np.tile(picture.size, 2)
        return _ordered(corners), np.full(len(boxes), score, np.float32)


READERS: Final[Mapping[str, Callable[[Path, str], Reader]]] = {
    "grounding-dino": DinoReader,
    "mm-grounding-dino": DinoReader,
    "florence2": FlorenceReader,
    "qwen2_vl": ChatReader,
    "qwen2_5_vl": ChatReader,
    "qwen3_vl": ChatReader,
}
"""By what a checkpoint's configuration calls its kind."""


def boxes_in(answer: str) -> list[list[float]]:
    """The boxes that a chat model wrote: those of the first JSON value that has any, also inside prose or a
    fence of Markdown; else groups of four numbers."""
    for start in [match.start() for match in re.finditer(r"[\[{]", answer)][:_MOST]:
        try:
            value, _ = json.JSONDecoder().raw_decode(answer[start:])
        except (ValueError, RecursionError):
            continue
        if found := list(_in_value(value)):
            return found[:_MOST]
    return [[float(each) for each in match.groups()] for match in _FOUR.finditer(answer)][:_MOST]


def _in_value(value: Any) -> Iterator[list[float]]:
    if isinstance(value, Mapping):
        named = next((value[key] for key in _KEYS if key in value), None)
        for each in value.values() if named is None else (named,):
            yield from _in_value(each)
    elif isinstance(value, list):
        if len(value) == 4 and all(type(each) in (int, float) for each in value):
            yield [float(each) for each in value]
        else:
            for each in value:
                yield from _in_value(each)


def _loaded(kind: Any, folder: Path, device: str) -> Any:
    dtype = "bfloat16" if device.startswith("cuda") else "float32"
    network = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=dtype)
    return network.to(device).eval()


def _written(torch: Any, network: Any, inputs: Mapping[str, Any]) -> tuple[list[int], Array]:
    """The tokens that the model writes, the likeliest each time, and their probabilities."""
    with torch.inference_mode():
        made = network.generate(
            **inputs,
            max_new_tokens=_WRITTEN,
            do_sample=False,
            num_beams=1,
            return_dict_in_generate=True,
            output_logits=True,
        )
    count = len(made.logits)
    tokens = made.sequences[0, -count:]
    logits = torch.stack([each[0] for each in made.logits]).float()
    probabilities = logits.softmax(-1).gather(1, tokens[:, None])[:, 0]
    return tokens.tolist(), probabilities.clamp(min=1e-9).cpu().numpy()


def _plain(text: str) -> str:
    """The expression without what could be a token that steers the model."""
    return " ".join(re.sub(r"[<>|]", " ", text).split())


def _ordered(corners: Array) -> Array:
    """Boxes whose second corner is below and right of the first."""
    pairs: Sequence[Array] = (
        np.minimum(corners[:, :2], corners[:, 2:]),
        np.maximum(corners[:, :2], corners[:, 2:]),
    )
    return np.concatenate(pairs, 1)
