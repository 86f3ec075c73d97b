"""Runs a process that only works (``nonet work``): it takes the jobs that gateways queue, and serves nobody.

Leaving (SIGTERM, SIGINT): no further job is taken, the workers write their checkpoints and the jobs go back
into the queue; ``server.grace`` after the signal what is left is killed. A second signal ends the process on
the spot.
"""

from __future__ import annotations

import asyncio
import logging

from nonet.gateway.process.compose_jobs import compose_jobs
from nonet.gateway.process.logs import set_up_logging
from nonet.gateway.process.process_exit import exit_at_last, stop_signal
from nonet.gateway.process.services import works
from nonet.gateway.settings.schema import Settings, SettingsError
from nonet.jobs import Jobs
from nonet.runtime.release import VERSION

logger = logging.getLogger(__name__)


def run_work(settings: Settings) -> int:
    """Work until told to stop; returns the exit status.

    Raises SettingsError, also if this could fit buildings, and the gateways that were heard of serve from
    another repository.
    """
    if settings.jobs.concurrency == 0:
        raise SettingsError("setting 'jobs.concurrency' is 0: nothing would be worked on")
    set_up_logging(settings.logging)
    jobs = compose_jobs(settings, works_only=True)
    asyncio.run(_work(jobs, settings))
    return 0


async def _work(jobs: Jobs, settings: Settings) -> None:
    stopping = stop_signal()
    await jobs.open()
    publishing = {kind for kind, (_, work) in works().items() if work.publishes is not None}
    if foreign := await jobs.registry.foreign(publishing):
        jobs.close()
        raise SettingsError(foreign)
    await jobs.start()
    count = settings.jobs.concurrency
    where = settings.repository.path.absolute()
    print(  # noqa: T201
        f"nonet {VERSION} works on jobs, {count} at a time, with the models in {where}", flush=True
    )
    number = await stopping
    logger.info("%s: leaving", number.name)
    exit_at_last(settings.server.grace)
    await jobs.stop(settings.server.grace)
    jobs.close()
    logger.info("left")
