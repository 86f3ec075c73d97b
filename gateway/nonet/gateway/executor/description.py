"""A model's description on the wire between Nonet processes.

The protocol's metadata says nothing of tasks, families, labels or digests. A Nonet service adds them to the
model configuration as one parameter, :data:`PARAMETER`, holding JSON; other clients ignore it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.json_facts import json_facts
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, TensorSpec

PARAMETER = "nonet.info"


def to_json(info: ModelInfo) -> str:
    """All of ``info`` but its configuration, which travels as itself. A figure of its quality that is not
    finite is left out; what JSON lacks of the other facts is replaced as :func:`json_facts` says."""
    fields: dict[str, Any] = {
        field.name: getattr(info, field.name)
        for field in dataclasses.fields(info)
        if field.name not in ("config", "inputs", "outputs")
    }
    for side in ("inputs", "outputs"):
        fields[side] = [
            {
                "name": spec.name,
                "datatype": spec.datatype.value,
                "shape": list(spec.shape),
                "optional": spec.optional,
            }
            for spec in getattr(info, side)
        ]
    fields["quality"] = {name: figure for name, figure in info.quality.items() if math.isfinite(figure)}
    return json.dumps(json_facts(fields))


def from_json(text: str, config: dict[str, Any]) -> ModelInfo:
    """The inverse of :func:`to_json`. Raises InvalidArgument if ``text`` does not describe a model."""
    try:
        fields = json.loads(text)
        for side in ("inputs", "outputs"):
            fields[side] = tuple(
                TensorSpec(spec["name"], DataType(spec["datatype"]), tuple(spec["shape"]), spec["optional"])
                for spec in fields[side]
            )
        fields["labels"] = tuple(fields["labels"])
        return ModelInfo(**fields, config=config)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InvalidArgument(f"the service described a model in a way we cannot read: {error}") from None
