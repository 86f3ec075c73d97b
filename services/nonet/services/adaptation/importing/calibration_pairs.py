"""A regressor's answers beside the truth -> its calibration: when it is unsure, and how large its errors are
then."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Final

import numpy as np

from nonet.runtime.network_import import NetworkUnclear
from nonet.runtime.tensors import Array
from nonet.services.adaptation.calibration import Calibration

__all__ = ["Pairs", "calibrate", "read_pairs", "to_json"]

_OPTION: Final = "--calibration"
_FEWEST: Final = 80
_MOST: Final = 1_000_000
_SURE_SHARE: Final = 0.9
_SEGMENTS: Final = 40


@dataclasses.dataclass(frozen=True, slots=True)
class Pairs:
    """Data that the network was not trained on.

    Args:
        uncertainty: variance FP64 [N] of each answer, in squared units; None where the file has none.
        error: the truth less the answer FP64 [N].
    """

    uncertainty: Array | None
    error: Array


def read_pairs(path: Path) -> Pairs:
    """Read a CSV with a header: ``error``, or ``prediction`` and ``truth``; and ``std`` or ``uncertainty`` (a
    variance), which a network without an uncertainty of its own does not have.

    Raises NetworkUnclear for a file that does not hold them.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            rows: list[dict[str, str]] = []
            for row in reader:
                if len(rows) == _MOST:
                    raise NetworkUnclear(f"{_OPTION} has more than {_MOST} rows", param=_OPTION)
                rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error):
        raise NetworkUnclear(f"{_OPTION} {path} cannot be read as CSV", param=_OPTION) from None
    found = {name: _numbers(rows, name) for name in names if name in _KNOWN}
    if "error" in found:
        error = found["error"]
    elif "prediction" in found and "truth" in found:
        error = found["truth"] - found["prediction"]
    else:
        raise NetworkUnclear(
            f"{_OPTION} needs the column 'error' (the truth less the prediction), or 'prediction' and "
            f"'truth'; it has {', '.join(names) or 'no header'}",
            param=_OPTION,
        )
    if len(error) < _FEWEST:
        raise NetworkUnclear(
            f"{_OPTION} has {len(error)} rows; at least {_FEWEST} of data that the network was not trained "
            "on are needed",
            param=_OPTION,
        )
    if "std" in found:
        return Pairs(np.square(found["std"]), error)
    return Pairs(found.get("uncertainty"), error)


_KNOWN: Final = ("prediction", "truth", "error", "std", "uncertainty")


def _numbers(rows: list[dict[str, str]], name: str) -> Array:
    found = np.empty(len(rows))
    for index, row in enumerate(rows):
        try:
            found[index] = float(row[name])
        except (TypeError, ValueError):
            found[index] = np.nan
        if not np.isfinite(found[index]) or (name in ("std", "uncertainty") and found[index] < 0):
            raise NetworkUnclear(
                f"{_OPTION}, row {index}, column '{name}' must be a finite number, got {row[name]!r:.40}",
                param=_OPTION,
            )
    return found


def calibrate(pairs: Pairs) -> Calibration:
    """The threshold below which nine tenths of the uncertainties lie, and the least-squares line through the
    root mean square errors of forty segments of equal size (TASFAR, arXiv 2312.00540). Without uncertainties
    every error is as large as their root mean square."""
    if pairs.uncertainty is None:
        deviation = float(np.sqrt(np.square(pairs.error).mean()))
        return Calibration(2 * deviation**2, deviation, 0.0)
    order = np.argsort(pairs.uncertainty, kind="stable")
    parts = np.array_split(order, min(_SEGMENTS, len(order) // 2))
    centres = np.array([pairs.uncertainty[part].mean() for part in parts])
    errors = np.array([np.sqrt(np.square(pairs.error[part]).mean()) for part in parts])
    slope, intercept = 0.0, float(errors.mean())
    if np.ptp(centres) > 0:
        slope, intercept = (float(each) for each in np.polyfit(centres, errors, 1))
    return Calibration(float(np.quantile(pairs.uncertainty, _SURE_SHARE)), intercept, slope)


def to_json(calibration: Calibration) -> bytes:
    """The file ``calibration.json``."""
    facts = dataclasses.asdict(calibration)
    space = facts.pop("space")
    return (json.dumps({"calibration": facts, "space": space}, indent=1) + "\n").encode()
