"""The floors of buildings, for every face: fit, list, describe, delete, identify. Knows no transport.

A fitted building is a network ``floors_<building>`` in the repository with its service
``identify.floors_<building>``; what is known of it comes from the catalog, so it is the same whether the
service runs here or elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from nonet.gateway.core.call_headers import Call
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.repository_control import RepositoryControl
from nonet.gateway.tasks.floor_buildings import (
    FIT,
    PICTURE,
    SCANS,
    SERVICE_PREFIX,
    TASK,
    building_of,
    network_of,
    not_yours,
)
from nonet.jobs import Job, Jobs, NewJob, new_job_id
from nonet.runtime.errors import Conflict, InvalidArgument, NotFound, NotImplementedHere, PermissionDenied
from nonet.runtime.repository.layout import read_model
from nonet.runtime.repository.ownership import may_change, owner_of
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo
from nonet.runtime.storage_errors import storage_errors
from nonet.runtime.tensors import Tensor

__all__ = ["Floors", "FloorsRepository", "Upload", "UploadReader", "floor_answers"]

logger = logging.getLogger(__name__)

_READERS = 2
_LOOK_AGAIN = 0.5
_LARGEST_PICTURE = 32 << 20

KNOWN_FROM = 0.5
"""A scan counts as one of the building from this probability on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Upload:
    """A file of scans on the disk and what was sent beside it.

    Args:
        path: the file, or the body that it is a part of.
        fields: ``building``, ``labelled`` and the like, as sent.
        offset, length: which bytes of ``path`` are the file; None for all from the offset on.
    """

    path: Path
    fields: Mapping[str, Any]
    offset: int = 0
    length: int | None = None


class _Read(Protocol):
    @property
    def spec(self) -> Mapping[str, Any]: ...

    @property
    def digest(self) -> str: ...


UploadReader = Callable[..., _Read]
"""``read(path, output, fields, offset=, length=)``: see ``services.floor_identification.read_upload``."""


class FloorsRepository(Protocol):
    """What the floors need of the model repository; all calls block."""

    def refresh(self) -> object: ...

    def remove(self, name: str) -> None: ...


class Floors:
    """See the module's text.

    Args:
        plane: answers the scans.
        jobs: fits the buildings.
        read: reads uploads; blocks.
        root: folder of the model repository.
        repository: brings the catalog up to date and removes models; None where every service runs elsewhere.
        control: the thread that the repository's calls run in.
        may_delete: whether callers may delete buildings.
    """

    def __init__(
        self,
        plane: DataPlane,
        jobs: Jobs,
        read: UploadReader,
        *,
        root: Path,
        repository: FloorsRepository | None,
        control: RepositoryControl | None,
        may_delete: bool,
    ) -> None:
        self._plane = plane
        self._jobs = jobs
        self._read = read
        self._root = root
        self._repository = repository
        self._control = control
        self._may_delete = may_delete
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="uploads")
        self._looked = float("-inf")
        self._submitting = asyncio.Lock()

    # -- fitting --------------------------------------------------------------------------------

    async def able(self) -> None:
        """Raises NotImplementedHere, saying what to install, if no building can be fitted here."""
        await self._jobs.able(FIT)

    def receiving(self) -> contextlib.AbstractContextManager[Path]:
        """A file for an upload; see :meth:`~nonet.jobs.incoming_uploads.Arrivals.receiving`."""
        return self._jobs.arrivals.receiving()

    async def check(self, fields: Mapping[str, Any], tenant: str) -> None:
        """Judge what can be judged of a fit before its scans are read: the building and the webhook.

        Args:
            fields: as in :class:`Upload`; what is missing, or no text, is left to :meth:`fit`.

        Raises InvalidArgument for a name that cannot be one or a webhook that is not allowed,
        PermissionDenied (``BUILDING_NOT_YOURS``).
        """
        building, webhook = fields.get("building"), fields.get("webhook")
        if isinstance(building, str):
            await self._check_yours(building, tenant)
        if isinstance(webhook, str) and webhook:
            self._jobs.check_webhook(webhook)

    async def fit(self, upload: Upload, tenant: str, key: str) -> tuple[Job, bool]:
        """Submit a fit; the job, and whether it is a new one.

        Raises what reading the upload and submitting a job raise, PermissionDenied (``BUILDING_NOT_YOURS``)
        for a building that another tenant has fitted, or is about to.
        """
        await self.check(upload.fields, tenant)
        job = new_job_id()
        files = self._jobs.files
        folder = await asyncio.to_thread(files.make_folder, job)
        submitting = False
        try:
            # Few at a time, also when their callers have left: each is a process with memory of its own.
            read = await asyncio.get_running_loop().run_in_executor(
                self._readers,
                functools.partial(
                    self._read,
                    upload.path,
                    folder / SCANS,
                    upload.fields,
                    offset=upload.offset,
                    length=upload.length,
                ),
            )
            spec = dict(read.spec)
            webhook = str(spec.pop("webhook", ""))
            building = str(spec["building"])
            async with self._submitting:  # of two that want the same new name the first gets it
                await self._check_yours(building, tenant)
                needs = await self._jobs.publishing()
                submitting = True  # from here on the folder is the job's
                made, fresh = await self._jobs.submit(
                    NewJob(job, FIT, building, tenant, spec, read.digest, key, webhook, needs)
                )
            if fresh and tenant:
                await self._check_first(made)
            return made, fresh
        except BaseException:
            if not submitting:
                await asyncio.to_thread(files.remove, job)
            raise

    async def settle(self, job: Job) -> None:
        """A fit has succeeded: load the building."""
        await self.refresh()
        known = self._plane.catalog.versions(SERVICE_PREFIX + network_of(job.subject))
        if self._repository is not None and not known:
            logger.error(
                "job %s has fitted building '%s', which is not in this repository: all gateways and workers "
                "need one and the same",
                job.id,
                job.subject,
            )

    async def refresh(self) -> None:
        """Bring the catalog up to date with the repository, as after a fit."""
        if self._repository is not None and self._control is not None:
            self._looked = time.monotonic()
            await self._control.run(self._repository.refresh)

    # -- what there is --------------------------------------------------------------------------

    def buildings(self) -> list[dict[str, Any]]:
        """All fitted buildings, by name."""
        newest: dict[str, ModelInfo] = {}
        for info in self._plane.catalog.infos():  # ascending versions: the last one wins
            if info.task == TASK and info.name.startswith(SERVICE_PREFIX):
                newest[info.name] = info
        return [self._described(info) for _, info in sorted(newest.items())]

    async def building(self, name: str) -> dict[str, Any]:
        """One fitted building. Raises NotFound (``BUILDING_NOT_FOUND``)."""
        return self._described(await self._info(name))

    async def picture(self, name: str) -> bytes:
        """The picture of a building's newest version, PNG. Raises NotFound."""
        info = await self._info(name)
        found = await asyncio.to_thread(self._read_picture, info)
        if found is None:
            raise NotFound(f"building '{name}' has no picture", param="building", code="PICTURE_NOT_FOUND")
        return found

    async def delete(self, name: str, tenant: str) -> None:
        """Remove a building with all its versions; requests in flight are still answered.

        Raises PermissionDenied where that is not allowed, or not to this tenant (``BUILDING_NOT_YOURS``),
        NotFound, Conflict (``BUILDING_BUSY``) while a fit of it waits or runs.
        """
        if not self._may_delete:
            raise PermissionDenied("models cannot be changed here: repository.control is off")
        if self._repository is None or self._control is None:
            raise NotImplementedHere("the buildings are kept by another process; delete them there")
        network = network_of(name)
        await self._check_yours(name, tenant)
        if await self._jobs.active(FIT, name) is not None:
            raise Conflict(
                f"a fit of building '{name}' waits or runs; cancel its job first, or wait for it",
                param="building",
                code="BUILDING_BUSY",
            )
        if await asyncio.to_thread(read_model, self._root, network) is None:
            raise self._unknown(name)
        with storage_errors():
            await self._control.run(functools.partial(self._repository.remove, network))

    # -- identification -------------------------------------------------------------------------

    async def check_known(self, name: str) -> None:
        """Raises NotFound for a building that :meth:`identify` would not find."""
        await self._info(name)

    async def identify(
        self, name: str, scans: list[bytes], call: Call, version: str = ""
    ) -> tuple[ModelInfo, InferResponse]:
        """Answer scans, each the JSON of transmitter to dBm; the outputs are those of the service, a row for
        each scan.

        Raises NotFound for an unknown building, and as :meth:`DataPlane.infer`.
        """
        info = await self._info(name)
        request = InferRequest(
            model=info.name, version=version, inputs=(Tensor.of_bytes(info.inputs[0].name, scans),)
        )
        try:
            return info, await self._plane.infer(call.applied_to(request), admitted=True)
        except InvalidArgument as error:
            # What the service calls its input is not what callers of the floors do; one elsewhere names none.
            if error.param not in (request.inputs[0].name, None):
                raise
            raise InvalidArgument(error.message, param="scans", code=error.code) from None

    # -- inside ---------------------------------------------------------------------------------

    async def _check_yours(self, name: str, tenant: str) -> None:
        """Raises PermissionDenied for the building of another tenant: who fitted it, or will first."""
        network = network_of(name)
        first = await self._jobs.active(FIT, name)  # asked first: if it ends now, what it left is seen
        owner = await asyncio.to_thread(owner_of, self._root, network)
        if owner is None and first is not None:
            owner = first.tenant
        if not may_change(owner, tenant):
            raise not_yours(name)

    async def _check_first(self, job: Job) -> None:
        """A submit through another gateway may have taken the new name at the same moment: the older of the
        two has it, the other job is cancelled. Raises PermissionDenied then."""
        try:
            await self._check_yours(job.subject, job.tenant)
        except PermissionDenied:
            with contextlib.suppress(Conflict):  # it has failed for that already
                await self._jobs.cancel(job.id, job.tenant)
            raise

    async def _info(self, name: str) -> ModelInfo:
        """The newest version of a building's service; one that the catalog does not know is looked for."""
        service = SERVICE_PREFIX + network_of(name)
        for fresh in (False, True):
            if self._plane.catalog.versions(service):
                return self._plane.catalog.info(service)
            if fresh or time.monotonic() < self._looked + _LOOK_AGAIN:
                break
            await self.refresh()
        raise self._unknown(name)

    def _described(self, info: ModelInfo) -> dict[str, Any]:
        building = building_of(info.network)
        facts = info.details.get("building")
        facts = dict(facts) if isinstance(facts, Mapping) else {}
        return {
            "building": building,
            "object": "building",
            "model": info.network,
            "version": info.version,
            "versions": self._plane.catalog.versions(info.name),
            "floors": list(info.labels),
            "quality": dict(info.quality),
            "warnings": facts.pop("warnings", []),
            "created": str(info.details.get("created", "")),
            "facts": facts,
        }

    def _read_picture(self, info: ModelInfo) -> bytes | None:
        path = self._root / info.network / info.version / PICTURE
        try:
            with path.open("rb") as file:
                content = file.read(_LARGEST_PICTURE)
        except OSError:
            return None
        return content if content.startswith(b"\x89PNG\r\n\x1a\n") else None

    def _unknown(self, name: str) -> NotFound:
        known = ", ".join(each["building"] for each in self.buildings()[:20]) or "none"
        return NotFound(
            f"there is no building '{name}'; fitted: {known}", param="building", code="BUILDING_NOT_FOUND"
        )


def floor_answers(info: ModelInfo, response: InferResponse) -> list[dict[str, Any]]:
    """The rows of an answer as callers see them: ``floor`` (None if nothing tells),
    ``confidence``, ``known``, ``heard`` and ``distribution`` by floor."""
    named = [[round(float(share), 6) for share in row] for row in response.output("distribution").data]
    return [
        {
            "floor": floor.decode() or None,
            "confidence": round(float(confidence), 6),
            "known": bool(known >= KNOWN_FROM),
            "heard": int(heard),
            "distribution": dict(zip(info.labels, shares, strict=True)),
        }
        for floor, confidence, known, heard, shares in zip(
            response.output("floor").data,
            response.output("confidence").data,
            response.output("known").data,
            response.output("heard").data,
            named,
            strict=True,
        )
    ]
