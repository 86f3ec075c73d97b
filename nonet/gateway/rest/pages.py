"""Pages for people: the playground at ``/`` and ``/floors``, the reference at ``/docs``.

Each is one file with its script and style inside: nothing is fetched from anywhere else, so they work without
a connection to the internet. Their content security policy names the hashes of that script and style and
allows nothing more.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re

from fastapi import APIRouter, Response

from nonet.gateway.exchange import RawHeaders
from nonet.gateway.rest.classify import RawResponse
from nonet.gateway.rest.reply import Reply

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def load_page(name: str) -> Reply:
    """The page in ``pages/NAME.html`` with its headers. Raises FileNotFoundError if there is none."""
    text = (importlib.resources.files("nonet.gateway.rest") / "pages" / f"{name}.html").read_text("utf-8")
    return Reply(text.encode(), content_type=b"text/html; charset=utf-8", headers=_headers(text))


def page_router() -> APIRouter:
    """The routes ``/``, ``/floors`` and ``/docs``."""
    router = APIRouter(include_in_schema=False)
    playground, floors, reference = map(load_page, ("playground", "floors", "reference"))

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index() -> Response:
        return RawResponse(playground)

    @router.api_route("/floors", methods=["GET", "HEAD"])
    async def buildings() -> Response:
        return RawResponse(floors)

    @router.api_route("/docs", methods=["GET", "HEAD"])
    async def docs() -> Response:
        return RawResponse(reference)

    return router


def _headers(text: str) -> RawHeaders:
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, content in _INLINE.findall(text):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    policy = (
        f"default-src 'none'; script-src {' '.join(hashes['script'])}; "
        f"style-src {' '.join(hashes['style'])}; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return [
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-cache"),
    ]
