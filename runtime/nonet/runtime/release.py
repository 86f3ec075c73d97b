"""Which release of Nonet this is, as the installed distribution says."""

from __future__ import annotations

import importlib.metadata

__all__ = ["VERSION"]

VERSION = importlib.metadata.version("nonet")
