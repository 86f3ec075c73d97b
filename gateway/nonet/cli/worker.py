"""``nonet worker``: the process that runs one job of a gateway. The gateway starts it; people need not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["worker"]


def worker(
    list_kinds: Annotated[
        bool, typer.Option("--list", help="Print as JSON what can be worked on here, and what is missing.")
    ] = False,
    state: Annotated[Path | None, typer.Option(help="State folder of the jobs.")] = None,
    repository: Annotated[Path, typer.Option(help="Model repository to publish in.")] = Path(
        "model_repository"
    ),
    job: Annotated[str, typer.Option(help="Id of the job.")] = "",
    owner: Annotated[str, typer.Option(help="Name under which the job was claimed.")] = "",
    parent: Annotated[int, typer.Option(help="Stop when the process with this pid is gone; 0 for none.")] = 0,
    lease_seconds: Annotated[float, typer.Option(help="Length of the lease that is renewed.")] = 15.0,
    stop_seconds: Annotated[
        float, typer.Option(help="Time to stop in before the process ends itself.")
    ] = 10.0,
    memory_bytes: Annotated[int, typer.Option(help="Memory the process may reserve; 0 for no limit.")] = 0,
    nice: Annotated[int, typer.Option(help="How much to step back for other processes.")] = 0,
    log_format: Annotated[str, typer.Option(help="text or json, as the gateway's log.")] = "text",
) -> None:
    """Run one job and exit: what a gateway starts for each job, with every option filled in.

    Example: nonet worker --list
    """
    from nonet.cli.job_process import run_one, say_kinds
    from nonet.gateway.process.services import works
    from nonet.jobs import Assignment
    from nonet.runtime.backends.requirement import installed_engines

    kinds = {kind: work for kind, (_, work) in works().items()}
    if list_kinds:
        say_kinds(kinds, installed_engines())
        raise typer.Exit(0)
    if state is None or not job or not owner:
        raise typer.BadParameter("a worker is started by a gateway; it needs --state, --job and --owner")
    assignment = Assignment(job, owner, lease_seconds, stop_seconds, parent, memory_bytes, nice)
    raise typer.Exit(run_one(kinds, state, repository, assignment, log_format))
