"""An upload of scans, read in a child process with limits on memory and time."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from nonet.runtime import errors
from nonet.runtime.errors import InvalidArgument, PayloadTooLarge, ServingError, Unavailable
from nonet.services.floor_identification.reading import ReadLimits

__all__ = ["ReadUpload", "UploadLimits", "read_upload"]

_MODULE: Final = "nonet.services.floor_identification.upload_process"


@dataclasses.dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bounds for reading one upload; memory in bytes, time in seconds."""

    read: ReadLimits = dataclasses.field(default_factory=ReadLimits)
    memory_bytes: int = 1 << 30
    seconds: float = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class ReadUpload:
    """What an upload says.

    Args:
        spec: of the fit; see :func:`~.fit_request.checked`.
        digest: sha256 (hex) over all of it, scans included, however it was written down.
        size: number of ``scans``, ``transmitters`` and ``readings``.
    """

    spec: Mapping[str, Any]
    digest: str
    size: Mapping[str, int]


def read_upload(
    path: Path,
    output: Path,
    fields: Mapping[str, Any],
    *,
    in_query: Collection[str] = (),
    offset: int = 0,
    length: int | None = None,
    limits: UploadLimits | None = None,
) -> ReadUpload:
    """Read a file of scans, check it with the fields beside it, and write the scans to ``output``. Blocks.

    Args:
        path: the upload.
        output: file for the scans (:meth:`~nonet.runtime.scans.Scans.save`).
        fields: sent beside the file; a JSON file may hold them itself.
        in_query: names of those that the query gave: a field of the file goes before.
        offset, length: part of ``path`` that is the file, in bytes; by default all of it.
        limits: bounds.

    Raises InvalidArgument, Unprocessable, PayloadTooLarge, UnsupportedMediaType, NotImplementedHere for what
    was sent, InsufficientStorage or Unavailable for what is missing here.
    """
    limits = limits or UploadLimits()
    asked = {
        "path": str(path),
        "offset": offset,
        "length": path.stat().st_size - offset if length is None else length,
        "output": str(output),
        "fields": dict(fields),
        "in_query": sorted(in_query),
        "limits": dataclasses.asdict(limits.read),
        "memory_bytes": limits.memory_bytes,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", _MODULE],
            input=json.dumps(asked).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=limits.seconds,
        )
    except subprocess.TimeoutExpired:
        raise PayloadTooLarge(
            "reading the upload takes too long; send fewer readings", param="scans"
        ) from None
    except OSError:
        raise Unavailable("no process can be started to read the upload", retry_after=5.0) from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise _died(done.returncode) from None
    if "error" in answer:
        raise _refusal(answer["error"])
    return ReadUpload(answer["spec"], answer["digest"], answer["size"])


def _died(status: int) -> ServingError:
    """The child ended without an answer: a parser failed on the file, or memory was refused to it."""
    if status < 0:
        return InvalidArgument("the file cannot be read: its parser failed on it", param="scans")
    return Unavailable("the upload could not be read here; retry later", retry_after=5.0)


def _refusal(error: Mapping[str, Any]) -> ServingError:
    kind = getattr(errors, error["class"])
    failure: ServingError = kind(error["message"], param=error["param"], code=error["code"])
    return failure
