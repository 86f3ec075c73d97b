"""The cache key: different requests never share one, and what does not decide the answer is left out."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nonet.gateway.cache import cache_key
from nonet.runtime.requests import InferRequest, RequestedOutput
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, Tensor

INFO = ModelInfo("m", "1", "d" * 64, "test", (), ())

arrays = st.one_of(
    hnp.arrays(
        st.sampled_from([np.float32, np.int8, np.uint8, np.int64, np.bool_]), hnp.array_shapes(max_side=3)
    ),
    st.lists(st.binary(max_size=4), min_size=1, max_size=3).map(
        lambda items: Tensor.of_bytes("x", items).data
    ),
)
parameters = st.dictionaries(
    st.text(max_size=3), st.one_of(st.booleans(), st.integers(-2, 2), st.text(max_size=2)), max_size=2
)
requests = st.builds(
    lambda named, params, outputs, tenant: InferRequest(
        "m",
        tuple(Tensor.of(name, array) for name, array in named.items()),
        parameters=params,
        outputs=tuple(RequestedOutput(name, top) for name, top in outputs),
        tenant=tenant,
    ),
    st.dictionaries(st.sampled_from(["a", "b", "ab"]), arrays, min_size=1, max_size=2),
    parameters,
    st.lists(st.tuples(st.sampled_from("yz"), st.integers(0, 2)), max_size=2),
    st.sampled_from(["", "t", "m"]),
)


def meaning(request: InferRequest) -> tuple[object, ...]:
    """Everything that decides the answer, as plain comparable data."""
    return (
        request.tenant,
        sorted((name, type(value).__name__, value) for name, value in request.parameters.items()),
        [(output.name, output.classification) for output in request.outputs],
        sorted(
            (
                tensor.name,
                tensor.datatype.value,
                tensor.shape,
                tuple(tensor.data.reshape(-1).tolist())
                if tensor.datatype is DataType.BYTES
                else tensor.data.tobytes(),
            )
            for tensor in request.inputs
        ),
    )


@given(requests, requests)
def test_keys_are_equal_exactly_when_the_requests_mean_the_same(
    first: InferRequest, second: InferRequest
) -> None:
    same = repr(meaning(first)) == repr(meaning(second))
    assert (cache_key(first, INFO) == cache_key(second, INFO)) is same


@given(requests)
def test_model_version_and_digest_enter_the_key(request: InferRequest) -> None:
    keys = {
        cache_key(request, info)
        for info in (
            INFO,
            dataclasses.replace(INFO, name="n"),
            dataclasses.replace(INFO, version="2"),
            dataclasses.replace(INFO, digest="e" * 64),
        )
    }
    assert len(keys) == 4


@given(requests)
def test_id_deadline_priority_and_input_order_do_not(request: InferRequest) -> None:
    other = dataclasses.replace(
        request, id="another", deadline=5.0, priority=0, inputs=tuple(reversed(request.inputs))
    )
    assert cache_key(other, INFO) == cache_key(request, INFO)


def test_moved_boundaries_between_byte_strings_change_the_key() -> None:
    first = InferRequest("m", (Tensor.of_bytes("x", [b"ab", b"c"]),))
    second = InferRequest("m", (Tensor.of_bytes("x", [b"a", b"bc"]),))
    assert cache_key(first, INFO) != cache_key(second, INFO)


def test_negative_zero_and_each_nan_have_keys_of_their_own() -> None:
    bits = np.array([0x00000000, 0x80000000, 0x7FC00000, 0x7FC00001], dtype=np.uint32).view(np.float32)
    keys = {cache_key(InferRequest("m", (Tensor.of("x", bits[i : i + 1]),)), INFO) for i in range(4)}
    assert len(keys) == 4
