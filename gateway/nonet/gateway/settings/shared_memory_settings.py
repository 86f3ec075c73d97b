"""The settings of tensors in system shared memory."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nonet.gateway.settings.types import KIB, MIB, Section

_UserId = Annotated[int, Field(ge=0, le=2**32 - 2)]


class SharedMemorySettings(Section):
    """Tensors that callers on the same machine leave in POSIX shared memory, over /v2 and its gRPC calls."""

    enabled: bool = Field(
        default=False,
        description="Whether callers may register shared memory regions. Whoever may call may then read and "
        "write, through the models, every shared memory object of `owners`; behind a proxy all callers look "
        "like local ones. For machines on which callers and server trust each other. Needs /dev/shm (Linux); "
        "a container shares it with its callers by --ipc.",
    )
    owners: tuple[_UserId, ...] = Field(
        default=(),
        description="Ids of the users whose objects may be registered; the server must be allowed to read "
        "and write them. Empty: that of the server itself.",
    )
    max_regions: int = Field(
        default=256,
        ge=1,
        description="Regions that one tenant may have registered; one more is answered 507. Each is an open "
        "file.",
    )
    max_bytes: int = Field(
        default=4096 * MIB,
        ge=KIB,
        description="Bytes of all regions of one tenant together; more is answered 507.",
    )
    max_request_bytes: int = Field(
        default=128 * MIB,
        ge=KIB,
        description="Inputs of one request that lie in shared memory, in bytes together; more is answered "
        "413. They are copied, since their owner may change them at any time, and count with the bodies of "
        "all requests (server.max_bodies_bytes).",
    )
