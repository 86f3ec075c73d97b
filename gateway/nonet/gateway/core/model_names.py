"""What the name of a model or of a version may look like, whichever face it comes through."""

from __future__ import annotations

import re

from nonet.runtime.errors import NotFound

__all__ = ["checked_name"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+@ -]{0,254}", re.ASCII)


def checked_name(model: str, version: str = "") -> tuple[str, str]:
    """The name of a model and of a version, each "" where there is none.

    Raises NotFound, with the text made harmless, for what cannot be one: separators, control characters and
    ``..`` are in no name.
    """
    for text, kind in ((model, "model"), (version, "version")):
        if text and (_NAME.fullmatch(text) is None or ".." in text):
            raise NotFound(f"unknown {kind} {text[:80]!r}", param=kind, code=f"{kind.upper()}_NOT_FOUND")
    return model, version
