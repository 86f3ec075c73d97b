"""Builds the jobs of a process from the settings: their store, files, workers and webhooks."""

from __future__ import annotations

import logging
import sys

from nonet.gateway.settings.schema import Settings, SettingsError
from nonet.jobs import JobFiles, Jobs, StoreAddress, WebhookPolicy, WorkerCommand
from nonet.runtime.extras import how_to_install

logger = logging.getLogger(__name__)


def compose_jobs(
    settings: Settings, *, works_only: bool = False, serves: bool = False, beside_others: bool = False
) -> Jobs:
    """Wire the jobs of a gateway, or of a process that only works for gateways; nothing is started yet.

    Args:
        settings: all settings.
        works_only: whether it only works.
        beside_others: whether other processes of this machine submit to the same store.
        serves: whether it serves the models of ``repository.path`` itself.

    Raises SettingsError for a store or for webhooks that cannot be as they are set.
    """
    given = settings.jobs
    try:
        address = StoreAddress(given.store.get_secret_value(), given.store_prefix, given.store_timeout)
        store = address.open(given.path)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"setting 'jobs.store' needs {error.name}, which is not installed: {how_to_install('redis')}"
        ) from None
    except ValueError as error:
        raise SettingsError(f"setting 'jobs.store': {error}") from None
    logger.info("the jobs are kept in %s", address.shown)
    command = WorkerCommand(
        given.worker or (sys.executable, "-m", "nonet.cli.main", "worker"),
        given.path,
        settings.repository.path,
        settings.logging.format,
        address.environment(),
    )
    return Jobs(
        store,
        JobFiles(given.path),
        command,
        given,
        None if works_only else _webhooks(settings),
        shared=address.shared or beside_others,
        serves=serves,
        works_only=works_only,
    )


def _webhooks(settings: Settings) -> WebhookPolicy:
    given = settings.jobs
    try:
        secret = given.webhook_secret.get_secret_value().encode()
        return WebhookPolicy(
            given.webhook_hosts,
            secret,
            given.webhook_timeout,
            given.webhook_attempts,
            given.webhook_backoff,
            settings.server.root_path,
        )
    except ValueError as error:
        raise SettingsError(f"jobs.webhook_hosts and jobs.webhook_secret: {error}") from None
