"""What cannot be trained, published or measured is refused with the reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nonet.research.grounding.choosing import Choice
from nonet.research.grounding.commands import evaluate, train
from nonet.research.grounding.network import Matcher
from nonet.research.grounding.release import check_worth
from nonet.research.grounding.training import begin, tokenizer_file
from nonet.research.systems import EvaluateOptions, TrainOptions
from nonet.runtime.errors import InvalidArgument

WORTH = Choice(1.0, 0.01, 0.6, 0.1, accuracy=0.5, largest_box=0.3, count=500)


def options(folder: Path) -> TrainOptions:
    return TrainOptions("tiny", folder / "repository", folder / "runs")


@pytest.mark.parametrize("accuracy", [0.3, 0.2, float("nan")])
def test_what_does_not_beat_the_largest_box_is_not_published(accuracy: float) -> None:
    check_worth(WORTH)
    with pytest.raises(InvalidArgument, match=r"largest box 0\.300"):
        check_worth(replace(WORTH, accuracy=accuracy))


def test_variants_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="--preset"):
        train(replace(options(tmp_path), variant="large"))


def test_a_tokenizer_and_earlier_weights_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"no tokenizer\.json"):
        tokenizer_file(options(tmp_path))
    with pytest.raises(InvalidArgument, match="goes on from the weights of another"):
        begin(Matcher(), tmp_path / "checkpoint.pt")


def test_a_repository_without_a_matcher_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NONET_DATA", str(tmp_path))
    with pytest.raises(InvalidArgument, match="nonet train grounding"):
        evaluate(EvaluateOptions(tmp_path / "repository"))
