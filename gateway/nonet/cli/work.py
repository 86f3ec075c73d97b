"""``nonet work``: takes jobs that gateways queue, and serves nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nonet.cli.given_settings import given_settings, wrongly_given

__all__ = ["work"]


def work(
    repository: Annotated[
        Path | None,
        typer.Option(help="Folder of the models that results are published in.  [default: model_repository]"),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=64, help="Jobs that run at the same time.  [default: 1]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; see 'nonet settings --reference'.")
    ] = None,
) -> None:
    """Work on jobs until told to stop (SIGTERM or Ctrl-C), for a machine with a GPU or much memory.

    It takes what the gateways of the same jobs.store have queued and its own installation can do. The folders
    jobs.path and repository.path must be those of the gateways: with another repository it takes no job that
    publishes, and does not start if it could. On SIGTERM the jobs that run write their checkpoints and go
    back into the queue.

    Example: NONET_JOBS__STORE=redis://queue nonet work --concurrency 2
    """
    settings = given_settings(
        config, {"repository": {"path": repository}, "jobs": {"concurrency": concurrency}}
    )
    from nonet.gateway.process.job_machine import run_work
    from nonet.gateway.settings.schema import SettingsError

    try:
        status = run_work(settings)
    except SettingsError as error:
        raise wrongly_given(error.mistakes) from None
    raise typer.Exit(status)
