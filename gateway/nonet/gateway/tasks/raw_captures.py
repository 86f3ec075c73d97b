"""Captures that are developed as jobs, for every face. Knows no transport.

The model is chosen, and its version pinned, when a capture is submitted: what a caller gets does not depend
on how long its job waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.tasks.raw_development import CAPTURE, DEVELOP, TASK, DevelopSpec, engine_words
from nonet.jobs import Job, Jobs, NewJob, new_job_id
from nonet.runtime.errors import NotImplementedHere
from nonet.runtime.repository.layout import read_model
from nonet.runtime.requests import Parameter
from nonet.runtime.servable import ModelInfo
from nonet.runtime.storage_errors import storage_errors

__all__ = ["CaptureTaker", "CaptureUpload", "RawCaptures"]

_TAKERS = 2
_LONGEST_NAME = 80
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")

CaptureTaker = Callable[..., str]
"""``take(source, target, parameters, offset=, length=)``: see ``services.raw_image.take_upload``."""


@dataclasses.dataclass(frozen=True, slots=True)
class CaptureUpload:
    """A capture on the disk and what was sent beside it.

    Args:
        path: the file, or the body that it is a part of.
        parameters: of the service, as sent.
        model: as sent; ``auto`` leaves the choice to us.
        name: what the caller calls it; "" if nothing.
        webhook: URL that is told of the job's end, "" if none.
        offset, length: which bytes of ``path`` are the capture; None for all from the offset on.
    """

    path: Path
    parameters: Mapping[str, Parameter]
    model: str = "auto"
    name: str = ""
    webhook: str = ""
    offset: int = 0
    length: int | None = None


class RawCaptures:
    """See the module's text.

    Args:
        plane: knows the models.
        jobs: develops the captures.
        take: copies and checks uploads; blocks.
        pixels: largest capture.
        max_upload: largest upload, bytes.
        root: folder of the model repository, which the workers read.
    """

    def __init__(
        self,
        plane: DataPlane,
        jobs: Jobs,
        take: CaptureTaker,
        *,
        pixels: int,
        max_upload: int,
        root: Path,
    ) -> None:
        self._plane = plane
        self._jobs = jobs
        self._take = take
        self._pixels = pixels
        self._root = root
        self.max_upload = max_upload
        self._takers = ThreadPoolExecutor(_TAKERS, thread_name_prefix="captures")

    async def able(self) -> None:
        """Raises NotImplementedHere, saying why, if no capture can be developed as a job here."""
        await self._jobs.able(DEVELOP)

    def receiving(self) -> contextlib.AbstractContextManager[Path]:
        """A file for an upload; see :meth:`~nonet.jobs.incoming_uploads.Arrivals.receiving`."""
        return self._jobs.arrivals.receiving()

    async def submit(self, upload: CaptureUpload, tenant: str, key: str) -> tuple[Job, bool]:
        """Submit a development; the job, and whether it is a new one.

        Raises what the service raises for the capture and its parameters, as far as that shows without
        decoding pixels, and what choosing a model and submitting a job raise.
        """
        info = self._plane.choose(TASK, upload.model, deadline=None)
        if upload.webhook:
            self._jobs.check_webhook(upload.webhook)
        job = new_job_id()
        files = self._jobs.files
        folder = await asyncio.to_thread(files.make_folder, job)
        try:
            spec = await asyncio.to_thread(self._spec, info, upload)
            # Few at a time, also when their callers have left: each reads and writes a whole capture.
            taken = await asyncio.get_running_loop().run_in_executor(
                self._takers, functools.partial(self._taken, upload, folder / CAPTURE)
            )
        except BaseException:
            await asyncio.to_thread(files.remove, job)
            raise
        sent = json.dumps([DEVELOP, upload.model, upload.webhook, taken])
        digest = hashlib.sha256(sent.encode()).hexdigest()
        subject = _UNPRINTABLE.sub("_", upload.name)[:_LONGEST_NAME] or CAPTURE
        return await self._jobs.submit(
            NewJob(
                job,
                DEVELOP,
                subject,
                tenant,
                dataclasses.asdict(spec),
                digest,
                key,
                upload.webhook,
                engine_words(spec.engine, spec.precision),
            )
        )

    def _taken(self, upload: CaptureUpload, target: Path) -> str:
        with storage_errors():
            return self._take(
                upload.path, target, upload.parameters, offset=upload.offset, length=upload.length
            )

    def _spec(self, info: ModelInfo, upload: CaptureUpload) -> DevelopSpec:
        """Raises NotImplementedHere if the workers cannot have the network."""
        folder = read_model(self._root, info.network)
        details = info.details
        here = folder is not None and info.version in [each.version for each in folder.versions]
        if not here or not {"content", "engine", "precision"} <= details.keys():
            raise NotImplementedHere(
                f"model '{info.network}' is kept by another process, so no job can use it; send the request "
                "without Prefer: respond-async",
                param="model",
            )
        return DevelopSpec(
            network=info.network,
            version=info.version,
            content=str(details["content"]),
            engine=str(details["engine"]),
            precision=str(details["precision"]),
            parameters=dict(upload.parameters),
            pixels=self._pixels,
        )
