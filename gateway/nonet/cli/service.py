"""``nonet service``: one service alone, as a microservice of the Open Inference Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nonet.cli.failure import CommandFailed

__all__ = ["service"]


def service(
    name: Annotated[
        str, typer.Argument(help="Name of the service, e.g. recognition; another one lists them.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of its gRPC face, 0 for a free one.")],
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    http_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of an HTTP face too (metrics, health); none if not given."),
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(help="Folder of the models, in Triton's layout.  [default: model_repository]"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; see 'nonet settings --reference'.")
    ] = None,
) -> None:
    """Serve one service over gRPC: inference protocol, health and reflection, with its own scheduler.

    A gateway uses it when its topology file has [[service]] with its name and address.

    Example: nonet service recognition --port 9001
    """
    from nonet.gateway.process.gateway_process import StartError, run_service
    from nonet.gateway.process.services import installed_services
    from nonet.gateway.settings.loader import load_settings
    from nonet.gateway.settings.schema import SettingsError

    if name not in (known := installed_services()):
        raise typer.BadParameter(f"unknown service '{name}'; known: {', '.join(known)}")
    try:
        settings = load_settings(
            config,
            {
                "server": {"host": host, "grpc_port": port, "http_port": http_port},
                "repository": {"path": repository},
            },
        )
        status = run_service(name, settings, http=http_port is not None)
    except (SettingsError, StartError) as error:
        raise CommandFailed(str(error)) from None
    raise typer.Exit(status)
