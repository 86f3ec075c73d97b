"""Builds the jobs of a process from the settings: their store, files, workers and webhooks."""

from __future__ import annotations

import logging
import sys

from nonet.gateway.settings.policies import policy_from
from nonet.gateway.settings.schema import Settings, SettingsError
from nonet.jobs import JobFiles, JobPolicy, Jobs, JobStore, StoreAddress, WebhookPolicy, WorkerCommand

__all__ = ["compose_jobs"]

logger = logging.getLogger(__name__)


def compose_jobs(settings: Settings, *, works_only: bool = False, serves: bool = False) -> Jobs:
    """Wire the jobs of a gateway, or of a process that only works for gateways; nothing is started yet.

    Args:
        settings: all settings.
        works_only: whether it only works.
        serves: whether it serves the models of ``repository.path`` itself.

    Raises SettingsError for a store or for webhooks that cannot be as they are set.
    """
    given = settings.jobs
    address = _address(settings)
    command = WorkerCommand(
        given.worker or (sys.executable, "-m", "nonet.cli.main", "worker"),
        given.path,
        settings.repository.path,
        settings.logging.format,
        address.environment(),
    )
    store = _store(address, settings)
    logger.info("the jobs are kept in %s", address.shown)
    return Jobs(
        store,
        JobFiles(given.path),
        command,
        policy_from(given, JobPolicy),
        None if works_only else _webhooks(settings),
        shared=address.shared,
        offers=works_only or address.shared,
        serves=serves,
        tidies=not works_only,  # what gateways show is kept as they are set
    )


def _address(settings: Settings) -> StoreAddress:
    given = settings.jobs
    try:
        return StoreAddress(given.store.get_secret_value(), given.store_prefix, given.store_timeout)
    except ValueError as error:
        raise SettingsError(f"setting 'jobs.store': {error}") from None


def _store(address: StoreAddress, settings: Settings) -> JobStore:
    try:
        return address.open(settings.jobs.path)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"setting 'jobs.store' needs {error.name}, which is not installed: pip install 'nonet[redis]'"
        ) from None
    except ValueError as error:
        raise SettingsError(f"setting 'jobs.store': {error}") from None


def _webhooks(settings: Settings) -> WebhookPolicy:
    given = settings.jobs
    try:
        secret = given.webhook_secret.get_secret_value().encode()
        return policy_from(given, WebhookPolicy, prefix="webhook_", secret=secret)
    except ValueError as error:
        raise SettingsError(f"jobs.webhook_hosts and jobs.webhook_secret: {error}") from None
