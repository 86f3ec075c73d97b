"""mosec with its batching: a web server in Rust, the model in a process of its own. MODEL --port PORT"""

from __future__ import annotations

import os
import sys

from mosec import Server, Worker
from session import Model

PATH = "PEER_MODEL"
"""Variable with the model's path: the processes of the workers are started anew."""


class Network(Worker):
    """Raw bytes in and out; batches of at most 16."""

    resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(os.environ[PATH])

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        return self.model.run(data)


if __name__ == "__main__":
    os.environ[PATH] = sys.argv.pop(1)
    server = Server()
    server.append_worker(Network, num=1, max_batch_size=16, max_wait_time=1)
    server.run()
