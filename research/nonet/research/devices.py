"""The device that a training runs on, chosen by name."""

from __future__ import annotations

import torch

from nonet.runtime.errors import InvalidArgument


def usable_device(name: str) -> torch.device:
    """`cpu` or `cuda`, made ready. Raises InvalidArgument for another name and where there is no GPU."""
    if name not in ("cpu", "cuda"):
        raise InvalidArgument(f"unknown device '{name}': choose cpu or cuda", param="device")
    if name == "cuda":
        if not torch.cuda.is_available():
            raise InvalidArgument("PyTorch sees no CUDA device here: use --device cpu", param="device")
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
        torch.set_float32_matmul_precision("high")
    return torch.device(name)
