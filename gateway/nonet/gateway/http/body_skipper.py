"""Stands in for the parser while the body of a refused request arrives: counts its bytes, looks at none."""

from __future__ import annotations

from typing import Any

import httptools


class BodySkipper:
    """Takes the place of ``protocol.parser`` until the body is over, then gives it to a new parser.

    Args:
        protocol: the connection, told of the bytes as a parser tells it.
        left: bytes of the body that are still to come, >= 1.
    """

    __slots__ = ("_left", "_protocol")

    def __init__(self, protocol: Any, left: int) -> None:
        self._protocol = protocol
        self._left = left

    def feed_data(self, data: bytes) -> None:
        """As that of a parser; raises what the parser of the next request raises."""
        protocol = self._protocol
        if len(data) < self._left:
            self._left -= len(data)
            protocol.on_body(data)
            return
        rest = data[self._left :]
        protocol.on_body(data[: self._left] if rest else data)
        protocol.parser = httptools.HttpRequestParser(protocol)
        protocol.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        protocol.on_message_complete()
        if rest:
            protocol.parser.feed_data(rest)
