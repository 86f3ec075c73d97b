"""``nonet models quantise``: an int8 variant of a published classifier, shipped only if it loses little."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from nonet.cli.failure import CommandFailed
from nonet.cli.long_work import long_work

__all__ = ["quantise"]


def quantise(
    model: Annotated[str, typer.Argument(help="Name of an fp32 classifier; its newest version is taken.")],
    name: Annotated[str, typer.Option("--as", help="Name of the variant; NAME_int8 by default.")] = "",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with train/CLASS/*.jpg and test/CLASS/*.jpg; for the published family the folder of "
            "the data sets, which NONET_DATA names."
        ),
    ] = None,
    repository: Annotated[Path, typer.Option("--repository", help="Folder of the models.")] = Path(
        "model_repository"
    ),
    pictures: Annotated[int, typer.Option(min=8, max=4096, help="To calibrate on, of train.")] = 128,
    allowed_loss: Annotated[
        float, typer.Option(min=0, max=1, help="Largest loss of the share of right answers, 0 to 1.")
    ] = 0.003,
    publish: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Publish it if the loss is allowed.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make an int8 variant of a classifier: calibrated on train, measured beside the original on test.

    It is published as a model of the same family, whose order is that of the measured quality. Exit status 1
    if it loses more than allowed.

    Example: nonet models quantise fasternet_t0_grocery --data ../shared/data
    """
    from nonet.cli.models import newest_sound
    from nonet.research.variants.making import Wanted, make_variant

    prepared = newest_sound(repository, model)
    named = os.environ.get("NONET_DATA")
    folder = data or (Path(named) if named else None)
    if folder is None:
        raise CommandFailed("no pictures: name their folder with --data")
    wanted = Wanted(
        name=name or f"{model}_int8",
        data=folder,
        pictures=pictures,
        allowed_loss=allowed_loss,
        command=f"nonet models quantise {shlex.quote(model)} --pictures {pictures}",
    )
    with long_work(f"quantising {model}", f"nothing was published; again with: {wanted.command}") as say:
        made = make_variant(prepared, repository, wanted, publish=publish, say=say)
    pair = made.pair
    points = [100 * right / pair.examples for right in (pair.first, pair.second)]
    if as_json:
        facts = {**dataclasses.asdict(made), "loss": pair.loss, "model": wanted.name}
        print(json.dumps(facts, indent=2))
    else:
        print(
            f"{wanted.name}: {points[1]:.2f} % of {pair.examples} pictures right, {model} {points[0]:.2f} %; "
            f"only one of them right: {pair.only_second} and {pair.only_first} "
            f"(McNemar's exact p = {pair.p:.2g})"
        )
        speeds = ", ".join(f"batch {rows} {ratio:.2f}x" for rows, ratio in made.speedup.items())
        print(f"speed against fp32 on this machine, one thread: {speeds}")
        print(f"published as version {made.version}" if made.version else "not published")
    if publish and not made.version:
        raise CommandFailed(
            f"{wanted.name} loses {100 * pair.loss:.2f} points of right answers, more than the "
            f"{100 * allowed_loss:.2f} allowed"
        )
