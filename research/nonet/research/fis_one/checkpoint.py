"""An interrupted fit on disk: one safetensors file, its numbers as JSON in the header, written whole or not.

It holds the networks that are trained and the state of the one in training. It belongs to one input: another
upload, label or recipe starts afresh.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from nonet.runtime.scans import Scans

_FORMAT = "nonet-fis-one-2"


def identity_of(scans: Scans, *facts: object) -> str:
    """What a checkpoint belongs to: a digest of the scans and of ``facts`` (by their repr)."""
    digest = hashlib.sha256()
    for values in (scans.offsets, scans.transmitter, scans.rssi):
        digest.update(values.tobytes())
    for text in (repr(facts), *scans.transmitters):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


class FitCheckpoint:
    """Saves and finds the state of a fit; without a path it does neither."""

    def __init__(self, path: Path | None, identity: str) -> None:
        self._path = path
        self._identity = identity

    def save(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """Replace the file in one step, flushed to disk."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(self._path.name + ".partial")
        header = {"format": _FORMAT, "identity": self._identity, "facts": json.dumps(facts)}
        save_file({name: np.ascontiguousarray(each) for name, each in arrays.items()}, partial, header)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(self._path)

    def load(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """What was saved for this input, or None: no file, a damaged one, or one of another input."""
        if self._path is None or not self._path.is_file():
            return None
        try:
            with safe_open(self._path, framework="numpy") as stream:
                header = stream.metadata() or {}
                if header.get("format") != _FORMAT or header.get("identity") != self._identity:
                    return None
                arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            return arrays, json.loads(header["facts"])
        except Exception:  # whatever is wrong with it, the fit can start afresh
            return None
