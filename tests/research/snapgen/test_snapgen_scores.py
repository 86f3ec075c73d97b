"""Scores of made pictures: names by the nearest real one, colours by the hue, and a distance between sets."""

from __future__ import annotations

import pytest
import torch

from nonet.research.snapgen.bank import Bank
from nonet.research.snapgen.generation import Texts, sample
from nonet.research.snapgen.recolouring import TARGETS
from nonet.research.snapgen.scores import Retrieval, frechet_distance, hue_score
from tests.support.packed_emoji import pack_made_up

RGB = {"red": (220, 40, 40), "green": (60, 180, 70), "blue": (60, 110, 220), "purple": (150, 70, 210)}


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return Bank(pack_made_up(tmp_path_factory.mktemp("packed")))


def test_pictures_near_real_ones_bear_their_names_and_shuffled_ones_do_not(bank: Bank) -> None:
    which = torch.arange(4)
    names = [str(bank.examples[int(i)]["name"]) for i in which]
    found = Retrieval(bank).score(bank.latents(which) + 0.05, names)
    assert (found["top1"], found["top1_shuffled"]) == (1.0, 0.0)
    assert found["nearest_training_picture"] == pytest.approx(0.05, abs=0.01)


def test_a_real_picture_does_not_find_itself(bank: Bank) -> None:
    which = bank.of_part("held_pair")
    names = [str(bank.examples[int(i)]["name"]) for i in which]
    found = Retrieval(bank).score(bank.latents(which), names, leave_out_itself=True)
    assert found["top1"] == 1.0  # another square of its colour
    assert found["nearest_training_picture"] > 0.02


def test_noise_bears_no_name(bank: Bank) -> None:
    names = ["red square"] * 40
    made = 3 * torch.randn(40, 32, 2, 2, generator=torch.Generator().manual_seed(0))
    assert Retrieval(bank).score(made, names)["top1"] < 0.6


@pytest.mark.parametrize("colour", sorted(RGB))
def test_the_colour_of_a_shape_on_white_is_told(colour: str) -> None:
    picture = torch.ones(1, 3, 64, 64)
    picture[:, :, 16:48, 16:48] = torch.tensor(RGB[colour]).view(3, 1, 1) / 255
    assert hue_score(picture, [colour]) == 1
    assert all(hue_score(picture, [other]) == 0 for other in TARGETS if other != colour)


def test_the_distance_of_sets_is_that_of_their_normal_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(4000, 3, generator=generator)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    moved = first * 2 + 1  # of each axis: 1 for the mean, (2 - 1)^2 for the deviation
    assert frechet_distance(first, moved) == pytest.approx(6, abs=0.2)


def test_a_sample_is_the_same_whatever_shares_its_batch() -> None:
    context = torch.randn(5, 32, 384, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(1, 32, 384)
    mask, no_mask = torch.ones(5, 32), torch.ones(1, 32)

    def network(
        latents: torch.Tensor, time: torch.Tensor, given: torch.Tensor, _: torch.Tensor
    ) -> torch.Tensor:
        return latents * time.view(-1, 1, 1, 1) + given.mean((1, 2)).view(-1, 1, 1, 1)

    for stochastic in (False, True):
        texts = Texts(context, mask, nothing, no_mask)
        together = sample(network, texts, (4, 2, 2), steps=3, seed=5, stochastic=stochastic)
        alone = Texts(context[3:4], mask[3:4], nothing, no_mask)
        assert torch.equal(
            sample(network, alone, (4, 2, 2), steps=3, seed=8, stochastic=stochastic)[0], together[3]
        )
