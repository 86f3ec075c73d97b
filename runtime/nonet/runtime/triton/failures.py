"""How a failure of a Nonet service crosses a Triton server, which knows fewer kinds of failure than Nonet.

Triton hands on a message and one of a few statuses. The class of the failure, its code and the field at fault
are written behind the message, and a gateway in front of Triton reads them back; other clients see a message
with a note in brackets.
"""

from __future__ import annotations

import re

from nonet.runtime import errors
from nonet.runtime.errors import ServingError

__all__ = ["marked", "unmarked"]

_NOTE = re.compile(r" \[nonet:([A-Za-z]+):([A-Z0-9_]*):([^\]]*)\]$")
_KINDS = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ServingError)
}


def marked(error: ServingError) -> str:
    """The message of ``error`` with the note behind it."""
    return f"{error.message} [nonet:{type(error).__name__}:{error.code}:{error.param or ''}]"


def unmarked(text: str) -> ServingError | None:
    """The failure in a text made by :func:`marked`; None if it holds none.

    A kind that is not known here is taken for :class:`~nonet.runtime.errors.Internal`.
    """
    found = _NOTE.search(text)
    if found is None:
        return None
    kind = _KINDS.get(found[1], errors.Internal)
    return kind(text[: found.start()], code=found[2] or None, param=found[3] or None)
