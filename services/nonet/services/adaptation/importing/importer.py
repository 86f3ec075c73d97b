"""An exported regressor (ONNX) with what it was measured to do -> a published version."""

from __future__ import annotations

import datetime
import functools
from pathlib import Path
from typing import Any, Final

import numpy as np

from nonet.runtime.network_import import (
    Imported,
    ImportOptions,
    NetworkRefused,
    NetworkUnclear,
    Publish,
)
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.layout import is_model_name
from nonet.runtime.repository.manifest import Manifest, Preprocessing
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import Array, DataType, TensorSpec
from nonet.services.adaptation.importing.calibration_pairs import calibrate, read_pairs, to_json
from nonet.services.adaptation.importing.served_graph import ForeignGraph, read_foreign, served_graph
from nonet.services.adaptation.names import CALIBRATION_FILE, TASK

__all__ = ["import_regressor"]

_MODEL_FILE: Final = "model.onnx"
_LARGEST_BATCH: Final = 256
_LARGEST_BATCH_OF_PICTURES: Final = 16
_TRIED: Final = 4
_TOLERANCE: Final = 1e-4
_OF_KIND: Final = {
    "std": "the graph's own output (a learned variance, passes or an ensemble inside the graph)",
    "variance": "the root of the graph's own output (a learned variance)",
    "members": "that of the members, which the graph gives",
    "none": "none of its own: one number for all rows, the root mean square of the errors in --calibration",
}


def import_regressor(file: Path) -> Publish:
    """Open the regressor in ``file``: the task's importer."""
    return functools.partial(_publish, file, read_foreign(file))


def _publish(
    file: Path, foreign: ForeignGraph, name: str, repository: Path, options: ImportOptions
) -> Imported:
    """Publish the regressor as model ``name``.

    Raises NetworkRefused if it cannot be served, NetworkUnclear with the options that would answer what is
    open, and what ``publish_version`` raises.
    """
    if not is_model_name(name):
        raise NetworkUnclear(
            f"'{name}' cannot be a model's name: letters, digits, '_', '.' and '-'", param="--as"
        )
    if options.calibration is None:
        raise NetworkUnclear(
            "how large are its errors? Give --calibration, a CSV of data that it was not trained on with the "
            "columns error (the truth less the prediction) and std",
            param="--calibration",
        )
    pairs = read_pairs(options.calibration)
    if foreign.kind != "none" and pairs.uncertainty is None:
        raise NetworkUnclear(
            "the graph says how unsure it is, and --calibration has no column 'std' or 'uncertainty'",
            param="--calibration",
        )
    if foreign.kind == "none":
        pairs = type(pairs)(None, pairs.error)
    calibration = calibrate(pairs)
    model = served_graph(foreign, calibration.intercept)
    features = _features(foreign, options)
    preprocessing = _preprocessing(foreign, options)
    batch = _largest_batch(model, foreign)
    width = int(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)
    published = publish_version(
        repository,
        name,
        {_MODEL_FILE: model.SerializeToString(), CALIBRATION_FILE: to_json(calibration)},
        build_config(
            name,
            max_batch_size=batch,
            inputs=[TensorSpec(_input(foreign), DataType.FP32, (-1, *foreign.given.shape[1:]))],
            outputs=[TensorSpec(each, DataType.FP32, (-1, width)) for each in ("value", "std")],
        ),
        _manifest(file, name, foreign, options, features, preprocessing, width),
    )
    facts = {
        "outputs": width,
        "features": list(features),
        "uncertainty": foreign.kind,
        "rows_measured": len(pairs.error),
        "rmse": round(float(np.sqrt(np.square(pairs.error).mean())), 6),
        "largest_batch": batch,
        "adaptable": False,
    }
    return Imported(name, published.version, facts, _notes(foreign, features))


def _input(foreign: ForeignGraph) -> str:
    return "image" if foreign.pictures else "inputs"


def _features(foreign: ForeignGraph, options: ImportOptions) -> tuple[str, ...]:
    names = options.features
    if names and (foreign.pictures or len(names) != foreign.given.shape[1] or len(set(names)) != len(names)):
        raise NetworkUnclear(
            f"--features has {len(names)} names, the network takes {list(foreign.given.shape[1:])}",
            param="--features",
        )
    return names


def _preprocessing(foreign: ForeignGraph, options: ImportOptions) -> Preprocessing | None:
    """How a picture becomes the input; None for rows. What is not said is asked for."""
    if not foreign.pictures:
        return None
    _, channels, height, width = foreign.given.shape
    if channels != 3 or height != width:
        raise NetworkRefused(f"it takes {list(foreign.given.shape[1:])}; only [3, side, side] can be served")
    if options.mean is None or options.std is None:
        raise NetworkUnclear("how are the picture's levels scaled? Say --mean and --std")
    return Preprocessing(
        resize=height,
        crop=height,
        interpolation=options.interpolation or "bilinear",
        mean=options.mean,
        std=options.std,
        resize_type="standard",
    )


def _largest_batch(model: Any, foreign: ForeignGraph) -> int:
    """How many rows may run together: many if that changes no answer, else 1. Raises NetworkRefused if the
    graph does not run or does not give what it should."""
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 4
    rows = np.random.default_rng(0).normal(size=(_TRIED, *foreign.given.shape[1:])).astype(np.float32)
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), session_options, providers=["CPUExecutionProvider"]
        )

        def run(given: Array) -> list[Array]:
            return [np.asarray(each) for each in session.run(["value", "std"], {_input(foreign): given})]

        alone = [np.concatenate(each) for each in zip(*(run(row[None]) for row in rows), strict=True)]
    except Exception as error:  # ONNX Runtime raises classes of its own
        raise NetworkRefused(f"ONNX Runtime does not run it: {' '.join(str(error).split())[:200]}") from None
    for found, what in zip(alone, ("value", "std"), strict=True):
        if found.ndim != 2 or len(found) != _TRIED:
            raise NetworkRefused(f"its {what} has shape {list(found.shape)} for {_TRIED} rows")
    if not np.isfinite(alone[0]).all() or not np.isfinite(alone[1]).all() or (alone[1] < 0).any():
        raise NetworkRefused("it gives answers that are not finite, or a standard deviation below 0")
    try:
        together = run(rows)
    except Exception:  # a graph that takes one row only
        return 1
    scale = max(1.0, float(np.abs(alone[0]).max()))
    same = all(
        got.shape == want.shape and np.allclose(got, want, rtol=0, atol=_TOLERANCE * scale)
        for got, want in zip(together, alone, strict=True)
    )
    return (_LARGEST_BATCH_OF_PICTURES if foreign.pictures else _LARGEST_BATCH) if same else 1


def _notes(foreign: ForeignGraph, features: tuple[str, ...]) -> tuple[str, ...]:
    notes = [
        f"read as a regressor of {list(foreign.given.shape[1:])}; standard deviation: "
        f"{_OF_KIND[foreign.kind]}"
    ]
    if foreign.kind == "none":
        notes.append("so no row is more certain than another, and a drift of the inputs will not show")
    if not foreign.pictures and not features:
        notes.append("its columns have no names (give them with --features): rows go by position")
    notes.append(
        "it answers, and cannot be adapted to a site: an ONNX graph is not trained further, and there is no "
        "dropout left in it to switch on"
    )
    return tuple(notes)


def _manifest(
    file: Path,
    name: str,
    foreign: ForeignGraph,
    options: ImportOptions,
    features: tuple[str, ...],
    preprocessing: Preprocessing | None,
    width: int,
) -> Manifest:
    return Manifest(
        files={_MODEL_FILE: "0" * 64},  # the hashes are filled in by publishing
        source={
            "system": "",
            "file": file.name,
            "features": list(features),
            "outputs": [f"value{index}" for index in range(width)] if width > 1 else ["value"],
            "units": [],
            "uncertainty": {"kind": foreign.kind},
        },
        command=f"nonet models import {file.name} --as {name} --task regress",
        licence=options.licence,
        credit=options.credit,
        family=options.family,
        task=TASK,
        preprocessing=preprocessing,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
