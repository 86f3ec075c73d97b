"""An exported grounding network (ONNX) -> a published version: told by its inputs and outputs, and tried.

Read are exports of Grounding DINO's layout in transformers, with the files that stand beside them:
``tokenizer.json``, ``preprocessor_config.json`` and ``config.json``.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy

from nonet.runtime.companion_networks import open_session
from nonet.runtime.errors import ModelRefused, ServingError
from nonet.runtime.images import ImageLimits
from nonet.runtime.network_import import (
    Imported,
    ImportOptions,
    NetworkOfAnotherTask,
    NetworkRefused,
    NetworkUnclear,
    Publish,
)
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.graph import Graph, read_graph
from nonet.runtime.repository.layout import is_model_name
from nonet.runtime.repository.manifest import Manifest
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.requests import InferRequest, InferResponse, Outcome
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, Tensor
from nonet.services.grounding.names import BOXES, EXPRESSIONS, IMAGE, SCORES, TASK
from nonet.services.grounding.prompted import (
    FAMILY,
    PromptedServable,
    PromptRecipe,
    as_prompted,
    open_tokenizer,
)
from nonet.services.grounding.sample import sample_picture

__all__ = ["import_grounder"]

MODEL_FILE: Final = "model.onnx"
CHECK_FILE: Final = "check.safetensors"
TOKENIZER_FILE: Final = "tokenizer.json"
PROCESSOR_FILE: Final = "preprocessor_config.json"
CONFIG_FILE: Final = "config.json"

_LARGEST_FILE: Final = (2 << 30) - 1
_LARGEST_TEXT: Final = 16 << 20
_SIDES: Final = (800, 1333)
_LENGTH: Final = 256
_BOX_THRESHOLD: Final = 0.25
"""The score from which a box counts, as the model's own processor has it where nothing else is said."""


def import_grounder(file: Path) -> Publish:
    """Open the network in ``file``: the task's importer."""
    if file.is_dir():
        raise NetworkOfAnotherTask(f"'{file.name}' is a folder and not one ONNX file")
    if not file.is_file():
        raise NetworkRefused(f"there is no file '{file}'")
    if file.stat().st_size > _LARGEST_FILE:
        raise NetworkRefused(f"'{file.name}' is larger than 2 GB, which an ONNX file cannot be")
    try:
        graph = read_graph(file)
    except ModelRefused as refused:
        raise NetworkRefused(refused.reason) from None
    if missing := as_prompted([spec for spec in graph.inputs if not spec.optional], graph.outputs):
        raise NetworkOfAnotherTask(missing)
    if graph.external_files:
        raise NetworkRefused(f"its weights lie in '{graph.external_files[0]}': save it as one file")
    return functools.partial(_publish, file, graph)


def _publish(file: Path, graph: Graph, name: str, repository: Path, options: ImportOptions) -> Imported:
    """Publish the network as model ``name``.

    Raises NetworkRefused if it cannot be served, NetworkUnclear with what would answer what is open, and what
    ``publish_version`` raises.
    """
    if not is_model_name(name):
        raise NetworkUnclear(
            f"'{name}' cannot be a model's name: letters, digits, '_', '.' and '-'", param="--as"
        )
    if options.expect and options.picture is None:
        raise NetworkUnclear("--expect says what a picture shows: give the picture with --picture")
    folders = (file.parent, file.resolve().parent.parent) if file.parent.name == "onnx" else (file.parent,)
    tokenizer = _beside(folders, TOKENIZER_FILE)
    if tokenizer is None:
        raise NetworkUnclear(f"how are texts cut into tokens for it? Put its {TOKENIZER_FILE} beside it")
    recipe, read_from = _recipe(folders, options)
    trial = _Trial(file, graph, name)
    try:
        reader = open_tokenizer(tokenizer, recipe.length)
    except ModelRefused as refused:
        raise NetworkRefused(refused.reason) from None
    service = PromptedServable(trial, recipe, reader, ImageLimits())
    _tried(service, sample_picture(), "the small one on the left")
    check = {**trial.last_inputs, **trial.last_outputs}
    notes = [
        f"read as a network of a picture and a text ({', '.join(read_from) or 'no file beside it'}): "
        f"sides of {recipe.shortest} to {recipe.longest} px, {recipe.length} tokens, boxes from "
        f"{1 - recipe.nothing:g}; licence: {options.licence or 'none stated'}"
    ]
    if options.picture is not None:
        notes.append(_seen(service, options, recipe))
    published = publish_version(
        repository,
        name,
        {
            MODEL_FILE: file,
            TOKENIZER_FILE: tokenizer,
            CHECK_FILE: safetensors.numpy.save(check),
        },
        build_config(name, max_batch_size=0, inputs=trial.info.inputs, outputs=trial.info.outputs),
        _manifest(file, name, recipe, read_from, options),
    )
    facts = {"read_from": list(read_from), "prompted": recipe.to_manifest(), "licence": options.licence}
    return Imported(name, published.version, facts, tuple(notes))


def _recipe(folders: Sequence[Path], options: ImportOptions) -> tuple[PromptRecipe, tuple[str, ...]]:
    """How it is fed: by the options, then by the files beside it. Raises NetworkUnclear."""
    processor, config = _object(folders, PROCESSOR_FILE), _object(folders, CONFIG_FILE)
    read_from = tuple(
        name for name, found in ((PROCESSOR_FILE, processor), (CONFIG_FILE, config)) if found is not None
    )
    kind = str((config or {}).get("model_type", ""))
    if kind not in ("", "grounding-dino", "mm-grounding-dino"):
        raise NetworkRefused(f"{CONFIG_FILE} says that it is a {kind}, which is not read here")
    said = processor or {}
    mean, std = options.mean or said.get("image_mean"), options.std or said.get("image_std")
    if mean is None or std is None:
        raise NetworkUnclear(
            "how is a picture prepared for it? Say --mean and --std (of red, green and blue, on the scale 0 "
            f"to 1), or put its {PROCESSOR_FILE} beside it"
        )
    size = said.get("size") or {}
    shortest, longest = size.get("shortest_edge", _SIDES[0]), size.get("longest_edge", _SIDES[1])
    length = (config or {}).get("max_text_len", _LENGTH)
    try:
        means, stds = [float(each) for each in mean], [float(each) for each in std]
        recipe = PromptRecipe(
            shortest=options.size or int(shortest),
            longest=max(int(longest), options.size or 0),
            mean=(means[0], means[1], means[2]),
            std=(stds[0], stds[1], stds[2]),
            length=int(length),
            nothing=1 - _BOX_THRESHOLD,
        )
    except (TypeError, ValueError, IndexError):
        raise NetworkRefused(f"{' and '.join(read_from)} beside it cannot be read") from None
    return recipe, read_from


def _tried(service: PromptedServable, picture: bytes, expression: str) -> InferResponse:
    """The answer to one expression. Raises NetworkRefused if it cannot be run or gives what is none."""
    inputs = (Tensor.of_bytes(EXPRESSIONS, [expression.encode()], (1, 1)), Tensor.of_bytes(IMAGE, [picture]))
    (outcome,) = service.execute([InferRequest(service.info.name, inputs)])
    if isinstance(outcome, ServingError):
        raise NetworkRefused(f"it cannot be run on a picture: {outcome.message}")
    assert isinstance(outcome, InferResponse)  # it takes no steps
    return outcome


def _seen(service: PromptedServable, options: ImportOptions, recipe: PromptRecipe) -> str:
    """What it finds in the person's picture. Raises NetworkUnclear if that is not what was expected."""
    assert options.picture is not None
    try:
        picture = options.picture.read_bytes()
    except OSError as error:
        raise NetworkUnclear(f"--picture {options.picture}: {(error.strerror or '').lower()}") from None
    expression = options.expect or "the main thing"
    found = _tried(service, picture, expression)
    score, box = float(found.output(SCORES).data[0, 0, 0]), found.output(BOXES).data[0, 0, 0]
    if options.expect and score < 1 - recipe.nothing:
        raise NetworkUnclear(
            f"read so, it finds no '{expression}' in the picture (best score {score:.2f}). Is the picture to "
            "be prepared in another way? Say --mean, --std or --size"
        )
    return f"'{expression}' in the picture: {[round(float(each)) for each in box]} ({score:.2f})"


class _Trial:
    """The network before it is published: a servable of one request at a time that keeps what it ran last.

    Raises NetworkRefused if ONNX Runtime does not take it.
    """

    def __init__(self, file: Path, graph: Graph, name: str) -> None:
        names = {spec.name for spec in graph.outputs}
        inputs = tuple(spec for spec in graph.inputs if not spec.optional)
        try:
            self._session = open_session(file.read_bytes(), "network", {spec.name for spec in inputs}, names)
        except ModelRefused as refused:
            raise NetworkRefused(refused.reason) from None
        self.info = ModelInfo(name, "1", "", "onnxruntime_onnx", inputs, graph.outputs, task=TASK)
        self.last_inputs: dict[str, Any] = {}
        self.last_outputs: dict[str, Any] = {}

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        """Raises NetworkRefused if it fails, or answers with what is not finite."""
        outcomes: list[Outcome] = []
        for request in batch:
            self.last_inputs = {tensor.name: tensor.data for tensor in request.inputs}
            names = [spec.name for spec in self.info.outputs]
            try:
                found = self._session.run(names, self.last_inputs)
            except Exception as error:  # ONNX Runtime raises classes of its own
                text = " ".join(str(error).split())[:200]
                raise NetworkRefused(f"it cannot be run on a picture: {text}") from None
            self.last_outputs = dict(zip(names, found, strict=True))
            boxes = self.last_outputs["pred_boxes"]
            if (
                boxes.shape[-1] != 4
                or not np.isfinite(boxes).all()
                or np.isnan(self.last_outputs["logits"]).any()
            ):
                raise NetworkRefused("its answers to a picture are no boxes and scores")
            tensors = tuple(
                Tensor(name, DataType.of(value), value) for name, value in self.last_outputs.items()
            )
            outcomes.append(InferResponse(self.info.name, "1", tensors))
        return outcomes

    def sample_request(self, rows: int) -> InferRequest:
        """Raises NotImplementedError: it is run on pictures only."""
        raise NotImplementedError

    def warm_up(self) -> None:
        """Nothing: it is run once."""

    def close(self) -> None:
        """Nothing is held."""


def _beside(folders: Sequence[Path], name: str) -> bytes | None:
    """A file beside the network, or None. Raises NetworkRefused for one that is too large to be it."""
    for folder in folders:
        path = folder / name
        if path.is_file():
            with path.open("rb") as stream:
                content = stream.read(_LARGEST_TEXT + 1)
            if len(content) > _LARGEST_TEXT:
                raise NetworkRefused(f"{name} beside it is larger than {_LARGEST_TEXT} bytes")
            return content
    return None


def _object(folders: Sequence[Path], name: str) -> Mapping[str, Any] | None:
    """The JSON object in a file beside the network, or None without one. Raises NetworkRefused."""
    content = _beside(folders, name)
    if content is None:
        return None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise NetworkRefused(f"{name} beside it cannot be read as a JSON object")
    return value


def _manifest(
    file: Path, name: str, recipe: PromptRecipe, read_from: tuple[str, ...], options: ImportOptions
) -> Manifest:
    return Manifest.model_validate(
        {
            "schema": 1,
            "files": {MODEL_FILE: "0" * 64},  # the hashes are filled in by publishing
            "source": {
                "system": "Grounding DINO",
                "file": file.name,
                "read_from": list(read_from),
                "prompted": recipe.to_manifest(),
            },
            "command": f"nonet models import {file.name} --as {name}",
            "licence": options.licence,
            "credit": options.credit,
            "task": TASK,
            "family": options.family or FAMILY,
            "check_set": CHECK_FILE,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
    )
