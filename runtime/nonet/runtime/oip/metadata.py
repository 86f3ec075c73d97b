"""What the protocol tells of a server and its models, as JSON and as protobuf messages."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format

from nonet.runtime.errors import ModelOutputInvalid, ServingError
from nonet.runtime.oip import fields
from nonet.runtime.oip.messages import message
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, TensorSpec

SERVER_NAME = "nonet"

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
"""The protocol extensions that are served, by the names the protocol gives them."""


def server_metadata_json(version: str, *more: str) -> dict[str, Any]:
    """The body of ``GET /v2``; ``version`` is the server's own, ``more`` are extensions that its settings
    switch on."""
    return {"name": SERVER_NAME, "version": version, "extensions": sorted([*EXTENSIONS, *more])}


def server_metadata_proto(version: str) -> Any:
    """The ``inference.ServerMetadataResponse``."""
    return message("inference.ServerMetadataResponse")(**server_metadata_json(version))


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype.value, "shape": list(spec.shape)}


def _input_metadata(spec: TensorSpec, info: ModelInfo) -> dict[str, Any]:
    """An input with the dimension of the batch alone is shown with one column, as Triton shows those that it
    reshapes: load generators make nothing for an input that is nothing beside its batch."""
    alone = info.max_batch_size > 0 and spec.shape == (-1,)
    return _tensor_metadata(spec) | ({"shape": [-1, 1]} if alone else {})


def model_metadata_json(info: ModelInfo, versions: Sequence[str]) -> dict[str, Any]:
    """The body of ``GET /v2/models/{model}``; ``versions`` are the ready ones."""
    return {
        "name": info.name,
        "versions": list(versions),
        "platform": info.platform,
        "inputs": [_input_metadata(spec, info) for spec in info.inputs],
        "outputs": [_tensor_metadata(spec) for spec in info.outputs],
    }


def model_metadata_proto(info: ModelInfo, versions: Sequence[str]) -> Any:
    """The ``inference.ModelMetadataResponse``; ``versions`` are the ready ones."""
    return message("inference.ModelMetadataResponse")(**model_metadata_json(info, versions))


def model_config_json(info: ModelInfo) -> dict[str, Any]:
    """The body of ``GET /v2/models/{model}/config``: the JSON form that ``info`` holds."""
    config = dict(info.config)
    if info.decoupled:
        config["model_transaction_policy"] = {"decoupled": True}
    return config


def info_from_proto(metadata: Any, config: Any, version: str) -> ModelInfo:
    """What is known of a model that another server of the protocol (Triton, KServe...) serves.

    Args:
        metadata: its ``inference.ModelMetadataResponse``.
        config: its ``inference.ModelConfig``; may be empty.
        version: the version that was asked about; empty if the server chose it.

    Returns:
        The description. The digest covers metadata and configuration only, for the server tells nothing of
        the files behind them; answers are therefore cached only if the configuration asks for it
        (``response_cache``), the model keeps no state between requests and each has one answer: of several
        only the last would be kept.

    Raises:
        ModelOutputInvalid: the metadata names a data type or shape that is not the protocol's.
    """
    optional = {entry.name for entry in config.input if entry.optional}
    try:
        inputs = tuple(_spec(entry, entry.name in optional) for entry in metadata.inputs)
        outputs = tuple(_spec(entry, False) for entry in metadata.outputs)
    except ServingError as error:
        raise ModelOutputInvalid(f"the service described a model wrongly: {error.message}") from None
    nonfinite = (
        config.parameters["allow_nonfinite"].string_value if "allow_nonfinite" in config.parameters else ""
    )
    digest = hashlib.sha256(metadata.SerializeToString(deterministic=True))
    digest.update(config.SerializeToString(deterministic=True))
    return ModelInfo(
        name=metadata.name,
        version=version or (metadata.versions[-1] if metadata.versions else "1"),
        digest=digest.hexdigest(),
        platform=metadata.platform,
        inputs=inputs,
        outputs=outputs,
        max_batch_size=max(config.max_batch_size, 0),
        allow_nonfinite=nonfinite == "true",
        cacheable=config.response_cache.enable
        and not config.HasField("sequence_batching")
        and not config.model_transaction_policy.decoupled,
        decoupled=config.model_transaction_policy.decoupled,
        config=json_format.MessageToDict(config, preserving_proto_field_name=True),
    )


def _spec(entry: Any, optional: bool) -> TensorSpec:
    name = fields.read_name(entry.name, "name")
    datatype: DataType = fields.read_datatype(entry.datatype, f"{name}.datatype")
    free = [size if size != -1 else 0 for size in entry.shape]
    fields.read_shape(free, f"{name}.shape")
    return TensorSpec(name, datatype, tuple(entry.shape), optional)
