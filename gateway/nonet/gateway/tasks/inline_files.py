"""Files inside text: base64 and ``data:`` URLs in a JSON field or a plain field of a form."""

from __future__ import annotations

import binascii
import re

from nonet.runtime.errors import InvalidArgument

_DATA_URL = re.compile(r"data:([A-Za-z0-9.+/-]*)((?:;[A-Za-z0-9.+=_-]*)*),", re.ASCII)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://", re.ASCII)


def decode_inline(text: str, field: str) -> bytes:
    """The bytes of a base64 text or a ``data:`` URL in a field.

    Raises InvalidArgument for anything else; a URL to fetch from is refused, whatever its scheme.
    """
    if text[:5].lower() == "data:":
        match = _DATA_URL.match("data:" + text[5:])
        if match is None or not match[2].lower().endswith(";base64"):
            raise InvalidArgument(
                f"field '{field}' is a data: URL that is not of the form data:<type>;base64,<data>",
                param=field,
            )
        text = text[match.end() :]
    elif _URL.match(text):
        raise InvalidArgument(
            f"field '{field}' is a URL, and nothing is fetched from URLs; send the file itself in base64",
            param=field,
            code=f"{field.upper()}_URL_NOT_ALLOWED",
        )
    try:
        data = text.encode("ascii")
        if b"\n" in data or b" " in data:
            data = b"".join(data.split())
        return binascii.a2b_base64(data, strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise InvalidArgument(
            f"field '{field}' is not valid base64 (nor a data: URL)",
            param=field,
            code=f"{field.upper()}_NOT_BASE64",
        ) from None


def looks_like_text(data: bytes | bytearray) -> bool:
    """Whether the first bytes can be text, as base64 and data: URLs are."""
    start = bytes(data[:64])
    return start.isascii() and not any(byte < 0x20 and byte not in b"\r\n\t" for byte in start)
