"""A worker whose "adaptations" take no PyTorch: it publishes a handmade regressor, declines or is slow, as
the seed says.

Run by the gateway instead of ``nonet worker`` (setting ``jobs.worker``); everything around the work is real.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nonet.cli.job_process import run_one, say_kinds
from nonet.jobs import Assignment
from nonet.runtime.job_context import JobContext
from nonet.runtime.task import Work
from nonet.services.adaptation.names import KIND, ROWS_FILE, model_of

if __package__ in (None, ""):  # run as a file: the root of the tests is not on the path
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.toy_worker import accept_nothing

DECLINES, SLOW = 13, 7
STEPS = 30
STEP_SECONDS = 0.1


def adapt(task: JobContext) -> Mapping[str, Any]:
    """What the seed says, and the sum of the rows, for the tests to see that they came through."""
    import numpy as np

    from tests.support.handmade_regressors import publish_linear

    spec, seed = task.spec, int(task.spec["seed"])
    rows = np.fromfile(task.input(ROWS_FILE), "<f4").reshape(-1, *spec["shape"])
    steps = task.folder / "steps"
    begun_at = int(steps.read_text()) if steps.is_file() else 0
    for step in range(begun_at, STEPS if seed == SLOW else 0):
        # Every other step has nothing new to say.
        density = {"origins": [0.0], "width": 1.0, "counts": [4], "shares": [0.1, 0.4, 0.4, 0.1]}
        partial = {"rows": step, "confident": step, "map": density} if step % 2 else None
        task.report(step / STEPS, "adapting", partial)
        time.sleep(STEP_SECONDS)
        steps.with_suffix(".new").write_text(str(step + 1))
        steps.with_suffix(".new").replace(steps)
    told = {"sum": float(rows.sum()), "rows": len(rows), "begun_at": begun_at, "model": spec["name"]}
    told |= {key: spec[key] for key in ("read_as", "ignored_columns", "version", "method", "epochs")}
    if seed == DECLINES:
        return {**told, "decision": "declined", "reasons": ["the map has one peak"], "version": ""}
    if not spec["activate"]:
        return {**told, "decision": "accepted", "version": ""}
    version = publish_linear(
        task.repository,
        str(spec["name"]),
        companions=True,
        command=f"nonet job {task.job}",
        owner=task.tenant,
        lineage={"parent": spec["model"], "parent_version": spec["version"], "rows": len(rows)},
    )
    return {**told, "decision": "accepted", "version": version}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true")
    for name in ("state", "job", "owner", "log-format"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    for name in ("parent", "memory-bytes", "nice"):
        parser.add_argument(f"--{name}", type=int, default=0)
    for name in ("lease-seconds", "stop-seconds"):
        parser.add_argument(f"--{name}", type=float, default=10.0)
    given = parser.parse_args()
    work = Work(KIND, f"{__name__}:{adapt.__name__}", accept_nothing, "Adapt", publishes=model_of)
    if given.list:
        say_kinds({KIND: work}, {KIND: ""})
        return 0
    assignment = Assignment(
        given.job,
        given.owner,
        given.lease_seconds,
        given.stop_seconds,
        given.parent,
        given.memory_bytes,
        given.nice,
    )
    return run_one({KIND: work}, Path(given.state), given.repository, assignment)


if __name__ == "__main__":
    sys.exit(main())
