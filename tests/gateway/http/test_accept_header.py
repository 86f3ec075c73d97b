"""`Accept` chooses among the media types that there are, as RFC 9110 says."""

from __future__ import annotations

import pytest

from nonet.gateway.core.request_context import RequestContext
from nonet.gateway.http.accept_header import preferred

OFFERED = ("application/json", "image/png", "image/webp")


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("image/*", "image/png"),
        ("image/*, image/png;q=0.1", "image/webp"),
        ("Image/WebP", "image/webp"),
        ("application/json, image/png", "application/json"),
        ("application/json;q=0.9, image/png", "image/png"),
        ("image/png ; q=0.2 , */* ; q=0.1", "image/png"),
        ("image/png;q=0, image/*;q=0", "application/json"),
        ("text/html", "application/json"),
        ("image/png;q=nan, image/webp;q=0.1", "image/webp"),
        ("image/png;q=7, image/webp;q=0.1", "image/webp"),
        ("image/png;q=x", "application/json"),
        (", ,;;=", "application/json"),
        ("text/html;q=1," * 500 + "image/png", "application/json"),
    ],
)
def test_the_type_that_is_preferred(header: str | None, chosen: str) -> None:
    context = RequestContext(0.0)
    context.begin([] if header is None else [(b"accept", header.encode())])
    assert preferred(context, OFFERED) == chosen
