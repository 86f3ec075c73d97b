"""The service of face embeddings beside its network run by hand; what its manifest must say."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nonet.runtime.errors import InvalidArgument, ModelRefused
from nonet.runtime.images import ImageLimits
from nonet.runtime.images.similarity import fit_similarity, warp
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Tensor
from nonet.services.recognition.faces.derive import derive_faces
from nonet.services.recognition.faces.finding import OnnxFaceFinder
from tests.support.handmade_faces import add_faces, detector
from tests.support.managed_repository import ManagedRepository


def data(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(100, 256, (48, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def ask(service: Servable, *rows: bytes, **parameters: bool | str) -> InferRequest:
    tensor = Tensor.of_bytes("image", list(rows))
    return InferRequest(model=service.info.name, inputs=(tensor,), parameters=parameters)


def test_alone_and_in_any_batch_an_answer_is_the_same_to_the_bit(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    add_faces(tmp_path / "models", "finder")
    managed = ManagedRepository(
        tmp_path / "models", tmp_path / "cache", derive=[lambda each: derive_faces(each, ImageLimits())]
    )
    managed.did()
    with managed.catalog.lease("faces.finder", "") as lease:
        service = lease.servable
        rows = [data(seed) for seed in range(7)]
        alone = [service.execute([ask(service, row)])[0] for row in rows]
        together = service.execute(
            [ask(service, *rows[:3]), ask(service, b"broken"), ask(service, *rows[3:])]
        )
        first, broken, last = together
        assert isinstance(broken, InvalidArgument)
        assert isinstance(first, InferResponse)
        assert isinstance(last, InferResponse)
        for name in ("embedding", "box", "score", "landmarks", "found"):
            found = np.concatenate([first.output(name).data, last.output(name).data])
            for number, outcome in enumerate(alone):
                assert isinstance(outcome, InferResponse)
                assert outcome.output(name).data[0].tobytes() == found[number].tobytes()
        (wrong,) = service.execute([ask(service, *rows[:2], names="one")])
        assert isinstance(wrong, InvalidArgument)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"threshold": "high"}, "source.threshold"),
        ({"threshold": 2.0}, "source.threshold"),
        ({"alignment": {"side": 16}}, "source.alignment"),
        ({"detector_score": 3}, "detector_score"),
    ],
)
def test_a_manifest_that_does_not_say_all_is_refused(
    tmp_path: Path, source: dict[str, object], words: str
) -> None:
    add_faces(tmp_path, "finder", **source)
    reasons: list[str] = []

    def derive(network: Servable) -> list[Servable]:
        try:
            return list(derive_faces(network, ImageLimits()))
        except ModelRefused as refused:
            reasons.append(refused.reason)
            raise

    ManagedRepository(tmp_path, tmp_path / "cache", derive=[derive]).did()
    assert len(reasons) == 1
    assert words in reasons[0]


def test_a_detector_is_a_network_with_its_outputs() -> None:
    with pytest.raises(ModelRefused, match="detector"):
        OnnxFaceFinder(b"no network", 0.5)
    finder = OnnxFaceFinder(detector(), 0.5)
    white = Image.new("RGB", (640, 320), (255, 255, 255))
    faces = finder.find(white)
    assert [face.area for face in faces] == sorted((face.area for face in faces), reverse=True)
    assert len(faces) == 2  # the lower half of the input is empty


def test_a_similarity_is_found_again_and_brings_the_picture_along() -> None:
    random = np.random.default_rng(0)
    points = random.uniform(0, 50, (5, 2))
    known = np.array([[0.6, -0.8, 3.0], [0.8, 0.6, -2.0]])
    moved = points @ known[:, :2].T + known[:, 2]
    assert fit_similarity(points, moved) == pytest.approx(known)
    with pytest.raises(ValueError, match="scale"):
        fit_similarity(np.ones((5, 2)), moved)
    picture = Image.new("RGB", (200, 200))
    picture.paste((255, 255, 255), (100, 40, 140, 80))
    quarter = warp(picture, np.array([[0.25, 0, 0], [0, 0.25, 0]]), (50, 50))
    bright = np.argwhere(np.asarray(quarter)[:, :, 0] > 128)
    assert bright.min(0).tolist() == [10, 25]
    assert bright.max(0).tolist() == [19, 34]
