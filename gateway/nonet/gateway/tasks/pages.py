"""Pages for people: the playground, a page for each task, and the reference at ``/docs``.

Each is sent as one file with its script and style inside: nothing is fetched from anywhere else, so all work
without a connection to the internet. What the pages share (``style.css``, ``shared.js``, the links between
them) is put in when the server starts. Their content security policy names the hashes of that script and
style and allows nothing more.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter, Response

from nonet.gateway.core.request_context import RawHeaders
from nonet.gateway.http.reply import Reply
from nonet.gateway.tasks.rest_classify import RawResponse

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


TASKS: Final = {
    "/": ("playground", "Photos"),
    "/raw": ("raw", "Raw captures"),
    "/floors": ("floors", "Floors"),
}
"""Path of each page of the playground: its file and what the links to it say."""
_CURRENT: Final = ' aria-current="page"'
_LINKS: Final = (
    '<a href="/docs">API reference</a> &middot; <a href="/v1/models">Models</a> &middot; '
    '<a href="/metrics">Metrics</a>'
)


def load_page(name: str) -> Reply:
    """The page in ``pages/NAME.html`` with its headers. Raises FileNotFoundError if there is none."""
    text = _read(f"{name}.html")
    for part in ("style.css", "shared.js"):
        text = text.replace(f"/* {part} */", _read(part))
    text = text.replace("<!-- tasks -->", _task_links(name)).replace("<!-- links -->", _LINKS)
    return Reply(text.encode(), content_type=b"text/html; charset=utf-8", headers=_headers(text))


def page_router() -> APIRouter:
    """The playground's routes and ``/docs``."""
    router = APIRouter(include_in_schema=False)
    for path, name in [(path, name) for path, (name, _) in TASKS.items()] + [("/docs", "reference")]:
        router.add_api_route(path, _sender(load_page(name)), methods=["GET", "HEAD"])
    return router


def _sender(page: Reply) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return RawResponse(page)

    return send


def _read(name: str) -> str:
    return (importlib.resources.files("nonet.gateway.tasks") / "pages" / name).read_text("utf-8")


def _task_links(current: str) -> str:
    """Links to the pages of the playground, the current one marked."""
    return " ".join(
        f'<a href="{path}"{_CURRENT if name == current else ""}>{title}</a>'
        for path, (name, title) in TASKS.items()
    )


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
