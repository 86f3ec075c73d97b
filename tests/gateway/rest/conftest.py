"""A whole gateway behind the HTTP face: real networks, real core, real sockets."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from nonet.gateway.process.compose import Gateway, compose
from nonet.gateway.settings.schema import Settings
from tests.support import handmade_networks
from tests.support.http_server import HttpServer

StartGateway = Callable[..., "RestServer"]


class RestServer(HttpServer):
    """The gateway over the model repository in ``root``; ``sections`` are settings by section."""

    def __init__(self, root: Path, **sections: Any) -> None:
        repository = {"path": root, **sections.pop("repository", {})}
        settings = Settings(**{"scheduler": {"lanes": 1}, "repository": repository, **sections})
        self.gateway: Gateway = compose(settings)
        super().__init__(self._start, self.gateway.http_settings(), lambda: self.gateway.plane.leaving)
        self.http = httpx.Client(base_url=self.url, timeout=20.0)

    async def _start(self) -> Any:
        assert self.gateway.repository is not None
        self.gateway.repository.load_all()
        await self.gateway.plane.start()
        return self.gateway.http_app()

    def stop(self) -> None:
        self.http.close()
        super().stop()


@pytest.fixture(scope="session")
def rest_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few networks and a family of two classifiers."""
    root = tmp_path_factory.mktemp("rest") / "models"
    root.mkdir()
    handmade_networks.add_identity(root, "echo", "FP32", (-1,))
    handmade_networks.add_identity(root, "text", "BYTES", (-1,))
    handmade_networks.add_identity(root, "unbatched", "FP32", (2, 3), batch=0)
    handmade_networks.add_scaled(root, "scaled", 10.0, 1)
    handmade_networks.add_scaled(root, "scaled", 20.0, 2)
    handmade_networks.add_classifier(root, "shop_small", 4, family="shop", top1=0.6)
    handmade_networks.add_classifier(root, "shop_large", 8, family="shop", top1=0.8)
    return root


@pytest.fixture(scope="session")
def rest(rest_repository: Path) -> Iterator[RestServer]:
    """One gateway for all tests that leave nothing behind."""
    server = RestServer(rest_repository)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def gateway_over() -> Iterator[Callable[[Path], RestServer]]:
    """Start gateways over repositories of one's own, for tests that share them; they stop at the very end."""
    started: list[RestServer] = []

    def start(root: Path) -> RestServer:
        started.append(RestServer(root))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def start_gateway(rest_repository: Path) -> Iterator[StartGateway]:
    """Start gateways with settings of one's own; they stop at the end of the test."""
    started: list[RestServer] = []

    def start(**sections: Any) -> RestServer:
        started.append(RestServer(sections.pop("root", rest_repository), **sections))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A JPEG of 48 x 40 pixels."""
    pixels = np.random.default_rng(3).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()
