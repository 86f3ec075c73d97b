"""A trained face network and its detector -> a version of the repository: exported, proven equal,
described."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from nonet.research.fasternet.onnx_export import check_batch_invariant, check_equal_to_torch, to_onnx
from nonet.research.fasternet.onnx_session import open_session, run
from nonet.research.fasternet.release import CHECK_ROWS, MAX_BATCH, strip_origins
from nonet.research.tvconv.detector import FaceDetector
from nonet.research.tvconv.detector_graph import export_detector
from nonet.research.tvconv.face_files import ALIGNED, TEMPLATE
from nonet.research.tvconv.mobilenet import FaceNet
from nonet.research.tvconv.serving_graph import ServingForm
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.layout import VersionFolder
from nonet.runtime.repository.manifest import DataSource, Manifest, Preprocessing
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import DataType, TensorSpec

TASK = "face_embedding"
DETECTOR_FILE = "detector.onnx"
LICENCE = "research and demonstration only (see the data); not for naming anyone"
CREDIT = (
    "Trained by Nonet on portraits of volunteers; the ORL faces by courtesy of Olivetti Research Laboratory"
)
DETECTOR_CREDIT = "; the detector was taught by YuNet (Apache-2.0, Shiqi Yu and others)"
DATA = (
    DataSource(
        name="caltech_faces (24 persons)",
        licence="part of Caltech-101, CC BY 4.0; research and demonstration",
        origin="Faces 1999 (front), Markus Weber, California Institute of Technology",
    ),
    DataSource(
        name="orl_faces (34 persons)",
        licence="credit to Olivetti Research Laboratory; no other licence",
        origin="ORL database of faces, Olivetti Research Laboratory, Cambridge",
    ),
)
DETECTOR_DATA = DataSource(
    name="flickr8k_1000, voc2012_animals, coco256 (the detector alone)",
    licence="photographs of Flickr under its terms; research",
    origin="Flickr8k, PASCAL VOC 2012, COCO 2017",
)
_HALF = 0.5  # (x - 0.5) / 0.5, as the paper scales faces


@dataclass(frozen=True)
class FaceRelease:
    """What the manifest says of a version: `threshold` is the similarity from which two faces are of one
    person, `detector_score` the score from which a candidate is a face."""

    command: str
    threshold: float
    detector_score: float = 0.5
    quality: Mapping[str, float | int | str] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)


def publish_faces(
    repository: Path,
    name: str,
    network: FaceNet,
    detector: FaceDetector | None,
    release: FaceRelease,
    *,
    check_faces: np.ndarray | None = None,
    replace: bool = False,
) -> VersionFolder:
    """Export and publish. `check_faces` (8, 3, S, S) fp32 are normalised faces; noise serves without them,
    and should for what is given away: they are shipped with the version.

    Raises ExportError if a graph differs from PyTorch or the network's is not batch-invariant, and what
    `publish_version` raises.
    """
    size, length = network.config.size, network.config.embedding
    if check_faces is None:
        check_faces = np.random.default_rng(0).standard_normal((CHECK_ROWS, 3, size, size), dtype=np.float32)
    source: dict[str, object] = {
        "system": "tvconv",
        "paper": "arXiv 2203.10489",
        "variant": f"{network.config.operator}, width {network.config.width:g}, {size} px",
        "threshold": round(release.threshold, 4),
        "alignment": {"side": ALIGNED, "landmarks": [list(point) for point in TEMPLATE]},
        **release.facts,
    }
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        to_onnx(ServingForm(network).eval(), size, graph, ("embedding",))
        strip_origins(graph)
        session = open_session(graph)
        check_equal_to_torch(session, network.eval(), torch.from_numpy(check_faces))
        check_batch_invariant(session, check_faces)
        check_faces = np.ascontiguousarray(check_faces)  # of a view the file would hold other rows
        files: dict[str, bytes | Path] = {
            "model.onnx": graph,
            "check.safetensors": save({"image": check_faces, "embedding": run(session, check_faces)[0]}),
        }
        if detector is not None:
            files[DETECTOR_FILE] = Path(folder) / DETECTOR_FILE
            export_detector(detector, Path(folder) / DETECTOR_FILE)
            strip_origins(Path(folder) / DETECTOR_FILE)
            source["detector_score"] = release.detector_score
        manifest = Manifest(
            files={"model.onnx": "0" * 64},  # publish_version puts the real hashes here
            source=source,
            command=release.command,
            data=DATA if detector is None else (*DATA, DETECTOR_DATA),
            quality=dict(release.quality),
            licence=LICENCE,
            credit=CREDIT if detector is None else CREDIT + DETECTOR_CREDIT,
            task=TASK,
            family="faces",
            preprocessing=Preprocessing(resize=size, crop=size, mean=(_HALF,) * 3, std=(_HALF,) * 3),
            check_set="check.safetensors",
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )
        config = build_config(
            name,
            max_batch_size=MAX_BATCH,
            inputs=[TensorSpec("image", DataType.FP32, (-1, 3, size, size))],
            outputs=[TensorSpec("embedding", DataType.FP32, (-1, length))],
        )
        return publish_version(repository, name, files, config, manifest, replace=replace)
