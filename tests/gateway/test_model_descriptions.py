"""What one process tells another of a model arrives as it was, whatever facts a model brings along."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.runtime.oip import description
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, TensorSpec

KEYS = st.one_of(
    st.text(max_size=5), st.integers(-9, 9), st.floats(allow_nan=False), st.booleans(), st.none()
)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=8,
)


def info(**changed: Any) -> ModelInfo:
    facts: dict[str, Any] = {
        "name": "m",
        "version": "1",
        "digest": "d",
        "platform": "p",
        "inputs": (TensorSpec("x", DataType.FP32, (-1, 4)),),
        "outputs": (TensorSpec("y", DataType.FP32, (-1, 4), True),),
        "labels": ("a", "b"),
        "quality": {"top1": 0.5},
    }
    return ModelInfo(**(facts | changed))


def test_latencies_by_batch_size_arrive() -> None:
    sent = info(details={"measured_latencies": {1: 0.002, 8: 0.01}})
    got = description.from_json(description.to_json(sent), {})
    assert got.details["measured_latencies"] == {"1": 0.002, "8": 0.01}
    assert (got.inputs, got.outputs, got.labels) == (sent.inputs, sent.outputs, sent.labels)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_any_facts_can_be_told(facts: dict[str, Any]) -> None:
    text = description.to_json(info(details=facts))
    json.loads(text)
    assert description.from_json(text, {}).details.keys() == facts.keys()


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_a_figure_that_is_no_number_is_left_out(figure: float) -> None:
    got = description.from_json(description.to_json(info(quality={"top1": figure, "map": 0.1})), {})
    assert got.quality == {"map": 0.1}
