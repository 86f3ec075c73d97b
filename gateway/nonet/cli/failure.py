"""How a command fails: one line that says what to do, and exit status 1, or 2 for what was given wrongly."""

from __future__ import annotations

__all__ = ["CommandFailed", "WronglyGiven"]


class CommandFailed(Exception):
    """The command could not do its work. ``str(error)`` is one line for the user."""

    status = 1


class WronglyGiven(CommandFailed):
    """A setting, a file or an argument is wrong: it was not tried, and trying again will not help."""

    status = 2
