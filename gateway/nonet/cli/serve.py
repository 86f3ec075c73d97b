"""``nonet serve``: the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nonet.cli.failure import CommandFailed
from nonet.cli.given_settings import given_topology, wrongly_given

__all__ = ["serve"]


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    http_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the HTTP face, 0 for a free one.  [default: 8000]"),
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the gRPC face, 0 for a free one.  [default: 8001]"),
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(help="Folder of the models, in Triton's layout.  [default: model_repository]"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; see 'nonet settings --reference'.")
    ] = None,
    allow_without_keys: Annotated[
        bool | None,
        typer.Option(
            "--allow-without-keys",
            show_default=False,
            help="Listen beyond this machine although auth.keys is empty: for closed networks.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes that serve the ports side by side.  [default: 1]"),
    ] = None,
    topology: Annotated[
        Path | None,
        typer.Option(
            help="TOML file that says where services run: a table [[service]] with name and address for "
            "each (docs/operating.md). Without it all services run in this process."
        ),
    ] = None,
) -> None:
    """Serve the models over HTTP and gRPC until told to stop (SIGTERM or Ctrl-C).

    Prints one line with the URLs when it is ready. Flags win over NONET_<SECTION>__<FIELD> variables, which
    win over the file.

    Example: nonet serve --repository model_repository --http-port 8080
    """
    given_server = {
        "host": host,
        "http_port": http_port,
        "grpc_port": grpc_port,
        "allow_without_keys": allow_without_keys,
        "workers": workers,
    }
    settings, services = given_topology(
        config, {"server": given_server, "repository": {"path": repository}}, topology
    )
    from nonet.gateway.process.start_error import StartError
    from nonet.gateway.settings.schema import SettingsError

    try:
        if settings.server.workers > 1:
            # Forks before anything that has threads is imported.
            from nonet.gateway.process.worker_supervisor import supervise

            status = supervise(settings, services)
        else:
            from nonet.gateway.process.gateway_process import run

            status = run(settings, services)
    except SettingsError as error:
        raise wrongly_given(error.mistakes) from None
    except StartError as error:
        raise CommandFailed(str(error)) from None
    raise typer.Exit(status)
