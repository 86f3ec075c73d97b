"""Asking an endpoint for every expression of a benchmark: several pictures at once, resumable, in a fixed
order.

Answers go to a file of JSON lines as they come, one line for each expression; a run that was stopped goes
on with the expressions that have none.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nonet.research.ref_l4.annotations import Annotation
from nonet.research.ref_l4.endpoints import Answered, Endpoint, Picture, Unreachable
from nonet.research.ref_l4.predictions import Prediction

__all__ = ["Driven", "drive"]

#: What an expression without a box is answered with, since the official evaluator refuses missing ones.
NO_BOX = (0.0, 0.0, 0.0, 0.0)
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Driven:
    """The predictions in the order of the annotations, and how many answers had which status."""

    predictions: list[Prediction]
    statuses: Mapping[str, int]


async def drive(
    endpoint: Endpoint,
    annotations: Sequence[Annotation],
    picture_of: Callable[[Annotation], Picture],
    answers: Path,
    *,
    concurrency: int = 4,
    together: int = 16,
    attempts: int = 5,
    report: Report = lambda done, of: None,
    wait: Callable[[float], asyncio.Future[None] | object] = asyncio.sleep,
) -> Driven:
    """Answer every annotation.

    Args:
        endpoint: what is asked.
        annotations: in the order of the result.
        picture_of: reads the picture of an annotation, in a thread.
        answers: file of the answers so far, made if it is not there.
        concurrency: pictures asked about at once.
        together: most expressions of a picture in one request.
        attempts: how often a request is made before its expressions count as failed.
        report: called with the number of answers and of expressions.
        wait: waits some seconds between attempts.
    """
    known = _read(answers)
    groups: dict[str, list[Annotation]] = {}
    for row in annotations:
        if row.id not in known:
            groups.setdefault(row.image, []).append(row)
    answers.parent.mkdir(parents=True, exist_ok=True)
    open_slots = asyncio.Semaphore(concurrency)
    with answers.open("a", encoding="utf-8") as file:

        def keep(row: Annotation, answered: Answered) -> None:
            known[row.id] = answered
            box = None if answered.box is None else list(answered.box)
            line = {"id": row.id, "box": box, "status": answered.status, "said": answered.said}
            file.write(json.dumps(line) + "\n")
            file.flush()

        async def one(rows: list[Annotation]) -> None:
            async with open_slots:
                picture = await asyncio.to_thread(picture_of, rows[0])
                for first in range(0, len(rows), together):
                    part = rows[first : first + together]
                    found = await _asked(endpoint, picture, part, attempts, wait)
                    for row, answered in zip(part, found, strict=True):
                        keep(row, answered)
                    report(len(known), len(annotations))

        async with asyncio.TaskGroup() as tasks:
            for rows in groups.values():
                tasks.create_task(one(rows))
    boxes = [known[row.id].box for row in annotations]
    return Driven(
        [Prediction(row.id, box or NO_BOX) for row, box in zip(annotations, boxes, strict=True)],
        Counter(known[row.id].status for row in annotations),
    )


async def _asked(
    endpoint: Endpoint,
    picture: Picture,
    rows: Sequence[Annotation],
    attempts: int,
    wait: Callable[[float], object],
) -> list[Answered]:
    """The answers; failed ones where every attempt was in vain."""
    why = ""
    for attempt in range(attempts):
        if attempt:
            await wait(min(30.0, 0.5 * 2**attempt))  # type: ignore[misc]
        try:
            return await endpoint.ground(picture, [row.caption for row in rows])
        except Unreachable as error:
            why = str(error)
    return [Answered(None, "failed", why)] * len(rows)


def _read(answers: Path) -> dict[int, Answered]:
    """The answers so far; a last line that was cut off, and failures, are asked again."""
    found: dict[int, Answered] = {}
    if not answers.is_file():
        return found
    for line in answers.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            box = row["box"] and tuple(float(each) for each in row["box"])
            answered = Answered(box, row["status"], row["said"])
        except (ValueError, KeyError, TypeError):
            continue
        if answered.status != "failed":
            found[int(row["id"])] = answered
    return found
