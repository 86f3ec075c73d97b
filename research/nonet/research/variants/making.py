"""A published classifier -> its int8 variant, measured beside it and published as a model of its family."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from nonet.research.fasternet.evaluation import interval
from nonet.research.fasternet.onnx_session import open_session, run
from nonet.research.variants.labelled_pictures import LabelledPictures, batches, find_pictures, inputs
from nonet.research.variants.paired import Pair, compare
from nonet.research.variants.quantisation import quantise
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.images import Preprocessing
from nonet.runtime.repository.checks import read_check_set
from nonet.runtime.repository.config import parse_config, print_config
from nonet.runtime.repository.layout import CONFIG_FILE
from nonet.runtime.repository.loader import PreparedVersion
from nonet.runtime.repository.manifest import Manifest, Variant
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.repository.selection import relative_error
from nonet.runtime.repository.variants import ORIGINAL

__all__ = ["Made", "Wanted", "make_variant"]

FIGURE = "top1"
_ERROR_MARGIN = 1.5
"""The error allowed on the check set, as a multiple of the one measured: other processors round otherwise."""
_TURNS = 15


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """Which variant to make.

    ``name``: of the new model; ``data``: folder of the pictures; ``pictures``: how many to calibrate on;
    ``allowed_loss``: of the share of right answers, 0..1; ``command``: what the manifest says made it.
    """

    name: str
    data: Path
    pictures: int
    allowed_loss: float
    command: str


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """What became of it: the comparison on the held-back pictures, the largest relative difference of an
    answer on the check set, fp32 time over int8 time by batch size on this machine, the version it was
    published as, "" if it lost too much."""

    pair: Pair
    error: float
    speedup: dict[int, float]
    version: str


def make_variant(
    prepared: PreparedVersion,
    repository: Path,
    wanted: Wanted,
    *,
    publish: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Made:
    """Quantise, measure beside the original, and publish if the loss is allowed.

    Raises InvalidArgument if the original is no classifier with preprocessing and a check set, its pictures
    are not there, it cannot be quantised, or its int8 answers depend on the batch.
    """
    manifest = prepared.manifest
    if (
        manifest is None
        or manifest.task != "classification"
        or manifest.preprocessing is None
        or prepared.check_set is None
        or len(prepared.config.outputs) != 1
        or manifest.variant is not None
    ):
        raise InvalidArgument(
            f"model '{prepared.name}' has no int8 variant: only an fp32 classifier whose manifest has "
            "preprocessing and a check set is quantised",
            param="model",
        )
    spec = Preprocessing.from_manifest(manifest.preprocessing.model_dump())
    found = find_pictures(wanted.data, prepared.labels, manifest.family)
    (port,) = prepared.config.inputs
    chosen = _spread(found.calibration, wanted.pictures)
    say(f"calibrating on {len(chosen)} pictures")
    try:
        graph = quantise(prepared.model_file, ({port.name: each} for each in inputs(chosen, spec)))
    except ValueError as error:
        raise InvalidArgument(str(error), param="model") from error
    say(f"measuring on {len(found.held_back)} pictures")
    before, after = open_session(prepared.model_file), open_session(graph)
    pair, agreement = _measure(before, after, found, spec)
    check = read_check_set(prepared.check_set, prepared.config.inputs, prepared.config.outputs)
    images = check.inputs[port.name]
    _check_batches(after, images, prepared.name)
    expected, answers = run(before, images)[0], run(after, images)[0]
    apart = max(relative_error(got[None], want[None]) for got, want in zip(answers, expected, strict=True))
    speedup = {rows: _speedup(before, after, images[:rows]) for rows in (1, len(images))}
    made = Made(pair, apart, speedup, "")
    if not publish or pair.loss > wanted.allowed_loss:
        return made
    new = _manifest(prepared, manifest, wanted, found, made, agreement, len(chosen))
    config = parse_config((prepared.model_file.parents[1] / CONFIG_FILE).read_text()).proto
    config.name = wanted.name
    output = prepared.config.outputs[0].name
    tensors = {port.name: images, output: answers, ORIGINAL + output: expected}
    folder = publish_version(
        repository,
        wanted.name,
        {"model.onnx": graph, "check.safetensors": save(tensors)},
        print_config(config),
        new,
        labels=prepared.labels,
        replace=True,
    )
    return dataclasses.replace(made, version=folder.version)


def _manifest(
    prepared: PreparedVersion,
    manifest: Manifest,
    wanted: Wanted,
    found: LabelledPictures,
    made: Made,
    agreement: float,
    calibrated: int,
) -> Manifest:
    """The original's, with what is the variant's own."""
    pair = made.pair
    low, high = interval(pair.second, pair.examples)
    facts: dict[str, Any] = {
        "calibration": f"{calibrated} training pictures of {found.name}, smallest and largest values",
        "comparison": f"right {pair.first} before and {pair.second} after, of {pair.examples}; only before "
        f"{pair.only_first}, only after {pair.only_second}; McNemar's exact p = {pair.p:.2g}",
        "same_class_as_original": round(agreement, 4),
    }
    return manifest.model_copy(
        update={
            "source": {**manifest.source, **facts},
            "command": wanted.command,
            "quality": {
                FIGURE: round(pair.second / pair.examples, 4),
                f"{FIGURE}_low": round(low / 100, 4),
                f"{FIGURE}_high": round(high / 100, 4),
                "pictures": pair.examples,
                "dataset": found.name,
                "split": "test",
            },
            "check_set": "check.safetensors",
            "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "variant": Variant(
                of=prepared.name,
                version=prepared.version,
                precision="int8",
                figure=FIGURE,
                loss=round(pair.loss, 4),
                allowed_loss=wanted.allowed_loss,
                allowed_error=round(_ERROR_MARGIN * made.error, 3),
            ),
        }
    )


def _spread(paths: tuple[Path, ...], count: int) -> list[Path]:
    """``count`` of them (all if there are fewer), evenly spread, since classes follow one another."""
    count = min(count, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]


def _measure(before: Any, after: Any, found: LabelledPictures, spec: Preprocessing) -> tuple[Pair, float]:
    """Both on the held-back pictures, and the share on which they name the same class."""
    right: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    same = 0
    for images, labels in batches(found.held_back, spec):
        guesses = [run(session, images)[0].argmax(1) for session in (before, after)]
        same += int((guesses[0] == guesses[1]).sum())
        for kept, guess in zip(right, guesses, strict=True):
            kept.append(guess == labels)
    return compare(*(np.concatenate(kept) for kept in right)), same / len(found.held_back)


def _check_batches(session: Any, images: np.ndarray, name: str) -> None:
    """Raise InvalidArgument unless each row of every smaller batch is bit-equal to its answer alone."""
    alone = [run(session, image[None])[0][0].tobytes() for image in images]
    for rows in range(2, len(images) + 1):
        together = run(session, images[:rows])[0]
        if [row.tobytes() for row in together] != alone[:rows]:
            raise InvalidArgument(f"the int8 answers of '{name}' depend on the batch", param="model")


def _speedup(before: Any, after: Any, images: np.ndarray) -> float:
    """Least time of the one over that of the other; they take turns, so other load falls on both."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_TURNS):
        for kept, session in zip(times, (before, after), strict=True):
            started = time.perf_counter()
            run(session, images)
            kept.append(time.perf_counter() - started)
    return min(times[0]) / min(times[1])
