"""A fitted building -> the next version of the model ``floors_<building>``. Needs no torch.

Files of the version, all hashed in the manifest: ``model.onnx``, ``check.safetensors``, ``transmitters.txt``
(one name a line, in the order of the input's columns), ``building.json`` and, where matplotlib is installed,
``picture.png``. ``labels.txt`` of the model holds the floors' names, bottom first.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from safetensors.numpy import save

from nonet.research.fis_one.building import FittedBuilding
from nonet.research.fis_one.identifier import identify
from nonet.research.fis_one.serving_graph import build_serving_graph
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.repository import Manifest, build_config, is_model_name, publish_version
from nonet.runtime.repository.layout import VersionFolder

TASK = "floor-identification"
MODEL_PREFIX = "floors_"
MAX_BATCH = 256
TOLERANCE = 1e-4
"""Largest difference between the graph's probabilities and those of ``identifier.identify``."""

_CHECK_ROWS = 8
_CHECKED_ROWS = 64


class ExportError(RuntimeError):
    """The graph does not answer what the fit answers."""


def publish_building(
    repository: Path, building: str, fitted: FittedBuilding, *, command: str, owner: str = ""
) -> VersionFolder:
    """Publish ``fitted`` as the next version of the model ``floors_<building>``, whole or not at all.

    Older versions stay, unless the floors' names changed: those belong to all versions of a model, so the
    model is then replaced as a whole, in one step, by the new version alone.

    Args:
        repository: root of the model repository.
        building: letters, digits, ``_ . -``.
        command: what made this version, for the manifest.
        owner: tenant whose building it becomes if there is none of this name, "" for everybody's.

    Raises InvalidArgument for a name that cannot be a model's, PermissionDenied for another owner's building,
    InsufficientStorage when the disk is full, ExportError if the served graph differs from the
    fit.
    """
    name = f"{MODEL_PREFIX}{building}"
    if not building or not is_model_name(name):
        raise InvalidArgument(
            f"'{building}' cannot be a building's name: use up to 120 letters, digits, '_', '.', '-'",
            param="building",
        )
    graph = build_serving_graph(fitted.network)
    rows = check_rows(fitted)
    answers = check_graph(graph, fitted, rows)
    check = {"rssi": rows[:_CHECK_ROWS], **{key: value[:_CHECK_ROWS] for key, value in answers.items()}}
    files: dict[str, bytes | Path] = {
        "model.onnx": graph,
        "check.safetensors": save(check),
        "transmitters.txt": "".join(f"{each}\n" for each in fitted.transmitters).encode(),
        "building.json": (json.dumps(fitted.facts, indent=1, ensure_ascii=False) + "\n").encode(),
    }
    if importlib.util.find_spec("matplotlib") is not None:
        from nonet.research.fis_one.picture import draw_building

        files["picture.png"] = draw_building(fitted)
    facts = fitted.facts
    manifest = Manifest(
        files={"model.onnx": "0" * 64},  # publish_version puts the real hashes here
        source={
            "system": "fis_one",
            "paper": "arXiv 2307.05914",
            "preset": fitted.options.preset,
            "floors": list(fitted.floors),
            "transmitters": len(fitted.transmitters),
        },
        command=command,
        quality={
            "loss": facts["quality"]["loss"],
            "separation": facts["quality"]["separation"],
            "trust": facts["quality"]["trust"],
            "scans": facts["input"]["usable_scans"],
        },
        licence="that of the uploaded scans",
        credit="FIS-ONE by W. Zhuo et al.",
        task=TASK,
        family=name,
        check_set="check.safetensors",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        owner=owner,
    )
    config = build_config(name, max_batch_size=MAX_BATCH, inputs=[], outputs=[])
    return publish_version(repository, name, files, config, manifest, labels=fitted.floors, replace=True)


def check_rows(fitted: FittedBuilding) -> NDArray[np.float32]:
    """Rows (64, M) in dBm that a graph is proven on: readings made up from the seed, one row empty."""
    generator = np.random.default_rng([fitted.options.seed, 6])
    count = len(fitted.transmitters)
    heard = generator.random((_CHECKED_ROWS, count)) < generator.uniform(0, 0.5, (_CHECKED_ROWS, 1))
    heard[0] = False
    rssi = generator.integers(-95, -30, (_CHECKED_ROWS, count))
    return np.where(heard, rssi, 0).astype(np.float32)


def check_graph(graph: bytes, fitted: FittedBuilding, rows: NDArray[np.float32]) -> dict[str, NDArray]:
    """The graph's answers for ``rows``. Raises ExportError if they differ from ``identify``."""
    session = onnxruntime.InferenceSession(graph, _session_options(), providers=["CPUExecutionProvider"])
    distribution, known = session.run(["distribution", "known"], {"rssi": rows})
    expected, judged = identify(fitted.network, rows)
    worst = max(float(np.abs(distribution - expected).max()), float(np.abs(known[:, 0] - judged).max()))
    if not worst <= TOLERANCE:
        raise ExportError(f"the ONNX graph differs from the fit by {worst:.1e}, allowed is {TOLERANCE:.0e}")
    return {"distribution": distribution, "known": known}


def _session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
