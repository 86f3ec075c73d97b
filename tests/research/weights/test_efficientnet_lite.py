"""The ONNX graph equals the network in PyTorch; an image's scores do not depend on its batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from nonet.research.weights import read_checkpoint
from nonet.research.weights.check_images import check_images
from nonet.research.weights.efficientnet_lite import VARIANTS, build_onnx
from nonet.research.weights.imagenet import imagenet_labels
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.images import Preprocessing
from nonet.runtime.tensors import Array
from tests.support.efficientnet_lite_torch import PARAMETERS, random_lite


def session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Array]:
    path = tmp_path_factory.mktemp("lite") / "lite0.pth"
    torch.save(random_lite(1.0, 1.0).state_dict(), path, _use_new_zipfile_serialization=False)
    return read_checkpoint(path)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_graph_equals_the_network_in_pytorch(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    network = random_lite(variant.width, variant.depth)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]
    torch.save(network.state_dict(), tmp_path / "weights.pth", _use_new_zipfile_serialization=False)
    graph = build_onnx(variant, read_checkpoint(tmp_path / "weights.pth"))

    images = check_images(2, Preprocessing.from_manifest(variant.preprocessing))
    assert images.shape == (2, 3, variant.resolution, variant.resolution)
    (logits,) = session(graph.SerializeToString()).run(["logits"], {"image": images})
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_an_image_scores_the_same_to_the_bit_in_every_batch(smallest: dict[str, Array]) -> None:
    variant = VARIANTS["efficientnet_lite0"]
    runner = session(build_onnx(variant, smallest).SerializeToString())
    images = check_images(8, Preprocessing.from_manifest(variant.preprocessing))
    (whole,) = runner.run(None, {"image": images})
    for size in range(1, 9):
        (part,) = runner.run(None, {"image": images[8 - size :]})
        assert part.tobytes() == whole[8 - size :].tobytes()


def test_a_checkpoint_that_does_not_fit_is_refused(smallest: dict[str, Array]) -> None:
    variant = VARIANTS["efficientnet_lite0"]
    stem, last = "_conv_stem.weight", "_fc.bias"
    for change, message in (
        ({stem: smallest[stem][:, :, :2]}, "_conv_stem.weight is float32"),
        ({stem: smallest[stem].astype(np.float64)}, "is float64"),
        ({last: np.full(1000, np.nan, np.float32)}, "not finite"),
        ({"_bn0.running_var": np.full(32, -1, np.float32)}, "negative"),
        ({"extra": np.zeros(3, np.float32)}, "1 tensors that the network lacks"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            build_onnx(variant, smallest | change)
    with pytest.raises(InvalidArgument, match=r"_fc\.bias is missing"):
        build_onnx(variant, {name: tensor for name, tensor in smallest.items() if name != last})
    with pytest.raises(InvalidArgument):
        build_onnx(VARIANTS["efficientnet_lite2"], smallest)


def test_inputs_are_prepared_as_the_authors_say() -> None:
    sizes = {name: (v.preprocessing["resize"], v.preprocessing["crop"]) for name, v in VARIANTS.items()}
    assert sizes == {
        "efficientnet_lite0": (256, 224),
        "efficientnet_lite1": (272, 240),
        "efficientnet_lite2": (292, 260),
    }
    for variant in VARIANTS.values():
        spec = Preprocessing.from_manifest(variant.preprocessing)
        assert spec.interpolation == "bicubic"
        levels = np.array([0, 127, 255])
        np.testing.assert_allclose(
            (levels / 255 - spec.mean[0]) / spec.std[0], (levels - 127) / 128, atol=1e-12
        )


def test_there_are_a_thousand_different_labels_in_their_order() -> None:
    labels = imagenet_labels()
    assert len(labels) == len(set(labels)) == 1000
    assert all(label == label.strip() and label.isprintable() for label in labels)
    known = {
        0: "tench",
        207: "golden retriever",
        281: "tabby",
        340: "zebra",
        954: "banana",
        999: "toilet tissue",
    }
    assert {index: labels[index] for index in known} == known


def test_check_images_look_like_photographs_to_a_network() -> None:
    images = check_images(3, Preprocessing(64, 64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)))
    assert images.dtype == np.float32
    np.testing.assert_array_equal(
        images, check_images(3, Preprocessing(64, 64, mean=(0.5,) * 3, std=(0.25,) * 3))
    )
    assert 0.6 < images.std() < 1.4
    neighbours = np.corrcoef(images[:, :, :, 1:].ravel(), images[:, :, :, :-1].ravel())[0, 1]
    assert neighbours > 0.8
    assert not np.array_equal(images[0], images[1])
