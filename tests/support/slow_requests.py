"""Inputs for the slow networks, each with a value of its own."""

from __future__ import annotations

import itertools
from typing import Any

_fresh = itertools.count(1_000_000)  # small numbers are what other tests send


def fresh_value() -> float:
    """A number that no request of this process has used, so that no cached answer can serve it."""
    return float(next(_fresh))


def slow_input(value: float, *, batched: bool = False) -> list[dict[str, Any]]:
    """The input of ``slow`` (or, batched, of ``slow_batch``)."""
    return [{"name": "x", "datatype": "FP32", "shape": [1, 1] if batched else [1], "data": [value]}]
