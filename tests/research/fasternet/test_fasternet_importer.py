"""Published checkpoints: both layouts load strictly, hostile and wrong files are refused, the way is a round
trip.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nonet.research.fasternet.checkpoint_keys import (
    flavour_of,
    official_names,
    timm_names,
    to_official,
    to_timm,
    without_wrappers,
)
from nonet.research.fasternet.importer import classifier_from, dense_from, import_checkpoint
from nonet.research.fasternet.network import PUBLISHED, VARIANTS, FasterNet, FasterNetDense, build
from nonet.research.fasternet.onnx_session import open_session, run
from nonet.research.weights import read_checkpoint
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.repository.manifest import Preprocessing, read_manifest


@pytest.fixture(scope="module")
def trained() -> FasterNet:
    """A narrow network with statistics as after training."""
    torch.manual_seed(5)
    network = build("nano", 11)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def arrays(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in state.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_key_map_is_a_bijection_for_every_variant(name: str) -> None:
    with torch.device("meta"):
        official = list(build(name).state_dict())
    timm = [to_timm(key) for key in official]
    assert len(set(timm)) == len(official)
    assert [to_official(key) for key in timm] == official
    assert flavour_of(dict.fromkeys(official)) == "official"
    assert flavour_of(dict.fromkeys(timm)) == "timm"


def test_published_key_pairs() -> None:
    assert to_timm("stages.3.reduction.weight") == "stages.2.downsample.reduction.weight"
    assert to_timm("stages.6.blocks.1.mlp.0.weight") == "stages.3.blocks.1.mlp.0.weight"
    assert to_timm("avgpool_pre_head.1.weight") == "conv_head.weight"
    assert to_timm("head.bias") == "classifier.bias"
    assert to_timm("patch_embed.norm.running_var") == "patch_embed.norm.running_var"


def test_layout_without_a_head_is_told_by_the_largest_stage_index() -> None:
    assert flavour_of({"stages.6.blocks.0.mlp.0.weight": 0}) == "official"
    assert flavour_of({"stages.3.blocks.0.mlp.0.weight": 0}) == "timm"


@pytest.mark.parametrize(
    "prefix", ["", "model.", "state_dict.", "state_dict.model.", "state_dict.backbone.", "model.backbone."]
)
@pytest.mark.parametrize("layout", ["official", "timm"])
def test_every_layout_and_wrapper_gives_the_same_network(
    trained: FasterNet, prefix: str, layout: str
) -> None:
    state = arrays(trained.state_dict())
    named = state if layout == "official" else timm_names(state)
    wrapped: dict[str, np.ndarray] = {prefix + name: value for name, value in named.items()}
    if prefix:
        wrapped["optimizer.lr"] = np.zeros(1, np.float32)
    variant, network = classifier_from(wrapped)
    assert variant == "nano"
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(image), trained(image))


def test_names_round_trip_through_timm(trained: FasterNet) -> None:
    state = trained.state_dict()
    back = official_names(timm_names(state))
    assert list(back) == list(state)
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_bare_names_are_left_alone(trained: FasterNet) -> None:
    assert list(without_wrappers(trained.state_dict())) == list(trained.state_dict())


def test_wrong_width_is_refused(trained: FasterNet) -> None:
    with pytest.raises(InvalidArgument, match="width 24, but variant t0 has 40"):
        classifier_from(arrays(trained.state_dict()), "t0")


def test_unknown_shape_is_refused(trained: FasterNet) -> None:
    state = {name: value for name, value in arrays(trained.state_dict()).items() if "stages.6" not in name}
    with pytest.raises(InvalidArgument, match="no variant has width 24"):
        classifier_from(state)


def test_missing_unexpected_and_misshapen_tensors_are_named(trained: FasterNet) -> None:
    state = arrays(trained.state_dict())
    del state["stages.1.reduction.weight"]
    state["stages.9.surprise"] = np.zeros(1, np.float32)
    state["head.bias"] = np.zeros(12, np.float32)
    with pytest.raises(InvalidArgument) as caught:
        classifier_from(state, "nano")
    for part in (
        "missing stages.1.reduction.weight",
        "unexpected stages.9.surprise",
        "wrong shape head.bias (12,)",
    ):
        assert part in caught.value.message


def test_values_that_are_not_finite_are_refused(trained: FasterNet) -> None:
    state = {name: value.copy() for name, value in arrays(trained.state_dict()).items()}
    state["head.bias"][0] = np.nan
    with pytest.raises(InvalidArgument, match=r"head\.bias holds a value that is not finite"):
        classifier_from(state)


def test_a_detector_backbone_is_no_classifier_but_loads_as_dense_form() -> None:
    network = FasterNetDense(VARIANTS["nano"]).eval()
    state = {f"backbone.{name}": value for name, value in arrays(network.state_dict()).items()}
    with pytest.raises(InvalidArgument, match="detector"):
        classifier_from(state)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(network(image), dense_from(state, "nano")(image), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_files_of_every_format_become_a_verified_network(
    trained: FasterNet, form: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.bin"
    state = trained.state_dict()
    if form == "safetensors":
        save_file(timm_names(state), path)
    else:
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=form == "zip")
    if form != "safetensors":  # one full export is enough; the other formats differ only in the reader
        read = read_checkpoint(path)
        assert classifier_from(read)[0] == "nano"
        return
    labels = [f"class {index}" for index in range(11)]
    preprocessing = Preprocessing(resize=72, crop=64)
    version = import_checkpoint(
        path, "imported", tmp_path / "repository", labels=labels, family="toys", preprocessing=preprocessing
    )
    manifest = read_manifest(version.path / "manifest.json")
    assert manifest is not None
    assert (manifest.task, manifest.family, manifest.source["variant"]) == ("classification", "toys", "nano")
    assert (version.path.parent / "labels.txt").read_text().splitlines() == labels
    graph = (version.path / "model.onnx").read_bytes()
    assert b"site-packages" not in graph
    assert b"/nonet/" not in graph
    image = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        expected = trained(image).numpy()
    got = run(open_session(version.path / "model.onnx"), image.numpy())[0]
    assert float(np.abs(got - expected).max() / np.abs(expected).max()) < 1e-4


def test_wrong_number_of_labels_is_refused(trained: FasterNet, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(trained.state_dict(), path)
    with pytest.raises(InvalidArgument, match="2 labels for a network of 11 classes"):
        import_checkpoint(path, "imported", tmp_path / "repository", labels=["a", "b"])
    assert not (tmp_path / "repository").exists()


class Bomb:
    """A pickle that would create a file when it is executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("through", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_never_runs(through: str, tmp_path: Path) -> None:
    trap, path = tmp_path / "executed", tmp_path / "weights.pth"
    if through == "torch":
        torch.save({"head.weight": Bomb(trap)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(trap)))
    with pytest.raises(InvalidArgument):
        import_checkpoint(path, "imported", tmp_path / "repository")
    assert not trap.exists()
