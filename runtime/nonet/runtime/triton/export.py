"""Writes the repository that a real Triton Inference Server serves, from Nonet's own.

Each network becomes a model of Triton's ONNX Runtime backend, or of its Python backend; each service that
Nonet makes of it becomes a model of the Python backend that asks the network's. Names, versions, tensors and
shapes stay, so the same request of the Open Inference Protocol has the same answer from either server.

Triton refuses a tensor that has no dimension beside the batch. A network with such a tensor keeps its shapes,
and is told to Triton as one that does not batch.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from google.protobuf import json_format

from nonet.runtime.backends.contract import BackendOptions
from nonet.runtime.oip import description
from nonet.runtime.oip.messages import message
from nonet.runtime.profile import ProfileStore
from nonet.runtime.repository.config import print_config, read_config, wanted_versions
from nonet.runtime.repository.integrity import FileHasher
from nonet.runtime.repository.layout import CONFIG_FILE, ModelFolder, VersionFolder
from nonet.runtime.repository.loader import PreparedVersion, load_version, prepare_version
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.task import ServiceLimits
from nonet.runtime.tensors import DataType, TensorSpec
from nonet.runtime.triton.service_folder import LIMITS, NETWORK_FILE, SERVICE, network_to_json

__all__ = ["ExportOptions", "export_model"]

Derivation = Callable[[Servable], Sequence[Servable]]

_LONGEST_WAIT = 3_600_000_000
"""Microseconds that a request without a deadline may wait in Triton's queue."""

_SERVICE_MODEL = '''"""A service of Nonet; what it does is in the package nonet.runtime.triton."""

from nonet.runtime.triton.inside.service_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclasses.dataclass(frozen=True, slots=True)
class ExportOptions:
    """How Triton is to run the models.

    Args:
        backend: of the networks. ``onnxruntime`` takes the files as they are; ``python`` runs them by ONNX
            Runtime in Triton's Python backend, for installations that have no other.
        gpu: whether networks run on GPUs; services run on the CPU always.
        instances: executions of a network at a time, on each GPU, or on the CPU; 1 or more.
        service_instances: processes of each service; 1 or more. Each decodes one request at a time.
        tensorrt: whether ONNX Runtime hands the network to TensorRT (``onnxruntime`` on a GPU only).
        queue_delay: microseconds Triton may hold a request to make a batch larger; 0 or more.

    Raises ValueError for anything else.
    """

    backend: Literal["onnxruntime", "python"] = "onnxruntime"
    gpu: bool = False
    instances: int = 1
    service_instances: int = 1
    tensorrt: bool = False
    queue_delay: int = 0

    def __post_init__(self) -> None:
        if self.backend not in ("onnxruntime", "python"):
            raise ValueError(f"backend must be onnxruntime or python, got {self.backend!r}")
        if min(self.instances, self.service_instances) < 1:
            raise ValueError("instances must be at least 1")
        if self.queue_delay < 0:
            raise ValueError(f"queue_delay must be 0 or more microseconds, got {self.queue_delay}")
        if self.tensorrt and (self.backend != "onnxruntime" or not self.gpu):
            raise ValueError("TensorRT needs the backend onnxruntime and a GPU")


def export_model(
    root: Path,
    folder: ModelFolder,
    target: Path,
    services: Mapping[str, Derivation],
    limits: ServiceLimits,
    options: ExportOptions,
) -> list[str]:
    """Write the versions of one model that are to be served, and its services, into ``target``.

    Args:
        root: the repository.
        folder: the model in it.
        target: folder of Triton's repository.
        services: what makes the services of a network, by the name of the service it belongs to.
        limits: of the services.
        options: how Triton is to run them.

    Returns the names of the models written: the network's first. Raises ModelRefused for a version that Nonet
    would not serve either, and OSError.
    """
    config = read_config(folder.path / CONFIG_FILE)
    hasher = FileHasher()
    wanted, count = wanted_versions(config.proto, [each.version for each in folder.versions])
    written: dict[str, None] = {}
    for version in [each for each in folder.versions if each.version in wanted[:count]]:
        prepared = prepare_version(root, folder, version, config, hasher=hasher)
        network = load_version(prepared, BackendOptions(engine="onnxruntime"), ProfileStore())
        try:
            _write_network(folder, version, prepared, network.info, target, options)
            written[network.info.name] = None
            for service, derive in services.items():
                for servable in derive(network):
                    _write_service(target, service, servable.info, network.info, limits, options)
                    written[servable.info.name] = None
        finally:
            network.close()
    return list(written)


def _write_network(
    folder: ModelFolder,
    version: VersionFolder,
    prepared: PreparedVersion,
    info: ModelInfo,
    target: Path,
    options: ExportOptions,
) -> None:
    place = target / info.name
    proto = _config(info)
    _only_on_top_of(proto, place)
    check = None if prepared.check_set is None else prepared.check_set.resolve()
    for path in version.path.rglob("*"):
        if path.is_file() and path.resolve() != check:
            copy = place / version.version / path.relative_to(version.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
    for name in {output.label_filename for output in proto.output if output.label_filename}:
        shutil.copy2(folder.path / name, place / name)
    _run_network(proto, prepared.model_file.relative_to(version.path), options)
    if options.backend == "python":
        model = resources.files("nonet.runtime.triton.inside").joinpath("network_model.py").read_text()
        (place / version.version / "model.py").write_text(model)
    _describe(proto, info)
    (place / CONFIG_FILE).write_text(print_config(proto))


def _run_network(proto: Any, model_file: Path, options: ExportOptions) -> None:
    kind = "KIND_GPU" if options.gpu else "KIND_CPU"
    proto.instance_group.add(kind=kind, count=options.instances)
    if options.backend == "python":
        proto.backend, proto.platform, proto.default_model_filename = "python", "", ""
        proto.parameters["model_file"].string_value = model_file.as_posix()
    else:
        proto.backend, proto.platform = "onnxruntime", "onnxruntime_onnx"
        if not options.gpu:
            proto.parameters["intra_op_thread_count"].string_value = "1"
        if options.tensorrt:
            proto.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    if proto.max_batch_size > 0:
        batching = proto.dynamic_batching
        batching.max_queue_delay_microseconds = options.queue_delay
        # What waits past its caller's deadline is dropped; Triton lets a request only shorten the time.
        batching.default_queue_policy.allow_timeout_override = True
        batching.default_queue_policy.default_timeout_microseconds = _LONGEST_WAIT


def _write_service(
    target: Path,
    service: str,
    info: ModelInfo,
    network: ModelInfo,
    limits: ServiceLimits,
    options: ExportOptions,
) -> None:
    # Its requests are read one by one; what is worth a batch is the network, which Triton batches.
    proto = _config(dataclasses.replace(info, max_batch_size=0), batching=False)
    place = target / info.name
    _only_on_top_of(proto, place)
    proto.platform, proto.backend = "", "python"
    proto.instance_group.add(kind="KIND_CPU", count=options.service_instances)
    proto.parameters[SERVICE].string_value = service
    proto.parameters[LIMITS].string_value = json.dumps(dataclasses.asdict(limits))
    _describe(proto, dataclasses.replace(info, decoupled=False))
    version = place / info.version
    version.mkdir(parents=True, exist_ok=True)
    (version / "model.py").write_text(_SERVICE_MODEL)
    (version / NETWORK_FILE).write_text(network_to_json(network))
    (place / CONFIG_FILE).write_text(print_config(proto))


def _config(info: ModelInfo, *, batching: bool = True) -> Any:
    """The model's configuration, with the tensors as Triton takes them."""
    proto = message("inference.ModelConfig")()
    json_format.ParseDict(dict(info.config), proto, ignore_unknown_fields=True)
    proto.name = info.name
    if not batching or any(len(spec.shape) == 1 for spec in (*info.inputs, *info.outputs)):
        proto.max_batch_size = 0
        proto.ClearField("dynamic_batching")
        _full_shapes(proto.input, info.inputs)
        _full_shapes(proto.output, info.outputs)
    proto.ClearField("version_policy")
    proto.version_policy.specific.versions.append(int(info.version))
    proto.ClearField("instance_group")
    proto.ClearField("model_transaction_policy")
    return proto


def _full_shapes(entries: Iterable[Any], specs: Sequence[TensorSpec]) -> None:
    known = {spec.name: spec for spec in specs}
    for entry in entries:
        spec = known[entry.name]
        entry.dims[:] = spec.shape or (1,)
        entry.ClearField("reshape")
        if spec.datatype is DataType.BYTES:
            entry.data_type = (
                entry.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_name["TYPE_STRING"].number
            )


def _only_on_top_of(proto: Any, place: Path) -> None:
    """Keep the versions that an earlier turn has written."""
    if (place / CONFIG_FILE).is_file():
        before = read_config(place / CONFIG_FILE).proto.version_policy.specific.versions
        versions = sorted({*before, *proto.version_policy.specific.versions})
        proto.version_policy.specific.versions[:] = versions


def _describe(proto: Any, info: ModelInfo) -> None:
    """Tell a Nonet gateway in front of this Triton what the protocol has no words for."""
    proto.parameters[description.PARAMETER].string_value = description.to_json(info)
