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
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from fastapi import APIRouter, Response

from nonet.gateway.core.request_context import RawHeaders
from nonet.gateway.http.reply import RawResponse, Reply
from nonet.runtime.task import Page, Service

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


_CURRENT: Final = ' aria-current="page"'
_LINKS: Final = (
    '<a href="docs">API reference</a> &middot; <a href="v1/models">Models</a> &middot; '
    '<a href="metrics">Metrics</a>'
)


def load_page(text: str, path: str, pages: Sequence[Page]) -> Reply:
    """A page with what all share put in, and its headers.

    Args:
        text: the page's own HTML.
        path: where it is shown.
        pages: what the links lead to.
    """
    for part in ("style.css", "shared.js"):
        text = text.replace(f"/* {part} */", _read(__package__, f"pages/{part}"))
    text = text.replace("<!-- tasks -->", _task_links(path, pages)).replace("<!-- links -->", _LINKS)
    return Reply(text.encode(), content_type=b"text/html; charset=utf-8", headers=_headers(text))


def page_router(services: Iterable[Service]) -> APIRouter:
    """The routes of all tasks' pages and ``/docs``.

    Raises ValueError for a path of several segments: what the pages link to is relative to the first.
    """
    router = APIRouter(include_in_schema=False)
    pages = sorted(
        (task.page for service in services for task in service.tasks if task.page is not None),
        key=lambda page: page.path,
    )
    for page in pages:
        if page.path.count("/") != 1:
            raise ValueError(f"a page's path has one segment, not {page.path!r}")
    texts = {page.path: _read(page.package, page.file) for page in pages}
    texts["/docs"] = _read(__package__, "pages/reference.html")
    for path, text in texts.items():
        router.add_api_route(path, _sender(load_page(text, path, pages)), methods=["GET"])
    return router


def _sender(page: Reply) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return RawResponse(page)

    return send


def _read(package: str, name: str) -> str:
    return importlib.resources.files(package).joinpath(name).read_text("utf-8")


def _task_links(current: str, pages: Sequence[Page]) -> str:
    """Links to the pages of the playground, the current one marked."""
    return " ".join(
        f'<a href="{_relative(page.path)}"{_CURRENT if page.path == current else ""}>{page.title}</a>'
        for page in pages
    )


def _relative(path: str) -> str:
    """A page's path as another page links to it: a proxy may show all of them under a path of its own."""
    return path.removeprefix("/") or "./"


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
