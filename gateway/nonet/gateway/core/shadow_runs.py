"""New versions tried on live requests before they answer any: a copy of a request that the serving version
has answered goes to its shadow too, and the shadow takes over, or never does, by how the two compare."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from nonet.gateway.core.protocol_parameters import LOWEST_PRIORITY
from nonet.gateway.core.records import ANSWERED_BY_CACHE, RequestRecord, unsure_rows
from nonet.gateway.executor.contract import BackendCrashed
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import (
    DeadlineExceeded,
    DeadlineUnattainable,
    ModelRefused,
    ServingError,
    Unavailable,
)
from nonet.runtime.repository.layout import read_model
from nonet.runtime.repository.publish import republish_version
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo

__all__ = ["ShadowRuns", "is_unsure_of_more"]

logger = logging.getLogger(__name__)

_SERVERS_FAULT: Final = (DeadlineExceeded, DeadlineUnattainable, Unavailable)
"""What says nothing of the version: the copy was not run to its end."""

_MARGIN: Final = 0.1
_SPREADS: Final = 3.0

Infer = Callable[[InferRequest], Awaitable[InferResponse]]


def is_unsure_of_more(new: tuple[int, int], old: tuple[int, int]) -> bool:
    """Whether a version is unsure of clearly more rows than another.

    Args:
        new, old: rows answered, 1 or more, and how many of them the version was unsure of.

    Its share may be larger by a tenth, and by three standard deviations of what chance makes of so many rows.
    """
    shares = [unsure / rows for rows, unsure in (new, old)]
    chance = math.sqrt(
        sum(share * (1 - share) / rows for share, (rows, _) in zip(shares, (new, old), strict=True))
    )
    return shares[0] - shares[1] > max(_MARGIN, _SPREADS * chance)


@dataclasses.dataclass(slots=True)
class _Comparison:
    """What one shadow and the version that serves have both answered."""

    shadow: str
    serving: str
    rows: int = 0
    told: int = 0
    unsure: int = 0
    unsure_serving: int = 0
    moved: float = 0.0
    scale: float = 0.0
    busy: bool = False

    def add(self, rows: int, mine: InferResponse, served: InferResponse) -> None:
        self.rows += rows
        counts = [unsure_rows(response, rows) for response in (mine, served)]
        if None not in counts:
            self.told += rows
            self.unsure += counts[0] or 0
            self.unsure_serving += counts[1] or 0
        others = {tensor.name: tensor.data for tensor in served.outputs}
        for tensor in mine.outputs:
            other = others.get(tensor.name)
            if other is not None and tensor.data.dtype.kind == "f" and tensor.data.shape == other.shape:
                self.moved += float(np.abs(tensor.data - other).sum(dtype=np.float64))
                self.scale += float(np.abs(other).sum(dtype=np.float64))

    def evidence(self) -> dict[str, Any]:
        return {
            "beside_version": self.serving,
            "rows": self.rows,
            **({"unsure": self.unsure, "unsure_before": self.unsure_serving} if self.told else {}),
            "relative_difference": self.moved / self.scale if self.scale else 0.0,
        }


class ShadowRuns:
    """See the module's text.

    A shadow is the newest ready version of a model whose manifest says for how many rows it is to be one. Of
    what its model answers by computing, one request at a time is copied to it, at the lowest priority, so
    that callers wait for no more than the one execution that has begun; nobody gets its answers. It never
    takes over if it fails on a request that was answered, or if it is unsure of clearly more rows
    (:func:`is_unsure_of_more`; models that do not tell are judged by failures alone). Both ends are a further
    version, so that numbers only grow and every server of the repository sees it: the shadow's files without
    the mark and with the evidence in ``source.shadow``, or the files of the version that serves.

    What was compared is in memory: it begins again with the process.

    Attributes:
        rows: compared so far, by model.
        ended: shadow runs that have ended, by model and outcome, ``switched`` or ``dropped``.

    Args:
        catalog: says which versions serve and which are shadows.
        root: folder of the model repository.
        infer: the path of a request.
        reload: brings the catalog up to date with the repository; called in a thread.
    """

    def __init__(self, catalog: Catalog, root: Path, infer: Infer, reload: Callable[[], object]) -> None:
        self._catalog = catalog
        self._root = root
        self._infer = infer
        self._reload = reload
        self._comparisons: dict[str, _Comparison] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow-runs")
        self.rows: dict[str, int] = {}
        self.ended: dict[tuple[str, str], int] = {}

    def answered(self, request: InferRequest, response: InferResponse, record: RequestRecord) -> None:
        """A request was answered; the answer has not left yet. Returns at once."""
        shadow = self._catalog.shadow(record.model)
        if shadow is None or record.cache in ANSWERED_BY_CACHE or shadow.decoupled:
            return
        serving = self._catalog.newest(record.model)
        if serving is None or record.version != serving.version or serving.shadow_rows:
            return
        known = self._comparisons.get(record.model)
        if known is None or (known.shadow, known.serving) != (shadow.version, serving.version):
            known = self._comparisons[record.model] = _Comparison(shadow.version, serving.version)
        if known.busy or known.rows >= shadow.shadow_rows:
            return
        known.busy = True
        # The caller's memory is its own again when it has the answer.
        inputs = tuple(dataclasses.replace(each, data=each.data.copy()) for each in request.inputs)
        copy = dataclasses.replace(
            request,
            model=shadow.name,
            version=shadow.version,
            inputs=inputs,
            outputs=(),
            deadline=None,
            priority=LOWEST_PRIORITY,
            use_cache=False,
            store_in_cache=False,
        )
        task = asyncio.get_running_loop().create_task(
            self._compare(copy, response, record.rows, shadow, known)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(
        self, copy: InferRequest, served: InferResponse, rows: int, shadow: ModelInfo, known: _Comparison
    ) -> None:
        try:
            mine = await self._infer(copy)
        except ServingError as error:
            if isinstance(error, _SERVERS_FAULT) and not isinstance(error, BackendCrashed):
                known.busy = False
            else:
                why = f"it failed on a request that was answered ({error.code})"
                self._end(shadow, known, "dropped", why)
            return
        known.add(rows, mine, served)
        self.rows[shadow.name] = self.rows.get(shadow.name, 0) + rows
        if known.rows < shadow.shadow_rows:
            known.busy = False
            return
        if known.told and is_unsure_of_more((known.told, known.unsure), (known.told, known.unsure_serving)):
            unsure = f"it was unsure of {known.unsure} of {known.told} rows"
            why = f"{unsure}, version {known.serving} of {known.unsure_serving}"
            self._end(shadow, known, "dropped", why)
        else:
            self._end(shadow, known, "switched", "")

    def _end(self, shadow: ModelInfo, known: _Comparison, outcome: str, why: str) -> None:
        """It stays busy: this comparison goes on no more."""
        network = shadow.network or shadow.name
        self._thread.submit(self._publish, shadow.name, network, known, outcome, why)

    def _publish(self, model: str, network: str, known: _Comparison, outcome: str, why: str) -> None:
        """In a thread of its own."""
        folder = read_model(self._root, network)
        if folder is None or folder.versions[-1].version != known.shadow:
            return  # another server, or another publisher, was first
        try:
            made = (
                republish_version(self._root, network, known.shadow, source={"shadow": known.evidence()})
                if outcome == "switched"
                else republish_version(
                    self._root,
                    network,
                    known.serving,
                    command=f"version {known.serving} again, for version {known.shadow}: {why}",
                )
            )
        except (ServingError, ModelRefused, OSError) as error:
            logger.error("the shadow run of %s version %s cannot end: %s", network, known.shadow, error)
            return
        self.ended[(model, outcome)] = self.ended.get((model, outcome), 0) + 1
        logger.warning(
            "version %s of %s: the shadow %s was %s after %d rows beside version %s%s",
            *(
                made.version,
                network,
                known.shadow,
                outcome,
                known.rows,
                known.serving,
                f": {why}" if why else "",
            ),
        )
        self._reload()
