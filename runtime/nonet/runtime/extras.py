"""The optional parts of an installation, and the command that adds one to it.

The project is no package of any index, so an extra cannot be installed by its name: the command names what
the extra needs, which is in the distribution's metadata.
"""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import sys

__all__ = ["how_to_install"]

_DISTRIBUTION = "nonet"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def how_to_install(extra: str, *, for_callers: bool = False) -> str:
    """The command that adds what is missing of an extra to this very Python.

    It names the interpreter, since a ``pip`` on the path is often another's; with ``for_callers`` it does
    not, for they are told no paths.
    """
    try:
        requirements = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    needed = []
    for line in requirements:
        requirement, _, marker = line.partition(";")
        if f'extra == "{extra}"' in marker.replace("'", '"'):
            needed.append(requirement.strip())
    # All of it where all of it is there: something of it is broken, then.
    needed = [each for each in needed if not _is_installed(each)] or needed
    if not needed:
        return f"install the extra '{extra}' of Nonet's pyproject.toml"
    pip = "pip" if for_callers else f"{shlex.quote(sys.executable)} -m pip"
    return f"{pip} install {' '.join(map(shlex.quote, needed))}"


def _is_installed(requirement: str) -> bool:
    name = _NAME.match(requirement)
    try:
        return name is not None and bool(importlib.metadata.version(name.group()))
    except importlib.metadata.PackageNotFoundError:
        return False
