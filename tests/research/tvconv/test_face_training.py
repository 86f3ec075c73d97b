"""Training of face networks and detectors: what a cell learns, and a resumed run is an unbroken one."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from nonet.research.tvconv.augment import FaceViews, random_views, whole_faces  # noqa: E402
from nonet.research.tvconv.detector import DetectorConfig, cell_corners, decode  # noqa: E402
from nonet.research.tvconv.detector_data import Photograph, random_view, whole_view  # noqa: E402
from nonet.research.tvconv.detector_training import (  # noqa: E402
    DetectorRecipe,
    agreement,
    targets_of,
    train_detector,
)
from nonet.research.tvconv.face_files import Faces  # noqa: E402
from nonet.research.tvconv.face_training import FaceRecipe, MarginHead, train_faces  # noqa: E402
from nonet.research.tvconv.layer import GeneratorConfig  # noqa: E402
from nonet.research.tvconv.mobilenet import SMALL_STAGES, FaceNetConfig  # noqa: E402
from nonet.research.tvconv.yunet import Face, best_apart, overlap  # noqa: E402

SMALL = FaceNetConfig(
    width=0.25, size=32, stem_stride=2, embedding=8, generator=GeneratorConfig(1, 2, 0), stages=SMALL_STAGES
)
RECIPE = replace(FaceRecipe(), network=SMALL, steps=4, batch=4)


def faces(persons: int = 4, each: int = 3) -> Faces:
    pixels = np.random.default_rng(0).integers(0, 256, (persons * each, 40, 40, 3), dtype=np.uint8)
    numbers = np.repeat(np.arange(persons), each)
    return Faces(pixels, numbers, np.zeros(len(numbers), np.int64), tuple(map(str, range(persons))))


def test_a_resumed_training_is_an_unbroken_one(tmp_path: Path) -> None:
    data = faces()
    whole = train_faces(RECIPE, data, data, tmp_path / "whole.pt")
    train_faces(RECIPE, data, data, tmp_path / "broken.pt", stop_after=2)
    resumed = train_faces(RECIPE, data, data, tmp_path / "broken.pt", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    with pytest.raises(ValueError, match="another recipe"):
        train_faces(replace(RECIPE, lr=0.5), data, data, tmp_path / "whole.pt", resume=True)


def test_the_margin_is_taken_off_the_right_person_only() -> None:
    head = MarginHead(2, 2, margin=0.5, scale=10.0)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
        loss = head(torch.tensor([[3.0, 0.0]]), torch.tensor([0]))
    expected = -torch.log_softmax(torch.tensor([10 * (1 - 0.5), 0.0]), 0)[0]
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)


def test_views_stay_in_range_and_without_change_show_the_face() -> None:
    pictures = torch.from_numpy(faces().pictures).permute(0, 3, 1, 2)
    generator = torch.Generator().manual_seed(0)
    views = random_views(pictures, 32, FaceViews(), generator)
    assert views.shape == (12, 3, 32, 32)
    assert float(views.min()) >= -1
    assert float(views.max()) <= 1
    still = FaceViews(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    same = random_views(pictures, 40, still, torch.Generator().manual_seed(0))
    plain = pictures.float() / 127.5 - 1
    either = torch.minimum((same - plain).abs().mean((1, 2, 3)), (same - plain.flip(3)).abs().mean((1, 2, 3)))
    assert float(either.max()) < 0.01
    assert whole_faces(pictures, 32).shape == (12, 3, 32, 32)


def photograph(score: float = 0.9, box: tuple[float, ...] = (40, 20, 80, 70)) -> Photograph:
    low, high = np.array(box[:2]), np.array(box[2:])
    place = np.array([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)])
    face = Face(np.array(box, np.float64), score, low + place * (high - low))
    return Photograph(Image.new("RGB", (128, 96), (90, 80, 70)), (face,), "test")


@pytest.mark.parametrize("box", [(40, 20, 80, 70), (10, 10, 26, 28), (5, 5, 120, 90)])
def test_what_the_positive_cells_learn_decodes_to_the_face(box: tuple[float, ...]) -> None:
    view = whole_view(photograph(box=box), 128)
    targets = targets_of(view, 128)
    chosen = torch.nonzero(targets.positive).flatten()
    assert len(chosen)
    answers = torch.cat([torch.zeros(len(targets.values), 1), targets.values], 1)[None]
    _, boxes, landmarks = decode(answers, 128)
    for cell in chosen:
        assert boxes[0, cell].numpy() == pytest.approx(view.boxes[0], abs=0.01)
        assert landmarks[0, cell].numpy() == pytest.approx(view.landmarks[0], abs=0.01)
    corners, _ = cell_corners(128)
    assert len(corners) == 16**2 + 8**2 + 4**2


def test_a_doubtful_face_teaches_nothing() -> None:
    targets = targets_of(whole_view(photograph(score=0.4), 128), 128)
    assert not targets.positive.any()
    assert 0 < int((~targets.counted).sum()) < len(targets.counted) / 2


def test_views_of_a_photograph_keep_the_face_and_its_landmarks_together() -> None:
    for seed in range(20):
        view = random_view(photograph(), 64, random.Random(seed))
        assert view.pixels.shape == (3, 64, 64)
        low, high = view.boxes[0, :2], view.boxes[0, 2:]
        middle, size = (low + high) / 2, float((high - low).max())
        assert float(np.abs(view.landmarks[0] - middle).max()) < size
        assert view.landmarks[0, 0, 0] < view.landmarks[0, 1, 0]  # left stays left when it is mirrored


def test_a_detector_is_trained_resumed_and_measured(tmp_path: Path) -> None:
    recipe = DetectorRecipe(network=DetectorConfig(64, 8), steps=4, batch=2)
    photographs = [photograph()]
    whole = train_detector(recipe, photographs, tmp_path / "whole.pt")
    train_detector(recipe, photographs, tmp_path / "broken.pt", stop_after=2)
    resumed = train_detector(recipe, photographs, tmp_path / "broken.pt", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    found = agreement(resumed, photographs, score=0.0001)
    assert found.faces == 1
    assert 0 <= found.recall <= 1


def test_of_faces_that_overlap_the_best_stays() -> None:
    points = np.zeros((5, 2))
    boxes = ((0, 0, 10, 10), (1, 1, 11, 11), (30, 30, 40, 40))
    found = best_apart([Face(np.array(box, float), 0.5 + 0.1 * n, points) for n, box in enumerate(boxes)])
    assert [tuple(face.box) for face in found] == [boxes[2], boxes[1]]
    assert overlap(np.array([0, 0, 2, 2.0]), np.array([1, 1, 3, 3.0])) == pytest.approx(1 / 7)
