"""Training state on disk: one safetensors file, its numbers as JSON in the header. Written whole or not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

FORMAT = "nonet-wild-jdd-1"


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write `tensors` and JSON-serialisable `facts` to `path`, replacing it in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    header = {"format": FORMAT, "facts": json.dumps(facts, sort_keys=True)}
    save_file(
        {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, partial, header
    )
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    partial.replace(path)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a checkpoint.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is no checkpoint of this system.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint named {path.name}")
    try:
        with safe_open(path, framework="pt") as stream:
            header = stream.metadata() or {}
            if header.get("format") != FORMAT:
                raise ValueError(f"{path.name} is no Wild-JDD checkpoint")
            names = list(stream.keys())
            return {name: stream.get_tensor(name) for name in names}, json.loads(header["facts"])
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error


def optimizer_tensors(optimizer: Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """Adam's moments by parameter name, as `adam.<name>.<moment>`."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"adam.{name}.{key}"] = value
    return tensors


def restore_optimizer(optimizer: Optimizer, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    for name, parameter in network.named_parameters():
        state = {
            key.rsplit(".", 1)[1]: value for key, value in tensors.items() if key.startswith(f"adam.{name}.")
        }
        if state:
            optimizer.state[parameter] = state
