"""A regressor trained elsewhere, as a description (``network.json``), weights (safetensors) and pairs of its
answers with the truth -> a published version that can be adapted to a site."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nonet.research.tasfar.adaptation import Recipe
from nonet.research.tasfar.networks import NetworkFiles, NetworkSpec, load_network, to_space
from nonet.research.tasfar.release import Release, publish_regressor
from nonet.research.tasfar.uncertainty import Answering, Estimates, UncertaintySpec
from nonet.research.tasfar.version_files import NETWORK_FILE, source_facts
from nonet.runtime.network_import import NetworkRefused, NetworkUnclear
from nonet.runtime.repository.layout import VersionFolder, is_model_name

__all__ = ["import_regressor_network"]

_OPTION: Final = "--calibration"
_FEWEST: Final = 80
_LARGEST_DESCRIPTION, _LARGEST_WEIGHTS = 1 << 20, 64 << 20
_CELLS_A_DEVIATION: Final = 4
"""Cells of the density map to a standard deviation of the labels, about as the paper has for house prices."""


def import_regressor_network(
    weights: Path,
    name: str,
    repository: Path,
    *,
    calibration: Path | None,
    features: Sequence[str] = (),
    family: str = "",
    licence: str = "",
    credit: str = "",
) -> VersionFolder:
    """Publish the network in ``weights`` and the ``network.json`` beside it.

    Args:
        calibration: CSV of rows that it was not trained on, with a header: ``prediction``; ``std`` or
            ``uncertainty`` (a variance) of it; ``truth``, or ``error`` (the truth less the prediction).
        features: names of the input's columns, or channels.

    Raises NetworkUnclear naming the option that would help, NetworkRefused for files that are no such
    network, and what publishing raises.
    """
    if not is_model_name(name):
        raise NetworkUnclear(
            f"'{name}' cannot be a model's name: letters, digits, '_', '.' and '-'", param="--as"
        )
    answering = _answering(weights)
    spec = answering.network.spec
    if calibration is None:
        raise NetworkUnclear(
            "how large are its errors, and when? Give --calibration, a CSV of data that it was not trained "
            "on with the columns prediction, std and truth",
            param=_OPTION,
        )
    if spec.outputs != 1 or spec.kind == "density_cnn":
        raise NetworkRefused("only networks of one value for rows or windows are imported to be adapted")
    if features and (len(features) != spec.inputs[0] or len(set(features)) != len(features)):
        raise NetworkUnclear(
            f"--features has {len(features)} names, the network takes {spec.inputs[0]}", param="--features"
        )
    predictions, deviations, truths = _pairs(calibration)
    try:
        width = float(to_space(truths, spec.space).std()) / _CELLS_A_DEVIATION
        if not width > 0:
            raise ValueError("all truths are the same")
        facts = source_facts(Estimates(predictions, deviations), truths, Recipe(width=width), spec.space)
    except ValueError as error:
        raise NetworkUnclear(f"{_OPTION} cannot calibrate it: {error}", param=_OPTION) from None
    return publish_regressor(
        repository,
        name,
        answering,
        facts,
        Release(
            outputs=("value",),
            units=(),
            features=tuple(features),
            command=f"nonet models import {weights.name} --as {name}",
            licence=licence,
            credit=credit,
            family=family,
            quality={
                "rmse": round(float(np.sqrt(np.square(truths - predictions).mean())), 6),
                "rows": len(truths),
                "dataset": f"the rows of {calibration.name}, given with the import",
            },
            facts={"system": "", "file": weights.name},
        ),
    )


def _answering(weights: Path) -> Answering:
    """The network, with the uncertainty that it has. Raises NetworkRefused."""
    description = weights.parent / NETWORK_FILE
    try:
        if description.stat().st_size > _LARGEST_DESCRIPTION or weights.stat().st_size > _LARGEST_WEIGHTS:
            raise NetworkRefused("the network is larger than any that is adapted here")
        files = NetworkFiles(description.read_bytes(), weights.read_bytes())
    except OSError as error:
        raise NetworkRefused(f"'{weights.name}' cannot be read: {error.strerror}") from None
    try:
        network = load_network(files)
        return Answering(network, _uncertainty(network.spec)).eval()
    except ValueError as error:
        raise NetworkRefused(str(error)) from None


def _uncertainty(spec: NetworkSpec) -> UncertaintySpec:
    if spec.members > 1:
        return UncertaintySpec("ensemble")
    return UncertaintySpec("learned_variance" if spec.learned_variance else "mc_dropout")


def _pairs(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Predictions, standard deviations and truths, [N, 1] each. Raises NetworkUnclear."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = list(csv.DictReader(file))
        rows = [{key.strip().lower(): cell for key, cell in row.items()} for row in table]
        columns = {name: np.array([float(row[name]) for row in rows]) for name in (rows[0] if rows else ())}
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, KeyError, TypeError, AttributeError):
        raise NetworkUnclear(f"{_OPTION} {path} is no CSV of numbers with a header", param=_OPTION) from None
    if "truth" not in columns and {"prediction", "error"} <= columns.keys():
        columns["truth"] = columns["prediction"] + columns["error"]
    if "std" not in columns and "uncertainty" in columns and (columns["uncertainty"] >= 0).all():
        columns["std"] = np.sqrt(columns["uncertainty"])
    lacking = [name for name in ("prediction", "std", "truth") if name not in columns]
    if lacking:
        raise NetworkUnclear(
            f"{_OPTION} has no column {' and no column '.join(lacking)}; it needs prediction, std (or "
            "uncertainty, a variance) and truth (or error)",
            param=_OPTION,
        )
    found = np.stack([columns[name] for name in ("prediction", "std", "truth")])
    if len(rows) < _FEWEST or not np.isfinite(found).all() or (found[1] < 0).any():
        raise NetworkUnclear(
            f"{_OPTION} needs at least {_FEWEST} rows of finite numbers, and no std below 0", param=_OPTION
        )
    return found[0][:, None], found[1][:, None], found[2][:, None]
