"""The classification extension: the best classes of a tensor of scores, as text."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nonet.runtime.oip.classification import classify_output, top_classes
from nonet.runtime.tensors import DataType, Tensor
from tests.support.oip_strategies import refused

LABELS = ("apple", "", "pear:green", "m\u00fcsli")


def classes(array: np.ndarray, k: int, labels: tuple[str, ...] = ()) -> Tensor:
    return classify_output(Tensor.of("y", array), k, labels)


def test_the_best_come_first_with_score_index_and_label() -> None:
    got = classes(np.float32([[0.1, 0.5, 0.25, 0.15]]), 3, LABELS)
    assert (got.name, got.datatype, got.shape) == ("y", DataType.BYTES, (1, 3))
    assert got.data.tolist() == [[b"0.5:1", b"0.25:2:pear:green", "0.15:3:m\u00fcsli".encode()]]


def test_without_labels_there_are_none() -> None:
    assert classes(np.float32([[1, 2]]), 1).data.tolist() == [[b"2.0:1"]]
    assert classes(np.float32([[1, 2]]), 2, ("only",)).data.tolist() == [[b"2.0:1", b"1.0:0:only"]]


def test_more_classes_than_there_are_give_all() -> None:
    assert classes(np.float32([[1, 2]]), 99).shape == (1, 2)


def test_one_vector_is_one_row_and_further_dimensions_are_classes() -> None:
    assert classes(np.float32([3, 4]), 1).data.tolist() == [b"4.0:1"]
    assert classes(np.arange(8, dtype=np.float32).reshape(2, 2, 2), 2).data.tolist() == [
        [b"3.0:3", b"2.0:2"],
        [b"7.0:3", b"6.0:2"],
    ]


def test_rows_or_classes_may_be_none() -> None:
    assert classes(np.zeros((0, 4), np.float32), 2).shape == (0, 0)
    assert classes(np.zeros((2, 0), np.float32), 2).shape == (2, 0)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int64, np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
)
def test_every_numeric_type_ranks_without_overflow(dtype: type) -> None:
    scores = np.array([[0, 100, 3]], dtype)
    got = classes(scores, 3).data.ravel().tolist()
    assert [item.split(b":")[1] for item in got] == [b"1", b"2", b"0"]
    smallest = np.array([[np.iinfo(np.int64).min, 0]], np.int64)
    assert classes(smallest, 1).data.tolist() == [[b"0:1"]]


@pytest.mark.parametrize("array", [np.array([[True]]), np.array(["a"], object)])
def test_what_has_no_scores_is_refused(array: np.ndarray) -> None:
    with refused("'y'", "classification"):
        classes(array, 1)


def test_a_scalar_has_no_classes() -> None:
    with refused("'y'", "classification"):
        classify_output(Tensor("y", DataType.FP32, np.zeros((), np.float32)), 1)


SCORES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-2, 2, width=32) | st.sampled_from([0.0, -0.0, 1.0]),
)


@given(SCORES, st.integers(1, 8))
def test_order_is_by_score_then_by_index(scores: np.ndarray, k: int) -> None:
    got = top_classes(scores, k).tolist()
    expected = [
        sorted(range(scores.shape[1]), key=lambda index, row=row: (-row[index], index))[:k] for row in scores
    ]
    assert got == expected


@given(SCORES)
def test_written_scores_read_back_as_the_same_number(scores: np.ndarray) -> None:
    got = classes(scores, scores.shape[1])
    for row, items in zip(scores, got.data, strict=True):
        for item in items:
            score, index = item.split(b":")
            assert np.float32(float(score)) == row[int(index)]
