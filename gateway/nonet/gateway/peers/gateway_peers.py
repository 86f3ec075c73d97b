"""All that a gateway shares with others, as one thing that is started, looked at and closed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nonet.gateway.peers.answers import SharedAnswers
from nonet.gateway.peers.peer_link import PeerLink
from nonet.gateway.peers.quotas import SharedQuotas


@dataclasses.dataclass(frozen=True, slots=True)
class GatewayPeers:
    """See the module's text.

    Args:
        link: to the Redis that they share.
        answers: None if they do not share them.
        quotas: None if each has its own, or there are none.
    """

    link: PeerLink
    answers: SharedAnswers | None
    quotas: SharedQuotas | None

    async def start(self) -> None:
        """Connect; what is not there is waited for in the background."""
        await self.link.start()

    async def close(self) -> None:
        """Write what waits to be written, for a moment, and close the connections."""
        await self.link.close()

    def facts(self) -> Mapping[str, Any]:
        """The values of the metrics of what is shared."""
        facts: dict[str, Any] = {
            "nonet_redis_resting": int(self.link.open),
            "nonet_redis_failures": dict(self.link.failures),
        }
        if self.answers is not None:
            facts["nonet_shared_cache_lookups"] = dict(self.answers.lookups)
            facts["nonet_shared_cache_writes"] = dict(self.answers.writes)
        return facts
