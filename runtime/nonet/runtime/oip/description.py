"""How one Nonet process describes its models to another: JSON inside the model configuration.

The protocol's metadata says nothing of tasks, families, labels or digests. A Nonet service adds them to the
model configuration as one parameter, :data:`PARAMETER`, holding JSON; other clients ignore it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.json_facts import json_facts
from nonet.runtime.servable import ModelInfo

PARAMETER = "nonet.info"

_INFO: TypeAdapter[ModelInfo] = TypeAdapter(ModelInfo)


def to_json(info: ModelInfo) -> str:
    """All of ``info`` but its configuration, which travels as itself. A figure of its quality that is not
    finite is left out; what JSON lacks of the other facts is replaced as :func:`json_facts` says."""
    told = dataclasses.replace(
        info,
        quality={name: figure for name, figure in info.quality.items() if math.isfinite(figure)},
        details=json_facts(info.details),
    )
    return _INFO.dump_json(told, exclude={"config"}).decode()


def from_json(text: str, config: dict[str, Any]) -> ModelInfo:
    """The inverse of :func:`to_json`. Raises InvalidArgument if ``text`` does not describe a model."""
    try:
        return _INFO.validate_python({**orjson.loads(text), "config": config})
    except (orjson.JSONDecodeError, TypeError, ValidationError) as error:
        raise InvalidArgument(f"the service described a model in a way we cannot read: {error}") from None
