"""How far one request has come: filled in on its way, made into the record that observers get."""

from __future__ import annotations

import dataclasses

from nonet.gateway.core.partial_answers import PartialAnswers
from nonet.gateway.core.records import RequestRecord
from nonet.runtime.requests import InferResponse

__all__ = ["RequestProgress"]


@dataclasses.dataclass(slots=True)
class RequestProgress:
    """What the record of a request will say, and who takes its partial answers (None: nobody)."""

    arrival: float
    deadline: float | None
    partials: PartialAnswers | None = None
    model: str = ""
    version: str = ""
    rows: int = 1
    stage: str = "admission"
    cache: str = "bypass"
    flight: bytes = b""

    def record(self, response: InferResponse | None, code: str, now: float) -> RequestRecord:
        """The record of a request that ended at ``now``, with an answer or the code of an error."""
        timings = response.timings if response is not None else None
        executed = response is not None and self.cache not in ("hit", "coalesced")
        return RequestRecord(
            model=self.model,
            version=self.version,
            rows=self.rows,
            ok=response is not None,
            code=code,
            stage=self.stage,
            cache=self.cache,
            device=response.device if response is not None else "",
            batch_size=response.batch_size if response is not None and executed else 0,
            total=now - self.arrival,
            queue=timings.queue if timings and executed else 0.0,
            decode=timings.decode if timings and executed else 0.0,
            compute=timings.compute if timings and executed else 0.0,
            encode=timings.encode if timings and executed else 0.0,
            deadline_met=None if self.deadline is None else response is not None and now <= self.deadline,
        )
