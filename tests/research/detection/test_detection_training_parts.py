"""What trains a detector: overlaps, assignment, views whose boxes follow the pixels, packed pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nonet.research.detection import pictures
from nonet.research.detection.assignment import Objects, assign, detection_loss
from nonet.research.detection.backbones import build_pyramid, start_from
from nonet.research.detection.bank import Bank, load_bank, pack
from nonet.research.detection.boxes import complete_iou, pairwise_iou
from nonet.research.detection.folding import fold_normalisations
from nonet.research.detection.network import Detector, Shape, places
from nonet.research.detection.pictures import Annotated, split_of
from nonet.research.detection.scoring import average_precision
from nonet.research.detection.views import Augmentation, join, mosaics, views
from nonet.research.fasternet.fusion import fuse
from nonet.research.fasternet.network import build

SIDE = 64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coloured(number: int, width: int = 90, height: int = 60) -> Annotated:
    """A grey picture with one white rectangle, which is its object."""
    rng = np.random.default_rng(number)
    x, y = int(rng.integers(5, width - 45)), int(rng.integers(5, height - 35))
    w, h = int(rng.integers(20, 40)), int(rng.integers(15, 30))
    image = Image.new("RGB", (width, height), (90, 90, 90))
    image.paste((255, 255, 255), (x, y, x + w, y + h))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    box = np.array([[x, y, x + w, y + h]], dtype=np.float32)
    return Annotated(f"{number}.png", buffer.getvalue(), box, np.array([number % 3]))


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    path = tmp_path_factory.mktemp("bank") / "pictures.safetensors"
    pack((coloured(number) for number in range(12)), path, 96)
    return load_bank([path], 96)


def test_complete_overlap_of_equal_boxes_is_one_and_never_above_the_plain_one() -> None:
    rng = generator()
    first = torch.rand(50, 4, generator=rng) * 20
    second = torch.rand(50, 4, generator=rng) * 20
    for boxes in (first, second):
        boxes[:, 2:] += boxes[:, :2] + 1
    assert torch.allclose(complete_iou(first, first), torch.ones(50), atol=1e-6)
    assert (complete_iou(first, second) <= pairwise_iou(first, second).diagonal() + 1e-6).all()
    moved = first.clone().requires_grad_()
    complete_iou(moved, second).sum().backward()
    assert torch.isfinite(moved.grad).all()  # type: ignore[arg-type]


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_a_place_learns_only_a_real_object_that_it_lies_in(seed: int) -> None:
    rng = generator(seed)
    centres, _ = places(SIDE)
    count = len(centres)
    corners = torch.rand(2, 5, 2, generator=rng) * 40
    wanted = torch.cat((corners, corners + 9 + torch.rand(2, 5, 2, generator=rng) * 14), -1)
    objects = Objects(wanted, torch.randint(-1, 3, (2, 5), generator=rng), torch.ones(2, 5))
    logits = torch.randn(2, count, 3, generator=rng)
    around = torch.rand(2, count, 4, generator=rng) * 30
    boxes = torch.cat((centres - around[..., :2], centres + around[..., 2:]), -1)
    index, fit = assign(logits, boxes, objects, centres)
    for picture in range(2):
        learnt = {int(each) for each in index[picture][fit[picture] > 0]}
        real = {each for each in range(5) if objects.classes[picture, each] >= 0}
        assert learnt <= real
        for place in torch.nonzero(fit[picture] > 0).flatten().tolist():
            box = wanted[picture, index[picture, place]]
            assert (centres[place] > box[:2]).all()
            assert (centres[place] < box[2:]).all()
    assert ((fit >= 0) & (fit <= 1)).all()


def test_the_loss_falls_where_the_answer_is_right_and_is_finite_without_objects() -> None:
    centres, _ = places(SIDE)
    wanted = torch.tensor([[[8.0, 8.0, 40.0, 40.0]]])
    objects = Objects(wanted, torch.tensor([[1]]), torch.ones(1, 1))
    right = wanted.expand(1, len(centres), 4)
    inside = ((centres > 8) & (centres < 40)).all(-1)
    sure = torch.full((1, len(centres), 3), -6.0)
    sure[0, inside, 1] = 6.0
    unsure = torch.zeros(1, len(centres), 3)
    wrong = right + 20
    assert detection_loss(sure, right, objects, centres) < detection_loss(unsure, right, objects, centres)
    assert detection_loss(sure, right, objects, centres) < detection_loss(sure, wrong, objects, centres)
    none = Objects(wanted, torch.tensor([[-1]]), torch.ones(1, 1))
    assert torch.isfinite(detection_loss(unsure, right, none, centres))


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_boxes_follow_the_pixels_of_every_view(bank: Bank, seed: int) -> None:
    rng = generator(seed)
    augmentation = Augmentation(light=0.0, turn=True)
    index = torch.randint(len(bank), (4,), generator=rng)
    images, objects = views(bank, index, SIDE, augmentation, rng)
    white = images.mean(1) > 0.75
    for picture in range(4):
        for box, label in zip(objects.boxes[picture], objects.classes[picture], strict=True):
            if label < 0:
                continue
            rows, columns = torch.nonzero(white[picture], as_tuple=True)
            seen = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)).float()
            assert (seen - box).abs().max() <= 2.0


def test_focused_views_show_an_object_that_others_would_miss(bank: Bank) -> None:
    index = torch.arange(12).repeat(4)
    far = {"zoom": (4.0, 4.0), "plain": 0.0, "stretch": 1.0}
    counts = []
    for focus in (0.0, 1.0):
        _, objects = views(bank, index, SIDE, Augmentation(**far, focus=focus), generator())  # type: ignore[arg-type]
        counts.append(int((objects.classes >= 0).any(1).sum()))
    assert counts[0] < 40
    assert counts[1] > 40


def test_four_pictures_share_a_view_and_empty_rows_come_last(bank: Bank) -> None:
    one = views(bank, torch.arange(3), SIDE, Augmentation(), generator())
    four = mosaics(bank, torch.arange(8).reshape(2, 4), SIDE, Augmentation(plain=1.0), generator())
    images, objects = join([one, four])
    assert images.shape == (5, 3, SIDE, SIDE)
    assert (objects.classes[3:] >= 0).sum(1).tolist() == [4, 4]
    empty = objects.classes < 0
    assert (empty[:, 1:] >= empty[:, :-1]).all()
    quadrants = {tuple((box[:2] >= SIDE / 2 - 1e-3).tolist()) for box in objects.boxes[3]}
    assert len(quadrants) == 4


def test_a_view_depends_on_its_generator_alone(bank: Bank) -> None:
    first, second = (views(bank, torch.arange(4), SIDE, Augmentation(), generator(5)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1].boxes, second[1].boxes)


class Everywhere:
    """A teacher that knows one object of class 7 in the corner, and one that is already marked."""

    def find(self, picture: Image.Image, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        marked = coloured(0).boxes[0]
        boxes = np.stack((np.float32([0, 0, 4, 4]), marked + 1))
        return boxes, np.array([7, 0]), np.array([0.4, 0.9], dtype=np.float32)


def test_a_teacher_adds_what_nobody_marked_and_only_where_it_may(tmp_path: Path) -> None:
    marked = coloured(0)
    free = Annotated("free", marked.content, marked.boxes, marked.classes, taught=True)
    pack([marked, free], tmp_path / "both", 96, Everywhere(), 0.1)  # type: ignore[arg-type]
    both = load_bank([tmp_path / "both"], 96)
    assert both.classes.tolist() == [[0, -1], [0, 7]]
    assert both.scores[1].tolist() == pytest.approx([1.0, 0.4])


def test_splits_are_fixed_disjoint_and_of_a_tenth() -> None:
    names = [f"p{number}" for number in range(200)]
    found = split_of(names)
    assert found == split_of(list(reversed(names)))
    assert sorted(found.values()).count("test") == sorted(found.values()).count("val") == 20


def test_average_precision_knows_perfect_shifted_and_absent_answers() -> None:
    marked = [coloured(number) for number in range(6)]

    def answers(shift: float, label: int = 0) -> list[tuple[Annotated, tuple[np.ndarray, ...]]]:
        return [(each, (each.boxes + shift, each.classes + label, np.array([0.9]))) for each in marked]

    assert average_precision(answers(0))["ap"] == 1.0
    assert average_precision(answers(3))["ap50"] == 1.0
    assert average_precision(answers(3))["ap"] < 0.8
    assert average_precision(answers(0, 1))["ap50"] == 0.0
    assert average_precision(answers(0, 1), one_class=True)["ap50"] == 1.0
    nothing = [(each, (np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0))) for each in marked]
    assert average_precision(nothing)["ap50"] == 0.0


def test_folded_weights_of_a_classifier_start_a_backbone_that_computes_the_same_and_trains() -> None:
    torch.manual_seed(0)
    classifier = build("nano", 5).train()
    with torch.no_grad():
        for _ in range(3):
            classifier(torch.randn(4, 3, 64, 64) * 2)  # statistics that are not the initial ones
    classifier.eval()
    images = torch.rand(2, 3, 64, 64)
    pyramid = build_pyramid("fasternet_nano")
    tensors = dict(fuse(classifier).state_dict())
    start_from(pyramid, tensors, torch.rand(4, 3, 64, 64))
    network = pyramid.network
    with torch.no_grad():
        normal = (images - pyramid.mean) / pyramid.std
        own = network.stages(network.patch_embed(normal))
        assert torch.allclose(own, classifier.maps(normal), atol=1e-4)
    assert sum(isinstance(each, torch.nn.BatchNorm2d) for each in pyramid.modules()) > 5
    with pytest.raises(ValueError, match="no weights for"):
        start_from(build_pyramid("fasternet_t0"), tensors, images)


@pytest.mark.parametrize("backbone", ["fasternet_nano", "efficientnet_lite0"])
def test_a_folded_detector_computes_the_same_without_normalisations(backbone: str) -> None:
    torch.manual_seed(0)
    detector = Detector(Shape(backbone, 3, 64, width=16)).train()  # type: ignore[arg-type]
    with torch.no_grad():
        detector(torch.rand(4, 3, 64, 64))
        detector.eval()
        images = torch.rand(2, 3, 64, 64)
        logits, boxes = detector(images)
        folded = fold_normalisations(detector)
        again = folded(images)
    assert torch.allclose(logits, again[0], atol=1e-4)
    assert torch.allclose(boxes, again[1], atol=1e-2)
    left = [name for name, each in folded.named_modules() if isinstance(each, torch.nn.BatchNorm2d)]
    assert left == ([f"pyramid.network.norm{index}" for index in (2, 4, 6)] if "faster" in backbone else [])
    assert logits.shape == (2, 84, 3)
    assert boxes.shape == (2, 84, 4)


def test_no_picture_for_the_last_measurement_is_trained_on(data_root: Path) -> None:
    for family in (pictures.voc_animals, pictures.debris, pictures.cells):
        names = {split: {each.name for each in family(data_root, split)} for split in pictures.SPLITS}
        assert all(names.values())
        assert not names["train"] & (names["test"] | names["val"])
    assert not {each.name for each in pictures.coco(data_root, "train2017")} & {
        each.name for each in pictures.coco(data_root, "val2017")
    }
