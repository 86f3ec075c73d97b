"""How one request is to be handled, and whose it is: what its headers or its metadata said."""

from __future__ import annotations

import dataclasses
from typing import Any

from nonet.gateway.scheduler import Caller


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """How a request is to be handled.

    Args:
        tenant: whose request it is, "" when keys are off.
        deadline: instant on the data plane's clock, or None.
        priority: 0 is the highest.
        use_cache, store_in_cache: from ``Cache-Control``.
        request_id: under which a caller who was refused comes back.
        floor: the least quality of a family's member that will do, in the figure of the task; None for any.
        explain: whether the answer says why it was placed where it was.
    """

    tenant: str
    deadline: float | None
    priority: int
    use_cache: bool
    store_in_cache: bool
    request_id: str = ""
    floor: float | None = None
    explain: bool = False

    @property
    def caller(self) -> Caller:
        """Whose it is, as the scheduler knows it."""
        return Caller(self.tenant, self.request_id)

    def handling(self) -> dict[str, Any]:
        """The fields of the core's request that say the same."""
        return {field.name: getattr(self, field.name) for field in _HANDLING}


_HANDLING = [
    field for field in dataclasses.fields(Call) if field.name not in ("request_id", "floor", "explain")
]
