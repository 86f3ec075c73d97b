"""Trained networks become versions of the repository that answer as PyTorch does, at half the bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from nonet.research.snapgen.decoder import DecoderConfig, PictureDecoder, TinyDecoder
from nonet.research.snapgen.onnx_graphs import network_inputs, rounded_to_half
from nonet.research.snapgen.presets import PRESETS
from nonet.research.snapgen.release import Trained, publish_trained
from nonet.research.snapgen.teacher import Teacher, TeacherConfig
from nonet.research.snapgen.training import sitting
from nonet.research.systems import TrainOptions
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.repository.layout import read_model
from nonet.runtime.repository.manifest import read_manifest
from tests.support.packed_emoji import pack_made_up

# The exporter takes a minute where other work shares the core.
pytestmark = pytest.mark.timeout(300)
TINY = TeacherConfig(width=32, layers=1, head_dim=16)


def network() -> Teacher:
    torch.manual_seed(0)
    teacher = Teacher(TINY).eval()
    for value in teacher.parameters():
        if not value.any():
            nn.init.normal_(value, std=0.05)
    return teacher


def options(folder: Path, **changes: object) -> TrainOptions:
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text("{}")
    made = TrainOptions("emoji_teacher", folder / "repository", folder / "runs", weights=tokenizer)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository into which a small network, its decoder and a tokenizer were published."""
    made = options(tmp_path_factory.mktemp("release"))
    (made.runs / "emoji_teacher").mkdir(parents=True)
    (made.runs / "emoji_teacher" / "log.jsonl").write_text('{"loss": 1}\n{"held": 0.5}\n')
    decoder = PictureDecoder(TinyDecoder(DecoderConfig(32, (16, 16), (1, 1))), torch.zeros(32), 1.0)
    facts = {"samples": 16, "seconds": 60.0, "decayed": 0.0}
    publish_trained(PRESETS["emoji_teacher"], made, Trained(network(), decoder.eval(), facts))
    return made.repository


def test_large_weights_are_stored_at_half_precision_and_the_graph_takes_any_size(published: Path) -> None:
    path = published / "dit_emoji" / "1" / "model.onnx"
    stored = onnx.load(str(path)).graph.initializer
    large = [each for each in stored if np.prod(each.dims) >= 1024 and each.data_type in (1, 10)]
    assert large
    assert all(each.data_type == onnx.TensorProto.FLOAT16 for each in large)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = network_inputs(4, 32, 12, seed=9)
    found = session.run(["velocity"], {name: value.numpy() for name, value in given.items()})[0]
    with torch.no_grad():
        expected = rounded_to_half(network())(*given.values()).numpy()
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_a_version_has_its_decoder_tokenizer_and_recipe(published: Path) -> None:
    assert read_model(published, "dit_emoji") is not None
    folder = published / "dit_emoji" / "1"
    manifest = read_manifest(folder / "manifest.json")
    assert manifest is not None
    assert set(manifest.files) == {"model.onnx", "decoder.onnx", "tokenizer.json", "check.safetensors"}
    assert (manifest.task, manifest.family) == ("text_to_image", "emoji")
    assert manifest.source["sizes"] == ["64x64"]
    assert manifest.source["text_encoder"]["length"] == 32
    assert manifest.quality["held_back_loss"] == 0.5
    session = onnxruntime.InferenceSession(str(folder / "decoder.onnx"), providers=["CPUExecutionProvider"])
    picture = session.run(["image"], {"latents": 9 * np.ones((1, 32, 2, 3), np.float32)})[0]
    assert picture.shape == (1, 3, 4, 6)
    assert picture.min() >= 0
    assert picture.max() <= 1


def test_a_sitting_goes_on_only_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = replace(PRESETS["emoji_teacher"], teacher=replace(TINY, patch=1), limit=2)
    preset = replace(preset, pace=replace(preset.pace, batch=4))
    monkeypatch.setitem(PRESETS, "emoji_teacher", preset)
    made = options(tmp_path)
    pack_made_up(made.runs / "packed64")
    assert sitting(made, lambda line: None).step == 2
    with pytest.raises(InvalidArgument, match="--resume"):
        sitting(made, lambda line: None)
    assert sitting(replace(made, resume=True), lambda line: None).step == 4
    lines = (made.runs / "emoji_teacher" / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 4


def test_a_student_without_a_teacher_says_what_is_missing(tmp_path: Path) -> None:
    made = options(tmp_path, preset="emoji")
    pack_made_up(made.runs / "packed64")
    with pytest.raises(InvalidArgument, match="emoji_teacher"):
        sitting(made, lambda line: None)
