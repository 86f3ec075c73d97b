"""``nonet models import``: networks made elsewhere into the repository, told apart by their files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from nonet.cli.failure import CommandFailed, WronglyGiven
from nonet.cli.long_work import long_work

__all__ = ["import_model", "say_published"]

_CHECKPOINTS = (".pth", ".pt", ".bin", ".safetensors")
_FITS = ("crop", "stretch", "window", "letterbox")
_INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")
_CHANNELS = ("rgb", "bgr")
_LAYOUTS = ("nchw", "nhwc")
_ACTIVATIONS = ("logits", "softmax", "sigmoid")


def import_model(
    file: Annotated[Path, typer.Argument(help="ONNX file, or a FasterNet checkpoint (.pth, .safetensors).")],
    name: Annotated[str, typer.Option("--as", help="Name of the new model.")],
    repository: Annotated[Path, typer.Option("--repository", help="Folder of the models.")] = Path(
        "model_repository"
    ),
    labels: Annotated[Path | None, typer.Option(help="Text file of class names, one per line.")] = None,
    size: Annotated[
        int | None, typer.Option(min=1, max=4096, help="ONNX: side of the square that goes in, pixels.")
    ] = None,
    resize: Annotated[
        int | None, typer.Option(min=1, max=4096, help="ONNX: shorter side before the middle is cut, pixels.")
    ] = None,
    fit: Annotated[
        str, typer.Option(help="ONNX: crop, stretch, window (top left) or letterbox (middle).")
    ] = "",
    pad: Annotated[
        int | None, typer.Option(min=0, max=255, help="ONNX: level that window and letterbox fill.")
    ] = None,
    interpolation: Annotated[str, typer.Option(help="ONNX: bilinear, bicubic or lanczos.")] = "",
    mean: Annotated[
        str, typer.Option(help="ONNX: of red, green, blue on the scale 0 to 1: 0.5,0.5,0.5")
    ] = "",
    std: Annotated[str, typer.Option(help="ONNX: likewise, e.g. 0.5,0.5,0.5")] = "",
    channels: Annotated[str, typer.Option(help="ONNX: order of the colours, rgb or bgr.")] = "",
    layout: Annotated[str, typer.Option(help="ONNX: order of the input's axes, nchw or nhwc.")] = "",
    activation: Annotated[
        str, typer.Option(help="ONNX: what it gives or needs: logits, softmax, sigmoid.")
    ] = "",
    picture: Annotated[Path | None, typer.Option(help="ONNX: a picture to try it on.")] = None,
    expect: Annotated[
        str, typer.Option(help="ONNX: what the picture shows: a class, or a file of answers.")
    ] = "",
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Regressors: CSV of error (truth less prediction) and std on data it has not seen."
        ),
    ] = None,
    features: Annotated[str, typer.Option(help="Regressors: names of its columns: area,age,rooms")] = "",
    variant: Annotated[str | None, typer.Option(help="Checkpoint: variant; found by default.")] = None,
    family: Annotated[str, typer.Option(help="Family the model is a step of.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the weights; what the file says by default.")] = "",
    credit: Annotated[str, typer.Option(help="Whom to credit.")] = "",
    task: Annotated[str, typer.Option(help="ONNX: task it is for; by default what its file says.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Publish a network that was made elsewhere: ONNX of a task that takes it, or a FasterNet checkpoint.

    An ONNX file is read by what it and the files beside it say (config.json, preprocessor_config.json,
    labels.txt), tried on pictures, and served at once. What is not said is asked for: status 2, and the
    options that answer. Checkpoints need the extra research; 'nonet doctor' says how to get it.

    Example: nonet models import classifier.onnx --as flowers --picture rose.jpg --expect rose
    """
    from nonet.runtime.network_import import ImportOptions

    of_onnx: dict[str, Any] = {
        "size": size,
        "resize": resize,
        "fit": _one_of("--fit", fit, _FITS),
        "pad": pad,
        "interpolation": _one_of("--interpolation", interpolation, _INTERPOLATIONS),
        "mean": _three("--mean", mean),
        "std": _three("--std", std),
        "channels": _one_of("--channels", channels, _CHANNELS),
        "layout": _one_of("--layout", layout, _LAYOUTS),
        "activation": _one_of("--activation", activation, _ACTIVATIONS),
        "picture": picture,
        "expect": expect,
    }
    measured: dict[str, Any] = {
        "calibration": calibration,
        "features": tuple(name.strip() for name in features.split(",")) if features else (),
    }
    about: dict[str, Any] = {"family": family, "licence": licence, "credit": credit}
    if _is_checkpoint(file):
        _refuse_given({**of_onnx, "task": task}, "an ONNX file", file)
        _import_checkpoint(file, name, repository, variant, labels, {**about, **measured}, as_json)
        return
    _refuse_given({"variant": variant}, "a checkpoint", file)
    _import_onnx(
        file, name, repository, task, ImportOptions(labels=labels, **of_onnx, **measured, **about), as_json
    )


def say_published(
    what: str,
    model: str,
    version: str,
    repository: Path,
    as_json: bool,
    more: Mapping[str, Any] | None = None,
) -> None:
    """What was published, or was there already, for a person or a program."""
    if as_json:
        facts = {"model": model, "version": version, "fresh": what == "published", **(more or {})}
        print(json.dumps(facts, ensure_ascii=False))
    else:
        print(f"{what} {model} version {version} in {repository}")


def _is_checkpoint(file: Path) -> bool:
    """By the file's ending, else by its first bytes: a ZIP archive, a pickle or a safetensors header."""
    if file.suffix.lower() in (*_CHECKPOINTS, ".onnx"):
        return file.suffix.lower() != ".onnx"
    try:
        with file.open("rb") as stream:
            head = stream.read(9)
    except OSError:
        return False
    return head.startswith((b"PK\x03\x04", b"\x80")) or head[8:] == b"{"


def _import_onnx(file: Path, name: str, repository: Path, task: str, options: Any, as_json: bool) -> None:
    import importlib

    from nonet.gateway.process.services import installed_services
    from nonet.runtime.network_import import Importer, NetworkUnclear, opened

    services = installed_services().values()
    tasks = [each for service in services for each in service.tasks if each.importer]
    wanted = [each for each in tasks if task in ("", each.name, each.path.rpartition("/")[2])]
    if not wanted:
        known = ", ".join(each.name for each in tasks) or "none can be"
        raise WronglyGiven(f"say with --task what the network is for: {known}")
    importers: dict[str, Importer] = {}
    for each in wanted:
        module, _, function = each.importer.partition(":")
        importers[each.name] = getattr(importlib.import_module(module), function)
    again = f"nothing was published; again with: nonet models import {file} --as {name}"
    try:
        with long_work(f"importing {file.name}", again):
            imported = opened(file, importers)(name, repository, options)
    except NetworkUnclear as unclear:
        raise WronglyGiven(unclear.message) from None
    for note in () if as_json else imported.notes:
        print(note)
    say_published("published", imported.model, imported.version, repository, as_json, imported.facts)


def _import_checkpoint(
    file: Path,
    name: str,
    repository: Path,
    variant: str | None,
    labels: Path | None,
    about: Mapping[str, Any],
    as_json: bool,
) -> None:
    from nonet.runtime.errors import ModelRefused
    from nonet.runtime.extras import how_to_install
    from nonet.runtime.network_import import NetworkUnclear
    from nonet.runtime.repository.labels import read_labels

    try:
        names = read_labels(labels) if labels else ()
    except ModelRefused as refused:
        raise CommandFailed(refused.reason) from None
    try:
        from nonet.research.checkpoints import import_weights

        published = import_weights(file, name, repository, variant=variant, labels=names, **about)
    except ModuleNotFoundError as error:
        raise CommandFailed(f"importing needs {error.name}: {how_to_install('research')}") from error
    except NetworkUnclear as unclear:
        raise WronglyGiven(unclear.message) from None
    say_published("published", published.model, published.version, repository, as_json)


def _refuse_given(options: Mapping[str, Any], kind: str, file: Path) -> None:
    given = [f"--{name}" for name, value in options.items() if value not in (None, "", ())]
    if given:
        raise WronglyGiven(f"{', '.join(given)}: only for {kind}, which '{file.name}' is not")


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    if value and value.lower() not in allowed:
        raise WronglyGiven(f"{option} is {' or '.join(allowed)}, not '{value}'")
    return value.lower()


def _three(option: str, text: str) -> tuple[float, float, float] | None:
    """Three numbers with commas between them; "" is None."""
    if not text:
        return None
    try:
        first, second, third = (float(each) for each in text.split(","))
    except ValueError:
        raise WronglyGiven(f"{option} is three numbers with commas, as 0.5,0.5,0.5, not '{text}'") from None
    return first, second, third
