"""Reads one file of rows in a process of its own: run as a module by :mod:`.upload`, never imported by what
serves.

Millions of cells are parsed without holding up the event loop of the gateway, and a file that makes a parser
crash or ask for gigabytes costs one request and not the server.

In: one JSON object on stdin. Out: one JSON object on stdout, what was read or ``error``; the numbers are
written to the file that the input names.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
from pathlib import Path
from typing import Any

from nonet.runtime.errors import InsufficientStorage, PayloadTooLarge, ServingError
from nonet.services.adaptation.columns import Columns
from nonet.services.adaptation.table import RowLimits, read_rows


def main() -> None:
    asked = json.loads(sys.stdin.buffer.read())
    memory = asked["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        columns = Columns(tuple(asked["shape"]), tuple(asked["features"]))
        read = read_rows(Path(asked["path"]), Path(asked["output"]), columns, RowLimits(**asked["limits"]))
        answer = dataclasses.asdict(read)
    except ServingError as error:
        answer = _refusal(error)
    except MemoryError:
        answer = _refusal(PayloadTooLarge("the file needs too much memory to be read", param="inputs"))
    except OSError:
        answer = _refusal(InsufficientStorage("the disk for uploads and jobs is full or cannot be used"))
    sys.stdout.write(json.dumps(answer))


def _refusal(error: ServingError) -> dict[str, Any]:
    fault = {"class": type(error).__name__, "message": error.message}
    return {"error": {**fault, "param": error.param, "code": error.code}}


if __name__ == "__main__":
    main()
