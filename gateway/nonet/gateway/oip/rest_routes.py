"""The routes of the Open Inference Protocol over REST: ``/v2`` and everything below it.

One object, which dispatches on the path's raw segments itself: that costs less than matching twenty patterns
on the path of every inference, and a name can never be mistaken for a route.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Mapping

from nonet.gateway.core.model_names import is_name
from nonet.gateway.core.request_context import Exchange
from nonet.gateway.http.guard import Receive, Scope, Send
from nonet.gateway.http.reply import compressed
from nonet.gateway.oip.rest_control import OipControl
from nonet.gateway.oip.rest_infer import OipInference
from nonet.gateway.oip.rest_models import OipModels
from nonet.gateway.oip.rest_paths import segments
from nonet.gateway.oip.rest_target import Handler, OipTarget
from nonet.runtime.errors import MethodNotAllowed, NotFound

_KEPT_PATHS = 512


@dataclasses.dataclass(frozen=True, slots=True)
class _Endpoint:
    """A route: its template, the handler of each verb, and the names its path gave."""

    template: str
    verbs: Mapping[str, Handler]
    model: str = ""
    version: str = ""


class OipRoutes:
    """All of ``/v2``."""

    def __init__(
        self, inference: OipInference, models: OipModels, control: OipControl, compress_from: int
    ) -> None:
        self._models = models
        self._control = control
        self._compress_from = compress_from
        # Names are short, and only paths that exist are kept.
        self._endpoint = functools.lru_cache(_KEPT_PATHS)(self._resolve)
        self._infer: Mapping[str, Handler] = {"POST": inference.infer}
        self._of_model: dict[str, Mapping[str, Handler]] = {
            "ready": _reading(models.model_ready),
            "stats": _reading(models.statistics),
            "config": _reading(models.config),
            "infer": self._infer,
        }

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises every ServingError of the failure model."""
        exchange = Exchange.of(scope)
        endpoint = self._endpoint(scope.get("raw_path") or scope["path"].encode())
        exchange.route = endpoint.template
        method = scope["method"]
        handler = endpoint.verbs.get(method)
        if handler is None:
            raise MethodNotAllowed(f"{method} is not allowed here")
        target = OipTarget(exchange, receive, endpoint.model, endpoint.version)
        reply = await handler(target)
        reply = await compressed(reply, exchange, self._compress_from)
        await reply.send(send)

    def methods_of(self, scope: Scope) -> Collection[str]:
        """The methods that a path declares. Raises NotFound if there is no such path."""
        return self._endpoint(scope.get("raw_path") or scope["path"].encode()).verbs.keys()

    def _resolve(self, raw: bytes) -> _Endpoint:
        """The endpoint of a path. Raises NotFound if there is none, or if a name in it cannot be one."""
        parts = segments(raw.partition(b"?")[0])
        endpoint = self._find(parts[1:]) if parts and parts[0] == "v2" else None
        if endpoint is None:
            raise NotFound("there is no such route; see /docs", code="ROUTE_NOT_FOUND")
        for name, kind in ((endpoint.model, "model"), (endpoint.version, "version")):
            if name and not is_name(name):
                raise NotFound(f"unknown {kind} {name[:80]!r}", param=kind, code=f"{kind.upper()}_NOT_FOUND")
        return endpoint

    def _find(self, parts: list[str]) -> _Endpoint | None:
        match parts:
            case ["models", "stats"]:
                return _Endpoint("/v2/models/stats", _reading(self._models.statistics))
            case ["models", model, action] if model and action in self._of_model:
                return _Endpoint(f"/v2/models/{{model}}/{action}", self._of_model[action], model)
            case ["models", model, "versions", version, action] if (
                model and version and action in self._of_model
            ):
                template = f"/v2/models/{{model}}/versions/{{version}}/{action}"
                return _Endpoint(template, self._of_model[action], model, version)
            case ["models", model] if model:
                return _Endpoint("/v2/models/{model}", _reading(self._models.metadata), model)
            case ["models", model, "versions", version] if model and version:
                template = "/v2/models/{model}/versions/{version}"
                return _Endpoint(template, _reading(self._models.metadata), model, version)
            case ["models", model, "trace", "setting"] if model:
                return _Endpoint("/v2/models/{model}/trace/setting", self._control.trace, model)
            case []:
                return _Endpoint("/v2", _reading(self._models.server))
            case ["health", "live"]:
                return _Endpoint("/v2/health/live", _reading(self._models.live))
            case ["health", "ready"]:
                return _Endpoint("/v2/health/ready", _reading(self._models.ready))
            case _:
                return self._find_control(parts)

    def _find_control(self, parts: list[str]) -> _Endpoint | None:
        control = self._control
        match parts:
            case ["repository", "index"]:
                return _Endpoint("/v2/repository/index", {"POST": control.index})
            case ["repository", "models", model, "load"] if model:
                return _Endpoint("/v2/repository/models/{model}/load", {"POST": control.load}, model)
            case ["repository", "models", model, "unload"] if model:
                return _Endpoint("/v2/repository/models/{model}/unload", {"POST": control.unload}, model)
            case ["trace", "setting"]:
                return _Endpoint("/v2/trace/setting", control.trace)
            case ["logging"]:
                return _Endpoint("/v2/logging", control.logging)
            case [("systemsharedmemory" | "cudasharedmemory") as kind, *rest]:
                match rest:
                    case ["status"]:
                        return _Endpoint(f"/v2/{kind}/status", _reading(control.regions))
                    case ["unregister"]:
                        return _Endpoint(f"/v2/{kind}/unregister", {"POST": control.unregister})
                    case ["region", name, "status"] if name:
                        return _Endpoint(f"/v2/{kind}/region/{{name}}/status", _reading(control.region), name)
                    case ["region", name, "register"] if name:
                        verbs = {"POST": control.register}
                        return _Endpoint(f"/v2/{kind}/region/{{name}}/register", verbs, name)
                    case ["region", name, "unregister"] if name:
                        verbs = {"POST": control.unregister}
                        return _Endpoint(f"/v2/{kind}/region/{{name}}/unregister", verbs, name)
        return None


def _reading(handler: Handler) -> Mapping[str, Handler]:
    return {"GET": handler}
