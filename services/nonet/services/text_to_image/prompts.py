"""Which texts are prompts: a bounded length, something to see, and no characters that nobody can type."""

from __future__ import annotations

import unicodedata
from typing import Final

from nonet.runtime.errors import InvalidArgument

LONGEST: Final = 2000
"""Characters of a prompt; networks look at far fewer, as the answer says."""

_BLANKS: Final = "\t\n\r"


def check_prompt(text: str, name: str, *, required: bool) -> str:
    """The same text. Raises InvalidArgument for one that is no prompt.

    Args:
        text: as sent.
        name: of the field, for the message.
        required: whether it must say something.
    """
    if len(text) > LONGEST:
        raise InvalidArgument(
            f"{name} has {len(text)} characters; at most {LONGEST} are taken",
            param=name,
            code="PROMPT_TOO_LONG",
        )
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in _BLANKS:
            raise InvalidArgument(
                f"{name} holds the control character U+{ord(character):04X}; send text",
                param=name,
                code="PROMPT_NOT_TEXT",
            )
    if required and not text.strip():
        raise InvalidArgument(f"{name} is empty; say what the picture shows", param=name, code="PROMPT_EMPTY")
    return text
