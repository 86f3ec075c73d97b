"""Training our own decoder: from the autoencoder's latents of a picture back to the picture.

The loss is the absolute error of the pixels and of their differences to their neighbours at three sizes; the
second keeps edges sharp where the first alone would blur them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from nonet.research.snapgen.bank import Bank
from nonet.research.snapgen.emoji_files import HELD_PAIR


def picture_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Scalar loss of pictures (B, 3, H, W) in 0..1."""
    loss = (found - wanted).abs().mean()
    for level in range(3):
        if level:
            found, wanted = F.avg_pool2d(found, 2), F.avg_pool2d(wanted, 2)
        for axis in (2, 3):
            loss = loss + 0.5 * (found.diff(dim=axis) - wanted.diff(dim=axis)).abs().mean()
    return loss


def decoder_loss_of(
    decoder: nn.Module, bank: Bank, pictures: Tensor, batch: int
) -> Callable[[torch.Generator], tuple[Tensor, dict[str, Tensor]]]:
    """The loss of a step on training pictures (N, 3, H, W), bytes in the order of the bank."""

    def loss_of(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = bank.draw_examples(batch, generator)
        latents = bank.latents(chosen)
        # A network's latents are never quite those of a picture: what is decoded may be a little off.
        latents = latents + 0.03 * torch.randn(latents.shape, generator=generator, device=bank.device)
        wanted = pictures[chosen].float() / 255
        return picture_loss(decoder(latents), wanted), {}

    return loss_of


def psnr(found: Tensor, wanted: Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio in dB, of values clipped to 0..1."""
    error = (found.clamp(0, 1) - wanted).square().flatten(1).mean(1)
    return float((-10 * torch.log10(error.clamp(min=1e-10))).mean())


class HeldPsnr:
    """PSNR of a decoder on pictures held back."""

    def __init__(self, decoder: nn.Module, bank: Bank, pictures: Tensor, most: int = 200) -> None:
        chosen = bank.of_part(HELD_PAIR)[:most].to(bank.device)
        self._decoder = decoder
        self._latents, self._wanted = bank.latents(chosen), pictures[chosen].float() / 255

    @torch.no_grad()
    def __call__(self, weights: dict[str, Tensor]) -> dict[str, float]:
        self._decoder.eval()
        found = torch.cat(
            [functional_call(self._decoder, weights, (part,)) for part in self._latents.split(20)]
        )
        return {"held_psnr": psnr(found, self._wanted)}
