"""What gateways that share one Redis tell each other: answers, who executes what, and quotas.

Nothing here is needed to serve: whatever Redis does, a request goes on as if there were none.
"""

from nonet.gateway.peers.answers import SharedAnswers
from nonet.gateway.peers.gateway_peers import GatewayPeers
from nonet.gateway.peers.peer_link import Away, PeerLink
from nonet.gateway.peers.quotas import SharedQuotas

__all__ = ["Away", "GatewayPeers", "PeerLink", "SharedAnswers", "SharedQuotas"]
