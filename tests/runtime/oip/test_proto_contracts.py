"""The `.proto` contracts: compiled, compatible with Triton's client, and in one process with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from nonet.runtime.oip import messages

ROOT = Path(__file__).parents[3]
DESCRIPTORS = ROOT / "runtime" / "nonet" / "runtime" / "oip" / "descriptors.binpb"


def test_the_committed_descriptor_set_is_up_to_date(tmp_path: Path) -> None:
    protos = ROOT / "proto"
    sources = sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))
    fresh = tmp_path / "descriptors.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=.", f"--descriptor_set_out={fresh}"]
    subprocess.run([*command, *sources], cwd=protos, check=True)
    assert DESCRIPTORS.read_bytes() == fresh.read_bytes(), "run make proto"


Field = tuple[int, int, int, str, str]


def fields_of(prefix: str, message: Any, found: dict[str, set[Field]]) -> dict[str, set[Field]]:
    """Number, type, label, type name and oneof of every field, by the full name of the message."""
    name = f"{prefix}.{message.name}"
    unions = [union.name for union in message.oneof_decl]
    found[name] = {
        (
            field.number,
            field.type,
            field.label,
            f"{field.name} {field.type_name}",
            unions[field.oneof_index] if field.HasField("oneof_index") else "",
        )
        for field in message.field
    }
    for nested in message.nested_type:
        fields_of(name, nested, found)
    for enum in message.enum_type:
        found[f"{name}.{enum.name}"] = {(value.number, 0, 0, value.name, "") for value in enum.value}
    return found


def contract(*files: Any) -> dict[str, set[Field]]:
    found: dict[str, set[Field]] = {}
    for file in files:
        for message in file.message_type:
            fields_of(file.package, message, found)
        for enum in file.enum_type:
            found[f"{file.package}.{enum.name}"] = {(v.number, 0, 0, v.name, "") for v in enum.value}
        for service in file.service:
            found[f"{file.package}.{service.name}"] = {
                (m.client_streaming, m.server_streaming, 0, f"{m.name} {m.input_type} {m.output_type}", "")
                for m in service.method
            }
    return found


def test_every_name_and_number_is_the_one_of_tritons_client() -> None:
    theirs = []
    for module in (model_config_pb2, service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        theirs.append(file)
    ours = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    assert contract(*(file for file in ours if file.package == "inference")) == contract(*theirs)


def test_messages_pass_between_our_classes_and_theirs() -> None:
    ours = messages.message("inference.ModelInferRequest")(model_name="m", raw_input_contents=[b"ab"])
    theirs = service_pb2.ModelInferRequest.FromString(ours.SerializeToString())
    assert theirs.model_name == "m"
    assert theirs.raw_input_contents == [b"ab"]
    assert type(ours) is not type(theirs)


@pytest.mark.parametrize("first", ["nonet.runtime.oip.messages", "tritonclient.grpc"])
def test_one_process_holds_both_in_any_order(first: str) -> None:
    """A fresh interpreter: the order of imports decides who registers the names first."""
    code = (
        f"import {first}, tritonclient.grpc, nonet.runtime.oip.messages as m; "
        "m.message('inference.ModelConfig')"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_an_unknown_message_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        messages.message("inference.Nothing")


def test_methods_have_their_paths_and_streams() -> None:
    by_name = {method.name: method for method in messages.methods(messages.OPEN_INFERENCE)}
    assert by_name["ModelInfer"].path == "/inference.GRPCInferenceService/ModelInfer"
    assert by_name["ModelInfer"].request is messages.message("inference.ModelInferRequest")
    assert [name for name, method in by_name.items() if method.client_streaming] == ["ModelStreamInfer"]
    assert by_name["ModelStreamInfer"].server_streaming
    recognition = {method.name: method.path for method in messages.methods("nonet.v1.Recognition")}
    assert recognition["Classify"] == "/nonet.v1.Recognition/Classify"


def test_a_pool_for_reflection_takes_other_services_along() -> None:
    pool = messages.pool_with(health_pb2.DESCRIPTOR.serialized_pb)
    for service in ("grpc.health.v1.Health", messages.OPEN_INFERENCE, "nonet.v1.Recognition"):
        assert pool.FindServiceByName(service).full_name == service
    with pytest.raises(KeyError):
        messages.POOL.FindServiceByName("grpc.health.v1.Health")


def test_top_k_can_be_told_from_zero() -> None:
    request = messages.message("nonet.v1.ClassifyRequest")
    assert not request().HasField("top_k")
    assert request(top_k=0).HasField("top_k")
