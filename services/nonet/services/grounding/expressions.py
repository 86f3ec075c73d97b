"""Which texts are expressions, and how many may be asked at once."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, Final

import orjson

from nonet.runtime.errors import InvalidArgument, Unprocessable
from nonet.services.grounding.names import EXPRESSIONS, LONGEST, MOST_EXPRESSIONS

__all__ = ["check_expressions", "listed"]

_BLANKS: Final = "\t\n\r"


def listed(value: Any) -> Any:
    """The expressions as they may come: a list, one text, or a text that is a JSON array of texts."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            parsed = orjson.loads(value)
        except orjson.JSONDecodeError:
            return [value]
        if isinstance(parsed, list):
            return parsed
    return [value]


def check_expressions(texts: Sequence[Any]) -> list[str]:
    """The same texts. Raises Unprocessable for what is no text, InvalidArgument for none or too many of them
    (``TOO_MANY_EXPRESSIONS``) and for one that says nothing, is too long, or is no text to read."""
    if not texts:
        raise InvalidArgument(f"{EXPRESSIONS} is empty; send at least one", param=EXPRESSIONS)
    if len(texts) > MOST_EXPRESSIONS:
        raise InvalidArgument(
            f"{EXPRESSIONS} has {len(texts)} texts; at most {MOST_EXPRESSIONS} are taken in one request",
            param=EXPRESSIONS,
            code="TOO_MANY_EXPRESSIONS",
        )
    for index, text in enumerate(texts):
        _check(text, f"{EXPRESSIONS}[{index}]")
    return list(texts)


def _check(text: Any, name: str) -> None:
    if not isinstance(text, str):
        raise Unprocessable(f"{name} must be a text", param=name)
    if len(text) > LONGEST:
        raise InvalidArgument(
            f"{name} has {len(text)} characters; at most {LONGEST} are taken",
            param=name,
            code="EXPRESSION_TOO_LONG",
        )
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in _BLANKS:
            raise InvalidArgument(
                f"{name} holds the control character U+{ord(character):04X}; send text",
                param=name,
                code="EXPRESSION_NOT_TEXT",
            )
    if not text.strip():
        raise InvalidArgument(
            f"{name} is empty; say what is meant in the picture", param=name, code="EXPRESSION_EMPTY"
        )
