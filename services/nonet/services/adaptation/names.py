"""What the service's kind of job, its files and the models of single sites are called."""

from __future__ import annotations

import re
from typing import Final

from nonet.runtime.errors import InvalidArgument, PermissionDenied, ServingError
from nonet.runtime.repository.layout import is_model_name

__all__ = [
    "CALIBRATION_FILE",
    "INPUT",
    "KIND",
    "MOST_SITES",
    "NETWORK_FILE",
    "ROWS_FILE",
    "SERVICE_PREFIX",
    "TASK",
    "WEIGHTS_FILE",
    "model_of",
    "not_yours",
    "site_model",
    "split_site",
]

TASK: Final = "regress"
KIND: Final = "adaptation.adapt"
SERVICE_PREFIX: Final = "regress."
INPUT: Final = "inputs"
"""The service's input: BYTES [N], each a row as JSON or an encoded image."""

CALIBRATION_FILE: Final = "calibration.json"
NETWORK_FILE: Final = "network.json"
WEIGHTS_FILE: Final = "network.safetensors"
ROWS_FILE: Final = "rows.f32"
"""The rows of a job in its folder: little-endian FP32, one row after the other."""

MOST_SITES: Final = 64
"""Models of single sites that one model may have."""

_SITE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")


def site_model(model: str, site: str) -> str:
    """The model of a site: ``model@site``, or the model itself without a site.

    Raises InvalidArgument for a site that cannot be one, or for one of a model that is a site's already.
    """
    if not site:
        return model
    if _SITE.fullmatch(site) is None:
        raise InvalidArgument(
            "field 'site' must be 1 to 64 letters, digits, '_', '.' or '-', beginning with a letter or a "
            f"digit, got {site[:80]!r}",
            param="site",
        )
    if "@" in model:
        raise InvalidArgument(
            f"'{model[:80]}' is the model of a site already; leave 'site' out to adapt it further, or name "
            f"the model '{split_site(model)[0][:80]}'",
            param="site",
        )
    return f"{model}@{site}"


def split_site(name: str) -> tuple[str, str]:
    """Model and site of a name; the site is "" for a model that is of none."""
    model, _, site = name.partition("@")
    return model, site


def model_of(subject: str) -> str:
    """The model that a job's subject names: itself. Raises InvalidArgument for what is no name."""
    if not is_model_name(subject):
        raise InvalidArgument(
            f"no model can be called '{subject[:140]}': a name has 128 characters at most", param="site"
        )
    return subject


def not_yours(name: str) -> ServingError:
    """What a tenant is told who wants to adapt a model of another."""
    return PermissionDenied(
        f"model '{name[:140]}' belongs to another tenant; adapt it for a 'site' of your own",
        param="model",
        code="MODEL_NOT_YOURS",
    )
