"""The query of a request, read by hand."""

from __future__ import annotations

from urllib.parse import parse_qsl

from nonet.runtime.errors import Unprocessable

__all__ = ["read_query"]


def read_query(query: bytes, most: int) -> list[tuple[str, str]]:
    """Names and values in their order. Raises Unprocessable for more than ``most``."""
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=most)
    except ValueError:
        raise Unprocessable(f"the query has more than {most} fields", code="TOO_MANY_FIELDS") from None
