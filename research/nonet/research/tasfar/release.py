"""A regressor -> a version of the repository: one graph that gives values and their standard deviations, and
what its adaptation needs; proven equal to the network."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.numpy import save

from nonet.research.fasternet.onnx_export import check_batch_invariant, check_equal_to_torch, export
from nonet.research.fasternet.onnx_session import open_session, run
from nonet.research.fasternet.release import CHECK_ROWS, strip_origins
from nonet.research.tasfar.networks import NetworkSpec, save_network
from nonet.research.tasfar.uncertainty import Answering
from nonet.research.tasfar.version_files import (
    CALIBRATION_FILE,
    NETWORK_FILE,
    WEIGHTS_FILE,
    SourceFacts,
)
from nonet.runtime.errors import ModelRefused
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.layout import MANIFEST_FILE, VersionFolder
from nonet.runtime.repository.manifest import DataSource, Manifest, read_manifest
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import DataType, TensorSpec

__all__ = ["MODEL_FILE", "TASK", "Release", "files_of", "publish_adapted", "publish_regressor"]

TASK: Final = "regress"
MODEL_FILE: Final = "model.onnx"
CHECK_FILE: Final = "check.safetensors"
_MAX_BATCH: Final = 256
_MAX_PICTURES: Final = 16


@dataclass(frozen=True)
class Release:
    """What a manifest says of a version beyond its files.

    Args:
        outputs, units: of each value of the label.
        features: of each column of the input, or each channel.
        facts: further ones for ``source``, such as where the model comes from.
    """

    outputs: Sequence[str]
    units: Sequence[str]
    features: Sequence[str]
    command: str
    data: Sequence[DataSource] = ()
    licence: str = ""
    credit: str = ""
    family: str = ""
    quality: Mapping[str, float | int | str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""


def publish_regressor(
    repository: Path,
    name: str,
    answering: Answering,
    facts: SourceFacts,
    release: Release,
    *,
    replace: bool = False,
) -> VersionFolder:
    """Export and publish a regressor as the next version of ``name``.

    Raises ExportError if the graph differs from PyTorch or an answer depends on its batch, and what
    `publish_version` raises.
    """
    source = {
        "system": "tasfar",
        "paper": "arXiv 2312.00540",
        "outputs": list(release.outputs),
        "units": list(release.units),
        "features": list(release.features),
        "uncertainty": answering.spec.to_facts(),
        **release.facts,
    }
    manifest = Manifest(
        files={MODEL_FILE: "0" * 64},  # publish_version puts the real hashes here
        source=source,
        command=release.command,
        data=tuple(release.data),
        quality=dict(release.quality),
        licence=release.licence,
        credit=release.credit,
        task=TASK,
        family=release.family,
        check_set=CHECK_FILE,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        owner=release.owner,
    )
    files: dict[str, bytes | Path] = {**files_of(answering, facts)}
    config = _config(name, answering.network.spec)
    return publish_version(repository, name, files, config, manifest, replace=replace)


def publish_adapted(
    repository: Path,
    name: str,
    parent: Path,
    files: Mapping[str, bytes],
    lineage: Mapping[str, Any],
    *,
    command: str,
    owner: str = "",
    quality: Mapping[str, float | int | str] | None = None,
    shadow_rows: int = 0,
) -> VersionFolder:
    """Publish the files of an adaptation as the next version of ``name``.

    Args:
        parent: folder of the version that was adapted, whose outputs, units and licence are kept.
        lineage: for ``source``: what was adapted, to how much, by which evidence.
        quality: label-free figures; the parent's do not hold at another site and are not kept.
        shadow_rows: rows of live requests that it answers beside the version that serves before it may.

    Raises ModelRefused without the parent's manifest, and what `publish_version` raises.
    """
    known = read_manifest(parent / MANIFEST_FILE)
    if known is None:
        raise ModelRefused("a regressor without a manifest.json cannot be adapted")
    manifest = known.model_copy(
        update={
            "source": {**known.source, "lineage": dict(lineage)},
            # A family's name takes its best member: a model of one site is no member of a family of all.
            "family": known.family if parent.parent.name == name else "",
            "command": command,
            "quality": dict(quality or {}),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "owner": owner,
            "shadow_rows": shadow_rows,
        }
    )
    spec = NetworkSpec.from_json(files[NETWORK_FILE])
    return publish_version(repository, name, dict(files), _config(name, spec), manifest)


def files_of(answering: Answering, facts: SourceFacts) -> dict[str, bytes]:
    """The files of a version but its manifest. Its check set is made up from the scaling of the inputs: no
    row that the model learnt from, or was adapted to, is in any file.

    Raises ExportError if the graph differs from PyTorch by more than a ten-thousandth, or an answer depends
    on the rest of its batch.
    """
    answering = answering.eval()
    spec = answering.network.spec
    made_up = _made_up(answering)
    name = input_name(spec)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / MODEL_FILE
        export(answering, made_up[:2], graph, ("value", "std"), input_name=name)
        strip_origins(graph)
        session = open_session(graph)
        check_equal_to_torch(session, answering, made_up)
        rows = np.ascontiguousarray(made_up.numpy())
        check_batch_invariant(session, rows)
        value, std = run(session, rows)
        network = save_network(answering.network)
        return {
            MODEL_FILE: graph.read_bytes(),
            CHECK_FILE: save({name: rows, "value": value, "std": std}),
            NETWORK_FILE: network.description,
            WEIGHTS_FILE: network.weights,
            CALIBRATION_FILE: facts.to_json(),
        }


def input_name(spec: NetworkSpec) -> str:
    """Of the graph's one input."""
    return "image" if spec.kind == "density_cnn" else "inputs"


def _made_up(answering: Answering) -> torch.Tensor:
    """Inputs [8, ...] around the middle of what the network was trained on."""
    state = dict(answering.network.named_buffers())
    centre, spread = (
        next(value for key, value in state.items() if key.split(".")[-1] == name)
        for name in ("centre", "spread")
    )
    shape = (CHECK_ROWS, *answering.network.spec.inputs)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    return centre + spread * noise


def _config(name: str, spec: NetworkSpec) -> str:
    return build_config(
        name,
        max_batch_size=_MAX_PICTURES if spec.kind == "density_cnn" else _MAX_BATCH,
        inputs=[TensorSpec(input_name(spec), DataType.FP32, (-1, *spec.inputs))],
        outputs=[TensorSpec(each, DataType.FP32, (-1, spec.outputs)) for each in ("value", "std")],
    )
