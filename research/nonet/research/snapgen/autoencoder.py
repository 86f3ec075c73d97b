"""TAEF2, the frozen autoencoder whose latents the networks learn to make: 8 times smaller, 32 channels.

Its weights (MIT, Ollin Boer Bohan) are data of the training alone; what is served decodes with our own
decoder. Tensors are numbered by their place in one sequence of layers, so the sequence here follows it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

REDUCTION, CHANNELS = 8, 32
_WIDTH = 64


class _Pool(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(_WIDTH, 4 * _WIDTH, 1, bias=False),
            nn.GroupNorm(4, 4 * _WIDTH),
            nn.ReLU(),
            nn.Conv2d(4 * _WIDTH, _WIDTH, 1, bias=False),
        )


class _Block(nn.Module):
    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
        )
        self.pool = _Pool() if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


def _encoder() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, _WIDTH, 3, padding=1), _Block()]
    for level in range(3):
        layers.append(nn.Conv2d(_WIDTH, _WIDTH, 3, stride=2, padding=1, bias=False))
        layers += [_Block(pooled=level == 2) for _ in range(3)]
    return nn.Sequential(*layers, nn.Conv2d(_WIDTH, CHANNELS, 3, padding=1))


def _decoder() -> nn.Sequential:
    layers: list[nn.Module] = [_Clamp(), nn.Conv2d(CHANNELS, _WIDTH, 3, padding=1), nn.ReLU()]
    for level in range(3):
        layers += [_Block(pooled=level == 0) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False)]
    return nn.Sequential(*layers, _Block(), nn.Conv2d(_WIDTH, 3, 3, padding=1))


class Autoencoder:
    """Pictures (N, 3, H, W) in 0..1 to latents (N, 32, H/8, W/8) and back, without gradients.

    Raises FileNotFoundError if `root` has no `taef2_autoencoder`.
    """

    def __init__(self, root: Path, device: torch.device | None = None) -> None:
        self._device = device or torch.device("cpu")
        self._encoder, self._decoder = _encoder(), _decoder()
        for name, network in (("encoder", self._encoder), ("decoder", self._decoder)):
            path = root / "taef2_autoencoder" / f"taef2_{name}.safetensors"
            if not path.is_file():
                raise FileNotFoundError(f"no TAEF2 {name} in the data folder {root}")
            stored = {key: value.float() for key, value in load_file(path).items()}
            network.load_state_dict(stored)
            network.eval().to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Latents of pictures."""
        latents: Tensor = self._encoder(pictures.to(self._device, memory_format=torch.channels_last))
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents, clipped to 0..1."""
        pictures: Tensor = self._decoder(latents.to(self._device, memory_format=torch.channels_last))
        return pictures.clamp(0, 1)
