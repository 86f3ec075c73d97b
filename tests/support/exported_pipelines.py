"""Tiny text-to-image pipelines of diffusers' and transformers' true classes with random weights, exported to
ONNX in the layout of optimum's exports. For tests only: their pictures show nothing."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

TOKENS, WIDTH, OTHER_WIDTH, POOLED, LATENT_SIDE = 12, 32, 24, 16, 8
WORDS = ("a", "red", "blue", "apple", "cat", "car", "on", "the")
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
SCHEDULER: Mapping[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}


class _Ids(nn.Module):
    """A text encoder whose answers are a tuple, as an export needs them."""

    def __init__(self, encoder: nn.Module, pooled: str) -> None:
        super().__init__()
        self.encoder, self.pooled = encoder, pooled

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        found = self.encoder(input_ids, output_hidden_states=True)
        return (found.last_hidden_state, found[self.pooled], *found.hidden_states)


class _Step(nn.Module):
    def __init__(self, unet: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.unet, self.names = unet, names

    def forward(self, sample: Tensor, timestep: Tensor, states: Tensor, *more: Tensor) -> Tensor:
        added = dict(zip(self.names, more, strict=True)) or None
        answer: Tensor = self.unet(sample, timestep, states, added_cond_kwargs=added, return_dict=False)[0]
        return answer


class _Decode(nn.Module):
    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latents: Tensor) -> Tensor:
        picture: Tensor = self.autoencoder.decode(latents, return_dict=False)[0]
        return picture


def vocabulary() -> tuple[dict[str, int], list[str]]:
    """Letters, and the words of :data:`WORDS` by joining them from the left."""
    letters = [chr(each) for each in range(ord("a"), ord("z") + 1)] + [",", "."]
    pieces = [*letters, *(f"{each}</w>" for each in letters)]
    merges: list[str] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            pair = f"{parts[0]} {parts[1]}"
            parts[:2] = ["".join(parts[:2])]
            if pair not in merges:
                merges.append(pair)
            if parts[0] not in pieces:
                pieces.append(parts[0])
    return {piece: number for number, piece in enumerate([*pieces, BEGIN, END])}, merges


class TinyPipeline:
    """The networks of a pipeline, and how it is exported.

    Args:
        large: like SDXL: two text encoders and a state of the whole text.
        scheduler: its configuration.
    """

    def __init__(self, *, large: bool = False, scheduler: Mapping[str, Any] = SCHEDULER) -> None:
        torch.manual_seed(3)
        self.large, self.scheduler = large, scheduler
        self.words, self.merges = vocabulary()
        self.encoders: list[nn.Module] = [CLIPTextModel(self._text(WIDTH)).eval()]
        if large:
            self.encoders.append(CLIPTextModelWithProjection(self._text(OTHER_WIDTH)).eval())
        more: dict[str, Any] = {}
        if large:
            more = {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": POOLED + 6 * 8,
            }
        self.unet = UNet2DConditionModel(
            sample_size=LATENT_SIDE,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=WIDTH + (OTHER_WIDTH if large else 0),
            attention_head_dim=8,
            norm_num_groups=8,
            **more,
        ).eval()
        self.autoencoder = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
            sample_size=64,
        ).eval()

    def _text(self, width: int) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(self.words),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            projection_dim=POOLED,
            bos_token_id=self.words[BEGIN],
            eos_token_id=self.words[END],
            pad_token_id=self.words[END],
        )

    def export(self, folder: Path) -> Path:
        """Write the pipeline's folder."""
        folder.mkdir(parents=True)
        kind = "StableDiffusionXLPipeline" if self.large else "StableDiffusionPipeline"
        index: dict[str, Any] = {"_class_name": kind}
        index |= {name: ["diffusers", "any"] for name in ("unet", "vae", "text_encoder", "tokenizer")}
        _write(folder / "model_index.json", index)
        _write(folder / "scheduler" / "scheduler_config.json", self.scheduler)
        self._export_texts(folder)
        names = ["text_embeds", "time_ids"] if self.large else []
        width = WIDTH + (OTHER_WIDTH if self.large else 0)
        more = (torch.zeros(2, POOLED), torch.zeros(2, 6)) if self.large else ()
        inputs = ["sample", "timestep", "encoder_hidden_states", *names]
        _export(
            _Step(self.unet, names),
            (
                torch.zeros(2, 4, LATENT_SIDE, LATENT_SIDE),
                torch.ones(2),
                torch.zeros(2, TOKENS, width),
                *more,
            ),
            folder / "unet",
            inputs,
            ["out_sample"],
            {"sample": {0: "batch", 2: "height", 3: "width"}, "timestep": {0: "steps"}}
            | {name: {0: "batch"} for name in inputs[2:]},
        )
        _write(
            folder / "unet" / "config.json",
            {"sample_size": LATENT_SIDE, "block_out_channels": [16, 32], "in_channels": 4},
        )
        _export(
            _Decode(self.autoencoder),
            (torch.zeros(1, 4, LATENT_SIDE, LATENT_SIDE),),
            folder / "vae_decoder",
            ["latent_sample"],
            ["sample"],
            {"latent_sample": {0: "batch", 2: "height", 3: "width"}},
        )
        _write(
            folder / "vae_decoder" / "config.json",
            {"block_out_channels": [8, 8, 8, 8], "scaling_factor": 0.18215, "shift_factor": None},
        )
        return folder

    def _export_texts(self, folder: Path) -> None:
        tokenizer = folder / "tokenizer"
        _write(tokenizer / "vocab.json", self.words)
        (tokenizer / "merges.txt").write_text("#version: 0.2\n" + "\n".join(self.merges) + "\n")
        _write(tokenizer / "tokenizer_config.json", {"pad_token": END, "model_max_length": TOKENS})
        for number, encoder in enumerate(self.encoders):
            part = folder / ("text_encoder" if number == 0 else "text_encoder_2")
            pooled = "pooler_output" if number == 0 else "text_embeds"
            outputs = ["last_hidden_state", pooled, *(f"hidden_states.{layer}" for layer in range(4))]
            ids = torch.zeros(2, TOKENS, dtype=torch.long)
            ids[:, 3] = self.words[END]
            _export(_Ids(encoder, pooled), (ids,), part, ["input_ids"], outputs, {"input_ids": {0: "batch"}})
            config: Any = encoder.config
            _write(
                part / "config.json",
                {
                    "hidden_size": config.hidden_size,
                    "max_position_embeddings": TOKENS,
                    "projection_dim": POOLED,
                },
            )


def _export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    folder: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    free: Mapping[str, Mapping[int, str]],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            example,
            str(folder / "model.onnx"),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={**free, **{name: {0: "batch"} for name in outputs}},
            opset_version=17,
            dynamo=False,
        )


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
