"""What the name of a model or of a version may look like, whichever face it comes through."""

from __future__ import annotations

import re

__all__ = ["is_name"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+@ -]{0,254}", re.ASCII)


def is_name(text: str) -> bool:
    """Whether ``text`` can name a model or a version: no separators, no control characters, no ``..``."""
    return _NAME.fullmatch(text) is not None and ".." not in text
