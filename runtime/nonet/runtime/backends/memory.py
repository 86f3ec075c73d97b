"""Giving freed memory back to the system, so that unloading a model shows in the process's size."""

from __future__ import annotations

import ctypes
import gc
from functools import cache
from typing import Any


@cache
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # not glibc: the allocator has no such call, and needs none
        return None


def return_freed_memory() -> None:
    """Collect garbage and ask the C allocator to hand free pages back. Tens of milliseconds; never raises."""
    gc.collect()
    return_free_pages()


def return_free_pages() -> None:
    """Ask the C allocator to hand free pages back. A few milliseconds; never raises."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)
