"""In-flight batching of pictures against static batching and one at a time: the same network, one run.

    python bench/pictures.py --repository model_repository --model NAME [--seconds 300] [--json FILE]

Measured: the processor time of one execution of the network by its rows, on one thread (the fastest of
several, which other load disturbs least). Simulated on a clock, with Poisson arrivals: who waits for what.
The in-flight policy is the scheduler that serves, `nonet.gateway.scheduler`, as it is. The two others are
given every advantage: they know what each batch will take, never start what would be late, and refuse at the
last moment; static batching may mix requests of any steps, computes a row that is done no further, and has
the best of four largest batches; but its answers come with the batch, and nobody joins one that runs.

A request is one picture: half are of 4 steps, three tenths of 14 and a fifth of 28 steps, half of each guided
(two rows of the network). Its deadline is four times what it takes alone. Goodput is the pictures in time per
second at the highest rate of arrivals at which the share in time is still 95 % (and 90 %).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import heapq
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from nonet.gateway.scheduler import DeviceState, Item, LatencyModel, Scheduler
from nonet.gateway.settings.schema import SchedulerSettings
from nonet.runtime.errors import ServingError

ROWS = 16  # of the network in one execution
KEY = ("pictures", "1")
STEPS, SHARES = (4, 14, 28), (0.5, 0.3, 0.2)
PATIENCE = 4.0  # deadlines, in times of the picture alone
Seconds = Callable[[int], float]


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One picture: when it comes, its steps, its rows of the network, and the instant of its deadline."""

    arrival: float
    steps: int
    rows: int
    deadline: float


def measured(folder: Path, size: tuple[int, int], repeats: int) -> dict[int, float]:
    """Processor seconds of an execution by rows."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    path = str(folder / "model.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    shapes = {each.name: each.shape for each in session.get_inputs()}
    random = np.random.default_rng(0)
    found = {}
    for rows in (1, 2, 3, 4, 6, 8, 12, ROWS):
        feeds = {
            "latents": random.standard_normal((rows, shapes["latents"][1], *size), np.float32),
            "time": random.random(rows, np.float32),
            "context": random.standard_normal((rows, *shapes["context"][1:]), np.float32),
            "context_mask": np.ones((rows, shapes["context_mask"][1]), np.float32),
        }
        taken = []
        for _ in range(repeats):
            started = time.process_time()
            session.run(["velocity"], feeds)
            taken.append(time.process_time() - started)
        found[rows] = min(taken)
    return found


def arrivals(rate: float, seconds: float, alone: Callable[[int, int], float], seed: int) -> list[Request]:
    """Requests of a Poisson process."""
    random = np.random.default_rng(seed)
    now, found = 0.0, []
    while (now := now + random.exponential(1.0 / rate)) < seconds:
        steps, rows = int(random.choice(STEPS, p=SHARES)), int(random.integers(1, 3))
        found.append(Request(now, steps, rows, now + PATIENCE * alone(steps, rows)))
    return found


def in_flight(requests: Sequence[Request], seconds: Seconds) -> int:
    """How many are in time when each step is a batch, by the scheduler that serves."""
    device = DeviceState("cpu", 1, lambda key: True)
    device.latency[KEY] = LatencyModel({rows: seconds(2 * rows) for rows in (1, ROWS // 2)})
    scheduler = Scheduler(SchedulerSettings(max_queue=100_000), [device], overhead=0.0)
    now, done, waiting = 0.0, 0, list(reversed(requests))
    end, batch, taken = math.inf, None, 0.0
    while waiting or batch is not None or scheduler.queues:
        upcoming = waiting[-1].arrival if waiting else math.inf
        if batch is None and scheduler.queues:
            for item in scheduler.expire(now):
                item.payload = None
            if (batch := scheduler.pull("cpu", now)) is not None:
                taken = seconds(sum(item.payload.rows for item in batch.items))
                end = now + taken
                continue
        now = min(end, upcoming)
        if now == math.inf:
            break
        if now == upcoming:
            one = waiting.pop()
            item = Item(KEY, 1, "", one.deadline, 1, now, ROWS // 2, left=float(one.steps), payload=one)
            with contextlib.suppress(ServingError):
                scheduler.submit(item, now)
            continue
        assert batch is not None
        scheduler.finish(batch, now, taken)
        for item in batch.items:
            if item.steps + 1 < item.payload.steps:
                scheduler.requeue_step(item, now)
            else:
                done += now <= item.payload.deadline
        batch, end = None, math.inf
    return done


def static(requests: Sequence[Request], seconds: Seconds, largest: int) -> int:
    """How many are in time when a batch of at most ``largest`` rows runs from its first step to its last;
    the most urgent first, and nobody who would be late or make another late."""
    now, done, coming = 0.0, 0, list(reversed(requests))
    queue: list[tuple[float, int, Request]] = []
    while coming or queue:
        if not queue:
            now = max(now, coming[-1].arrival)
        while coming and coming[-1].arrival <= now:
            one = coming.pop()
            heapq.heappush(queue, (one.deadline, id(one), one))
        chosen: list[Request] = []
        left = []
        while queue:
            entry = heapq.heappop(queue)
            one = entry[2]
            together = [*chosen, one]
            fits = sum(each.rows for each in together) <= max(largest, one.rows)
            if fits and now + whole(together, seconds) <= min(each.deadline for each in together):
                chosen = together
            elif now + whole([one], seconds) <= one.deadline:
                left.append(entry)
        for entry in left:
            heapq.heappush(queue, entry)
        if chosen:
            now += whole(chosen, seconds)
            done += len(chosen)
    return done


def whole(batch: Iterable[Request], seconds: Seconds) -> float:
    """Seconds of a batch from its first step to its last; who is done takes no more of it."""
    total, before = 0.0, 0
    rest = sorted(batch, key=lambda one: one.steps)
    for place, one in enumerate(rest):
        total += (one.steps - before) * seconds(sum(each.rows for each in rest[place:]))
        before = one.steps
    return total


def goodput(
    policy: Callable[[Sequence[Request]], int],
    make: Callable[[float], list[Request]],
    share: float,
    length: float,
) -> tuple[float, float]:
    """Pictures in time per second at the highest rate of arrivals with that share in time, and the rate."""
    low, high = 0.0, 1.0
    found = (0.0, 0.0)

    def attained(rate: float) -> float:
        nonlocal found
        requests = make(rate)
        done = policy(requests)
        if done >= share * len(requests):
            found = max(found, (done / length, rate))
        return done / max(len(requests), 1)

    while attained(high) >= share:
        low, high = high, high * 1.5
    for _ in range(7):
        middle = (low + high) / 2
        low, high = (middle, high) if attained(middle) >= share else (low, middle)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", default="1")
    parser.add_argument("--side", type=int, default=8, help="places of the latents in each direction")
    parser.add_argument("--seconds", type=float, default=300.0, help="of simulated arrivals at each rate")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    folder = chosen.repository / chosen.model / chosen.version
    profile = measured(folder, (chosen.side, chosen.side), chosen.repeats)
    sizes, taken = list(profile), list(profile.values())

    def seconds(rows: int) -> float:
        return float(np.interp(rows, sizes, taken)) if rows <= ROWS else taken[-1] * rows / ROWS

    def alone(steps: int, rows: int) -> float:
        return steps * seconds(rows)

    def make(rate: float) -> list[Request]:
        return arrivals(rate, chosen.seconds, alone, seed=1)

    policies: dict[str, Callable[[Sequence[Request]], int]] = {
        "in flight": lambda requests: in_flight(requests, seconds),
        "static": lambda requests: max(static(requests, seconds, rows) for rows in (2, 4, 8, ROWS)),
        "one at a time": lambda requests: static(requests, seconds, 1),
    }
    answer: dict[str, Any] = {
        "model": chosen.model,
        "milliseconds_by_rows": {rows: round(1e3 * value, 2) for rows, value in profile.items()},
        "simulated_seconds": chosen.seconds,
    }
    print(f"one execution of {chosen.model}, ms by rows:", answer["milliseconds_by_rows"])
    for share in (0.95, 0.9):
        row = {name: goodput(policy, make, share, chosen.seconds)[0] for name, policy in policies.items()}
        answer[f"goodput_at_{share}"] = {name: round(value, 2) for name, value in row.items()}
        print(f"pictures in time per second, {share:.0%} in time:", answer[f"goodput_at_{share}"])
        for other in ("static", "one at a time"):
            print(f"  in flight / {other}: {row['in flight'] / max(row[other], 1e-9):.2f}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(answer, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
