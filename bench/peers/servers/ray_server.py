"""Ray Serve with its batching, one replica on one node, over its HTTP ingress. MODEL PORT"""

from __future__ import annotations

import signal
import sys

import ray
from ray import serve
from session import Model
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.5})
class Network:
    """Raw bytes in and out; batches of at most 16."""

    def __init__(self, path: str) -> None:
        self.model = Model(path)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.0)
    async def run(self, pictures: list[bytes]) -> list[bytes]:
        return self.model.run(pictures)

    async def __call__(self, request: Request) -> Response:
        return Response(await self.run(await request.body()), media_type="application/octet-stream")


ray.init(num_cpus=2, object_store_memory=78 << 20, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
serve.run(Network.bind(sys.argv[1]), route_prefix="/predict")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.pause()
