"""`nonet evaluate ref_l4`: a file of predictions, an endpoint, or the baselines, by Ref-L4's metrics."""

from __future__ import annotations

import asyncio
import datetime
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from nonet.research.ref_l4.annotations import Annotation, in_split, read_annotations
from nonet.research.ref_l4.answers import FAMILIES
from nonet.research.ref_l4.baselines import NamedBox, by_name_and_place, centre, largest, whole
from nonet.research.ref_l4.drive import Driven, drive
from nonet.research.ref_l4.endpoints import ChatEndpoint, Endpoint, NonetEndpoint, Picture
from nonet.research.ref_l4.metrics import accuracy, mean_accuracy, metrics
from nonet.research.ref_l4.overlaps import Box, overlaps, to_corners
from nonet.research.ref_l4.predictions import Prediction, boxes_for, read_file, write_predictions
from nonet.research.ref_l4.report import baseline_table, result_tables
from nonet.research.ref_l4.statistics import breakdown, statistics
from nonet.research.systems import EvaluateOptions, TrainOptions
from nonet.runtime.errors import InvalidArgument

__all__ = ["evaluate", "train"]

#: Environment variable with the key of an endpoint that wants one.
KEY_VARIABLE: Final = "NONET_ENDPOINT_KEY"
_TIMEOUT: Final = 300.0


def train(options: TrainOptions) -> None:
    """Raises InvalidArgument: a benchmark trains nothing."""
    raise InvalidArgument("Ref-L4 is a benchmark: there is nothing to train", param="system")


def evaluate(options: EvaluateOptions) -> None:
    """Measure what is asked for, print its tables, write JSON where `--output` says.

    Raises InvalidArgument where something is missing or does not fit together.
    """
    asked = options.benchmark
    console = Console(width=None if os.isatty(1) else 140)
    if not asked.endpoint and asked.predictions is None:
        facts = _baselines(_photographs_root(asked.data))
        console.print(baseline_table(facts))
    else:
        if asked.data is None:
            raise InvalidArgument("say with --data where the annotations are", param="data")
        annotations = in_split(read_annotations(asked.data), options.split)  # type: ignore[arg-type]
        if not annotations:
            raise InvalidArgument(
                f"{asked.data} has no expression of the split '{options.split}'", param="split"
            )
        predictions, statuses, name = _predictions(options, annotations)
        facts = measured(annotations, predictions) | {"of": name, "split": options.split, "answers": statuses}
        for table in result_tables(facts):
            console.print(table)
    if options.output is not None:
        stated = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), **facts}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
        console.print(f"results in {options.output}")


def measured(annotations: Sequence[Annotation], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Official metrics, tables by source, length, kind and category, and what the expressions are like.

    Expressions that describe nothing are left out of these: how many of them got no box is told beside.
    """
    there = [row for row in annotations if not row.nothing]
    ious = overlaps(boxes_for(there, predictions), [to_corners(row.box) for row in there])
    boxes = {each.id: each.box for each in predictions}
    nothing = [row for row in annotations if row.nothing]
    silent = sum(boxes.get(row.id) == (0.0, 0.0, 0.0, 0.0) for row in nothing)
    return {
        "metrics": metrics(there, ious),
        "class_average": "official map of categories",
        "breakdown": breakdown(there, ious),
        "statistics": statistics(annotations),
        "nothing": {"count": len(nothing), "no_box": silent},
    }


def _predictions(
    options: EvaluateOptions, annotations: Sequence[Annotation]
) -> tuple[list[Prediction], Mapping[str, int], str]:
    asked = options.benchmark
    if asked.predictions is not None:
        if asked.endpoint:
            raise InvalidArgument("give either --endpoint or --predictions", param="predictions")
        return read_file(asked.predictions), {}, asked.predictions.name
    if asked.family and asked.family not in FAMILIES:
        raise InvalidArgument(
            f"--family is one of {', '.join(FAMILIES)}, not '{asked.family}'", param="family"
        )
    if asked.images is None:
        raise InvalidArgument("say with --images where the pictures are", param="images")
    folder = asked.images
    answers = asked.answers or (options.output or Path("ref_l4.json")).with_suffix(".answers.jsonl")
    driven, name = asyncio.run(_driven(options, annotations, folder, answers))
    write_predictions(answers.with_suffix("").with_suffix(".predictions.json"), driven.predictions)
    return driven.predictions, driven.statuses, name


async def _driven(
    options: EvaluateOptions, annotations: Sequence[Annotation], folder: Path, answers: Path
) -> tuple[Driven, str]:
    asked = options.benchmark
    key = os.environ.get(KEY_VARIABLE, "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    base = asked.endpoint.rstrip("/") + "/"
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=_TIMEOUT) as client:
        endpoint: Endpoint = (
            ChatEndpoint(client, asked.model, asked.family)
            if asked.family
            else NonetEndpoint(client, asked.model)
        )
        with Progress(disable=not os.isatty(2)) as progress:
            bar = progress.add_task(endpoint.name, total=len(annotations))
            driven = await drive(
                endpoint,
                annotations,
                lambda row: read_picture(folder / row.image),
                answers,
                concurrency=asked.concurrency,
                report=lambda done, of: progress.update(bar, completed=done),
            )
        return driven, endpoint.name


def read_picture(path: Path) -> Picture:
    """The file as it is, and its size. Raises InvalidArgument if it is no picture."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            return Picture(content, Image.MIME[image.format or "JPEG"], image.width, image.height)
    except (OSError, KeyError):
        raise InvalidArgument(f"{path} is no picture", param="images") from None


def _photographs_root(data: Path | None) -> Path:
    root = data or Path(os.environ.get("NONET_DATA", "../shared/data")) / "rec_photos"
    if not (root / "triples.jsonl").is_file():
        raise InvalidArgument(
            f"{root} has no triples.jsonl. Give --data and --predictions or --endpoint, or set NONET_DATA "
            "to the folder of the data sets",
            param="data",
        )
    return root


def _baselines(root: Path) -> dict[str, Any]:
    """Grounders without weights on photographs whose boxes with names are given."""
    rows = [row for row in read_annotations(root / "triples.jsonl") if not row.nothing]
    boxes = named_boxes(root / "detections.json")
    wanted = [to_corners(row.box) for row in rows]
    methods: dict[str, list[Box]] = {
        "whole picture": [whole(row.width, row.height) for row in rows],
        "half of it, in the middle": [centre(row.width, row.height) for row in rows],
        "largest given box": [largest(boxes[row.image], row.width, row.height) for row in rows],
        "name and place among the given boxes": [
            by_name_and_place(row.caption, boxes[row.image], row.width, row.height) for row in rows
        ],
    }
    kinds = sorted({row.kind for row in rows})
    found: dict[str, Any] = {}
    for name, given in methods.items():
        ious = overlaps(given, wanted)
        found[name] = {}
        for kind in kinds:
            part = ious[[row.kind == kind for row in rows]]
            found[name][kind] = {
                "count": len(part),
                "acc50": accuracy(part, 0.5),
                "macc": mean_accuracy(part),
            }
    return {"baselines": found, "data": root.name}


def named_boxes(path: Path) -> dict[str, list[NamedBox]]:
    """``detections.json``: by picture, boxes with names."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {
        image: [NamedBox(each["category"], to_corners(each["bbox_xywh"])) for each in given]
        for image, given in content.items()
    }
