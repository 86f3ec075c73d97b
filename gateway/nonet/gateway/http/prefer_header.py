"""``Prefer`` (RFC 7240): what a caller would like, of which ``respond-async`` is known here.

A preference is no demand: what is unknown, or cannot be read, is as if it had not been sent.
"""

from __future__ import annotations

import re
from typing import Final

from nonet.gateway.core.request_context import RequestContext

__all__ = ["APPLIED", "prefers_async"]

APPLIED: Final = (b"preference-applied", b"respond-async")
"""The header that says that the preference was followed."""

_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


def prefers_async(context: RequestContext) -> bool:
    """Whether the caller would rather have a job than wait for the answer."""
    text = _QUOTED.sub("", context.header(b"prefer"))  # no quoted text says anything about this preference
    for preference in text.split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "respond-async" and not value.strip():
            return True
    return False
