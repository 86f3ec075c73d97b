"""How much a checkpoint may cost, and the two ways in which one is refused."""

from __future__ import annotations

import dataclasses

from nonet.runtime.errors import InvalidArgument, PayloadTooLarge


@dataclasses.dataclass(frozen=True, slots=True)
class CheckpointLimits:
    """Bounds for reading one checkpoint. Raises ValueError if one of them is not positive.

    Args:
        file_bytes: size of the file; also bounds what is read into memory.
        tensor_bytes: sum of the sizes of all tensors as they are returned (a small storage may be
            expanded to a large tensor by its strides, so this is not implied by ``file_bytes``).
        program_bytes: size of the pickle program that describes the tensors.
        tensors: number of tensors, and of the nodes of the tree that holds them.
        depth: nesting of dictionaries and lists.
    """

    file_bytes: int = 2 << 30
    tensor_bytes: int = 2 << 30
    program_bytes: int = 32 << 20
    tensors: int = 100_000
    depth: int = 16

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"CheckpointLimits.{field.name} must be positive")


def invalid(message: str) -> InvalidArgument:
    """The error for a checkpoint that is damaged, hostile or of an unknown form (400)."""
    return InvalidArgument(f"checkpoint refused: {message}", code="CHECKPOINT_INVALID")


def too_large(message: str) -> PayloadTooLarge:
    """The error for a checkpoint that is over a limit (413)."""
    return PayloadTooLarge(f"checkpoint refused: {message}", code="CHECKPOINT_TOO_LARGE")
