"""``config.pbtxt``: Triton's model configuration, read and written with its real schema.

What a configuration leaves out is taken from the ONNX graph, as Triton does; what it says and the graph
contradicts is refused. Features this server does not execute are refused too, never ignored, when ignoring
them would change answers.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format

from nonet.runtime.errors import ModelRefused
from nonet.runtime.oip.messages import message
from nonet.runtime.repository.graph import Graph
from nonet.runtime.tensors import DataType, TensorSpec

DEFAULT_MAX_BATCH_SIZE = 4
"""Batch size of a model that can batch and whose configuration says nothing, Triton's own default."""

MAX_ASKED_BATCH = 256
"""Largest ``max_batch_size`` that a load request may ask for."""

MAX_ASKED_ELEMENTS = 1 << 26
"""Most numbers in one input of the largest batch that a load request may ask for."""

_UNKNOWN_FIELD = re.compile(
    r"has no field named [\"'](?P<field>\w+)[\"']|[\"'](?P<json>\w+)[\"'] does not exist"
)
_STRING_OR_COMMENT = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|#[^\n]*")
_SAYS_BATCH = re.compile(r"\bmax_batch_size\b")
_PLATFORMS = {"": "", "onnxruntime_onnx": "onnxruntime"}
_BACKENDS = ("", "onnxruntime", "openvino")


@dataclasses.dataclass(frozen=True, slots=True)
class ModelConfig:
    """A parsed configuration.

    ``proto`` is an ``inference.ModelConfig`` (treat it as read-only); ``says_batch`` tells whether
    ``max_batch_size`` was written down, which protobuf cannot tell from 0; ``text`` is what was parsed.
    """

    proto: Any
    says_batch: bool
    text: str

    @property
    def model_file(self) -> str:
        return self.proto.default_model_filename or "model.onnx"

    @property
    def engine(self) -> str:
        """The engine the configuration demands, or "" if it leaves the choice open."""
        return "openvino" if self.proto.backend == "openvino" else ""

    @property
    def label_file(self) -> str:
        """The labels file named by the first output that has one, or ""."""
        return next((output.label_filename for output in self.proto.output if output.label_filename), "")

    def is_still(self, path: Path) -> bool:
        """Whether the file at ``path`` says what was parsed."""
        try:
            return read_config(path).text == self.text
        except ModelRefused:
            return False

    def parameter(self, name: str) -> str:
        """The value of a custom parameter, or ""."""
        return str(self.proto.parameters[name].string_value) if name in self.proto.parameters else ""


@dataclasses.dataclass(frozen=True, slots=True)
class CompletedConfig:
    """A configuration in agreement with its graph: specs with the batch dimension, and the JSON form."""

    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    as_json: dict[str, Any]

    @property
    def decoupled(self) -> bool:
        """Whether callers are told to expect any number of answers to a request; a graph gives one."""
        return bool(self.as_json.get("model_transaction_policy", {}).get("decoupled", False))


def parse_config(text: str) -> ModelConfig:
    """Parse the text form. Raises ModelRefused with the line and, for an unknown key, the nearest known."""
    proto = message("inference.ModelConfig")()
    try:
        text_format.Parse(text, proto)
    except text_format.ParseError as error:
        raise ModelRefused(f"config.pbtxt: {_explain(str(error), proto)}") from None
    bare = _STRING_OR_COMMENT.sub("", text)
    return ModelConfig(proto, _SAYS_BATCH.search(bare) is not None, text)


def parse_config_json(text: str) -> ModelConfig:
    """Parse the JSON form that the ``config`` parameter of a load request carries. Raises ModelRefused."""
    proto = message("inference.ModelConfig")()
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ModelRefused("config: must be a JSON object")
        json_format.ParseDict(data, proto)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ModelRefused(f"config: not valid JSON ({error})") from None
    except json_format.ParseError as error:
        raise ModelRefused(f"config: {_explain(str(error), proto)}") from None
    return ModelConfig(proto, "max_batch_size" in data or "maxBatchSize" in data, text)


def parse_asked_config(text: str) -> ModelConfig:
    """Parse the configuration of a load request and refuse one whose largest batch, which warming up runs,
    could take the machine's memory: over MAX_ASKED_BATCH rows or MAX_ASKED_ELEMENTS numbers.

    Raises ModelRefused.
    """
    config = parse_config_json(text)
    proto = config.proto
    if proto.max_batch_size > MAX_ASKED_BATCH:
        raise ModelRefused(
            f"config: max_batch_size is at most {MAX_ASKED_BATCH} in a load request, "
            f"got {proto.max_batch_size}; a larger one must be in config.pbtxt"
        )
    for tensor in proto.input:
        elements = max(proto.max_batch_size, 1) * math.prod(size for size in tensor.dims if size > 0)
        if elements > MAX_ASKED_ELEMENTS:
            raise ModelRefused(
                f"config: a batch of input '{tensor.name}' has at most {MAX_ASKED_ELEMENTS} numbers in a "
                f"load request, got {elements}; a larger one must be in config.pbtxt"
            )
    return config


def read_config(path: Path) -> ModelConfig:
    """The configuration at ``path``; without such a file, an empty one, to be completed from the graph.

    Raises ModelRefused.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        text = ""
    except UnicodeDecodeError:
        raise ModelRefused(f"{path.name} is not UTF-8 text") from None
    except OSError as error:
        raise ModelRefused(f"{path.name} cannot be read ({error.strerror})", permanent=False) from None
    return parse_config(text)


def print_config(proto: Any) -> str:
    """The text form of an ``inference.ModelConfig``."""
    return str(text_format.MessageToString(proto))


def build_config(
    name: str,
    *,
    max_batch_size: int,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    label_file: str = "",
) -> str:
    """The text of a ``config.pbtxt`` for an ONNX network.

    Spec shapes include the batch dimension when ``max_batch_size`` > 0. ``label_file``, if given, is
    attached to the first output.
    """
    proto = message("inference.ModelConfig")(
        name=name, platform="onnxruntime_onnx", backend="onnxruntime", max_batch_size=max_batch_size
    )
    _write_specs(proto, inputs, outputs, batches=max_batch_size > 0)
    if label_file:
        proto.output[0].label_filename = label_file
    if max_batch_size > 0:
        proto.dynamic_batching.SetInParent()
    return print_config(proto)


def complete_config(config: ModelConfig, graph: Graph, name: str) -> CompletedConfig:
    """Take from ``graph`` what ``config`` leaves out and check the rest against it. Raises ModelRefused."""
    proto = message("inference.ModelConfig")()
    proto.CopyFrom(config.proto)
    _refuse_what_is_not_served(proto, name)
    proto.name = name
    proto.platform = proto.platform or ("onnxruntime_onnx" if proto.backend != "openvino" else "")
    proto.backend = proto.backend or "onnxruntime"
    if proto.version_policy.WhichOneof("policy_choice") is None:
        proto.version_policy.latest.num_versions = 1
    if not config.says_batch and not proto.input and graph.can_batch:
        proto.max_batch_size = DEFAULT_MAX_BATCH_SIZE
    if proto.max_batch_size > 0 and not graph.can_batch:
        raise ModelRefused(
            f"max_batch_size is {proto.max_batch_size}, but the graph's inputs and outputs do not all have a "
            "free leading dimension; set max_batch_size to 0 or export the model with a free batch dimension"
        )
    batches = proto.max_batch_size > 0
    inputs = _agree("input", proto.input, graph.inputs, batches=batches)
    outputs = _agree("output", proto.output, graph.outputs, batches=batches)
    missing = [
        spec.name
        for spec in graph.inputs
        if not spec.optional and spec.name not in {known.name for known in inputs}
    ]
    if missing:
        raise ModelRefused(f"the graph needs input '{missing[0]}', which config.pbtxt does not list")
    _write_specs(proto, inputs, outputs, batches=batches)
    return CompletedConfig(proto.max_batch_size, inputs, outputs, config_as_json(proto))


def config_as_json(proto: Any) -> dict[str, Any]:
    """The configuration as JSON-able data with the schema's own names and 64-bit integers as integers."""
    data: dict[str, Any] = json_format.MessageToDict(
        proto, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    _restore_integers(data, proto.DESCRIPTOR)
    return data


def wanted_versions(proto: Any, available: Sequence[str]) -> tuple[list[str], int | None]:
    """What the version policy asks for.

    Returns the candidates of ``available`` (decimal texts, any order), newest first, and how many of them
    are to be served: None means all. With ``latest``, an unusable version gives way to the next older one.
    """
    newest_first = sorted(available, key=int, reverse=True)
    policy = proto.version_policy.WhichOneof("policy_choice")
    if policy == "all":
        return newest_first, None
    if policy == "specific":
        listed = {str(version) for version in proto.version_policy.specific.versions}
        return [version for version in newest_first if version in listed], None
    count = proto.version_policy.latest.num_versions if policy == "latest" else 1
    return newest_first, max(1, count)


def _refuse_what_is_not_served(proto: Any, name: str) -> None:
    if proto.name and proto.name != name:
        raise ModelRefused(f"config.pbtxt names the model '{proto.name}', but its folder is called '{name}'")
    if proto.platform not in _PLATFORMS:
        raise ModelRefused(f"platform '{proto.platform}' is not served here; served: onnxruntime_onnx")
    if proto.backend not in _BACKENDS:
        raise ModelRefused(f"backend '{proto.backend}' is not served here; served: onnxruntime, openvino")
    if proto.max_batch_size < 0:
        raise ModelRefused(f"max_batch_size must be 0 or more, got {proto.max_batch_size}")
    scheduling = proto.WhichOneof("scheduling_choice")
    if scheduling in ("sequence_batching", "ensemble_scheduling"):
        raise ModelRefused(f"{scheduling} is not supported")
    if proto.model_operations.op_library_filename:
        raise ModelRefused("custom operator libraries are native code and are not loaded")
    for tensor in (*proto.input, *proto.output):
        if tensor.HasField("reshape"):
            raise ModelRefused(f"'{tensor.name}': reshape is not supported; declare the graph's own shape")


def _agree(
    kind: str, declared: Sequence[Any], graph: Sequence[TensorSpec], *, batches: bool
) -> tuple[TensorSpec, ...]:
    """The specs to serve: all of the graph's if none is declared, else the declared ones, checked."""
    if not declared:
        return tuple(graph)
    by_name = {spec.name: spec for spec in graph}
    specs: dict[str, TensorSpec] = {}
    for entry in declared:
        actual = by_name.get(entry.name)
        if actual is None:
            raise ModelRefused(
                f"config.pbtxt lists {kind} '{entry.name}', but the graph has {_quoted(by_name) or 'none'}"
            )
        if entry.name in specs:
            raise ModelRefused(f"config.pbtxt lists {kind} '{entry.name}' twice")
        specs[entry.name] = _agree_on(kind, entry, actual, batches=batches)
    return tuple(specs.values())


def _agree_on(kind: str, entry: Any, actual: TensorSpec, *, batches: bool) -> TensorSpec:
    datatype = _datatype(entry)
    if datatype not in (None, actual.datatype):
        raise ModelRefused(
            f"{kind} '{entry.name}' is {datatype} in config.pbtxt, but {actual.datatype} in the graph"
        )
    if not entry.dims:
        return actual
    declared = ((-1,) if batches else ()) + tuple(int(size) for size in entry.dims)
    if any(size == 0 or size < -1 for size in declared):
        raise ModelRefused(f"{kind} '{entry.name}': dims must be -1 or at least 1, got {list(entry.dims)}")
    fits = len(declared) == len(actual.shape) and all(
        have in (-1, want) for want, have in zip(declared, actual.shape, strict=True)
    )
    if not fits:
        shown = list(actual.shape[1:] if batches else actual.shape)
        note = " (batch dimension left out)" if batches else ""
        raise ModelRefused(
            f"{kind} '{entry.name}' has dims {list(entry.dims)} in config.pbtxt, "
            f"but {shown} in the graph{note}"
        )
    return dataclasses.replace(actual, shape=declared)


def _datatype(entry: Any) -> DataType | None:
    """The declared type, or None if the configuration leaves it open."""
    field = entry.DESCRIPTOR.fields_by_name["data_type"]
    name = field.enum_type.values_by_number[entry.data_type].name.removeprefix("TYPE_")
    if name == "INVALID":
        return None
    return DataType.BYTES if name == "STRING" else DataType(name)


def _write_specs(
    proto: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, batches: bool
) -> None:
    """Put the specs into the message, keeping what else it says of a tensor (labels, format)."""
    for entries, specs in ((proto.input, inputs), (proto.output, outputs)):
        known = {entry.name: entry for entry in entries}
        for spec in specs:
            entry = known.get(spec.name)
            if entry is None:
                entry = entries.add(name=spec.name)
            suffix = "STRING" if spec.datatype is DataType.BYTES else spec.datatype.value
            enum = entry.DESCRIPTOR.fields_by_name["data_type"].enum_type
            entry.data_type = enum.values_by_name[f"TYPE_{suffix}"].number
            entry.dims[:] = spec.shape[1:] if batches else spec.shape
            if spec.optional:
                entry.optional = True


def _restore_integers(data: dict[str, Any], descriptor: Any) -> None:
    """Protobuf's JSON form writes 64-bit integers as text; turn them back, in place."""
    for key, value in data.items():
        field = descriptor.fields_by_name[key]
        if field.message_type is None:
            if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64):
                data[key] = [int(item) for item in value] if isinstance(value, list) else int(value)
        elif field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"].message_type
            for item in value.values() if inner is not None else ():
                _restore_integers(item, inner)
        elif isinstance(value, list | dict):
            for item in value if isinstance(value, list) else [value]:
                _restore_integers(item, field.message_type)


def _explain(error: str, proto: Any) -> str:
    """The parser's message, with the nearest known key for an unknown one."""
    found = _UNKNOWN_FIELD.search(error)
    if found is None:
        return error
    unknown = found["field"] or found["json"]
    near = difflib.get_close_matches(unknown, _field_names(proto.DESCRIPTOR), n=1, cutoff=0.0)
    where = re.match(r"\d+:\d+", error)
    line = f"line {where.group().split(':')[0]}: " if where else ""
    return f"{line}unknown key '{unknown}'; did you mean '{near[0]}'?"


def _field_names(descriptor: Any) -> list[str]:
    names: dict[str, None] = {}
    waiting, seen = [descriptor], set()
    while waiting:
        current = waiting.pop()
        if current.full_name in seen:
            continue
        seen.add(current.full_name)
        for field in current.fields:
            names[field.name] = None
            if field.message_type is not None:
                waiting.append(field.message_type)
    return list(names)


def _quoted(names: dict[str, TensorSpec]) -> str:
    return ", ".join(f"'{name}'" for name in names)
