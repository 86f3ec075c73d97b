"""A trained network -> a version of the repository: folded, exported, proven equal, described."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.numpy import save
from torch import Tensor, nn

from nonet.research.efficientnet_lite.network import EfficientNetLite0
from nonet.research.fasternet.fusion import fuse
from nonet.research.fasternet.network import FasterNet
from nonet.research.fasternet.onnx_export import check_batch_invariant, check_equal_to_torch, to_onnx
from nonet.research.fasternet.onnx_session import open_session, run
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.layout import VersionFolder
from nonet.runtime.repository.manifest import DataSource, Manifest, Preprocessing
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import DataType, TensorSpec

CHECK_ROWS = 8
MAX_BATCH = 16


@dataclass(frozen=True)
class Release:
    """What the manifest says of a version beyond its files."""

    system: str
    variant: str
    paper: str
    command: str
    preprocessing: Preprocessing
    labels: Sequence[str] = ()
    family: str = ""
    licence: str = ""
    credit: str = ""
    data: Sequence[DataSource] = ()
    quality: Mapping[str, float | int | str] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    owner: str = ""


class ServingForm(nn.Module):
    """The folded network with its classifier as a 1x1 convolution.

    A matrix product blocks its sums by batch size, so an image's logits would change with its neighbours; a
    convolution computes every image alike.
    """

    def __init__(self, network: FasterNet | EfficientNetLite0) -> None:
        super().__init__()
        self.network = fuse(network)
        linear = self.network.head if isinstance(self.network, FasterNet) else self.network._fc
        self.classifier = nn.Conv2d(linear.in_features, linear.out_features, 1)
        self.classifier.weight = nn.Parameter(linear.weight[:, :, None, None].detach().clone())
        self.classifier.bias = nn.Parameter(linear.bias.detach().clone())

    def forward(self, image: Tensor) -> Tensor:
        features = self.network.features(image)[:, :, None, None]  # (N, D, 1, 1)
        return self.classifier(features).flatten(1)  # (N, classes)


def publish(
    repository: Path,
    name: str,
    network: FasterNet | EfficientNetLite0,
    release: Release,
    *,
    check_images: np.ndarray | None = None,
    replace: bool = False,
) -> VersionFolder:
    """Export and publish. `check_images` (8, 3, S, S) fp32 are normalised real images; noise serves without
    them.

    Raises ExportError if the graph differs from PyTorch or is not batch-invariant, and what `publish_version`
    raises.
    """
    size = release.preprocessing.crop
    if check_images is None:
        check_images = np.random.default_rng(0).standard_normal((CHECK_ROWS, 3, size, size), dtype=np.float32)
    form = ServingForm(network).eval()
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        to_onnx(form, size, graph, ("logits",))
        strip_origins(graph)
        session = open_session(graph)
        check_equal_to_torch(session, network.eval(), torch.from_numpy(check_images))
        check_batch_invariant(session, check_images)
        logits = run(session, check_images)[0]
        manifest = Manifest(
            files={"model.onnx": "0" * 64},  # publish_version puts the real hashes here
            source={
                "system": release.system,
                "paper": release.paper,
                "variant": release.variant,
                **release.facts,
            },
            command=release.command,
            data=tuple(release.data),
            quality=dict(release.quality),
            licence=release.licence,
            credit=release.credit,
            task="classification",
            family=release.family,
            preprocessing=release.preprocessing,
            check_set="check.safetensors",
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
            owner=release.owner,
        )
        config = build_config(
            name,
            max_batch_size=MAX_BATCH,
            inputs=[TensorSpec("image", DataType.FP32, (-1, 3, size, size))],
            outputs=[TensorSpec("logits", DataType.FP32, (-1, logits.shape[1]))],
            label_file="labels.txt" if release.labels else "",
        )
        files: dict[str, bytes | Path] = {
            "model.onnx": graph,
            "check.safetensors": save({"image": check_images, "logits": logits}),
        }
        return publish_version(
            repository, name, files, config, manifest, labels=release.labels, replace=replace
        )


def strip_origins(graph: Path) -> None:
    """Remove the exporter's notes about the source code: stack traces hold the exporting machine's paths."""
    model = onnx.load(str(graph))
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    onnx.save(model, str(graph))
