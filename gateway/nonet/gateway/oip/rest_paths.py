"""Paths of the Open Inference Protocol, read from the bytes that came, before anything is decoded.

``%2F`` inside a segment stays inside it, so a name can never reach another route, and no route joins names
to a file path. A segment that decodes to something that cannot be a name is a path that does not exist.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes


def segments(raw_path: bytes) -> list[str] | None:
    """The decoded segments of a path below its leading slash; None if one of them is not plain text.

    One trailing slash is forgiven: ``/v2/`` is ``/v2``.
    """
    parts = raw_path.split(b"/")[1:]
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    if len(parts) > 8:
        return None
    found: list[str] = []
    for part in parts:
        if b"%" in part:
            part = unquote_to_bytes(part)
        if not part.isascii():
            return None
        found.append(part.decode("ascii"))
    return found
