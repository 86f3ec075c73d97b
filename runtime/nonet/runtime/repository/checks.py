"""A version's own check set: inputs, and the outputs fp32 ONNX Runtime gave for them when it was made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from nonet.runtime.errors import ModelRefused
from nonet.runtime.repository.variants import original_answers
from nonet.runtime.tensors import Array, TensorSpec


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class CheckSet:
    """Arrays by tensor name; all share the leading (batch) size. ``original``: of a variant, what the version
    it was made of answered; else empty."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    original: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    @property
    def rows(self) -> int:
        return int(next(iter(self.inputs.values())).shape[0])


def check_shapes(path: Path, inputs: tuple[TensorSpec, ...], *, batches: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of the check set's inputs without the batch dimension, read from the file's header alone.

    Raises ModelRefused if the file is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            shapes = {
                spec.name: tuple(file.get_slice(spec.name).get_shape())
                for spec in inputs
                if spec.name in names
            }
    except (SafetensorError, OSError):
        raise ModelRefused(f"check set '{path.name}' is not a valid safetensors file") from None
    return {name: shape[1:] if batches else shape for name, shape in shapes.items()}


def read_check_set(path: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> CheckSet:
    """Read a check set. Raises ModelRefused if it is damaged or lacks a tensor the model needs."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            arrays = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError):
        raise ModelRefused(f"check set '{path.name}' is not a valid safetensors file") from None
    needed = [spec for spec in (*inputs, *outputs) if not spec.optional]
    for spec in needed:
        array = arrays.get(spec.name)
        if array is None:
            raise ModelRefused(f"check set '{path.name}' lacks '{spec.name}'")
        if array.dtype != spec.datatype.numpy or not spec.admits(array.shape):
            raise ModelRefused(
                f"check set '{path.name}': '{spec.name}' is {array.dtype} {list(array.shape)}, "
                f"the model has {spec.datatype} {list(spec.shape)}"
            )
    return CheckSet(
        {spec.name: arrays[spec.name] for spec in inputs if spec.name in arrays},
        {spec.name: arrays[spec.name] for spec in outputs},
        original_answers(arrays),
    )
