"""What the HTTP face accepts from a socket, as one frozen value."""

from __future__ import annotations

import resource

from nonet.gateway.settings.schema import ServerSettings
from nonet.gateway.settings.types import KIB, PositiveSeconds

_SPARE_DESCRIPTORS = 128


def descriptor_capacity() -> int:
    """Connections this process can hold: its file-descriptor limit less a reserve for files and models."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1_000_000
    return max(16, soft - _SPARE_DESCRIPTORS)


class HttpSettings(ServerSettings):
    """Limits of the HTTP face: those that operators set, and these. Sizes in bytes, times in seconds.

    Args:
        max_headers: number of header fields; more is 431.
        body_grace: a body may take this long whatever its rate.
        body_min_rate: after the grace, bytes per second a body must have come in with on average.
        write_timeout: an answer the client does not read is dropped after this.
        linger_timeout: after an early refusal (413, 408) the rest of the request is read and thrown away for
            at most this long, so that the refusal reaches a client that is still sending.
        max_pipeline: requests of one connection that may wait for the answers before them.
        free_chunks, min_chunk_bytes: a chunked body may have ``free_chunks`` chunks of any size; beyond them
            the mean chunk must have ``min_chunk_bytes``, or the request is 400.
        max_timeout: largest ``X-Request-Timeout-Ms`` a caller may ask for, in seconds.
        compress_from: answers below this size are not compressed.
        repository_control: whether models may be loaded and unloaded over HTTP (403 if not).
        access_log: whether each answered request writes one log line.

    Raises ValueError, naming the field, for a number that is out of its range.
    """

    max_headers: int = 128
    body_grace: PositiveSeconds = 10.0
    body_min_rate: float = 4.0 * KIB
    write_timeout: PositiveSeconds = 30.0
    linger_timeout: PositiveSeconds = 2.0
    max_pipeline: int = 64
    free_chunks: int = 4096
    min_chunk_bytes: int = 64
    max_timeout: PositiveSeconds = 3600.0
    compress_from: int = KIB
    repository_control: bool = True
    access_log: bool = True

    @property
    def connections(self) -> int:
        """The number of open connections in force; never more than the descriptors allow."""
        capacity = descriptor_capacity()
        return min(self.max_connections, capacity) if self.max_connections else capacity
