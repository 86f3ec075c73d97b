"""Parameters of requests on jobs: a page of the list, the states it is limited to, the idempotency key."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection

from nonet.jobs.job import JobState
from nonet.runtime.errors import InvalidArgument

DEFAULT_PAGE, MAX_PAGE = 20, 100
_KEY = re.compile(r"[\x21-\x7e]{1,200}", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class PageQuery:
    """Which page of a list is wanted.

    Raises InvalidArgument for a limit that is not from 1 to 100.
    """

    limit: int = DEFAULT_PAGE
    after: str = ""
    states: tuple[JobState, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_PAGE:
            raise InvalidArgument(f"limit must be from 1 to {MAX_PAGE}, got {self.limit}", param="limit")


def read_key(text: str | None) -> str:
    """An ``Idempotency-Key``; "" for None: none was sent. Raises InvalidArgument for one that cannot be."""
    if text is None:
        return ""
    if _KEY.fullmatch(text) is None:
        raise InvalidArgument(
            "Idempotency-Key must be 1 to 200 printable characters without blanks", param="Idempotency-Key"
        )
    return text


def read_states(names: Collection[str]) -> tuple[JobState, ...]:
    """States by name. Raises InvalidArgument for one there is not."""
    known = [state.value for state in JobState]
    for name in names:
        if name not in known:
            raise InvalidArgument(
                f"state must be one of {', '.join(known)}, got {name[:40]!r}", param="state"
            )
    return tuple(JobState(name) for name in dict.fromkeys(names))
