"""``Accept`` (RFC 9110, 12.5.1): which of the media types that there are a caller likes best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nonet.gateway.core.request_context import RequestContext

__all__ = ["preferred"]

_MOST_RANGES = 32


def preferred(context: RequestContext, offered: Sequence[str]) -> str:
    """The media type that a caller prefers; of equals, and where none is wanted, the first that is offered.

    A header that cannot be read counts as none.

    Args:
        context: of the request.
        offered: types without parameters, lower case, at least one.
    """
    header = context.header(b"accept")
    if not header.strip():
        return offered[0]
    ranges = [_range(text) for text in header.lower().split(",")[:_MOST_RANGES]]
    return max(offered, key=lambda kind: _weight(kind, ranges))


def _range(text: str) -> tuple[str, float]:
    """A media range without its parameters, and its weight, 0 to 1."""
    kind, *parameters = (part.strip() for part in text.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return kind, 0.0
            return kind, weight if math.isfinite(weight) and 0 <= weight <= 1 else 0.0
    return kind, 1.0


def _weight(kind: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The weight of the most specific range that a type is in; 0 if it is in none."""
    family = kind.partition("/")[0] + "/*"
    known = dict(ranges)
    return next((known[each] for each in (kind, family, "*/*") if each in known), 0.0)
