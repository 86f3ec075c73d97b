"""``nonet models pull``: official weights into the model repository, without torch and without pickle."""

from __future__ import annotations

import dataclasses
import datetime
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nonet.runtime.errors import NotFound

if TYPE_CHECKING:
    from nonet.research.weights.sources import WeightsSource
    from nonet.runtime.images import Preprocessing
    from nonet.runtime.repository import Manifest
    from nonet.runtime.tensors import Array

__all__ = ["Pullable", "Pulled", "available", "pull"]

FAMILY = "imagenet"
LARGEST_BATCH = 32
_CHECK_IMAGES = 8
_MODEL_FILE = "model.onnx"
_CHECK_FILE = "check.safetensors"


@dataclasses.dataclass(frozen=True, slots=True)
class Pullable:
    """A model that can be fetched; ``size`` is the download in bytes."""

    name: str
    description: str
    size: int
    licence: str


@dataclasses.dataclass(frozen=True, slots=True)
class Pulled:
    """The version that a pull ended with; ``fresh`` is False if it was there before."""

    model: str
    version: str
    path: Path
    fresh: bool


def available() -> list[Pullable]:
    """What :func:`pull` knows, in the order of size."""
    from nonet.research.weights.sources import SOURCES

    return [
        Pullable(
            name,
            f"ImageNet-1k classifier, {source.variant.resolution} px, "
            f"top-1 {source.variant.published_top1:.1%} as published",
            source.size,
            "Apache-2.0",
        )
        for name, source in SOURCES.items()
    ]


def pull(
    model: str,
    repository: Path,
    index_url: str | None = None,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> Pulled:
    """Fetch official weights, check them, convert them to ONNX and publish them in ``repository``.

    A version made from the same weights is left as it is and nothing is downloaded.

    Args:
        model: one of :func:`available`.
        repository: the model repository; created if absent.
        index_url: package index to use instead of the one pip is configured for.
        progress: told what is done now.

    Raises NotFound for an unknown model, Unavailable if the download fails (within seconds without a
    network), InvalidArgument if the file is not the pinned one, Conflict and InsufficientStorage from
    publishing.
    """
    from nonet.research.weights.download import download_weights
    from nonet.research.weights.sources import SOURCES

    source = SOURCES.get(model)
    if source is None:
        raise NotFound(f"no weights to pull for '{model}'; known: {', '.join(SOURCES)}", param="model")
    present = _present(source, repository)
    if present is not None:
        return present
    with tempfile.TemporaryDirectory(prefix="nonet-pull-") as folder:
        progress(f"downloading {source.requirement} ({source.size / 1e6:.0f} MB)")
        weights = download_weights(source, Path(folder), index_url=index_url)
        progress(f"converting and publishing {model}")
        return _publish(source, weights, repository)


def _present(source: WeightsSource, repository: Path) -> Pulled | None:
    """The newest version that was made from the same weights and is intact."""
    from nonet.runtime.repository import ModelRefused
    from nonet.runtime.repository.integrity import FileHasher, verify_files
    from nonet.runtime.repository.layout import MANIFEST_FILE, read_model
    from nonet.runtime.repository.manifest import read_manifest

    folder = read_model(repository, source.variant.name) if repository.is_dir() else None
    for version in sorted(folder.versions if folder else (), key=lambda item: -int(item.version)):
        try:
            manifest = read_manifest(version.path / MANIFEST_FILE)
            if manifest is None or manifest.source.get("weights_sha256") != source.sha256:
                continue
            verify_files(repository, version.path, manifest, FileHasher())
        except ModelRefused:
            continue
        return Pulled(source.variant.name, version.version, version.path, fresh=False)
    return None


def _publish(source: WeightsSource, weights: Path, repository: Path) -> Pulled:
    import safetensors.numpy

    from nonet.research.weights import read_checkpoint
    from nonet.research.weights.check_images import check_images
    from nonet.research.weights.efficientnet_lite import build_onnx
    from nonet.research.weights.imagenet import imagenet_labels
    from nonet.runtime.images import Preprocessing
    from nonet.runtime.repository import build_config, publish_version
    from nonet.runtime.tensors import DataType, TensorSpec

    preprocessing = Preprocessing.from_manifest(source.variant.preprocessing)
    graph = build_onnx(source.variant, read_checkpoint(weights)).SerializeToString()
    images = check_images(_CHECK_IMAGES, preprocessing)
    check_set = {"image": images, "logits": _run(graph, images)}
    labels = imagenet_labels()
    side = preprocessing.crop
    published = publish_version(
        repository,
        source.variant.name,
        {_MODEL_FILE: graph, _CHECK_FILE: safetensors.numpy.save(check_set)},
        build_config(
            source.variant.name,
            max_batch_size=LARGEST_BATCH,
            inputs=[TensorSpec("image", DataType.FP32, (-1, 3, side, side))],
            outputs=[TensorSpec("logits", DataType.FP32, (-1, len(labels)))],
            label_file="labels.txt",
        ),
        _manifest(source, preprocessing),
        labels=labels,
    )
    return Pulled(source.variant.name, published.version, published.path, fresh=True)


def _run(graph: bytes, images: Array) -> Array:
    """The answers of fp32 ONNX Runtime, which engines and precisions are compared with."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    logits: Array = session.run(["logits"], {"image": images})[0]
    return logits


def _manifest(source: WeightsSource, preprocessing: Preprocessing) -> Manifest:
    from nonet.runtime.repository import Manifest

    return Manifest.model_validate(
        {
            "schema": 1,
            "files": {_MODEL_FILE: "0" * 64},  # the hashes are filled in by publishing
            "source": {
                "system": "efficientnet_lite",
                "paper": "Tan, Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks "
                "(ICML 2019)",
                "variant": source.variant.name.removeprefix("efficientnet_"),
                "package": source.requirement,
                "weights_sha256": source.sha256,
            },
            "command": f"nonet models pull {source.variant.name}",
            "data": [
                {
                    "name": "ImageNet-1k",
                    "licence": "ImageNet terms of access (research)",
                    "origin": "ILSVRC 2012",
                }
            ],
            "quality": {
                "top1": source.variant.published_top1,
                "dataset": "ImageNet-1k",
                "split": "validation",
                "basis": "published by its authors, not measured here",
            },
            "licence": "Apache-2.0",
            "credit": "EfficientNet-Lite by the TensorFlow TPU team; weights converted to PyTorch by "
            f"ML Illustrated (package {source.package}); class names from WordNet",
            "task": "classification",
            "family": FAMILY,
            "preprocessing": preprocessing.to_manifest(),
            "check_set": _CHECK_FILE,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
    )
