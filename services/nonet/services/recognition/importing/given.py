"""What a person gives to an import, checked: the new model's name, and a picture to try it on."""

from __future__ import annotations

from pathlib import Path

from nonet.runtime.errors import ServingError
from nonet.runtime.images import DecodedImage, decode_image
from nonet.runtime.network_import import NetworkUnclear
from nonet.runtime.repository.layout import is_model_name


def check_name(name: str) -> None:
    """Raises NetworkUnclear if no model can be called so."""
    if not is_model_name(name):
        raise NetworkUnclear(
            f"'{name}' cannot be a model's name: letters, digits, '_', '.' and '-'", param="--as"
        )


def read_picture(path: Path) -> DecodedImage:
    """The decoded picture in a file. Raises NetworkUnclear."""
    try:
        return decode_image(path.read_bytes())
    except OSError as error:
        raise NetworkUnclear(f"--picture {path}: {(error.strerror or 'cannot be read').lower()}") from None
    except ServingError as error:
        raise NetworkUnclear(f"--picture {path}: {error.message}") from None
