"""What ``/v2`` says about the server and its models: metadata, health, configuration, statistics."""

from __future__ import annotations

from nonet.gateway.core.call_headers import CallReader
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.http.reply import Reply
from nonet.gateway.oip.models import configuration, described, statistics
from nonet.gateway.oip.rest_target import OipTarget
from nonet.runtime.errors import NotFound
from nonet.runtime.oip.metadata import model_metadata_json, server_metadata_json
from nonet.runtime.release import VERSION


class OipModels:
    """The reading half of ``/v2``. Health needs no key; the rest does when keys are on."""

    def __init__(self, plane: DataPlane, calls: CallReader) -> None:
        self._plane = plane
        self._calls = calls

    async def server(self, target: OipTarget) -> Reply:
        """Name, version and extensions of the server."""
        self._calls.authenticate(target.exchange)
        return Reply.json(server_metadata_json(VERSION))

    async def live(self, target: OipTarget) -> Reply:
        """200 while the process works."""
        return Reply.json({"live": self._plane.live()}, 200 if self._plane.live() else 503)

    async def ready(self, target: OipTarget) -> Reply:
        """200 while inference requests are accepted and can be executed, else 503."""
        why = self._plane.why_unready()
        if not why:
            return Reply.json({"ready": True})
        reply = Reply.json({"ready": False, "error": f"the server is not ready: {why}"}, 503)
        reply.headers.append((b"retry-after", b"1"))
        return reply

    async def model_ready(self, target: OipTarget) -> Reply:
        """200 if the version would be served now, 503 if not, 404 if nobody knows it."""
        self._calls.authenticate(target.exchange)
        ready = self._plane.model_ready(target.model, target.version)
        if ready:
            return Reply.json({"name": target.model, "ready": True})
        reply = Reply.json({"name": target.model, "ready": False, "error": "the model is not ready"}, 503)
        reply.headers.append((b"retry-after", b"1"))
        return reply

    async def metadata(self, target: OipTarget) -> Reply:
        """Inputs, outputs, versions and platform of a model."""
        self._calls.authenticate(target.exchange)
        return Reply.json(model_metadata_json(*described(self._plane, target.model, target.version)))

    async def config(self, target: OipTarget) -> Reply:
        """The Triton model configuration."""
        self._calls.authenticate(target.exchange)
        info = self._plane.catalog.info(target.model, target.version)
        return Reply.json(configuration(self._plane, info))

    async def statistics(self, target: OipTarget) -> Reply:
        """Triton's statistics extension, of one version, one model or all of them."""
        self._calls.authenticate(target.exchange)
        found = statistics(self._plane, target.model, target.version)
        if target.model and not found:
            raise NotFound(f"unknown model '{target.model}'", param="model", code="MODEL_NOT_FOUND")
        return Reply.json({"model_stats": found})
