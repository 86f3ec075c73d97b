"""The two layouts in which FasterNet weights are published, and the bijection between them.

Official: `stages` has seven entries (stage, merging, stage, ...), head `avgpool_pre_head.1` and `head`; a
detector's backbone has `norm0/2/4/6` instead of a head. timm: four stages, each with its merging layer inside
as `downsample`, head `conv_head` and `classifier`. Our network uses the official names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeVar

Flavour = Literal["official", "timm"]
Value = TypeVar("Value")

_WRAPPERS = ("state_dict.", "model.", "backbone.")
_STAGE = re.compile(r"^stages\.(\d+)\.(.+)$")
_HEADS = {
    "avgpool_pre_head.1.weight": "conv_head.weight",
    "head.weight": "classifier.weight",
    "head.bias": "classifier.bias",
}
_HEADS_BACK = {timm: official for official, timm in _HEADS.items()}


def without_wrappers(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Names without the wrappers `state_dict`, `model` (also Lightning's prefix) and `backbone`.

    A wrapper is stripped when any name has it; entries beside it (an optimiser, a detector's neck) are
    dropped.
    """
    found = dict(tensors)
    peeled = True
    while peeled:
        peeled = False
        for prefix in _WRAPPERS:
            inside = {name[len(prefix) :]: value for name, value in found.items() if name.startswith(prefix)}
            if inside:
                found, peeled = inside, True
    return found


def flavour_of(names: Mapping[str, object]) -> Flavour:
    """Which layout the names follow."""
    if "avgpool_pre_head.1.weight" in names:
        return "official"
    if "conv_head.weight" in names:
        return "timm"
    indices = [int(found[1]) for name in names if (found := _STAGE.match(name))]
    return "official" if max(indices, default=0) > 3 else "timm"


def to_official(name: str) -> str:
    """The official name of a timm name."""
    if name in _HEADS_BACK:
        return _HEADS_BACK[name]
    found = _STAGE.match(name)
    if not found:
        return name
    index, tail = int(found[1]), found[2]
    if tail.startswith("downsample."):
        return f"stages.{2 * index - 1}.{tail.removeprefix('downsample.')}"
    return f"stages.{2 * index}.{tail}"


def to_timm(name: str) -> str:
    """The timm name of an official name. The dense form's `norm0/2/4/6` have none and stay as they are."""
    if name in _HEADS:
        return _HEADS[name]
    found = _STAGE.match(name)
    if not found:
        return name
    index, tail = int(found[1]), found[2]
    if index % 2:
        return f"stages.{(index + 1) // 2}.downsample.{tail}"
    return f"stages.{index // 2}.{tail}"


def official_names(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Any published layout, wrapped or not -> official names."""
    bare = without_wrappers(tensors)
    if flavour_of(bare) == "official":
        return bare
    return {to_official(name): value for name, value in bare.items()}


def timm_names(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Official names -> timm names."""
    return {to_timm(name): value for name, value in tensors.items()}
