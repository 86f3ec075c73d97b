"""What load generators of the protocol read beside answers: the cache in the configuration, and counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.running_server import RunningServer
from tests.support.slow_requests import fresh_value

MODEL = "echo_fp32"


def configuration(server: RunningServer) -> Any:
    return server.http.get(f"/v2/models/{MODEL}/config").json()


def counts(server: RunningServer) -> dict[str, int]:
    entry = server.statistics(MODEL)
    found = {name: int(total["count"]) for name, total in entry["inference_stats"].items()}
    return found | {name: int(entry[name]) for name in ("inference_count", "execution_count")}


def ask(server: RunningServer, value: float) -> httpx.Response:
    return server.infer(MODEL, [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [value]}])


def test_what_the_cache_answers_is_counted_as_the_protocol_says(server: RunningServer) -> None:
    """Answered and queued, with a hit; neither inferred nor executed nor in the times of computing."""
    assert configuration(server)["response_cache"] == {"enable": True}
    before, value = counts(server), fresh_value()
    replies = [ask(server, value) for _ in range(5)]
    assert [reply.headers["X-Cache"] for reply in replies] == ["miss", *["hit"] * 4]
    more = {name: count - before[name] for name, count in counts(server).items()}
    assert more == {
        "success": 5,
        "queue": 5,
        "fail": 0,
        "cache_hit": 4,
        "cache_miss": 1,
        "compute_input": 1,
        "compute_infer": 1,
        "compute_output": 1,
        "inference_count": 1,
        "execution_count": 1,
    }


def test_without_a_cache_it_is_neither_reported_nor_counted(
    start_server: Callable[..., RunningServer], small_repository: Any
) -> None:
    server = start_server(small_repository, {"cache": {"enabled": False}})
    assert configuration(server)["response_cache"] == {"enable": False}
    value = fresh_value()
    replies = [ask(server, value) for _ in range(3)]
    assert {reply.headers["X-Cache"] for reply in replies} == {"bypass"}
    found = counts(server)
    assert (found["success"], found["queue"], found["inference_count"]) == (3, 3, 3)
    assert (found["cache_hit"], found["cache_miss"]) == (0, 0)


def test_the_grpc_client_reads_the_same_configuration(server: RunningServer) -> None:
    triton = pytest.importorskip("tritonclient.grpc")
    with triton.InferenceServerClient(server.grpc_address) as client:
        assert client.get_model_config(MODEL).config.response_cache.enable is True


def test_the_configuration_says_whether_numbers_must_be_finite(server: RunningServer) -> None:
    told = configuration(server)["parameters"]["allow_nonfinite"]["string_value"]
    names = [entry["name"] for entry in server.http.post("/v2/repository/index", json={"ready": True}).json()]
    taking = {
        name
        for name in names
        if server.http.get(f"/v2/models/{name}/config").json()["parameters"]["allow_nonfinite"]
        == {"string_value": "true"}
    }
    assert told == "false"
    assert taking
    assert MODEL not in taking
