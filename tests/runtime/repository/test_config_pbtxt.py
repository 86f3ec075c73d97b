"""config.pbtxt: read with the real schema, completed from the graph, refused where it contradicts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.runtime.errors import ModelRefused
from nonet.runtime.oip.messages import message
from nonet.runtime.repository.config import (
    DEFAULT_MAX_BATCH_SIZE,
    build_config,
    complete_config,
    config_as_json,
    parse_config,
    parse_config_json,
    print_config,
    read_config,
    wanted_versions,
)
from nonet.runtime.repository.graph import Graph
from nonet.runtime.tensors import DataType, TensorSpec

IMAGE = TensorSpec("image", DataType.FP32, (-1, 3, 32, 32))
LOGITS = TensorSpec("logits", DataType.FP32, (-1, 5))
GRAPH = Graph((IMAGE,), (LOGITS,), ())
FIXED = Graph((TensorSpec("x", DataType.INT64, (1, 4)),), (TensorSpec("y", DataType.FP32, (4,)),), ())
SPECS = 'input { name: "image" data_type: TYPE_FP32 dims: [3, 32, 32] }'


def test_an_empty_configuration_is_completed_from_the_graph() -> None:
    done = complete_config(parse_config(""), GRAPH, "net")
    assert done.max_batch_size == DEFAULT_MAX_BATCH_SIZE
    assert done.inputs == (IMAGE,)
    assert done.outputs == (LOGITS,)
    assert done.as_json["name"] == "net"
    assert done.as_json["backend"] == "onnxruntime"
    assert done.as_json["version_policy"] == {"latest": {"num_versions": 1}}
    assert done.as_json["input"][0]["dims"] == [3, 32, 32]
    json.dumps(done.as_json)


def test_a_graph_without_a_free_batch_dimension_is_completed_without_batching() -> None:
    done = complete_config(parse_config(""), FIXED, "net")
    assert done.max_batch_size == 0
    assert done.inputs[0].shape == (1, 4)
    assert done.as_json["input"][0]["dims"] == [1, 4]
    assert done.as_json["input"][0]["data_type"] == "TYPE_INT64"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_batch_size: 16", 16),
        ("max_batch_size: 0", 0),
        ("# max_batch_size: 16", DEFAULT_MAX_BATCH_SIZE),
        ('parameters { key: "max_batch_size" value { string_value: "9" } }', DEFAULT_MAX_BATCH_SIZE),
    ],
)
def test_only_a_batch_size_that_is_written_down_counts(text: str, expected: int) -> None:
    assert complete_config(parse_config(text), GRAPH, "net").max_batch_size == expected


def test_declared_inputs_without_a_batch_size_include_the_batch_dimension() -> None:
    text = 'input { name: "image" data_type: TYPE_FP32 dims: [-1, 3, 32, 32] }'
    done = complete_config(parse_config(text), GRAPH, "net")
    assert done.max_batch_size == 0
    assert done.inputs == (IMAGE,)


def test_a_configuration_may_fix_what_the_graph_leaves_free() -> None:
    free = Graph((TensorSpec("x", DataType.FP32, (-1, -1)),), (TensorSpec("y", DataType.FP32, (-1, -1)),), ())
    done = complete_config(parse_config('max_batch_size: 2 input { name: "x" dims: [7] }'), free, "net")
    assert done.inputs[0].shape == (-1, 7)
    assert done.outputs[0].shape == (-1, -1)


def test_outputs_may_be_left_out_but_inputs_may_not() -> None:
    two = Graph((IMAGE, TensorSpec("mask", DataType.BOOL, (-1, 1))), (LOGITS, IMAGE), ())
    with pytest.raises(ModelRefused, match="needs input 'mask'"):
        complete_config(parse_config(f"max_batch_size: 4 {SPECS}"), two, "net")
    text = 'max_batch_size: 4 output { name: "logits" data_type: TYPE_FP32 dims: [5] }'
    assert complete_config(parse_config(text), two, "net").outputs == (LOGITS,)


@pytest.mark.parametrize(
    ("text", "decoupled"), [("model_transaction_policy { decoupled: true }", True), ("", False)]
)
def test_a_decoupled_model_is_served_and_called_so(text: str, decoupled: bool) -> None:
    assert complete_config(parse_config(text), GRAPH, "net").decoupled is decoupled


def test_an_input_with_a_default_is_optional() -> None:
    graph = Graph((IMAGE, TensorSpec("scale", DataType.FP32, (-1, 1), optional=True)), (LOGITS,), ())
    done = complete_config(parse_config(f"max_batch_size: 4 {SPECS}"), graph, "net")
    assert [spec.name for spec in done.inputs] == ["image"]
    both = complete_config(parse_config("max_batch_size: 4"), graph, "net")
    assert both.as_json["input"][1]["optional"] is True


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('name: "other"', "names the model 'other', but its folder is called 'net'"),
        ('platform: "tensorrt_plan"', "platform 'tensorrt_plan' is not served here"),
        ('backend: "python"', "backend 'python' is not served here"),
        ("max_batch_size: -1", "max_batch_size must be 0 or more"),
        ("sequence_batching { }", "sequence_batching is not supported"),
        ("ensemble_scheduling { }", "ensemble_scheduling is not supported"),
        ('model_operations { op_library_filename: "x.so" }', "native code"),
        ('max_batch_size: 4 input { name: "img" }', "lists input 'img', but the graph has 'image'"),
        (f"max_batch_size: 4 {SPECS} {SPECS}", "lists input 'image' twice"),
        (
            'max_batch_size: 4 input { name: "image" data_type: TYPE_UINT8 dims: [3, 32, 32] }',
            "is UINT8 in config.pbtxt, but FP32 in the graph",
        ),
        (
            'max_batch_size: 4 input { name: "image" data_type: TYPE_FP32 dims: [3, 64, 64] }',
            r"has dims \[3, 64, 64\] in config.pbtxt, but \[3, 32, 32\] in the graph \(batch",
        ),
        (
            'max_batch_size: 4 input { name: "image" data_type: TYPE_FP32 dims: [-1, -1, -1] }',
            r"but \[3, 32, 32\] in the graph",
        ),
        (
            'max_batch_size: 4 input { name: "image" data_type: TYPE_FP32 dims: [3, 0, 32] }',
            "dims must be -1 or at least 1",
        ),
        (
            'max_batch_size: 4 input { name: "image" dims: [3072] reshape { shape: [3, 32, 32] } }',
            "reshape is not supported",
        ),
    ],
)
def test_what_contradicts_the_graph_or_is_not_served_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ModelRefused, match=reason):
        complete_config(parse_config(text), GRAPH, "net")


def test_batching_a_graph_that_cannot_batch_is_refused() -> None:
    with pytest.raises(ModelRefused, match="free leading dimension"):
        complete_config(parse_config("max_batch_size: 4"), FIXED, "net")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("max_batch_sise: 4", "line 1: unknown key 'max_batch_sise'; did you mean 'max_batch_size'?"),
        ('\ninput { nmae: "x" }', "line 2: unknown key 'nmae'; did you mean 'name'?"),
        ("max_batch_size: many", "config.pbtxt: 1:"),
        ("input {", "config.pbtxt: 1:"),
        ("input { data_type: TYPE_FP42 }", "TYPE_FP42"),
    ],
)
def test_a_typo_is_refused_with_its_line_and_the_nearest_key(text: str, reason: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        parse_config(text)
    assert reason in refused.value.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ("[" * 100_000, "not valid JSON"),
        ('{"max_batch_sise": 4}', "did you mean 'max_batch_size'?"),
        ('{"max_batch_size": "many"}', "max_batch_size"),
        ('{"input": 5}', "input"),
    ],
)
def test_a_bad_override_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        parse_config_json(text)
    assert reason in refused.value.reason


def test_the_json_form_accepts_what_it_prints() -> None:
    done = complete_config(parse_config("max_batch_size: 16 dynamic_batching { }"), GRAPH, "net")
    again = complete_config(parse_config_json(json.dumps(done.as_json)), GRAPH, "net")
    assert again == done


def test_a_missing_file_is_an_empty_configuration_and_binary_is_refused(tmp_path: Path) -> None:
    assert read_config(tmp_path / "config.pbtxt").says_batch is False
    (tmp_path / "config.pbtxt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelRefused, match="UTF-8"):
        read_config(tmp_path / "config.pbtxt")


@pytest.mark.parametrize(
    ("text", "versions", "count"),
    [
        ("", ["11", "2", "1"], 1),
        ("version_policy { latest { num_versions: 2 } }", ["11", "2", "1"], 2),
        ("version_policy { all { } }", ["11", "2", "1"], None),
        ("version_policy { specific { versions: [1, 11, 7] } }", ["11", "1"], None),
    ],
)
def test_the_version_policy(text: str, versions: list[str], count: int | None) -> None:
    assert wanted_versions(parse_config(text).proto, ["1", "11", "2"]) == (versions, count)


names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
sizes = st.lists(st.one_of(st.just(-1), st.integers(1, 2**40)), max_size=4)
tensors = st.dictionaries(names, st.tuples(st.sampled_from(list(DataType)), sizes), min_size=1, max_size=3)


@given(tensors, tensors, st.integers(0, 64))
def test_a_built_configuration_round_trips(
    inputs: dict[str, tuple[DataType, list[int]]],
    outputs: dict[str, tuple[DataType, list[int]]],
    batch: int,
) -> None:
    """Printed, parsed and completed against its own graph it says the same; so does its JSON form."""
    lead = (-1,) if batch else (1,)
    specs = [
        [TensorSpec(name, kind, (*lead, *shape)) for name, (kind, shape) in side.items()]
        for side in (inputs, outputs)
    ]
    graph = Graph(tuple(specs[0]), tuple(specs[1]), ())
    text = build_config("net", max_batch_size=batch, inputs=specs[0], outputs=specs[1], label_file="l.txt")
    config = parse_config(text)
    done = complete_config(config, graph, "net")
    assert done.max_batch_size == batch
    assert (done.inputs, done.outputs) == (graph.inputs, graph.outputs)
    assert config.label_file == "l.txt"
    assert parse_config(print_config(config.proto)).proto == config.proto
    as_json = config_as_json(config.proto)
    assert parse_config_json(json.dumps(as_json)).proto == config.proto
    assert [list(entry["dims"]) for entry in as_json["input"]] == [
        list(spec.shape[1:] if batch else spec.shape) for spec in specs[0]
    ]


def test_labels_model_file_and_parameters_are_read() -> None:
    config = parse_config(
        'default_model_filename: "net.onnx" backend: "openvino" '
        'parameters { key: "allow_nonfinite" value { string_value: "true" } } '
        'output { name: "logits" label_filename: "names.txt" }'
    )
    assert config.model_file == "net.onnx"
    assert config.engine == "openvino"
    assert config.label_file == "names.txt"
    assert config.parameter("allow_nonfinite") == "true"
    assert config.parameter("other") == ""
    assert parse_config("").model_file == "model.onnx"
    assert message("inference.ModelConfig")().name == ""
