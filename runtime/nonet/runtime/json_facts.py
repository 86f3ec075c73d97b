"""Facts of any kind as JSON can carry them: what is told of a model to callers and to other processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["json_facts"]


def json_facts(value: Any) -> Any:
    """``value`` with nothing in it that JSON lacks.

    Mappings (with their keys as text), lists, numbers, texts, truth values and None stay; a number that is
    not finite becomes None, half a surrogate pair becomes ``?``, anything else its text.
    """
    if isinstance(value, Mapping):
        return {_text(key): json_facts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_facts(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    return _text(value)


def _text(value: Any) -> str:
    return str(value).encode("utf-8", "replace").decode("utf-8")
