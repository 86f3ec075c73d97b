"""Other views of a training picture: the same drawing, moved a little, mirrored only where that is true."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nonet.research.snapgen.bank import Bank
from nonet.research.snapgen.views import may_be_mirrored, view_of
from tests.support.packed_emoji import pack_made_up


def square(side: int = 64) -> torch.Tensor:
    """A picture that is white but for a black square with a red mark on its left edge."""
    picture = torch.full((3, side, side), 255, dtype=torch.uint8)
    picture[:, 20:40, 20:40] = 0
    picture[0, 28:32, 20:22] = 255
    return picture


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("red apple", True),
        ("left speech bubble", False),
        ("nine o’clock", False),
        ("heart with arrow", False),
        ("leftover soup", True),
    ],
)
def test_names_that_speak_of_sides_are_not_mirrored(name: str, may: bool) -> None:
    assert may_be_mirrored(name) == may


def test_a_view_is_the_picture_moved_by_at_most_half_a_cell_and_filled_with_its_border() -> None:
    picture, seen = square(), set()
    for seed in range(40):
        view = view_of(picture, "alarm clock", torch.Generator().manual_seed(seed))
        rows, columns = torch.nonzero(view[1] == 0, as_tuple=True)
        top, left = int(rows.min()), int(columns.min())
        assert abs(top - 20) <= 4
        assert abs(left - 20) <= 4
        expected = square().roll((top - 20, left - 20), (1, 2))
        assert torch.equal(view, expected)
        seen.add((top, left))
    assert len(seen) > 15


def test_half_of_the_views_are_mirrored() -> None:
    views = [view_of(square(), "red apple", torch.Generator().manual_seed(seed)) for seed in range(60)]
    left = 0
    for view in views:
        mark = torch.nonzero((view[0] == 255) & (view[1] == 0))[:, 1].float().mean()
        body = torch.nonzero(view[1] == 0)[:, 1].float().mean()
        left += bool(mark < body)
    assert 15 < left < 45


def test_a_bank_draws_every_view_in_training_and_shows_the_picture_itself_elsewhere(tmp_path: Path) -> None:
    plain = pack_made_up(tmp_path / "plain")
    folder = tmp_path / "views"
    shutil.copytree(plain, folder)
    rows = load_file(plain / "latents_00.safetensors")["rows"]
    save_file(
        {"rows": torch.cat([torch.zeros_like(rows), torch.full_like(rows, 255)])},
        folder / "views_00.safetensors",
    )
    bank, without = Bank(folder), Bank(plain)
    assert len(bank) == len(without)
    batch = bank.draw(300, torch.Generator().manual_seed(0))
    values = batch.latents.flatten(1)
    shares = [float((values == value).all(1).float().mean()) for value in (-5.0, 5.0)]
    assert all(0.2 < share < 0.5 for share in shares)
    own = ~((values == -5) | (values == 5)).all(1)
    assert torch.equal(batch.latents[own], bank.latents(batch.examples[own]))
    held = bank.of_part("held_pair")
    assert torch.equal(bank.first_captions(held).latents, without.first_captions(held).latents)
