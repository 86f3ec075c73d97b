"""What a distillation's kind of job, its input file and its model are called."""

from __future__ import annotations

from typing import Final

from nonet.runtime.errors import InvalidArgument, PermissionDenied, ServingError
from nonet.runtime.repository.layout import is_model_name

__all__ = ["KIND", "PICTURES", "model_of", "not_yours"]

KIND: Final = "recognition.distil"
PICTURES: Final = "pictures"


def model_of(name: str) -> str:
    """The model that a student of this name becomes: itself. Raises InvalidArgument for what is no name."""
    if not is_model_name(name):
        raise InvalidArgument(
            "field 'name' must be of letters, digits, '_', '.', '-', and not start with '.'", param="name"
        )
    return name


def not_yours(name: str) -> ServingError:
    """What a tenant is told who names a model of another."""
    return PermissionDenied(
        f"model '{name[:80]}' belongs to another tenant; choose another name",
        param="name",
        code="MODEL_NOT_YOURS",
    )
