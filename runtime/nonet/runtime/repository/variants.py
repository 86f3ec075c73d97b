"""When the answers of a variant, a version in a cheaper precision, are right: nearly those of its original.

A variant's check set holds, beside its own answers, those that its original gave for the same inputs, under
``original/NAME``. Both must be met within the ``allowed_error`` of its manifest. Its own answers cannot be
met more closely on every machine: a step of an 8-bit scale is 1/255 of the range of a layer, and where a
value lies between two steps the last bit of its rounding decides, which processors and engines round in
their ways.
"""

from __future__ import annotations

from collections.abc import Mapping

from nonet.runtime.tensors import Array

__all__ = ["ORIGINAL", "original_answers"]

ORIGINAL = "original/"
"""Goes before an output's name in a variant's check set: what the original answered."""


def original_answers(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Of a check set's arrays, the original's answers by output name; empty where there are none."""
    return {name.removeprefix(ORIGINAL): array for name, array in arrays.items() if name.startswith(ORIGINAL)}
