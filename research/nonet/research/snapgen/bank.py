"""Packed latents and caption states in memory, and the batches a training draws from them.

A batch depends on its generator alone. On a GPU the whole bank lies on the device.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nonet.research.snapgen.emoji_files import HELD_NAME, HELD_PAIR, TRAIN
from nonet.research.snapgen.examples import PLAIN
from nonet.research.snapgen.packing import read_examples, read_rows
from nonet.research.snapgen.text_states import LENGTH


@dataclass(frozen=True)
class Batch:
    """Latents (B, 32, h, w) in the networks' scale, context (B, L, 384), mask (B, L), and what was drawn."""

    latents: Tensor
    context: Tensor
    mask: Tensor
    examples: Tensor


class Bank:
    """All packed examples of a folder.

    Args:
        folder: that `packing` filled.
        device: where the tensors lie.
        plain_weight: how often a drawing as it is gets drawn, one on a ground or recoloured being 1.

    Raises FileNotFoundError if something is not packed.
    """

    def __init__(self, folder: Path, device: torch.device | None = None, plain_weight: float = 2.0) -> None:
        self.device = device or torch.device("cpu")
        facts = read_examples(folder)
        self.side: int = facts["side"]
        self.examples: list[dict[str, object]] = facts["examples"]
        scale = json.loads((folder / "scale.json").read_text(encoding="utf-8"))
        self.span: float = scale["span"]
        #: What turns the networks' scale into the autoencoder's: x * scale + centre.
        self.centre, self.scale = torch.tensor(scale["centre"]), float(scale["scale"])
        self._bytes = read_rows(folder, "latents").to(self.device)
        if list(folder.glob("views_*")):
            self._bytes = torch.cat([self._bytes, read_rows(folder, "views").to(self.device)])
        texts = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
        self.captions: list[str] = texts["captions"]
        self._number = {caption: number for number, caption in enumerate(self.captions)}
        self._states = read_rows(folder, "texts").to(self.device)
        lengths = torch.tensor(texts["lengths"])
        self._lengths = lengths.clamp(max=LENGTH).to(self.device)
        self._starts = (lengths.cumsum(0) - lengths).to(self.device)
        self.nothing = self._number[""]
        most = max(len(self.captions_of(index)) for index in range(len(self.examples)))
        table = torch.zeros(len(self.examples), most, dtype=torch.long)
        counts = torch.zeros(len(self.examples), dtype=torch.long)
        for index in range(len(self.examples)):
            said = self.captions_of(index)
            counts[index] = len(said)
            table[index, : len(said)] = torch.tensor([self._number[caption] for caption in said])
        self._table, self._counts = table.to(self.device), counts.to(self.device)
        self._training = self.of_part(TRAIN).to(self.device)
        plain = torch.tensor([each["kind"] == PLAIN for each in self.examples]).to(self.device)
        self._weights = torch.where(plain[self._training], plain_weight, 1.0)

    def __len__(self) -> int:
        return len(self.examples)

    def captions_of(self, index: int) -> list[str]:
        """All captions of an example."""
        said = self.examples[index]["captions"]
        assert isinstance(said, list)
        return said

    def of_part(self, part: str) -> Tensor:
        """Indices of the examples of `train`, `held_pair` or `held_name`."""
        if part not in (TRAIN, HELD_PAIR, HELD_NAME):
            raise ValueError(f"unknown part {part!r}")
        return torch.tensor(
            [i for i, each in enumerate(self.examples) if each["part"] == part], dtype=torch.long
        )

    def latents(self, examples: Tensor) -> Tensor:
        """Latents (B, 32, h, w) in the networks' scale."""
        return self._bytes[examples].float() * (2 * self.span / 255) - self.span

    def texts(self, captions: Tensor, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Context (B, L, 384) and mask (B, L) of captions by number; `length` None is that of the longest."""
        counts = self._lengths[captions]
        width = int(counts.max()) if length is None else length
        place = torch.arange(width, device=self.device)
        mask = place < counts[:, None]
        rows = (self._starts[captions][:, None] + place).clamp(max=len(self._states) - 1)
        return self._states[rows].float() * mask[..., None], mask.float()

    def draw_examples(self, batch: int, generator: torch.Generator) -> Tensor:
        """Indices (B,) of training examples."""
        picked = torch.multinomial(self._weights, batch, replacement=True, generator=generator)
        return self._training[picked]

    def draw(
        self, batch: int, generator: torch.Generator, drop: float = 0.1, length: int | None = None
    ) -> Batch:
        """A batch of training examples, each with one of its captions, or with none for a share of `drop`."""
        chosen, shape = self.draw_examples(batch, generator), (batch,)
        share = torch.rand(shape, generator=generator, device=self.device)
        which = (share * self._counts[chosen]).long()
        captions = self._table[chosen, which]
        dropped = torch.rand(shape, generator=generator, device=self.device) < drop
        captions = torch.where(dropped, self.nothing, captions)
        context, mask = self.texts(captions, length)
        return Batch(self.latents(self._some_view(chosen, generator)), context, mask, chosen)

    def _some_view(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Rows of the latents: of each example the picture itself or one of its other views."""
        views = len(self._bytes) // len(self)
        if views == 1:
            return chosen
        return chosen + len(self) * torch.randint(
            views, chosen.shape, generator=generator, device=self.device
        )

    def first_captions(self, examples: Tensor, length: int | None = None) -> Batch:
        """The examples with their first captions ("name, style"), in order."""
        context, mask = self.texts(self._table[examples.to(self.device), 0], length)
        return Batch(self.latents(examples.to(self.device)), context, mask, examples)
