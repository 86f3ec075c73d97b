"""What the protocol tells of server and models, in both forms."""

from __future__ import annotations

import pytest
from google.protobuf import json_format

from nonet.runtime.errors import ModelOutputInvalid
from nonet.runtime.oip import metadata
from nonet.runtime.oip.messages import message
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, TensorSpec
from tests.support.oip_strategies import model

INFO = model(
    inputs=[
        TensorSpec("x", DataType.FP32, (-1, 3)),
        TensorSpec("t", DataType.BYTES, (-1, 1), optional=True),
    ],
    config={"name": "m", "max_batch_size": 8, "input": [{"name": "t", "optional": True}]},
)


def test_server_metadata_says_the_same_in_both_forms() -> None:
    as_json = metadata.server_metadata_json("1.2.3")
    assert as_json["name"] == "nonet"
    assert as_json["version"] == "1.2.3"
    assert "binary_tensor_data" in as_json["extensions"]
    assert json_format.MessageToDict(metadata.server_metadata_proto("1.2.3")) == as_json


def test_model_metadata_says_the_same_in_both_forms() -> None:
    as_json = metadata.model_metadata_json(INFO, ["1", "2"])
    assert as_json == {
        "name": "m",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "t", "datatype": "BYTES", "shape": [-1, 1]},
        ],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }
    as_proto = metadata.model_metadata_proto(INFO, ["1", "2"])
    assert as_proto.versions == ["1", "2"]
    assert [(t.name, t.datatype, list(t.shape)) for t in as_proto.inputs] == [
        ("x", "FP32", [-1, 3]),
        ("t", "BYTES", [-1, 1]),
    ]


def read_back(info: ModelInfo, version: str = "1") -> ModelInfo:
    config = json_format.ParseDict(metadata.model_config_json(info), message("inference.ModelConfig")())
    return metadata.info_from_proto(metadata.model_metadata_proto(info, ["1", "4"]), config, version)


def test_a_model_of_another_server_is_described_by_what_that_server_says() -> None:
    got = read_back(INFO)
    assert (got.name, got.version, got.inputs, got.outputs) == ("m", "1", INFO.inputs, INFO.outputs)
    assert (got.platform, got.max_batch_size, got.config) == ("onnxruntime_onnx", 8, INFO.config)
    assert read_back(INFO, version="").version == "4"


def test_the_digest_follows_the_description() -> None:
    assert read_back(INFO).digest == read_back(INFO).digest
    other = model(inputs=INFO.inputs, config={**INFO.config, "max_batch_size": 4})
    assert read_back(other).digest != read_back(INFO).digest


@pytest.mark.parametrize(("datatype", "shape"), [("float32", [1]), ("FP32", [-2]), ("FP32", [2**62, 8])])
def test_a_description_outside_the_protocol_is_the_services_fault(datatype: str, shape: list[int]) -> None:
    answer = message("inference.ModelMetadataResponse")(name="m")
    answer.inputs.add(name="x", datatype=datatype, shape=shape)
    with pytest.raises(ModelOutputInvalid, match="described a model wrongly"):
        metadata.info_from_proto(answer, message("inference.ModelConfig")(), "1")
