"""LitServe with its batching. MODEL PORT"""

import sys
from typing import Annotated

import litserve
from fastapi import Depends, Request, Response
from session import Model


async def raw(request: Request) -> bytes:
    """The body as it came; LitServe itself reads JSON and forms."""
    return await request.body()


class Api(litserve.LitAPI):
    """Raw bytes in and out; batches of at most 16."""

    def setup(self, device: str) -> None:
        self.model = Model(sys.argv[1])

    def decode_request(self, request: Annotated[bytes, Depends(raw)]) -> bytes:
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, batch: list[bytes]) -> list[bytes]:
        return self.model.run(batch)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(max_batch_size=16, batch_timeout=0.0), accelerator="cpu", workers_per_device=1, timeout=60
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
