"""The path under which a proxy shows the server: taken off where the proxy has left it on."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class UnderRootPath:
    """ASGI middleware.

    Args:
        app: knows nothing of the root path.
        root: e.g. ``/nonet``, not empty; no slash at its end.
    """

    def __init__(self, app: ASGIApp, root: str) -> None:
        self._app = app
        self._root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = self._root
        if scope["type"] == "http" and (scope["path"] == root or scope["path"].startswith(root + "/")):
            scope = {**scope, "path": scope["path"][len(root) :] or "/"}
            if (raw := scope.get("raw_path") or b"").startswith(root.encode()):
                scope["raw_path"] = raw[len(root) :] or b"/"
        await self._app(scope, receive, send)
