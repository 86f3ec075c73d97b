"""What a job requires of its worker, and what workers announce: words that are compared.

A word is the kind of work (``models.fit``), or what else has to be there, with a colon (``engine:openvino``).
The words of a job are settled when it is submitted. A worker may take the jobs whose words are all among its
own, so jobs of the same words wait in one queue, and whoever looks for a job looks at the first of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

REPOSITORY = "repository:"
"""Begins the word of those who can publish in the repository of that name."""
SERVES = "serves:"
"""Begins the word of gateways that serve from the repository of that name. No job requires it."""
NOTE = "waiting: "
"""Begins the phase of a job that nobody can take."""


@dataclasses.dataclass(frozen=True, slots=True)
class Queue:
    """The jobs of the same words that wait.

    Args:
        words: the kind first.
        waiting: how many there are.
        note: what their phase says of it, "" if nothing.
    """

    words: tuple[str, ...]
    waiting: int
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Demand:
    """What waits, and the words of each process that announced some lately."""

    queues: tuple[Queue, ...]
    workers: tuple[frozenset[str], ...]


def requirements_text(requirements: Collection[str]) -> str:
    """What a job requires beside its kind, as stores keep it: the same requirements are the same text.

    Raises ValueError for what is no word with a colon.
    """
    for word in requirements:
        if ":" not in word or len(word.split()) != 1:
            raise ValueError(f"a requirement is one word with a colon, got {word!r}")
    return " ".join(sorted(set(requirements)))


def lacking(words: Sequence[str], workers: Collection[frozenset[str]]) -> tuple[str, ...]:
    """The words that the worker who comes nearest does not have; none if one has all of them.

    Of several who come as near it is always the same, in whatever order they are.
    """
    rests = (tuple(word for word in words if word not in able) for able in workers)
    return min((tuple(words), *rests), key=lambda rest: (len(rest), rest))


def note_of(missing: Sequence[str]) -> str:
    """The phase of a job for which these words are missing, in words for callers."""
    return f"{NOTE}no worker offers {' and '.join(word.replace(':', ' ') for word in missing)}"
