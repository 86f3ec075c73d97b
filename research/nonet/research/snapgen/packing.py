"""Prepares all that a training reads, in small files: pictures, their latents, the states of captions.

Each stage writes its files once and is skipped when they are there, so that packing goes on where it stopped:
`drawings_*`, then `pictures_*` with `examples.json`, then `latents_*`, `views_*` and `texts_*`. No file
exceeds 60 MB.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nonet.research.snapgen.autoencoder import Autoencoder
from nonet.research.snapgen.drawing import Pixels, draw
from nonet.research.snapgen.emoji_files import Pair, drawings, fetch, read_pairs
from nonet.research.snapgen.examples import examples_of
from nonet.research.snapgen.text_states import TextEncoder
from nonet.research.snapgen.views import view_of

FILE_BYTES = 55_000_000
#: Latents are stored as bytes: 0 and 255 stand for minus and plus this many standard deviations.
SPAN = 5.0
Told = Callable[[dict[str, object]], None]


def pack_pictures(root: Path, folder: Path, side: int, archives: Path, told: Told, workers: int = 1) -> None:
    """Drawings and the examples made of them, as pixels (N, 3, side, side) and `examples.json`."""
    if (folder / "examples.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    fetch(archives)
    found = list(drawings(archives, read_pairs(root)))
    pairs, drawn = [pair for pair, _ in found], [picture for _, picture in found]
    facts: list[dict[str, Any]] = []
    pixels: list[Pixels] = []
    with ProcessPoolExecutor(workers) as pool:
        every = pool.map(_drawn, drawn, [side] * len(drawn), chunksize=16)
        for count, (pair, drawing) in enumerate(zip(pairs, every, strict=True)):
            if drawing is not None:
                _collect(pair, drawing, facts, pixels)
            if count % 500 == 0:
                told({"stage": "drawing", "done": count, "of": len(pairs)})
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    _save(stacked, folder, "pictures")
    (folder / "examples.json").write_text(json.dumps({"side": side, "examples": facts}), encoding="utf-8")


def _drawn(picture: str | bytes, side: int) -> Pixels | None:
    return draw(picture, side)


def _collect(pair: Pair, drawing: Pixels, facts: list[dict[str, Any]], pixels: list[Pixels]) -> None:
    for example in examples_of(pair, drawing):
        pixels.append(example.pixels)
        facts.append(
            {
                "captions": list(example.captions),
                "name": example.name,
                "style": example.style,
                "part": example.part,
                "kind": example.kind,
                "colour": example.colour,
                "ground": example.ground,
            }
        )


def pack_latents(root: Path, folder: Path, told: Told, batch: int = 32) -> None:
    """Latents of the pictures as bytes, with the centre (32) and the scale taken out of them."""
    if (folder / "scale.json").exists():
        return
    autoencoder = Autoencoder(root)
    raw = []
    for start, chunk in enumerate(_pictures(folder, batch)):
        raw.append(autoencoder.encode(chunk.float() / 255).half())
        if start % 20 == 0:
            told({"stage": "latents", "done": start * batch})
    latents = torch.cat(raw).float()
    training = latents[[fact["part"] == "train" for fact in read_examples(folder)["examples"]]]
    centre = training.mean((0, 2, 3))
    scale = (training - centre.view(-1, 1, 1)).std()
    _save(_as_bytes(latents, centre, scale), folder, "latents")
    facts = {"centre": centre.tolist(), "scale": float(scale), "span": SPAN}
    (folder / "scale.json").write_text(json.dumps(facts), encoding="utf-8")


def pack_views(root: Path, folder: Path, told: Told, views: int = 2, batch: int = 32) -> None:
    """Latents of `views` other views of each picture in the scale of `scale.json`: all of the first, then
    the next.

    A view depends on the picture's number and its own. Pictures held back have rows too, which nothing reads.
    """
    if list(folder.glob("views_*")):
        return
    autoencoder = Autoencoder(root)
    facts = json.loads((folder / "scale.json").read_text(encoding="utf-8"))
    names = [str(each["name"]) for each in read_examples(folder)["examples"]]
    raw = []
    for view in range(views):
        for number, chunk in enumerate(_pictures(folder, batch)):
            first = number * batch
            moved = [
                view_of(picture, names[index], torch.Generator().manual_seed(index * views + view))
                for index, picture in enumerate(chunk, first)
            ]
            raw.append(autoencoder.encode(torch.stack(moved).float() / 255).half())
            if number % 20 == 0:
                told({"stage": "views", "view": view, "done": first})
    _save(_as_bytes(torch.cat(raw).float(), torch.tensor(facts["centre"]), facts["scale"]), folder, "views")


def _as_bytes(latents: Tensor, centre: Tensor, scale: Tensor | float) -> Tensor:
    normal = (latents - centre.view(-1, 1, 1)) / scale
    return ((normal + SPAN) / (2 * SPAN) * 255).round().clamp(0, 255).byte()


def pack_texts(folder: Path, tokenizer: Path, told: Told) -> None:
    """States of all different captions, one after another: (tokens, 384) float16, and where each begins."""
    if (folder / "captions.json").exists():
        return
    captions = sorted(
        {text for fact in read_examples(folder)["examples"] for text in fact["captions"]} | {""}
    )
    encoder = TextEncoder(tokenizer)
    states = []
    for count, caption in enumerate(captions):
        states.append(torch.from_numpy(encoder(caption)).half())
        if count % 1000 == 0:
            told({"stage": "texts", "done": count, "of": len(captions)})
    _save(torch.cat(states), folder, "texts")
    lengths = [len(each) for each in states]
    facts = {"captions": captions, "lengths": lengths}
    (folder / "captions.json").write_text(json.dumps(facts), encoding="utf-8")


def read_examples(folder: Path) -> dict[str, Any]:
    """`examples.json`: the side of the pictures and the facts of each, in the order of the files."""
    found: dict[str, Any] = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
    return found


def read_rows(folder: Path, kind: str) -> Tensor:
    """All rows of the files of one kind, in order."""
    paths = sorted(folder.glob(f"{kind}_*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"no packed {kind} in {folder}")
    return torch.cat([load_file(path)["rows"] for path in paths])


def _pictures(folder: Path, batch: int) -> Iterator[Tensor]:
    yield from read_rows(folder, "pictures").split(batch)


def _save(rows: Tensor, folder: Path, kind: str) -> None:
    each = max(1, FILE_BYTES // (rows[0].numel() * rows.element_size()))
    for number, part in enumerate(rows.split(each)):
        save_file({"rows": part.contiguous()}, folder / f"{kind}_{number:02d}.safetensors")
