"""A pipeline's folder (ONNX) -> a published text-to-image version: read, tried on noise, published."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy

from nonet.runtime.network_import import Imported, ImportOptions, NetworkRefused, NetworkUnclear, Publish
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.layout import is_model_name
from nonet.runtime.repository.manifest import Manifest
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import Array, DataType, TensorSpec
from nonet.services.text_to_image.importing.clip_tokenizer import read_tokenizer
from nonet.services.text_to_image.importing.flow_graph import decoder_graph, velocity_graph
from nonet.services.text_to_image.importing.noise_schedules import Schedule, read_schedule
from nonet.services.text_to_image.importing.pipeline_folder import PipelineFolder, read_folder
from nonet.services.text_to_image.importing.text_graph import joined_encoders, plain_encoder

MODEL_FILE: Final = "model.onnx"
CHECK_FILE: Final = "check.safetensors"
_TASK: Final = "text_to_image"
_ENCODER: Final = "text_encoder.onnx"
_LARGEST_BATCH: Final = 8
_TOLERANCE: Final = 1e-3
_SHIFT: Final = 1.6
"""Steps of diffusers' samplers are even in the network's own steps; this spreads ours about as they lie."""
_LARGEST_SIDE: Final = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class _Widths:
    """Tokens of a text, width of the states that the UNet reads, and of the pooled one, 0 for none."""

    tokens: int
    states: int
    pooled: int

    @property
    def length(self) -> int:
        return self.tokens + (1 if self.pooled else 0)


def import_pipeline(path: Path) -> Publish:
    """Open the pipeline in a folder: the task's importer."""
    folder = read_folder(path)
    schedule = read_schedule(folder.config("scheduler", "scheduler_config.json"))
    return functools.partial(_publish, folder, schedule)


def _publish(
    folder: PipelineFolder, schedule: Schedule, name: str, repository: Path, options: ImportOptions
) -> Imported:
    """Publish the pipeline as model ``name``. Raises NetworkRefused if it cannot be served, NetworkUnclear
    for an option that does not fit, and what ``publish_version`` raises.
    """
    if not is_model_name(name):
        raise NetworkUnclear(f"'{name}' cannot be a model's name", param="--as")
    widths, tokenizer, encoder = _texts(folder)
    vae = folder.config("vae_decoder")
    reduction = 2 ** (len(vae.get("block_out_channels", (0, 0, 0, 0))) - 1)
    unet = folder.network("unet")
    beside = folder.beside("unet", unet)
    graph = velocity_graph(unet, schedule, widths.tokens, widths.states, widths.pooled, reduction)
    channels = graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    scaling, shift = vae.get("scaling_factor") or 0.18215, vae.get("shift_factor") or 0.0
    decoder = decoder_graph(folder.whole_network("vae_decoder"), channels, scaling, shift)
    side = _side(folder.config("unet"), reduction, options)
    rows = _rows(channels, side // reduction, widths)
    answers, batch = _tried(graph, beside, rows)
    sampling = {"sampler": "flow_euler", "shift": _SHIFT, "steps": 20, "guidance_scale": 7.5}
    if schedule.distilled:
        sampling = {"sampler": "few_step", "shift": 1.0, "steps": 4, "guidance_scale": 1.0}
    source = {
        "system": "diffusers",
        "variant": folder.kind,
        "prediction": schedule.prediction,
        "text_encoder": {"file": _ENCODER, "length": widths.length},
        "reduction": reduction,
        "sizes": [f"{side}x{side}"],
        **sampling,
    }
    files: dict[str, bytes | Path] = {
        MODEL_FILE: graph.SerializeToString(),
        "decoder.onnx": decoder.SerializeToString(),
        _ENCODER: encoder.SerializeToString(),
        "tokenizer.json": tokenizer,
        CHECK_FILE: safetensors.numpy.save({**rows, "velocity": answers}),
        **beside,
    }
    context = (-1, widths.length, widths.states)
    config = build_config(
        name,
        max_batch_size=batch,
        inputs=[
            TensorSpec("latents", DataType.FP32, (-1, channels, -1, -1)),
            TensorSpec("time", DataType.FP32, (-1,)),
            TensorSpec("context", DataType.FP32, context),
            TensorSpec("context_mask", DataType.FP32, context[:2]),
        ],
        outputs=[TensorSpec("velocity", DataType.FP32, (-1, channels, -1, -1))],
    )
    manifest = _manifest(folder, name, source, options)
    published = publish_version(repository, name, files, config, manifest)
    note = (
        f"read as {folder.kind}: {side} px, {schedule.prediction} over {len(schedule.log_sigma)} steps, "
        f"{widths.tokens} tokens of {widths.states}; {sampling['steps']} steps with guidance "
        f"{sampling['guidance_scale']}; licence: {options.licence or 'none stated'}"
    )
    return Imported(name, published.version, {**source, "largest_batch": batch}, (note,))


def _texts(folder: PipelineFolder) -> tuple[_Widths, bytes, Any]:
    """Widths, the tokenizer's file and the encoder."""
    first = folder.config("text_encoder")
    tokens, width = first.get("max_position_embeddings", 77), first.get("hidden_size")
    if not isinstance(tokens, int) or not isinstance(width, int):
        raise NetworkRefused("text_encoder/config.json does not say hidden_size: it is not CLIP's")
    tokenizer, end = read_tokenizer(folder.root / "tokenizer", tokens)
    if not folder.two_encoders:
        encoder = plain_encoder(folder.whole_network("text_encoder"), tokens)
        return _Widths(tokens, width, 0), tokenizer, encoder
    second = folder.config("text_encoder_2")
    other, pooled = second.get("hidden_size"), second.get("projection_dim")
    if not isinstance(other, int) or not isinstance(pooled, int) or pooled > width + other:
        raise NetworkRefused("text_encoder_2/config.json does not say hidden_size and projection_dim")
    encoder = joined_encoders(
        folder.whole_network("text_encoder"),
        folder.whole_network("text_encoder_2"),
        tokens,
        end,
        pooled,
        (width, other),
    )
    return _Widths(tokens, width + other, pooled), tokenizer, encoder


def _side(unet: Mapping[str, Any], reduction: int, options: ImportOptions) -> int:
    """Pixels of a picture's side. Raises NetworkUnclear for one that the network cannot make."""
    side = options.size or (unet.get("sample_size") or 64) * reduction
    deepest = reduction * 2 ** (len(unet.get("block_out_channels", (0, 0, 0, 0))) - 1)
    if not isinstance(side, int) or side % deepest or not 0 < side <= _LARGEST_SIDE:
        raise NetworkUnclear(
            f"its pictures' side must be a multiple of {deepest} up to {_LARGEST_SIDE}, not {side}: "
            "say --size"
        )
    return side


def _rows(channels: int, side: int, widths: _Widths) -> dict[str, Array]:
    """Three rows to try the network on, early and late in a picture's making."""
    random = np.random.default_rng(0)
    return {
        "latents": random.standard_normal((3, channels, side, side), dtype=np.float32),
        "time": np.array([1.0, 0.6, 0.05], np.float32),
        "context": random.standard_normal((3, widths.length, widths.states), dtype=np.float32),
        "context_mask": np.ones((3, widths.length), np.float32),
    }


def _tried(graph: Any, beside: Mapping[str, Path], rows: Mapping[str, Array]) -> tuple[Array, int]:
    """What the network answers to each row alone, and how many rows it takes at once. Raises NetworkRefused
    if it does not run or gives no velocities.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / MODEL_FILE
        path.write_bytes(graph.SerializeToString())
        for name, source in beside.items():
            _place(source, path.parent / name)
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            alone = [
                session.run(None, {name: values[row : row + 1] for name, values in rows.items()})[0]
                for row in range(len(rows["time"]))
            ]
        except Exception as error:  # ONNX Runtime raises classes of its own
            raise NetworkRefused(f"its unet does not run: {error}") from error
        answers = np.concatenate(alone)
        if answers.shape != rows["latents"].shape or not np.isfinite(answers).all():
            raise NetworkRefused(f"its unet gives {list(answers.shape)}, or numbers that are none")
        try:
            (together,) = session.run(None, dict(rows))
        except Exception:  # a network for one row at a time
            return answers, 1
    scale = max(1.0, float(np.abs(answers).max()))
    if together.shape != answers.shape or np.abs(together - answers).max() > _TOLERANCE * scale:
        return answers, 1
    return answers, _LARGEST_BATCH


def _place(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system gives none. ONNX Runtime follows no links."""
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def _manifest(
    folder: PipelineFolder, name: str, source: Mapping[str, Any], options: ImportOptions
) -> Manifest:
    return Manifest.model_validate(
        {
            "schema": 1,
            "files": {MODEL_FILE: "0" * 64},  # the hashes are filled in by publishing
            "source": dict(source),
            "command": f"nonet models import {folder.root.name} --as {name} --task text-to-image",
            "licence": options.licence,
            "credit": options.credit,
            "task": _TASK,
            "family": options.family or name,
            "check_set": CHECK_FILE,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
    )
