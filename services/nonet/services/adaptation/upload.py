"""A file of rows, read in a child process with limits on memory and time, or at once where it is small."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nonet.runtime import errors
from nonet.runtime.errors import InvalidArgument, PayloadTooLarge, ServingError, Unavailable
from nonet.services.adaptation.columns import Columns
from nonet.services.adaptation.table import ReadRows, RowLimits, read_rows

__all__ = ["read_upload"]

_MODULE: Final = "nonet.services.adaptation.upload_process"
_MEMORY: Final = 1 << 30
_SECONDS: Final = 120.0
_AT_ONCE: Final = 256 << 10
"""Bytes of a file that takes less time to read than a process takes to start; an archive may hold more."""


def read_upload(path: Path, output: Path, columns: Columns, limits: RowLimits | None = None) -> ReadRows:
    """Read a file of rows and write their numbers to the new file ``output``. Blocks.

    Raises InvalidArgument, PayloadTooLarge, UnsupportedMediaType for what was sent, InsufficientStorage or
    Unavailable for what is missing here.
    """
    limits = limits or RowLimits()
    if path.stat().st_size <= _AT_ONCE and not zipfile.is_zipfile(path):
        return read_rows(path, output, columns, limits)
    asked = {
        "path": str(path),
        "output": str(output),
        "shape": columns.shape,
        "features": columns.features,
        "limits": dataclasses.asdict(limits),
        "memory_bytes": _MEMORY,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", _MODULE],
            input=json.dumps(asked).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise PayloadTooLarge("reading the file takes too long; send fewer rows", param="inputs") from None
    except OSError:
        raise Unavailable("no process can be started to read the file", retry_after=5.0) from None
    try:
        answer: Mapping[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise _died(done.returncode) from None
    if "error" in answer:
        raise _refusal(answer["error"])
    return ReadRows(
        answer["rows"], answer["digest"], answer["kind"], tuple(answer["ignored"]), dict(answer["fields"])
    )


def _died(status: int) -> ServingError:
    """The child ended without an answer: a parser failed on the file, or memory was refused to it."""
    if status < 0:
        return InvalidArgument("the file cannot be read: its parser failed on it", param="inputs")
    return Unavailable("the file could not be read here; retry later", retry_after=5.0)


def _refusal(error: Mapping[str, Any]) -> ServingError:
    kind = getattr(errors, error["class"])
    failure: ServingError = kind(error["message"], param=error["param"], code=error["code"])
    return failure
