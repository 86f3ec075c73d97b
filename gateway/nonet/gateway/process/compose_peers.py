"""Builds what a gateway shares with others from the settings."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nonet.gateway.settings.schema import Settings, SettingsError
from nonet.runtime.clock import Clock
from nonet.runtime.extras import how_to_install

if TYPE_CHECKING:
    from nonet.gateway.peers import GatewayPeers

logger = logging.getLogger(__name__)

_SCHEMES = ("redis://", "rediss://", "unix://")


def compose_peers(settings: Settings, clock: Clock) -> GatewayPeers | None:
    """Wire what gateways share; None if this one is by itself. Nothing is connected yet.

    Raises SettingsError for a URL that cannot be one, in words that do not repeat it, and without the client.
    """
    url = settings.redis.url.get_secret_value()
    if not url:
        return None
    if not url.startswith(_SCHEMES):
        raise SettingsError(
            "setting 'redis.url': it must be empty or a URL that begins with redis://, rediss:// or unix://"
        )
    try:
        from nonet.gateway.peers import GatewayPeers, PeerLink, SharedAnswers, SharedQuotas

        link = PeerLink(settings.redis)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"setting 'redis.url' needs {error.name}, which is not installed: {how_to_install('redis')}"
        ) from None
    except ValueError:  # the reason may repeat a part of the password
        raise SettingsError(
            "setting 'redis.url': it is no URL of a Redis: redis://[[user]:password@]host[:port][/db]"
        ) from None
    given = settings.redis
    answers = SharedAnswers(link, settings, clock) if given.answers and settings.cache.enabled else None
    quotas = SharedQuotas(link, settings) if given.quotas and settings.auth.requests_per_second else None
    shared = [name for name, part in (("answers", answers), ("quotas", quotas)) if part is not None]
    place = urlsplit(url)
    logger.info(
        "%s shared by the Redis at %s%s",
        " and ".join(shared) or "nothing is",
        place.netloc.rpartition("@")[2],
        place.path,
    )
    return GatewayPeers(link, answers, quotas)
