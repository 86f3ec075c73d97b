"""Requests that ask for another protocol (``Upgrade``), read as if they did not.

A server may ignore the field (RFC 9110, 7.8), and clients count on it: Java's and curl's offer HTTP/2 with
every first request. The parser cannot: it takes what follows such a head for the other protocol. So another
parser goes on behind the head, which is told how the body is framed and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httptools

_FRAMING = (b"content-length", b"transfer-encoding")


class _BehindHead:
    """What the parser sees as its protocol: nothing of the head that it is given is passed on.

    Args:
        protocol: whose the connection is.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self.in_head = True
        self.on_body = protocol.on_body
        self.on_chunk_header = protocol.on_chunk_header
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        if not self.in_head:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.in_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_head:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.in_head:
            self.in_head = False
        else:
            self._protocol.on_headers_complete()


def parser_behind_head(
    protocol: Any, headers: Iterable[tuple[bytes, bytes]]
) -> tuple[httptools.HttpRequestParser, bytes]:
    """A parser for what follows a head, be it a body or the next request, and what to feed it with first.

    Args:
        protocol: gets the callbacks of the parser.
        headers: of the head, which has been read.
    """
    parser = httptools.HttpRequestParser(_BehindHead(protocol))
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    framing = b"".join(b"%b: %b\r\n" % field for field in headers if field[0].lower() in _FRAMING)
    return parser, b"POST / HTTP/1.1\r\n%b\r\n" % framing
