"""The whole preset `tiny` on a shop of noise: every stage runs, resumes for nothing, measures its members."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nonet.research.efficientnet_lite.network import EfficientNetLite0
from nonet.research.fasternet import grocery
from nonet.research.fasternet.family import FamilyRecipe, PartlyFrozen
from nonet.research.fasternet.training import Schedule
from nonet.research.systems import TrainOptions
from nonet.runtime.errors import InvalidArgument
from tests.support.noise_dataset import open_shop

pytestmark = pytest.mark.slow


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return open_shop(tmp_path, 5)


def test_every_stage_runs_and_a_finished_family_resumes_without_a_step(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grocery, "STUDENT_VIEWS", ((64, 64),))
    monkeypatch.setattr(grocery, "TEACHER_VIEWS", ((64, 64),))
    short = Schedule(steps=2, batch=4, warmup=1)
    recipe = FamilyRecipe(
        teacher=short, general=short, distil=short, image_size=64, student_size=32, members=("nano",)
    )
    options = TrainOptions(
        "tiny",
        shop.parent / "repository",
        shop.parent / "runs",
        resume=True,
        data=shop,
        weights=shop.parent / "lite0.safetensors",
        publish=False,
    )
    stages: list[str] = []
    first = grocery.train_grocery(options, lambda line: stages.append(str(line["stage"])), recipe)
    assert stages == ["teacher", "general nano", "distil nano"]
    assert [line.split(":")[0] for line in first] == ["efficientnet_lite0_grocery", "fasternet_nano_grocery"]
    again = grocery.train_grocery(options, lambda line: stages.append("more"), recipe)
    assert again == first
    assert "more" not in stages


def test_unknown_members_are_refused(shop: Path) -> None:
    options = TrainOptions("tiny", shop, shop, data=shop, variant="t7")
    with pytest.raises(InvalidArgument, match="unknown variant 't7'"):
        grocery.train_grocery(options, lambda line: None)


def test_frozen_blocks_neither_learn_nor_change_their_statistics() -> None:
    torch.manual_seed(0)
    module = PartlyFrozen(EfficientNetLite0(3), 5).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    optimiser = torch.optim.SGD([value for value in module.parameters() if value.requires_grad], lr=0.1)
    module(torch.rand(2, 3, 64, 64)).square().sum().backward()
    optimiser.step()
    changed = {name for name, value in module.state_dict().items() if not torch.equal(before[name], value)}
    frozen = ("network._conv_stem", "network._bn0", *(f"network._blocks.{index}." for index in range(5)))
    assert not [name for name in changed if name.startswith(frozen)]
    assert "network._blocks.5._bn1.running_mean" in changed
    assert "network._fc.weight" in changed
