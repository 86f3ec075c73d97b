"""Looks again and again for models that were published, changed or taken away while the process serves."""

from __future__ import annotations

import logging

from nonet.gateway.core.repository_control import RepositoryControl
from nonet.jobs.wake_loop import WakeLoop
from nonet.runtime.repository import RepositoryManager

logger = logging.getLogger(__name__)


def following(repository: RepositoryManager, control: RepositoryControl, seconds: float) -> WakeLoop:
    """Looks for changed models every ``seconds``."""
    trouble = ""

    async def look() -> float:
        nonlocal trouble
        reason = ""
        try:
            await control.run(repository.refresh)
        except OSError as error:
            # The models that are loaded keep serving; said once, not at every look.
            reason = error.strerror or type(error).__name__
            if reason != trouble:
                logger.warning("the model repository cannot be read: %s", reason)
        trouble = reason
        return seconds

    return WakeLoop("looking for changed models", look, seconds)
