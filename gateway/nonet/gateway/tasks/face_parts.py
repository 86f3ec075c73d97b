"""The parts of a gateway that its two faces, HTTP and gRPC, share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from nonet.gateway.core.call_headers import CallReader
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.repository_control import RepositoryControl
from nonet.gateway.core.shared_memory import SharedMemory
from nonet.gateway.core.upload_budget import UploadBudget
from nonet.gateway.tasks.submits import Submits
from nonet.jobs import Jobs
from nonet.runtime.host import Host
from nonet.runtime.task import Service


@dataclasses.dataclass(frozen=True, slots=True)
class FaceParts:
    """See the module's text.

    Args:
        plane: the core.
        calls: reads who calls and how.
        uploads: accounts for the bodies and messages in flight.
        disk: accounts for what of them goes to the disk.
        host: lent to the services' own handlers.
        services: whose tasks and resources are offered.
        repository: what ``load`` and ``unload`` act on; None if models are fixed.
        jobs: long work; None where there is none.
        submits: makes jobs of requests; None where there are no jobs.
        memory: the regions of shared memory that callers have registered; None if they may not.
        root_path: goes before the paths that callers are told over HTTP.
    """

    plane: DataPlane
    calls: CallReader
    uploads: UploadBudget
    disk: UploadBudget
    host: Host
    services: Sequence[Service] = ()
    repository: RepositoryControl | None = None
    jobs: Jobs | None = None
    submits: Submits | None = None
    memory: SharedMemory | None = None
    root_path: str = ""
