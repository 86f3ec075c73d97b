"""A variant is served only with a loss it may have, and only while its answers are nearly its original's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from nonet.gateway.tasks.model_cards import public_facts
from nonet.runtime.backends import BackendOptions
from nonet.runtime.errors import ModelRefused
from nonet.runtime.repository.config import read_config
from nonet.runtime.repository.integrity import FileHasher
from nonet.runtime.repository.layout import CONFIG_FILE, scan
from nonet.runtime.repository.loader import PreparedVersion, load_with, prepare_version
from nonet.runtime.repository.selection import check_version, profile_version
from tests.support import handmade_networks

VARIANT: dict[str, Any] = {
    "of": "net",
    "version": "1",
    "precision": "int8",
    "figure": "top1",
    "loss": 0.002,
    "allowed_loss": 0.003,
    "allowed_error": 0.1,
}


def add_variant(
    root: Path, *, shift: float = 0.0, original_shift: float = 0.0, original: bool = True, **changes: Any
) -> None:
    """``net`` and ``net_int8``, the same graph: its check set is off by a share of the largest answer."""
    handmade_networks.add_classifier(root, "net", 8, family="tiny", top1=0.5)
    folder = handmade_networks.add_classifier(root, "net_int8", 8, family="tiny", top1=0.498)
    arrays = load_file(folder / "check.safetensors")
    logits = arrays["logits"]
    largest = np.abs(logits).max(axis=1, keepdims=True)
    arrays["logits"] = (logits + shift * largest).astype(np.float32)
    if original:
        arrays["original/logits"] = (logits + original_shift * largest).astype(np.float32)
    files = {"model.onnx": (folder / "model.onnx").read_bytes(), "check.safetensors": save(arrays)}
    facts = json.loads((folder / "manifest.json").read_text())
    facts |= {"variant": VARIANT | changes}
    facts.pop("files")
    (folder / "check.safetensors").write_bytes(files["check.safetensors"])
    (folder / "manifest.json").write_bytes(handmade_networks.manifest(files, **facts))


def prepared(root: Path, name: str = "net_int8") -> PreparedVersion:
    model = scan(root)[name]
    config = read_config(model.path / CONFIG_FILE)
    return prepare_version(root, model, model.versions[-1], config, hasher=FileHasher())


def test_a_variant_that_lost_more_than_it_may_is_refused(tmp_path: Path) -> None:
    add_variant(tmp_path, loss=0.0031)
    with pytest.raises(ModelRefused, match=r"int8 variant of net version 1 loses 0\.0031 of top1, more than"):
        prepared(tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"figure": "dice"}, "quality holds no figure 'dice'"),
        ({"lose": 1.0}, "unknown key 'lose'; did you mean 'loss'"),
        ({"precision": "int2"}, "precision"),
        ({"version": "0"}, "version"),
        ({"loss": float("nan")}, "loss"),
        ({"allowed_error": 0.0}, "allowed_error"),
    ],
)
def test_what_is_said_of_a_variant_is_checked(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    add_variant(tmp_path, **changes)
    with pytest.raises(ModelRefused, match=complaint):
        prepared(tmp_path)


def test_a_variant_is_verified_within_its_own_error(tmp_path: Path) -> None:
    add_variant(tmp_path, shift=0.09, original_shift=0.09)
    verdict = check_version(prepared(tmp_path), BackendOptions(concurrency=1))
    assert verdict is not None
    assert verdict.accepted, verdict.reason
    assert verdict.error is not None
    assert 0.05 < verdict.error < 0.1


def test_callers_are_told_the_variants_own_precision(tmp_path: Path) -> None:
    add_variant(tmp_path)
    facts = {}
    for name in ("net", "net_int8"):
        servable = load_with(prepared(tmp_path, name), "onnxruntime", "fp32", BackendOptions(concurrency=1))
        facts[name] = public_facts(servable.info)
        servable.close()
    assert facts["net_int8"]["precision"] == "int8"
    assert facts["net_int8"]["variant"]["of"] == "net"
    assert facts["net"]["precision"] == "fp32"
    assert "variant" not in facts["net"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"shift": 0.2}, "differs from its check set by"),
        ({"original_shift": 0.2}, "differs from its original net by"),
        ({"original": False}, "holds no answers of the original"),
    ],
)
def test_answers_unlike_its_own_or_its_originals_fail(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    add_variant(tmp_path, **changes)
    version = prepared(tmp_path)
    verdict = check_version(version, BackendOptions(concurrency=1))
    assert verdict is not None
    assert not verdict.accepted
    assert complaint in verdict.reason
    profile = profile_version(version, BackendOptions(concurrency=1), "here", batch_sizes=[1], budget=0.01)
    assert profile.chosen == 0
    assert not profile.choice.accepted
