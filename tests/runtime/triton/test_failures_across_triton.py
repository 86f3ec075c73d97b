"""Failures of services keep their kind, code and field on the way through a Triton server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.runtime.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    PayloadTooLarge,
    ServingError,
    UndecodableMedia,
    Unprocessable,
)
from nonet.runtime.triton.failures import marked, unmarked

KINDS = [DeadlineExceeded, Internal, InvalidArgument, PayloadTooLarge, UndecodableMedia, Unprocessable]


@given(
    kind=st.sampled_from(KINDS),
    message=st.text(),
    code=st.from_regex("[A-Z_]{1,20}", fullmatch=True),
    param=st.from_regex("[a-z_.]{1,20}", fullmatch=True) | st.none(),
)
def test_what_is_marked_is_read_back(
    kind: type[ServingError], message: str, code: str, param: str | None
) -> None:
    found = unmarked(marked(kind(message, code=code, param=param)))
    assert found is not None
    assert type(found) is kind
    assert (found.message, found.code, found.param) == (message, code, param)


@pytest.mark.parametrize("text", ["", "no note", "[nonet:InvalidArgument:A:b] in front"])
def test_other_texts_hold_none(text: str) -> None:
    assert unmarked(text) is None


def test_a_kind_from_elsewhere_is_an_internal_failure() -> None:
    found = unmarked("a message [nonet:Newer:CODE:]")
    assert type(found) is Internal
