"""How a command fails: one line that says what to do, and exit status 1."""

from __future__ import annotations

__all__ = ["CommandFailed"]


class CommandFailed(Exception):
    """The command could not do its work. ``str(error)`` is one line for the user."""
