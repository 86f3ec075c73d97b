"""A request against its model: cases 6, 9, 14-18 of the fault list, before any work."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.runtime.errors import ModelOutputInvalid
from nonet.runtime.oip import metadata
from nonet.runtime.oip.finite import is_finite
from nonet.runtime.oip.validation import check_outputs, validate
from nonet.runtime.requests import InferRequest, InferResponse, RequestedOutput
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, Tensor, TensorSpec
from tests.support.oip_strategies import arrays, model, refused

PAIR = model(
    inputs=[
        TensorSpec("a", DataType.FP32, (-1, 3)),
        TensorSpec("b", DataType.INT32, (-1, -1)),
        TensorSpec("c", DataType.BYTES, (-1, 1), optional=True),
    ],
    outputs=[TensorSpec("sum", DataType.FP32, (-1, 3)), TensorSpec("text", DataType.BYTES, (-1, 1))],
    max_batch_size=4,
)


def ones(name: str, *shape: int, dtype: Any = np.float32) -> Tensor:
    return Tensor(name, DataType.of(np.empty(0, dtype)), np.ones(shape, dtype))


def b(*shape: int) -> Tensor:
    return ones("b", *shape, dtype=np.int32)


def check(*inputs: Tensor, info: ModelInfo = PAIR, outputs: tuple[RequestedOutput, ...] = ()) -> None:
    validate(InferRequest(info.name, inputs, outputs=outputs), info)


def test_what_fits_is_accepted_in_any_order() -> None:
    check(ones("a", 2, 3), b(2, 5))
    check(b(4, 1), ones("a", 4, 3), Tensor.of_bytes("c", [b""] * 4, (4, 1)))
    check(ones("a", 1, 3), b(1, 1), outputs=(RequestedOutput("text"), RequestedOutput("sum", 2)))


def test_an_input_of_the_batch_alone_may_have_one_column() -> None:
    specs = [TensorSpec("time", DataType.FP32, (-1,)), TensorSpec("x", DataType.FP32, (-1, 1))]
    info = model(inputs=specs, outputs=[], max_batch_size=4)
    shown = metadata.model_metadata_json(info, ["1"])["inputs"]
    assert [each["shape"] for each in shown] == [[-1, 1], [-1, 1]]
    for time in (ones("time", 3, 1), ones("time", 3)):
        taken = validate(InferRequest(info.name, (time, ones("x", 3, 1))), info)
        assert [each.shape for each in taken.inputs] == [(3,), (3, 1)]
    with refused("time", "expects shape [-1]", "got [3, 2]"):
        check(ones("time", 3, 2), ones("x", 3, 1), info=info)
    whole = model(inputs=[TensorSpec("v", DataType.FP32, (-1,))], outputs=[], max_batch_size=0)
    assert metadata.model_metadata_json(whole, ["1"])["inputs"][0]["shape"] == [-1]
    with refused("v", "expects shape [-1]"):
        check(ones("v", 3, 1), info=whole)


def test_another_datatype_is_refused_with_both() -> None:
    with refused("input 'a'", "expects FP32", "got BYTES", param="inputs[0].datatype"):
        check(Tensor.of_bytes("a", [b""] * 3, (1, 3)), b(1, 1))


@pytest.mark.parametrize("shape", [(3,), (1, 3, 1), (1, 4), (1, 0), ()])
def test_another_shape_is_refused_with_both(shape: tuple[int, ...]) -> None:
    with refused("input 'a'", "[-1, 3]", f"got {list(shape)}", param="inputs[0].shape"):
        check(ones("a", *shape), b(1, 1))


def test_an_empty_batch_is_refused_and_an_empty_row_is_not() -> None:
    with refused("'a'", "[0, 3]", "batch"):
        check(ones("a", 0, 3), b(0, 1))
    check(ones("a", 1, 3), b(1, 0))


def test_a_batch_over_the_limit_is_refused_with_both_numbers() -> None:
    with refused("batch of 5", "4"):
        check(ones("a", 5, 3), b(5, 1))


def test_inputs_must_agree_about_the_batch() -> None:
    with refused("'b'", "batch of 3", "'a'", "2"):
        check(ones("a", 2, 3), b(3, 1))


def test_a_model_that_does_not_batch_has_no_batch_rules() -> None:
    info = model(inputs=[TensorSpec("x", DataType.FP32, (2, -1))], max_batch_size=0)
    check(ones("x", 2, 0), info=info)
    check(ones("x", 2, 9), info=info)
    with refused("[2, -1]", "[1, 9]"):
        check(ones("x", 1, 9), info=info)


def test_duplicate_unknown_and_missing_inputs_are_refused_by_name() -> None:
    with refused("input 'a'", "more than once"):
        check(ones("a", 1, 3), ones("a", 1, 3), b(1, 1))
    with refused("unknown input 'z'", "'a', 'b', 'c'"):
        check(ones("a", 1, 3), b(1, 1), ones("z", 1, 1))
    with refused("'b'", "missing"):
        check(ones("a", 1, 3))
    with refused("inputs"):
        check()


def test_unknown_and_duplicate_outputs_are_refused_by_name() -> None:
    with refused("unknown output 'no'", "'sum', 'text'"):
        check(ones("a", 1, 3), b(1, 1), outputs=(RequestedOutput("no"),))
    with refused("output 'sum'", "more than once"):
        check(ones("a", 1, 3), b(1, 1), outputs=(RequestedOutput("sum"), RequestedOutput("sum", 1)))


def test_classes_of_an_output_without_scores_are_refused_before_any_work() -> None:
    with refused("'text'", "classification"):
        check(ones("a", 1, 3), b(1, 1), outputs=(RequestedOutput("text", 3),))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_unless_the_model_allows_them(
    dtype: Any, value: float
) -> None:
    data = np.ones((1, 4), dtype)
    data[0, 2] = value
    tensor = Tensor.of("x", data)
    spec = [TensorSpec("x", tensor.datatype, (-1, 4))]
    with refused("input 'x'", "NaN or infinity", "finite"):
        check(tensor, info=model(inputs=spec))
    check(tensor, info=model(inputs=spec, allow_nonfinite=True))


@given(
    st.sampled_from([datatype for datatype in DataType if datatype.is_float]).flatmap(
        lambda datatype: st.builds(Tensor, st.just("x"), st.just(datatype), arrays(datatype))
    )
)
def test_every_finite_array_is_finite_and_one_bad_element_shows(tensor: Tensor) -> None:
    assert is_finite(tensor)
    for value in (np.nan, np.inf, -np.inf):
        data = tensor.data.copy()
        if data.size:
            data.flat[data.size // 2] = value
            assert not is_finite(Tensor("x", tensor.datatype, data))


def test_the_largest_numbers_are_finite() -> None:
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        largest = np.full(10_000, ml_dtypes.finfo(dtype).max, dtype)
        assert is_finite(Tensor.of("x", largest))
        assert is_finite(Tensor.of("x", -largest))


def test_bytes_and_integers_are_always_finite() -> None:
    assert is_finite(Tensor.of_bytes("x", [b"nan"]))
    assert is_finite(Tensor.of("x", np.array([-1], np.int64)))


# Case 15: what comes out.


def answer(*outputs: Tensor) -> InferResponse:
    return InferResponse("m", "1", outputs)


def test_a_right_answer_passes() -> None:
    check_outputs(answer(ones("y", 2, 4)), model())


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (Tensor.of("y", np.float32([[1, np.nan, 1, 1]])), "NaN"),
        (Tensor.of("y", np.float32([[1, -np.inf, 1, 1]])), "infinity"),
        (ones("y", 1, 5), r"\[-1, 4\].*\[1, 5\]"),
        (ones("y", 4), r"\[4\]"),
        (ones("y", 1, 4, dtype=np.float64), "FP32.*FP64"),
        (ones("z", 1, 4), "declare"),
    ],
)
def test_a_wrong_answer_is_the_models_failure(output: Tensor, words: str) -> None:
    with pytest.raises(ModelOutputInvalid, match=words) as caught:
        check_outputs(answer(output), model())
    assert caught.value.http_status == 502
    assert caught.value.code == "MODEL_OUTPUT_INVALID"


def test_a_model_may_answer_nan_if_it_is_allowed_to() -> None:
    check_outputs(answer(Tensor.of("y", np.float32([[np.nan] * 4]))), model(allow_nonfinite=True))
