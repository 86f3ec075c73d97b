"""Where the processor time of a request goes, stage by stage.

    python bench/stages.py [--network NAME] [--seconds 4]

Runs the real server on one processor with one lane, its own functions wrapped in stop-watches that read the
thread's processor clock: each stage is charged with what it used itself, not with what it called in another
stage. A coroutine is charged while it runs, never while it waits. What the stop-watches themselves cost is
measured on empty functions and taken off. The rest is what runs between the stages: the event loop and its
system calls (reading sockets among them), task switches, the threads' hand-over, garbage.

The shares are what to read: with stop-watches everything runs somewhat slower. The table's last lines are the
same load on the same server without them, and on uvicorn alone: what any server in Python pays.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import functools
import importlib
import inspect
import json
import resource
import signal
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

STAGES: dict[str, tuple[str, ...]] = {
    "HTTP in: parse, scope, start of the task": ("gateway.http.protocol:GuardedProtocol.data_received",),
    "guard and route: id, headers, limits, path": (
        "gateway.http.guard:RequestGuard.__call__",
        "gateway.oip.rest_routes:OipRoutes.serve",
        "gateway.oip.rest_infer:OipInference.infer",
        "gateway.tasks.rest:TaskRoute.__call__",
    ),
    "body: receive, account, join": ("gateway.http.bodies:Bodies._read", "gateway.http.bodies:_gathered"),
    "decode the request": (
        "gateway.oip.rest_infer:_decode",
        "gateway.tasks.request_reader:RequestReader.read",
        "gateway.tasks.fields:FieldReader.check",
    ),
    "core: lease, deadline, order of events": ("gateway.core.data_plane:DataPlane.infer",),
    "validate (names, shapes, finite numbers)": ("runtime.oip.validation:validate",),
    "cache key and look-up": (
        "gateway.core.execution:cache_key",
        "gateway.cache.response_cache:ResponseCache.get",
    ),
    "schedule": (
        "gateway.core.dispatcher:Dispatcher.submit",
        "gateway.core.dispatcher:Dispatcher._pump",
        "gateway.core.dispatcher:Dispatcher._finished",
    ),
    "image: decode": ("services.recognition.classify:decode_image",),
    "image: preprocess": (
        "services.recognition.classify:preprocess",
        "services.recognition.classify:ClassifyServable._read",
    ),
    "stack the batch": ("runtime.backends.network:NetworkServable._run",),
    "compute": ("runtime.backends.onnxruntime:OnnxRuntimeNetwork.infer",),
    "split and check the batch's answer": (
        "runtime.backends.network:NetworkServable._answer",
        "services.recognition.classify:ClassifyServable._answer",
        "runtime.oip.validation:check_outputs",
    ),
    "encode the answer": (
        "gateway.oip.rest_infer:_encode",
        "gateway.oip.rest_infer:answer_headers",
        "gateway.tasks.rest:answer_reply",
        "services.recognition.task:best_classes",
        "gateway.tasks.rest:answer_headers",
    ),
    "HTTP out: head, write": ("gateway.http.cycle:Cycle.send",),
    "metrics and statistics": (
        "gateway.core.execution:RequestProgress.end",
        "gateway.http.guard:RequestGuard._report",
    ),
}


Cost = tuple[float, float]
"""Nanoseconds that a stop-watch adds to its own stage, and to the stage that calls it, each time it runs."""


class StopWatch:
    """Processor time by stage, exclusive of nested stages; one stack per thread.

    Args:
        plain, stepped: what the watch costs around a function and around a step of a coroutine.
    """

    def __init__(self, plain: Cost = (0.0, 0.0), stepped: Cost = (0.0, 0.0)) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.own_cost = 0.0
        self._plain, self._stepped = plain, stepped
        self._local = threading.local()

    def enter(self, stage: str) -> None:
        stack = self._local.__dict__.setdefault("stack", [])
        now = time.thread_time_ns()
        if stack:
            self.spent[stack[-1][0]] += now - stack[-1][1]
        stack.append([stage, time.thread_time_ns()])

    def leave(self, cost: Cost) -> None:
        now = time.thread_time_ns()
        stack = self._local.stack
        stage, since = stack.pop()
        self.spent[stage] += now - since - cost[0]
        self.own_cost += cost[0] + cost[1]
        if stack:
            self.spent[stack[-1][0]] -= cost[1]
            stack[-1][1] = time.thread_time_ns()

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, charged to ``stage``."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def stepped(*args: Any, **kwargs: Any) -> Any:
                return await _Steps(self, stage, function(*args, **kwargs), self._stepped)

            return stepped

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.enter(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave(self._plain)

        return timed


class _Steps:
    """Runs a coroutine step by step, with the stop-watch on while a step runs."""

    def __init__(self, watch: StopWatch, stage: str, coroutine: Any, cost: Cost) -> None:
        self._watch, self._stage, self._coroutine, self._cost = watch, stage, coroutine, cost

    def __await__(self) -> Generator[Any, Any, Any]:
        step, argument = self._coroutine.send, None
        while True:
            self._watch.enter(self._stage)
            try:
                yielded = step(argument)
            except StopIteration as end:
                return end.value
            finally:
                self._watch.leave(self._cost)
            try:
                step, argument = self._coroutine.send, (yield yielded)
            except BaseException as error:  # a cancellation goes to the coroutine, as it would without us
                step, argument = self._coroutine.throw, error


def costs(times: int = 20_000) -> tuple[Cost, Cost]:
    """What a stop-watch costs around a function and around a coroutine that never waits, measured."""

    def nothing() -> None:
        pass

    async def nothing_later() -> None:
        pass

    def calls(function: Callable[[], None]) -> None:
        for _ in range(times):
            function()

    async def awaits(function: Callable[[], Any]) -> None:
        for _ in range(times):
            await function()

    trial = StopWatch()
    trial.wrap("plain", calls)(trial.wrap("in plain", nothing))
    asyncio.run(trial.wrap("stepped", awaits)(trial.wrap("in stepped", nothing_later)))
    begun = time.thread_time_ns()
    calls(nothing)
    bare = time.thread_time_ns() - begun
    begun = time.thread_time_ns()
    asyncio.run(awaits(nothing_later))
    bare_later = time.thread_time_ns() - begun
    return (
        (trial.spent["in plain"] / times, (trial.spent["plain"] - bare) / times),
        (trial.spent["in stepped"] / times, (trial.spent["stepped"] - bare_later) / times),
    )


def serve(arguments: list[str]) -> None:
    """The server with stop-watches; SIGUSR1 starts the account anew, SIGUSR2 prints it."""
    watch = StopWatch(*costs())
    for stage, places in STAGES.items():
        for place in places:
            module_name, _, path = place.partition(":")
            owner: Any = importlib.import_module(f"nonet.{module_name}")
            *parents, name = path.split(".")
            for parent in parents:
                owner = getattr(owner, parent)
            setattr(owner, name, watch.wrap(stage, getattr(owner, name)))
    begun = [0.0]

    def restart(*_: object) -> None:
        watch.spent.clear()
        watch.own_cost = 0.0
        begun[0] = processor_seconds()

    def report(*_: object) -> None:
        used = (processor_seconds() - begun[0]) * 1e6 - watch.own_cost / 1e3
        stages = {stage: watch.spent[stage] / 1e3 for stage in STAGES}
        print(json.dumps({"stages": stages, "total": used}), flush=True)

    signal.signal(signal.SIGUSR1, restart)
    signal.signal(signal.SIGUSR2, report)
    sys.argv = ["nonet", "serve", *arguments]
    from nonet.cli.main import main as command

    command()


def serve_floor(arguments: list[str]) -> None:
    """What any server in Python needs: uvicorn under an application that reads the body and answers."""
    import uvicorn

    async def application(scope: Any, receive: Any, send: Any) -> None:
        pieces = []
        more = True
        while more:
            message = await receive()
            pieces.append(message["body"])
            more = message["more_body"]
        answer = b"x" * min(512, len(b"".join(pieces)))
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(arguments[arguments.index("--http-port") + 1])))
    listener.listen(128)
    print("http", flush=True)
    config = uvicorn.Config(
        application, loop="uvloop", http="httptools", lifespan="off", log_level="error", access_log=False
    )
    uvicorn.Server(config).run(sockets=[listener])


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


WATCHED, FLOOR, PLAIN = (
    ("bench/stages.py", "--serve"),
    ("bench/stages.py", "--floor"),
    ("-m", "nonet.cli.main", "serve"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """Microseconds of processor time a request: by stage, without stop-watches, and in the floor's server."""

    stages: dict[str, float]
    plain: float
    floor: float


def profile(kind: str, arguments: argparse.Namespace) -> Profile:
    """The same load on the server with stop-watches, without them, and on the floor."""
    watched, answered = _load(kind, WATCHED, arguments)
    stages = {name: spent / answered for name, spent in watched["stages"].items()}
    between = watched["total"] / answered - sum(stages.values())
    stages["between the stages (event loop, sockets, threads)"] = between
    plain, plain_answers = _load(kind, PLAIN, arguments)
    floor, floor_answers = _load(kind, FLOOR, arguments)
    return Profile(stages, plain["total"] / plain_answers, floor["total"] / floor_answers)


def _load(kind: str, script: Sequence[str], arguments: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """What a server reports of a load, ``total`` microseconds at least, and its answers."""
    import pinned_server
    from load import closed_loop

    folder = pinned_server.newest(arguments.repository / arguments.network)
    prepared = pinned_server.requests(kind, arguments.network, folder, arguments.photographs, arguments.port)
    run = functools.partial(closed_loop, pinned_server.HOST, arguments.port, prepared, arguments.concurrency)
    with pinned_server.server(arguments.repository, arguments.port, script) as (process, output):
        asyncio.run(run(1.0))
        if script == WATCHED:
            process.send_signal(signal.SIGUSR1)
        cpu = sum(process.cpu_times()[:2])
        result = asyncio.run(run(arguments.seconds, warm_up=0.0))
        report: dict[str, Any] = {"total": (sum(process.cpu_times()[:2]) - cpu) * 1e6}
        if script == WATCHED:
            process.send_signal(signal.SIGUSR2)
            report = json.loads(output.readline())
    return report, len(result.latencies)


def table(profiles: dict[str, Profile]) -> list[str]:
    """The profiles side by side, as Markdown."""

    def row(name: str, values: Iterable[float]) -> str:
        return f"| {name} | " + " | ".join(f"{value:.0f}" if value >= 0.5 else "-" for value in values) + " |"

    found = profiles.values()
    lines = ["| stage | " + " | ".join(profiles) + " |", "|---|" + "---:|" * len(profiles)]
    for stage in next(iter(found)).stages:
        values = [each.stages[stage] for each in found]
        if max(values) >= 0.5:
            lines.append(row(stage, values))
    beside = [sum(spent for stage, spent in each.stages.items() if not _is_work(stage)) for each in found]
    return [
        *lines,
        row("**all, with stop-watches running**", (sum(each.stages.values()) for each in found)),
        row("**of it beside the model and the image**", beside),
        row("all, without stop-watches", (each.plain for each in found)),
        row("floor: uvicorn, an application that reads the body and answers", (each.floor for each in found)),
    ]


def _is_work(stage: str) -> bool:
    return stage == "compute" or stage.startswith("image:")


def main() -> None:
    import pinned_server

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    pinned_server.add_arguments(parser)
    parser.set_defaults(seconds=4.0)
    arguments = parser.parse_args()
    pinned_server.prepare(arguments)
    kinds = ("tensor", "jpeg") if arguments.photographs else ("tensor",)
    print("\n".join(table({kind: profile(kind, arguments) for kind in kinds})))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2:])
    elif sys.argv[1:2] == ["--floor"]:
        serve_floor(sys.argv[2:])
    else:
        main()
