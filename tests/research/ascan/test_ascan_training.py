"""From photographs to a served version: the toy preset on made-up eyes, and what the held-back ones are."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from PIL import Image

from nonet.research.ascan import commands
from nonet.research.ascan.counting import macs
from nonet.research.ascan.disc_cup import (
    RECIPES,
    NestedMasks,
    lesson,
    load_views,
    mask_loss,
    train_disc_cup,
)
from nonet.research.ascan.disc_cup_files import SPLITS, dice, masks, photographs
from nonet.research.ascan.disc_cup_scores import score_brightest, score_mean_mask
from nonet.research.ascan.layouts import LAYOUTS, at_equal_macs, pyramid_macs
from nonet.research.ascan.network import Pyramid, Variant
from nonet.research.systems import TrainOptions
from nonet.runtime.repository.manifest import read_manifest

REAL = Path(os.environ.get("NONET_DATA", Path(__file__).parents[4] / "shared" / "data"))
EYES = 24


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up photographs in the layout of Drishti-GS1: a bright disc with a brighter cup, somewhere."""
    root = tmp_path_factory.mktemp("eyes")
    folder = root / "drishti_gs"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:88, :104]
    with (folder / "index.csv").open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["id"])
        for number in range(EYES):
            middle = random.uniform(30, 58), random.uniform(30, 74)
            distance = np.hypot(rows - middle[0], columns - middle[1])
            marked = (distance < 14).astype(np.uint8) + (distance < 7)
            picture = np.stack([60 + 70 * marked, 20 + 60 * marked, 10 + 30 * marked], -1)
            picture = (picture + random.integers(0, 20, picture.shape)).astype(np.uint8)
            Image.fromarray(picture).save(folder / "images" / f"eye{number:02}.jpg", quality=95)
            Image.fromarray(marked).save(folder / "masks" / f"eye{number:02}.png")
            writer.writerow([f"eye{number:02}"])
    return root


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def options(folder: Path, **changes: object) -> TrainOptions:
    return TrainOptions("tiny", folder / "models", folder / "runs", **changes)  # type: ignore[arg-type]


def test_the_splits_are_disjoint_and_the_same_every_time(eyes: Path) -> None:
    parts = [photographs(eyes, split) for split in SPLITS]
    assert [len(part) for part in parts] == [EYES - 18, 9, 9]
    assert len({name for part in parts for name in part}) == EYES
    assert parts == [photographs(eyes, split) for split in SPLITS]
    with pytest.raises(ValueError, match="unknown split"):
        photographs(eyes, "all")


@pytest.mark.skipif(not (REAL / "drishti_gs").is_dir(), reason="the data set drishti_gs is not here")
def test_the_real_photographs_split_and_their_cup_lies_in_the_disc() -> None:
    assert [len(photographs(REAL, split)) for split in SPLITS] == [68, 9, 9]
    for name in photographs(REAL, "val")[:2]:
        disc, cup = masks(REAL, name)
        assert 0 < cup.sum() < disc.sum() < disc.size / 10
        assert not (cup & ~disc).any()


def test_views_move_picture_and_masks_alike(eyes: Path) -> None:
    recipe = RECIPES["tiny"]
    views = load_views(eyes, "train", 96)
    given = lesson(views, torch.arange(4), torch.Generator().manual_seed(3), recipe)
    assert given.pictures.shape == (4, 3, 64, 64)
    assert given.masks.shape == (4, 2, 64, 64)
    assert bool((given.masks[:, 1] <= given.masks[:, 0] + 1e-6).all())
    for picture, marked in zip(given.pictures, given.masks, strict=True):
        inside, outside = picture[0][marked[0] > 0.9], picture[0][marked[0] < 0.1]
        assert inside.mean() > outside.mean() + 0.3
    again = lesson(views, torch.arange(4), torch.Generator().manual_seed(3), recipe)
    assert torch.equal(given.pictures, again.pictures)


def test_the_loss_is_least_for_the_truth() -> None:
    truth = torch.zeros(1, 2, 32, 32)
    truth[:, :, 8:24, 8:24] = 1
    right, wrong = (mask_loss(20 * (2 * given - 1), truth) for given in (truth, 1 - truth))
    assert float(right) < 0.05
    assert float(wrong) > 5


def test_a_cup_is_never_outside_its_disc() -> None:
    logits = torch.randn(2, 2, 4, 4)
    disc, cup = NestedMasks(torch.nn.Identity())(logits).unbind(1)
    assert torch.equal(disc, logits[:, 0])
    assert bool((cup <= disc).all())


def test_dice_of_known_masks() -> None:
    first, second = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    assert dice(first, second) == 1
    first[0], second[:, :2] = True, True
    assert dice(first, second) == pytest.approx(0.5)


@pytest.mark.timeout(600)
def test_a_toy_is_trained_published_and_serves(
    eyes: Path, tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    given = options(tmp_path, data=eyes, seed=4)
    commands.train(given)
    *reports, measured, published = capsys.readouterr().out.splitlines()
    assert orjson.loads(reports[-1])["optic disc"] >= 0
    assert measured.startswith("ascan_disc_cup_tiny: Dice on 9 photographs (val)")
    assert published == "published as ascan_disc_cup_tiny, version 1"
    folder = tmp_path / "models" / "ascan_disc_cup_tiny" / "1"
    manifest = read_manifest(folder / "manifest.json")
    assert manifest is not None
    assert (manifest.task, manifest.family) == ("segmentation", "disc_cup")
    assert manifest.source["masks"] == "independent"
    assert manifest.command == "nonet train ascan --preset tiny --seed 4"
    assert {"dice", "dice_disc", "dice_cup"} <= manifest.quality.keys()
    assert "not for diagnosis" in manifest.licence


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    eyes: Path, tmp_path: Path, one_thread: None
) -> None:
    whole = train_disc_cup(options(tmp_path / "whole"), eyes, lambda line: None)
    stopped: list[int] = []

    class Stop(Exception):
        pass

    def stop(line: dict[str, float | int | str]) -> None:
        stopped.append(1)
        raise Stop

    with pytest.raises(Stop):
        train_disc_cup(options(tmp_path / "cut"), eyes, stop)
    rest = train_disc_cup(options(tmp_path / "cut", resume=True), eyes, lambda line: None)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, rest.network.state_dict()[name]), name


def test_baselines_need_no_network(eyes: Path) -> None:
    bright, mean = score_brightest(eyes, "val"), score_mean_mask(eyes, "val")
    assert bright.photographs == mean.photographs == 9
    assert bright.dice[0] > 0.8  # made-up eyes are easy
    assert 0 < mean.dice[0] < bright.dice[0]


@pytest.mark.parametrize("name", ["asymmetric", "symmetric", "reversed"])
def test_layouts_are_compared_at_equal_cost(name: str) -> None:
    base = Variant(16, (16, 32, 64, 128), LAYOUTS["asymmetric"], head_dim=16)
    other = at_equal_macs(base, name, 64)
    assert other.layout == LAYOUTS[name]
    assert pyramid_macs(other, 64) == pytest.approx(pyramid_macs(base, 64), rel=0.01)


@pytest.mark.parametrize(("name", "side"), [("asymmetric", 64), ("reversed", 50)])
def test_the_closed_form_of_a_pyramid_is_what_is_counted(name: str, side: int) -> None:
    variant = Variant(16, (16, 32, 48, 64), LAYOUTS[name], head_dim=16)
    assert pyramid_macs(variant, side) == macs(Pyramid(variant), side)
