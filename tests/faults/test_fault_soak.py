"""Cases 71 and 72: after thousands of mixed requests nothing has grown, and the metrics add up all along."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.support.bare_sockets import AsyncWire, infer_bytes, request_bytes
from tests.support.running_server import RunningServer, eventually
from tests.support.slow_requests import fresh_value

MIB = 1 << 20
KINDS: dict[str, set[int]] = {
    "fresh": {200},
    "again": {200},
    "network": {200},
    "large": {200},
    "malformed": {400},
    "misshapen": {400},
    "unknown": {404},
    "poison": set(range(400, 600)) - {503},
    "late": {503, 504},
    "metadata": {200},
    "health": {200},
}
IMAGES = [
    [
        {
            "name": "image",
            "datatype": "FP32",
            "shape": [1, 3, 32, 32],
            "data": np.random.default_rng(seed).standard_normal(3072).astype(np.float32).tolist(),
        }
    ]
    for seed in range(20)
]


def request(kind: str, rng: random.Random) -> bytes:
    """One request of ``kind``; most of them differ from all before."""
    fresh = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [fresh_value()]}
    match kind:
        case "again":
            return infer_bytes("echo_fp32", [fresh | {"data": [float(rng.randrange(20))]}])
        case "network":
            return infer_bytes("tinynet", rng.choice(IMAGES))
        case "large":
            return infer_bytes("echo_fp32", [fresh | {"shape": [8, 1000], "data": [fresh_value()] * 8000}])
        case "malformed":
            return request_bytes("POST", "/v2/models/echo_fp32/infer", b'{"inputs": [')
        case "misshapen":
            return infer_bytes("echo_fp32", [fresh | {"shape": [3, 3]}])
        case "unknown":
            return infer_bytes(f"nobody{rng.randrange(1000)}", [fresh])
        case "poison":
            return infer_bytes(
                "lookup", [{"name": "index", "datatype": "INT64", "shape": [1, 1], "data": [99]}]
            )
        case "late":
            return infer_bytes("slow", [fresh | {"shape": [1]}], {"X-Request-Timeout-Ms": "5"})
        case "metadata":
            return request_bytes("GET", "/v2/models/tinynet")
        case "health":
            return request_bytes("GET", "/v2/health/ready")
    return infer_bytes("echo_fp32", [fresh])


async def worker(server: RunningServer, seed: int, count: int, wrong: list[str]) -> Counter[str]:
    """Ask ``count`` times over one connection, and leave in the middle of one request in thirty."""
    rng, seen = random.Random(seed), Counter[str]()
    wire = await AsyncWire.open(server.http_port)
    for _ in range(count):
        kind = rng.choice(list(KINDS))
        data = request(kind, rng)
        if rng.random() < 1 / 30:
            await wire.send(data[: rng.randrange(1, len(data) + 1)])
            wire.abort()
            wire = await AsyncWire.open(server.http_port)
            seen["left"] += 1
            continue
        reply = await wire.ask(data)
        seen[kind] += 1
        if reply.status not in KINDS[kind]:
            wrong.append(f"{kind}: {reply.status} {reply.body[:200]!r}")
        if reply.headers.get("connection", "").lower() == "close":
            await wire.close()
            wire = await AsyncWire.open(server.http_port)
    await wire.close()
    return seen


async def wave(server: RunningServer, seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """``count`` requests over eight connections."""
    wrong: list[str] = []
    parts = await asyncio.gather(
        *(worker(server, seed * 100 + number, count // 8, wrong) for number in range(8))
    )
    return sum(parts, Counter[str]()), wrong


async def test_case_71_after_thousands_of_mixed_requests_memory_descriptors_and_threads_are_flat(
    start_server: Callable[..., RunningServer], fault_repository: Path
) -> None:
    """Two waves to warm up, four to watch. The cache is small: it is full by then."""
    limits = {"cache": {"max_bytes": 4 * MIB}, "scheduler": {"lanes": 2}, "repository": {"poll_seconds": 1.0}}
    server = start_server(fault_repository, limits)
    memory, total = [], Counter[str]()
    for number in range(6):
        seen, wrong = await wave(server, number, 800)
        assert wrong == []
        total += seen
        if number == 1:
            descriptors, threads = server.descriptors(), server.threads()
        if number >= 1:
            memory.append(server.rss() / MIB)
    assert set(total) == {*KINDS, "left"}
    slope = float(np.polyfit(range(len(memory)), memory, 1)[0])
    assert slope < 2.0, f"memory grows by {slope:.1f} MiB per 800 requests: {memory}"
    await asyncio.to_thread(
        eventually, lambda: server.descriptors() <= descriptors + 2, "no descriptor stays behind"
    )
    assert server.threads() <= threads + 2
    pending = [
        value for (name, _), value in server.metrics().items() if name == "nv_inference_pending_request_count"
    ]
    assert pending
    assert sum(pending) == 0, "a request was never resolved"


def families(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


async def test_case_72_metrics_answer_under_load_and_their_sums_are_consistent(
    start_server: Callable[..., RunningServer], small_repository: Path
) -> None:
    server = start_server(small_repository, {"scheduler": {"lanes": 2}, "repository": {"poll_seconds": 0.0}})
    stop = asyncio.Event()
    seen: list[float] = []

    async def scrape() -> None:
        wire = await AsyncWire.open(server.http_port)
        while not stop.is_set():
            reply = await wire.ask(request_bytes("GET", "/metrics"))
            assert reply.status == 200
            samples = families(reply.body.decode())["nv_inference_request_success"].samples
            seen.append(sum(sample.value for sample in samples if sample.labels["model"] == "echo_fp32"))
        await wire.close()

    async def ask(good: int, bad: int) -> None:
        wire = await AsyncWire.open(server.http_port)
        for number in range(good + bad):
            entry = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [fresh_value()]}
            if number >= good:
                entry |= {"shape": [1, 9]}
            reply = await wire.ask(infer_bytes("echo_fp32", [entry]))
            assert reply.status == (200 if number < good else 400)
        await wire.close()

    before = server.statistics("echo_fp32")
    scraping = asyncio.create_task(scrape())
    await asyncio.gather(*(ask(50, 5) for _ in range(8)))
    stop.set()
    await scraping
    assert seen == sorted(seen), "a counter went backwards"
    after = server.statistics("echo_fp32")
    success = server.metric("nv_inference_request_success", model="echo_fp32")
    assert success == 400
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 400
    assert server.metric("nv_inference_count", model="echo_fp32") == after["inference_count"]
    assert server.metric("nv_inference_exec_count", model="echo_fp32") == after["execution_count"]
    assert after["inference_count"] - before["inference_count"] == 400
    assert (
        sum(batch["batch_size"] * batch["compute_infer"]["count"] for batch in after["batch_stats"])
        == (after["inference_count"])
    )
    assert server.metric("nv_inference_pending_request_count", model="echo_fp32") == 0


def test_case_72_both_formats_parse_and_histograms_are_whole(server: RunningServer) -> None:
    server.infer("echo_fp32", [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [fresh_value()]}])
    plain = server.http.get("/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain")
    found = families(plain.text)
    open_reply = server.http.get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert open_reply.headers["Content-Type"].startswith("application/openmetrics-text")
    assert len(list(parse_openmetrics(open_reply.text))) >= len(found) / 2
    histograms = [family for family in found.values() if family.type == "histogram"]
    assert histograms
    for family in histograms:
        sums: dict[str, dict[str, float]] = {}
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "le"}
            entry = sums.setdefault(json.dumps(labels, sort_keys=True), {})
            if sample.name.endswith("_bucket") and sample.labels["le"] == "+Inf":
                entry["inf"] = sample.value
            if sample.name.endswith("_count"):
                entry["count"] = sample.value
        assert all(entry["inf"] == entry["count"] for entry in sums.values()), family.name
