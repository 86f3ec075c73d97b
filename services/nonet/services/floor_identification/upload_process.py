"""Reads one upload in a process of its own: run as a module by :mod:`.upload`, never imported by what serves.

A million readings are parsed without holding up the event loop of the gateway, and a file that makes a parser
crash or ask for gigabytes costs one request and not the server.

In: one JSON object on stdin. Out: one JSON object on stdout, with ``spec`` and ``digest`` or with ``error``;
the scans are written to the file that the input names.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from nonet.runtime.errors import InsufficientStorage, PayloadTooLarge, ServingError, Unprocessable
from nonet.runtime.scans import Scans
from nonet.services.floor_identification.fit_request import checked
from nonet.services.floor_identification.reading import ReadLimits, read_file


class _Section(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, path: Path, offset: int, length: int) -> None:
        self._file = path.open("rb")
        self._offset, self._length, self._at = offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, target: Any) -> int:
        self._file.seek(self._offset + self._at)
        data = self._file.read(max(0, min(len(target), self._length - self._at)))
        target[: len(data)] = data
        self._at += len(data)
        return len(data)


def main() -> None:
    asked = json.loads(sys.stdin.buffer.read())
    memory = asked["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer = _answer(asked)
    except ServingError as error:
        answer = _refusal(error)
    except MemoryError:
        answer = _refusal(PayloadTooLarge("the upload needs too much memory to be read", param="scans"))
    except OSError:
        answer = _refusal(InsufficientStorage("the disk for uploads and jobs is full or cannot be used"))
    sys.stdout.write(json.dumps(answer))


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    section = _Section(Path(asked["path"]), asked["offset"], asked["length"])
    limits = ReadLimits(**asked["limits"])
    scans, inside = read_file(io.BufferedReader(section, 1 << 20), limits)
    fields = asked["fields"]
    for name in inside.keys() & asked["in_query"]:
        del fields[name]
    for name in inside.keys() & fields.keys():
        raise Unprocessable(
            f"field {name[:80]!r} is given beside the file and in it; give it once", param=name[:80]
        )
    spec = checked({**inside, **fields}, scans)
    digest = _digest(spec, scans)
    try:
        scans.save(Path(asked["output"]))
    except SafetensorError as error:
        raise OSError(str(error)) from error
    size = {"scans": len(scans), "transmitters": len(scans.transmitters), "readings": len(scans.rssi)}
    return {"spec": spec, "digest": digest, "size": size}


def _digest(spec: dict[str, Any], scans: Scans) -> str:
    """sha256 over a specification and scans; the order of the readings within a scan means nothing."""
    order = sorted(range(len(scans.transmitters)), key=scans.transmitters.__getitem__)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    columns = rank[scans.transmitter]
    rows = np.repeat(np.arange(len(scans)), np.diff(scans.offsets))
    sorting = np.lexsort((columns, rows))
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode())
    for values in (scans.offsets, columns[sorting], scans.rssi[sorting]):
        digest.update(values.tobytes())
    names = [*scans.ids, "", *(scans.transmitters[index] for index in order)]
    digest.update("\0".join(names).encode())
    return digest.hexdigest()


def _refusal(error: ServingError) -> dict[str, Any]:
    return {
        "error": {
            "class": type(error).__name__,
            "message": error.message,
            "param": error.param,
            "code": error.code,
        }
    }


if __name__ == "__main__":
    main()
