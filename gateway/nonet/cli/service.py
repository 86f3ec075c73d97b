"""``nonet service``: one service alone, as a microservice of the Open Inference Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nonet.cli.failure import CommandFailed
from nonet.cli.given_settings import given_settings, wrongly_given

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
    allow_without_keys: Annotated[
        bool | None,
        typer.Option(
            "--allow-without-keys",
            show_default=False,
            help="Listen beyond this machine although auth.keys is empty: for closed networks.",
        ),
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(help="Folder of the models, in Triton's layout.  [default: model_repository]"),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Serve this checkpoint of the library transformers too, under that name (grounding: "
            "Grounding DINO, Florence-2, Qwen-VL); may be repeated. Needs the extra open-models.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where checkpoints run, as PyTorch names it, e.g. cuda:0.")
    ] = "cpu",
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; see 'nonet settings --reference'.")
    ] = None,
) -> None:
    """Serve one service over gRPC: inference protocol, health and reflection, with its own scheduler.

    A gateway uses it when its topology file has [[service]] with its name and address.

    Example: nonet service recognition --port 9001
    """
    from nonet.gateway.process.service_names import service_names

    if name not in (known := service_names()):
        raise typer.BadParameter(f"unknown service '{name}'; known: {', '.join(known)}")
    named = [_named(each) for each in checkpoint or ()]
    given_server = {
        "host": host,
        "grpc_port": port,
        "http_port": http_port,
        "allow_without_keys": allow_without_keys,
    }
    settings = given_settings(
        config, {"server": given_server, "repository": {"path": repository}}, listens=True
    )
    from nonet.gateway.process.gateway_process import run_service
    from nonet.gateway.process.start_error import StartError
    from nonet.gateway.settings.schema import SettingsError

    try:
        status = run_service(
            name, settings, http=http_port is not None, checkpoints=[(*each, device) for each in named]
        )
    except SettingsError as error:
        raise wrongly_given(error.mistakes) from None
    except StartError as error:
        raise CommandFailed(str(error)) from None
    raise typer.Exit(status)


def _named(given: str) -> tuple[str, Path]:
    from nonet.runtime.repository.layout import is_model_name

    name, _, folder = given.partition("=")
    if not folder or not is_model_name(name):
        raise typer.BadParameter(
            f"'{given}' is not NAME=FOLDER, with letters, digits, '_', '.' and '-' in NAME",
            param_hint="--checkpoint",
        )
    if not Path(folder).is_dir():
        raise typer.BadParameter(f"there is no folder '{folder}'", param_hint="--checkpoint")
    return name, Path(folder)
