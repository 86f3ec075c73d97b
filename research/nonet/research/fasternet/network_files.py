"""Trained networks as safetensors files: averaged weights, and in the metadata how they came about."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from nonet.research.efficientnet_lite import network as lite
from nonet.research.fasternet import network as fasternet
from nonet.research.fasternet.distillation import Normalised
from nonet.runtime.errors import InvalidArgument

TEACHER = "lite0"


@dataclass(frozen=True)
class Trained:
    """A network on the CPU in eval mode, and what its file says of it."""

    network: Normalised
    facts: Mapping[str, str]


def save_network(path: Path, network: nn.Module, facts: Mapping[str, str]) -> None:
    """Write a network's tensors in float32 and its facts; the old file stays until the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata=dict(facts))
    os.replace(partial, path)


def load_network(path: Path, member: str, classes: int) -> Trained:
    """Read a file of `save_network`: `member` is a FasterNet variant or `lite0`.

    Raises InvalidArgument if the file is damaged or holds another network.
    """
    try:
        with safe_open(path, framework="pt") as source:
            facts = source.metadata() or {}
            tensors = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118
        network: fasternet.FasterNet | lite.EfficientNetLite0
        if member == TEACHER:
            network = lite.EfficientNetLite0(classes)
            mean, std = lite.MEAN, lite.STD
        else:
            network = fasternet.build(member, classes)
            mean, std = fasternet.MEAN, fasternet.STD
        network.load_state_dict(tensors, strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise InvalidArgument(f"{path.name} is not a trained {member}: {error}") from error
    if not all(torch.isfinite(value).all() for value in tensors.values()):
        raise InvalidArgument(f"{path.name} holds a value that is not finite")
    return Trained(Normalised(network, mean, std).eval().requires_grad_(False), facts)
