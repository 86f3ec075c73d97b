"""The paper's Mask R-CNN on FasterNet is counted to the printed figures; our own detectors stay small."""

from __future__ import annotations

import pytest

from nonet.research.detection.mask_rcnn import PUBLISHED, MaskRcnn


@pytest.mark.parametrize(("variant", "expected"), [("s", 48_989_936), ("m", 71_228_448), ("l", 110_866_416)])
def test_parameters_are_those_of_the_specification(variant: str, expected: int) -> None:
    parts = MaskRcnn(variant).parameters()
    assert sum(parts.values()) == expected
    assert round(expected / 1e6, 1) == PUBLISHED[variant][0]
    lateral = 15 * MaskRcnn(variant).backbone().norm0.num_features * 256 + 1024
    assert sum(parts.values()) - parts["backbone"] - lateral == 19_904_240


@pytest.mark.parametrize("variant", ["s", "m", "l"])
def test_multiply_adds_are_the_printed_ones_without_the_mask_predictor(variant: str) -> None:
    parts = MaskRcnn(variant).macs()
    counted = sum(parts.values()) - parts["mask_predictor"]
    assert counted / 1e9 == pytest.approx(PUBLISHED[variant][1], rel=0.005)


def test_a_smaller_picture_and_fewer_proposals_cost_less() -> None:
    small = MaskRcnn("s", width=640, height=400, proposals=100)
    whole = MaskRcnn("s").macs()
    assert small.macs()["backbone"] == pytest.approx(whole["backbone"] / 4, rel=0.01)
    assert small.macs()["box_head"] == whole["box_head"] // 10
