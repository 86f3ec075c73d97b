"""``nonet triton-config``: the model repository as a real Triton Inference Server serves it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from nonet.cli.failure import CommandFailed, WronglyGiven
from nonet.cli.given_settings import given_settings

__all__ = ["triton_config"]


def triton_config(
    output: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    repository: Annotated[
        Path | None, typer.Option(help="Folder of the models.  [default: model_repository]")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A network to take, with its services; all if not given.")
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="Of the networks: onnxruntime, or python for a Triton without Triton's ONNX Runtime backend."
        ),
    ] = "onnxruntime",
    gpu: Annotated[bool, typer.Option("--gpu", help="Run the networks on GPUs (unverified).")] = False,
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="Let ONNX Runtime use TensorRT; with --gpu (unverified).")
    ] = False,
    instances: Annotated[int, typer.Option(min=1, help="Executions of a network at a time.")] = 1,
    service_instances: Annotated[int, typer.Option(min=1, help="Processes of each service.")] = 1,
    queue_delay_us: Annotated[
        int, typer.Option(min=0, help="Microseconds to hold a request for a larger batch.")
    ] = 0,
    services: Annotated[
        bool, typer.Option("--services/--networks-only", help="Write the services too, or networks only.")
    ] = True,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings: what it allows of images holds there too.")
    ] = None,
) -> None:
    """Write a repository for Triton: networks as they are, services as models of its Python backend.

    Answers, names and shapes stay what they are here. A gateway reaches such a Triton by a topology file with
    kind = "triton".

    Example: nonet triton-config triton_repository --backend python
    """
    from nonet.gateway.process.compose import service_limits
    from nonet.gateway.process.services import installed_services
    from nonet.runtime.errors import ModelRefused
    from nonet.runtime.repository.layout import scan
    from nonet.runtime.triton.export import ExportOptions, export_model

    try:
        options = ExportOptions(
            backend=backend,  # type: ignore[arg-type]  # checked there
            gpu=gpu,
            instances=instances,
            service_instances=service_instances,
            tensorrt=tensorrt,
            queue_delay=queue_delay_us,
        )
    except ValueError as error:
        raise WronglyGiven(str(error)) from None
    settings = given_settings(config, {"repository": {"path": repository}}, listens=False)
    root = settings.repository.path
    folders = scan(root)
    unknown = sorted(set(model or ()) - folders.keys())
    if unknown:
        raise CommandFailed(f"no model '{unknown[0]}' in {root}; it has {', '.join(folders) or 'none'}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CommandFailed(f"{output} is not an empty folder; give one that is new or empty")
    limits = service_limits(settings)
    derivations = {name: service.derive(limits) for name, service in installed_services().items() if services}
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    written = 0
    try:
        for name, folder in folders.items():
            if model and name not in model:
                continue
            try:
                names = export_model(root, folder, partial, derivations, limits, options)
            except ModelRefused as refused:
                raise CommandFailed(f"model '{name}' cannot be served: {refused.reason}") from None
            written += len(names)
            print("\n".join(names))
        if output.exists():
            output.rmdir()
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{written} models in {output}")
