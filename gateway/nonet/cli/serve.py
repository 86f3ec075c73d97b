"""``nonet serve``: the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nonet.cli.failure import CommandFailed

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
    topology: Annotated[
        Path | None,
        typer.Option(help="TOML file of remote services. Without it all services run in this process."),
    ] = None,
) -> None:
    """Serve the models over HTTP and gRPC until told to stop (SIGTERM or Ctrl-C).

    Prints one line with the URLs when it is ready. Flags win over NONET_<SECTION>__<FIELD> variables, which
    win over the file.

    Example: nonet serve --repository model_repository --http-port 8000 --grpc-port 8001
    """
    from nonet.gateway.process.gateway_process import StartError, run
    from nonet.gateway.settings.loader import load_settings
    from nonet.gateway.settings.schema import SettingsError
    from nonet.gateway.settings.topology import load_topology

    try:
        settings = load_settings(
            config,
            {
                "server": {"host": host, "http_port": http_port, "grpc_port": grpc_port},
                "repository": {"path": repository},
            },
        )
        services = load_topology(topology) if topology is not None else ()
        status = run(settings, services)
    except (SettingsError, StartError) as error:
        raise CommandFailed(str(error)) from None
    raise typer.Exit(status)
