"""Published FasterNet checkpoints -> a verified ONNX network in the repository.

Both public layouts are read (official releases and timm), from `.pth` or `.safetensors`, with a reader that
executes nothing in the file. Loading is strict: a missing, unexpected or misshapen tensor is an error that
names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nonet.research.fasternet.checkpoint_keys import official_names
from nonet.research.fasternet.network import MEAN, STD, VARIANTS, FasterNet, FasterNetDense, Variant
from nonet.research.fasternet.release import Release, publish
from nonet.research.weights import CheckpointLimits, read_checkpoint
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.repository.layout import VersionFolder
from nonet.runtime.repository.manifest import Preprocessing

PAPER = "arXiv 2303.03667"
#: The official pictures: short side 248 = int(224 / 0.9), central 224.
PREPROCESSING = Preprocessing(resize=248, crop=224, interpolation="bicubic", mean=MEAN, std=STD)

_EMBED = "patch_embed.proj.weight"
_HEAD = "head.weight"


def refuse(message: str) -> InvalidArgument:
    return InvalidArgument(f"checkpoint refused: {message}", code="CHECKPOINT_INVALID")


def variant_of(tensors: Mapping[str, np.ndarray]) -> str:
    """The published variant of official-named tensors, from the embedding width and the depths."""
    embed = tensors.get(_EMBED)
    if embed is None:
        raise refuse(f"it has no tensor {_EMBED}, so it is no FasterNet")
    depths = tuple(
        len({name.split(".")[3] for name in tensors if name.startswith(f"stages.{2 * index}.blocks.")})
        for index in range(4)
    )
    for name, variant in VARIANTS.items():
        if variant.embed_dim == embed.shape[0] and variant.depths == depths:
            return name
    raise refuse(f"no variant has width {embed.shape[0]} and depths {depths}")


def check_width(tensors: Mapping[str, np.ndarray], name: str) -> None:
    """Refuse tensors whose embedding width contradicts the variant's."""
    embed = tensors.get(_EMBED)
    wanted = VARIANTS[name].embed_dim
    if embed is not None and embed.shape[:1] != (wanted,):
        found = embed.shape[0] if embed.ndim else "none"
        raise refuse(f"its embedding has width {found}, but variant {name} has {wanted}")


def load_strictly(network: nn.Module, tensors: Mapping[str, np.ndarray]) -> None:
    """Fill `network` with official-named tensors. Names every missing, unexpected and misshapen tensor if
    any.
    """
    wanted = network.state_dict()
    missing = sorted(name for name in wanted if name not in tensors)
    unexpected = sorted(name for name in tensors if name not in wanted)
    shapes = sorted(
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(value.shape)
    )
    problems = [
        f"{kind} {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
        if names
    ]
    if problems:
        raise refuse("; ".join(problems))
    broken = [name for name, value in tensors.items() if not np.isfinite(np.asarray(value, np.float64)).all()]
    if broken:
        raise refuse(f"{broken[0]} holds a value that is not finite")
    state = {name: torch.from_numpy(np.array(tensors[name], np.float32)) for name in wanted}
    for name, value in wanted.items():
        state[name] = state[name].to(value.dtype)
    network.load_state_dict(state, strict=True)


def classifier_from(tensors: Mapping[str, np.ndarray], name: str | None = None) -> tuple[str, FasterNet]:
    """A FasterNet from tensors of either layout. `name` fixes the variant; without it, it is found."""
    official = official_names(tensors)
    if name is not None and name not in VARIANTS:
        raise InvalidArgument(f"unknown FasterNet variant '{name}': choose one of {', '.join(VARIANTS)}")
    chosen = name or variant_of(official)
    check_width(official, chosen)
    if _HEAD not in official:
        raise refuse("it has no classifier; it looks like a detector's backbone")
    network = FasterNet(VARIANTS[chosen], int(official[_HEAD].shape[0]))
    load_strictly(network, official)
    return chosen, network.eval()


def dense_from(tensors: Mapping[str, np.ndarray], name: str) -> FasterNetDense:
    """A detector's backbone in the official layout (prefix `backbone.` allowed)."""
    official = official_names(tensors)
    check_width(official, name)
    network = FasterNetDense(VARIANTS[name])
    load_strictly(network, official)
    return network.eval()


def import_checkpoint(
    path: Path,
    name: str,
    repository: Path,
    *,
    variant: str | None = None,
    labels: Sequence[str] = (),
    family: str = "",
    preprocessing: Preprocessing = PREPROCESSING,
    licence: str = "",
    credit: str = "",
    limits: CheckpointLimits | None = None,
) -> VersionFolder:
    """Read a checkpoint file, export it (normalisation folded) and publish it as network `name`.

    `labels` must be as many as the classes, or none; a network of 1000 classes then gets the ImageNet names.
    Raises InvalidArgument for a file that is damaged, hostile or no FasterNet, PayloadTooLarge for one over
    `limits`.
    """
    from nonet.research.weights.imagenet import imagenet_labels

    chosen, network = classifier_from(read_checkpoint(path, limits), variant)
    classes = network.head.out_features
    names = tuple(labels) or (imagenet_labels() if classes == 1000 else ())
    if names and len(names) != classes:
        raise InvalidArgument(f"{len(names)} labels for a network of {classes} classes", param="labels")
    published: Variant = VARIANTS[chosen]
    return publish(
        repository,
        name,
        network,
        Release(
            system="fasternet",
            variant=chosen,
            paper=PAPER,
            command="nonet models import",
            preprocessing=preprocessing,
            labels=names,
            family=family,
            licence=licence,
            credit=credit
            or f"FasterNet-{chosen.upper()} (width {published.embed_dim}), J. Chen et al., CVPR 2023",
        ),
    )
