"""What is served of a TVConv network: the same answers without its generators, in every form, in any
batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from nonet.research.fasternet.onnx_session import open_session, run  # noqa: E402
from nonet.research.tvconv.counting import kernel_values  # noqa: E402
from nonet.research.tvconv.detector import DetectorConfig, FaceDetector, decode  # noqa: E402
from nonet.research.tvconv.detector_graph import DetectorForm  # noqa: E402
from nonet.research.tvconv.face_release import FaceRelease, publish_faces  # noqa: E402
from nonet.research.tvconv.layer import GeneratorConfig  # noqa: E402
from nonet.research.tvconv.mobilenet import SMALL_STAGES, FaceNet, FaceNetConfig  # noqa: E402
from nonet.research.tvconv.serving_graph import FORMS, ServingForm, random_statistics  # noqa: E402
from nonet.runtime.repository.manifest import read_manifest  # noqa: E402

CONFIG = FaceNetConfig(
    width=0.25,
    size=32,
    stem_stride=2,
    embedding=16,
    generator=GeneratorConfig(2, 4, 1),
    stages=SMALL_STAGES,
)


@pytest.fixture(scope="module")
def network() -> FaceNet:
    torch.manual_seed(0)
    made = random_statistics(FaceNet(CONFIG)).eval()
    assert isinstance(made, FaceNet)
    return made


def test_every_form_has_the_answers_of_the_network(network: FaceNet) -> None:
    faces = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = network(faces)
        for form in FORMS:
            found = ServingForm(network, form)(faces)
            assert (found - expected).abs().max() <= 1e-5 * expected.abs().max(), form


def test_the_plain_network_is_folded_too() -> None:
    torch.manual_seed(1)
    plain = random_statistics(
        FaceNet(FaceNetConfig("depthwise", 0.25, 32, 2, 16, stages=SMALL_STAGES))
    ).eval()
    faces = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(ServingForm(plain)(faces), plain(faces), atol=1e-4)


def test_a_published_version_holds_kernels_and_no_generator(tmp_path: Path, network: FaceNet) -> None:
    torch.manual_seed(2)
    detector = FaceDetector(DetectorConfig(64, 8)).eval()
    release = FaceRelease("built by a test", threshold=0.25, quality={"accuracy": 0.5})
    folder = publish_faces(tmp_path, "faces", network, detector, release).path
    manifest = read_manifest(folder / "manifest.json")
    assert manifest is not None
    assert (manifest.task, manifest.source["threshold"], manifest.source["detector_score"]) == (
        "face_embedding",
        0.25,
        0.5,
    )
    assert set(manifest.files) == {"model.onnx", "check.safetensors", "detector.onnx"}
    graph = onnx.load(str(folder / "model.onnx")).graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"LayerNormalization", "BatchNormalization"}
    values = sum(int(np.prod(value.dims)) for value in graph.initializer)
    kernels = sum(map(kernel_values, network.tvconvs()))
    assert kernels < values < kernels + 40_000

    session = open_session(folder / "detector.onnx")
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        scores, boxes, landmarks = decode(detector(torch.from_numpy(pictures)), 64)
        folded = DetectorForm(detector)(torch.from_numpy(pictures))
    for found, again, expected in zip(
        run(session, pictures), folded, (scores, boxes, landmarks.flatten(2)), strict=True
    ):
        assert np.abs(found - expected.numpy()).max() < 1e-3
        assert (again - expected).abs().max() < 1e-3
