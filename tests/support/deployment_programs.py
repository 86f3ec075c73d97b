"""The programs that read what deploy/ has, on the path or where ``make test`` installs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_PLACES = f"{Path(sys.prefix) / 'validators' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"


def needs(program: str) -> pytest.MarkDecorator:
    """The mark of a test that is skipped where ``program`` is not installed."""
    absent = shutil.which(program, path=_PLACES) is None
    return pytest.mark.skipif(absent, reason=f"{program} is not installed")


def run_program(program: str, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run it to its end, well or not, and keep what it says. AssertionError if it is absent."""
    found = shutil.which(program, path=_PLACES)
    assert found is not None, f"{program} is not installed"
    return subprocess.run(
        [found, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def assert_accepts(program: str, *arguments: str | Path, stdin: str = "") -> str:
    """The program ends with 0; its standard output."""
    ended = run_program(program, *arguments, stdin=stdin)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
