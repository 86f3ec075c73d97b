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


def fast_bfloat16(device: torch.device) -> bool:
    """Whether convolutions in bfloat16 are faster there than in float32. A CPU without instructions for it
    imitates them, ten times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
