"""What the Open Inference Protocol lets callers ask of a server beside inference, for REST and gRPC alike.

Requests and answers are plain values by the names of the protocol. Trace and log settings can be read, but
not changed while the server runs. System shared memory is served where the settings say so; of CUDA memory no
region exists and none can be registered.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping
from typing import Any

from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.records import DurationTotal, ModelStatistics
from nonet.gateway.core.repository_control import RepositoryControl
from nonet.gateway.core.shared_memory import RegionStatus, SharedMemory
from nonet.runtime.catalog import ModelState
from nonet.runtime.errors import (
    InvalidArgument,
    NotFound,
    NotImplementedHere,
    PermissionDenied,
    ServingError,
)
from nonet.runtime.oip.metadata import model_config_json, model_metadata_json, server_metadata_json
from nonet.runtime.release import VERSION

logger = logging.getLogger(__name__)

TRACE_SETTINGS: dict[str, Any] = {
    "trace_level": ["OFF"],
    "trace_rate": "0",
    "trace_count": "0",
    "log_frequency": "0",
    "trace_mode": "opentelemetry",
}

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+@ -]{0,254}", re.ASCII)

PHASES = ("compute_input", "compute_infer", "compute_output")
TOTALS = ("success", "fail", "queue", *PHASES, "cache_hit", "cache_miss")


def checked_name(model: str, version: str = "") -> tuple[str, str]:
    """The name of a model and of a version, each "" where there is none.

    Raises NotFound, with the text made harmless, for what cannot be one: separators, control characters and
    ``..`` are in no name.
    """
    for text, kind in ((model, "model"), (version, "version")):
        if text and (_NAME.fullmatch(text) is None or ".." in text):
            raise NotFound(f"unknown {kind} {text[:80]!r}", param=kind, code=f"{kind.upper()}_NOT_FOUND")
    return model, version


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks.

    Args:
        model, version: as :func:`checked_name` accepts them, "" for none.
        region: name of a shared memory region, "" for none.
        sent: the rest of the request, {} for nothing.
        tenant: whose request it is.
    """

    model: str = ""
    version: str = ""
    region: str = ""
    sent: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tenant: str = ""


@dataclasses.dataclass(eq=False)
class Operations:
    """Each takes what is asked and gives the answer; raises what the failure model has for it.

    Args:
        plane: the core.
        repository: the model repository, or None when there is none to control.
        allowed: whether callers may load and unload.
        face: how requests come ("HTTP"), for the text of refusals.
        unserved: what to raise for a request for what other servers of the protocol have.
        memory: the shared memory regions; None where callers may register none.
    """

    plane: DataPlane
    repository: RepositoryControl | None
    _: dataclasses.KW_ONLY
    allowed: bool
    face: str
    unserved: type[ServingError]
    memory: SharedMemory | None = None

    def __post_init__(self) -> None:
        self._catalog = self.plane.catalog

    # -- what is there --------------------------------------------------------------------------

    def live(self, asked: Asked) -> dict[str, Any]:
        """The process works; it may not be ready."""
        return {"live": True}

    def ready(self, asked: Asked) -> dict[str, Any]:
        """Whether inference requests are accepted and can be executed."""
        why = self.plane.why_unready()
        return {"ready": False, "error": f"the server is not ready: {why}"} if why else {"ready": True}

    def model_ready(self, asked: Asked) -> dict[str, Any]:
        """Whether a version would be served now. Raises NotFound for one that nobody knows."""
        return {"name": asked.model, "ready": self.plane.model_ready(asked.model, asked.version)}

    def server_metadata(self, asked: Asked) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return server_metadata_json(VERSION, *([] if self.memory is None else ["system_shared_memory"]))

    def metadata(self, asked: Asked) -> dict[str, Any]:
        """Inputs, outputs, platform and versions (the one asked for, or all ready ones) of a model."""
        model, version = asked.model, asked.version
        versions = [version] if version else self._catalog.versions(model)
        return model_metadata_json(self._catalog.info(model, version), versions)

    def config(self, asked: Asked) -> dict[str, Any]:
        """The Triton configuration of a model, with what this server adds: whether its answers are kept, and
        whether it takes and gives numbers that are not finite."""
        info = self._catalog.info(asked.model, asked.version)
        config = model_config_json(info)
        finite = {"allow_nonfinite": {"string_value": "true" if info.allow_nonfinite else "false"}}
        return {
            **config,
            "parameters": {**config.get("parameters", {}), **finite},
            "response_cache": {"enable": self.plane.keeps_answers(info)},
        }

    def statistics(self, asked: Asked) -> dict[str, Any]:
        """The totals of one version, of one model or of all, as the statistics extension has them."""
        found = self.plane.statistics(asked.model, asked.version)
        return {"model_stats": [_statistics(entry) for entry in found]}

    # -- the repository -------------------------------------------------------------------------

    def index(self, asked: Asked) -> list[dict[str, str]]:
        """Name, version, state and reason of every version known, or only of those that can be called."""
        only_ready = asked.sent.get("ready", False)
        if not isinstance(only_ready, bool):
            raise InvalidArgument("ready must be true or false", param="ready")
        return [
            {"name": line.name, "version": line.version, "state": str(line.state), "reason": line.reason}
            for line in self._catalog.index()
            if not only_ready or line.state is ModelState.READY
        ]

    def control(self) -> RepositoryControl:
        """What changes the repository. Raises PermissionDenied if callers may not change it,
        NotImplementedHere if there is none."""
        if not self.allowed:
            raise PermissionDenied(
                f"loading and unloading models over {self.face} is switched off on this server"
            )
        if self.repository is None:
            raise NotImplementedHere("this server has no model repository to load from")
        return self.repository

    def _repository_of(self, asked: Asked) -> RepositoryControl:
        if not asked.model:
            raise NotFound("unknown model ''", param="model", code="MODEL_NOT_FOUND")
        return self.control()

    async def load(self, asked: Asked) -> dict[str, Any]:
        """Load a model, or load it again; the parameter ``config`` (JSON) replaces its configuration."""
        repository = self._repository_of(asked)
        for name in _parameters(asked):
            if name.startswith("file:"):
                raise self.unserved(
                    f"parameters.{name[:80]}: models are not taken over {self.face}; publish the version "
                    "into the repository and load it",
                    param=f"parameters.{name[:80]}",
                )
        config = _only(asked, "config", str, "the model configuration as a JSON text")
        await repository.load(asked.model, config, tenant=asked.tenant)
        logger.info("model %s was loaded by request", asked.model)
        return {"name": asked.model, "state": "READY"}

    async def unload(self, asked: Asked) -> dict[str, Any]:
        """Unload a model once the requests that use it are done; no model depends on another, so the
        parameter ``unload_dependents`` changes nothing."""
        repository = self._repository_of(asked)
        _only(asked, "unload_dependents", bool, "true or false")
        await repository.unload(asked.model, tenant=asked.tenant)
        logger.info("model %s was unloaded by request", asked.model)
        return {"name": asked.model, "state": "UNAVAILABLE"}

    # -- settings and shared memory -------------------------------------------------------------

    def trace(self, asked: Asked) -> dict[str, Any]:
        """The trace settings, of a model or of the server. A change that changes nothing is accepted; None
        asks for the default, which is what the server has."""
        if asked.model:
            self._catalog.info(asked.model)
        return self._unchanged("trace", asked.sent, TRACE_SETTINGS)

    def log(self, asked: Asked) -> dict[str, Any]:
        """The log settings, as :meth:`trace`."""
        return self._unchanged("log", asked.sent, log_settings())

    def regions(self, asked: Asked) -> list[dict[str, Any]]:
        """The system shared memory regions of the tenant, or the one of that name."""
        if self.memory is None:
            return self.no_regions(asked)
        return [dataclasses.asdict(each) for each in self.memory.status(asked.tenant, asked.region)]

    def register(self, asked: Asked) -> dict[str, Any]:
        """Register a range (``offset``, ``byte_size``) of the POSIX shared memory object ``key``."""
        if self.memory is None:
            return self.no_register(asked)
        self.memory.register(asked.tenant, _region(asked))
        logger.info("shared memory region %r was registered", asked.region)
        return {}

    def unregister(self, asked: Asked) -> dict[str, Any]:
        """Forget a region, or all of the tenant. One that is not registered is forgotten already."""
        if self.memory is not None:
            self.memory.unregister(asked.tenant, asked.region)
        return {}

    def no_regions(self, asked: Asked) -> list[dict[str, Any]]:
        """The regions of memory that is not served, or the one of that name: none."""
        if asked.region:
            raise NotFound(f"there is no shared memory region {asked.region!r}", code="REGION_NOT_FOUND")
        return []

    def no_register(self, asked: Asked) -> dict[str, Any]:
        """Refused: tensors come with the request."""
        raise self.unserved("shared memory is not served; send tensors as binary data with the request")

    def no_unregister(self, asked: Asked) -> dict[str, Any]:
        """Nothing is registered, so afterwards nothing is."""
        return {}

    def _unchanged(self, what: str, asked: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
        for name, value in asked.items():
            if name not in current:
                raise InvalidArgument(
                    f"{what} setting {name[:80]!r} is not known; known: {', '.join(current)}",
                    param=name[:80],
                )
            if value is not None and value != current[name]:
                raise self.unserved(
                    f"{what} setting '{name}' is fixed while the server runs; it is {current[name]!r}",
                    param=name,
                )
        return dict(current)


def log_settings() -> dict[str, bool | int | str]:
    """The log settings in force, by the names the protocol's logging extension gives them."""
    root = logging.getLogger("nonet")
    return {
        "log_file": "",
        "log_info": root.isEnabledFor(logging.INFO),
        "log_warning": root.isEnabledFor(logging.WARNING),
        "log_error": root.isEnabledFor(logging.ERROR),
        "log_verbose_level": int(root.isEnabledFor(logging.DEBUG)),
        "log_format": "default",
    }


def _region(asked: Asked) -> RegionStatus:
    """The region to register. Raises InvalidArgument for what is missing, unknown or no number."""
    sent = asked.sent
    for name in sent:
        if name not in ("key", "offset", "byte_size"):
            raise InvalidArgument(
                f"{name[:80]!r} is not known; accepted: key, offset, byte_size", param=name[:80]
            )
    key, offset, size = sent.get("key"), sent.get("offset", 0), sent.get("byte_size")
    if not isinstance(key, str):
        raise InvalidArgument("key must be the name of a shared memory object", param="key")
    if type(offset) is not int:
        raise InvalidArgument("offset must be a number of bytes", param="offset")
    if type(size) is not int:
        raise InvalidArgument("byte_size must be a number of bytes", param="byte_size")
    return RegionStatus(asked.region, key, offset, size)


def _parameters(asked: Asked) -> Mapping[str, Any]:
    parameters = asked.sent.get("parameters", {})
    if not isinstance(parameters, Mapping):
        raise InvalidArgument("parameters must be an object", param="parameters")
    return parameters


def _only(asked: Asked, known: str, kind: type, words: str) -> Any:
    """The one parameter that there is; None if it is not given."""
    parameters = _parameters(asked)
    for name, value in parameters.items():
        if name != known or not (value is None or isinstance(value, kind)):
            problem = "is not known" if name != known else "is of another type"
            raise InvalidArgument(
                f"parameters.{name[:80]} {problem}; accepted: {known}, {words}",
                param=f"parameters.{name[:80]}",
            )
    return parameters.get(known)


def _statistics(entry: ModelStatistics) -> dict[str, Any]:
    return {
        "name": entry.name,
        "version": entry.version,
        "last_inference": entry.last_inference_ms,
        "inference_count": entry.inference_count,
        "execution_count": entry.execution_count,
        "inference_stats": {name: _duration(getattr(entry, name)) for name in TOTALS},
        "batch_stats": [
            {"batch_size": rows, **dict(zip(PHASES, map(_duration, totals), strict=True))}
            for rows, totals in sorted(entry.batches.items())
        ],
    }


def _duration(total: DurationTotal) -> dict[str, int]:
    return {"count": total.count, "ns": total.nanoseconds}
