"""What the HTTP face accepts from a socket, as one frozen value."""

from __future__ import annotations

import dataclasses
import math
import resource

KIB = 1024
MIB = 1024 * KIB

_SPARE_DESCRIPTORS = 128


def descriptor_capacity() -> int:
    """Connections this process can hold: its file-descriptor limit less a reserve for files and models."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1_000_000
    return max(16, soft - _SPARE_DESCRIPTORS)


@dataclasses.dataclass(frozen=True, slots=True)
class HttpSettings:
    """Limits of the HTTP face. Sizes in bytes, times in seconds.

    Args:
        max_body_bytes: largest body as sent; more is 413 before it is buffered.
        max_decoded_bytes: largest body after gzip, deflate or br; more is 413 as soon as it is passed.
        max_bodies_bytes: bodies of all requests in flight together; more is 503, so that many large
            uploads at once cannot take the memory of the models.
        max_header_bytes: request line and headers together; more is 431.
        max_headers: number of header fields; more is 431.
        header_timeout: from the first byte of a request (or from connecting) to the end of its headers.
        body_grace: a body may take this long whatever its rate.
        body_min_rate: after the grace, bytes per second a body must have come in with on average.
        body_timeout: no body may take longer than this, whatever its rate.
        write_timeout: an answer the client does not read is dropped after this.
        keep_alive: an idle connection is closed after this.
        linger_timeout: after an early refusal (413, 408) the rest of the request is read and thrown away for
            at most this long, so that the refusal reaches a client that is still sending.
        max_pipeline: requests of one connection that may wait for the answers before them.
        free_chunks, min_chunk_bytes: a chunked body may have ``free_chunks`` chunks of any size; beyond them
            the mean chunk must have ``min_chunk_bytes``, or the request is 400.
        max_connections: open connections; a newcomer takes the place of the one that has been idle the
            longest and is refused with 503 if none is idle. 0 takes what the file-descriptor limit allows.
        max_timeout: largest ``X-Request-Timeout-Ms`` a caller may ask for, in seconds.
        compress_from: answers below this size are not compressed.
        repository_control: whether models may be loaded and unloaded over HTTP (403 if not).
        access_log: whether each answered request writes one log line.
        host: the address that is listened on.
        hosts: the names that callers know the server by; see :class:`~nonet.gateway.http.origins.Origins`.
        cors_origins: origins of other sites whose pages may use the server, ``*`` for all.
        root_path: where a proxy shows the server, e.g. ``/nonet``; "" for the root.

    Raises ValueError, naming the field, for a number that is not positive (or below 0 where 0 has a meaning).
    """

    max_body_bytes: int = 64 * MIB
    max_decoded_bytes: int = 128 * MIB
    max_bodies_bytes: int = 512 * MIB
    max_header_bytes: int = 64 * KIB
    max_headers: int = 128
    header_timeout: float = 10.0
    body_grace: float = 10.0
    body_min_rate: float = 4.0 * KIB
    body_timeout: float = 60.0
    write_timeout: float = 30.0
    keep_alive: float = 75.0
    linger_timeout: float = 2.0
    max_pipeline: int = 64
    free_chunks: int = 4096
    min_chunk_bytes: int = 64
    max_connections: int = 0
    max_timeout: float = 3600.0
    compress_from: int = KIB
    repository_control: bool = True
    access_log: bool = True
    host: str = "127.0.0.1"
    hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    root_path: str = ""

    def __post_init__(self) -> None:
        may_be_zero = {"max_connections", "compress_from"}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool | str | tuple):
                continue
            if not math.isfinite(value) or value < 0 or (value == 0 and field.name not in may_be_zero):
                raise ValueError(f"{field.name} must be a positive number, got {value!r}")

    @property
    def connections(self) -> int:
        """The number of open connections in force; never more than the descriptors allow."""
        capacity = descriptor_capacity()
        return min(self.max_connections, capacity) if self.max_connections else capacity
