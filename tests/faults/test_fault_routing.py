"""Cases 19-21: unknown models, versions and verbs, path tricks, content types. Defect 10."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.bare_sockets import Wire, request_bytes
from tests.support.running_server import RunningServer, assert_no_leak, assert_refused

X = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [2.0]}


@pytest.mark.parametrize("suffix", ["", "/ready", "/stats", "/config"])
@pytest.mark.parametrize("model", ["absent", "ECHO_FP32", "echo_fp32%00", "%F0%9F%98%80", "a" * 2000])
def test_case_19_an_unknown_model_is_404(server: RunningServer, model: str, suffix: str) -> None:
    assert_refused(server.http.get(f"/v2/models/{model}{suffix}"), 404)


def test_case_19_infer_of_an_unknown_model_is_404(server: RunningServer) -> None:
    assert_refused(server.infer("absent", [X]), 404, "absent")


@pytest.mark.parametrize("version", ["3", "0", "-1", "latest", "1e0", "01", "9" * 50])
def test_case_19_an_unknown_version_is_404(server: RunningServer, version: str) -> None:
    assert_refused(server.infer("scaled", [X], version=version), 404, version)
    assert_refused(server.http.get(f"/v2/models/scaled/versions/{version}"), 404, version)


def test_case_19_a_model_that_is_not_ready_is_503_with_retry_after(server: RunningServer) -> None:
    """``truncated`` lies in the repository, but its file does not match its hash."""
    assert_refused(server.infer("truncated", [X]), 503, "truncated")
    assert server.http.get("/v2/models/truncated/ready").status_code == 503


def test_case_19_a_model_that_is_not_ready_is_503_for_a_task_too(server: RunningServer) -> None:
    reply = server.http.post("/v1/classify", params={"model": "truncated"}, content=b"an image")
    assert reply.status_code == 503, reply.text
    assert reply.json()["error"]["code"] == "MODEL_NOT_READY"
    assert int(reply.headers["Retry-After"]) >= 1
    reply = server.http.post("/v1/classify", params={"model": "echo_fp32"}, content=b"an image")
    assert reply.status_code == 404, reply.text


def test_defect_10_versioned_routes_answer_with_that_version(server: RunningServer) -> None:
    for version, answer in (("1", 20.0), ("2", 40.0)):
        reply = server.infer("scaled", [X], version=version)
        assert reply.status_code == 200, reply.text
        assert reply.json()["model_version"] == version
        assert reply.headers["X-Model-Version"] == version
        assert reply.json()["outputs"][0]["data"] == [answer]
        for suffix in ("", "/ready", "/stats", "/config"):
            part = server.http.get(f"/v2/models/scaled/versions/{version}{suffix}")
            assert part.status_code == 200, part.text
    assert server.infer("scaled", [X]).json()["model_version"] == "2"


def test_defect_10_a_request_without_an_id_is_answered_on_every_route(server: RunningServer) -> None:
    for version in ("", "1"):
        assert server.infer("scaled", [X], version=version).status_code == 200


TRICKS = [
    "/v2/models/../../../etc/passwd/infer",
    "/v2/models/..%2f..%2f..%2fetc%2fpasswd/infer",
    "/v2/models/..%2F..%2Foutside/infer",
    "/v2/models/%2e%2e/infer",
    "/v2/models/%2e%2e%2f%2e%2e%2foutside/infer",
    "/v2/models/..%5c..%5coutside/infer",
    "/v2/models/%252e%252e%252foutside/infer",
    "/v2/models/echo_fp32%2f..%2fecho_fp32/infer",
    "/v2/models/echo_fp32/versions/..%2f1/infer",
    "/v2/models/%2fetc%2fpasswd/infer",
    "/v2/models/./infer",
    "/v2/models//infer",
]


@pytest.mark.parametrize("path", TRICKS)
def test_case_20_path_tricks_in_model_names_are_404(server: RunningServer, path: str) -> None:
    with Wire(server.http_port) as wire:
        wire.send(request_bytes("POST", path, json.dumps({"inputs": [X]}).encode()))
        reply = wire.reply()
    assert reply.status == 404, (reply.status, reply.body)
    assert_no_leak(reply.body.decode())


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("action", ["load", "unload"])
@pytest.mark.parametrize(
    "name", ["..%2f..%2foutside", "%2e%2e", "..%2fmodels%2fecho_fp32", "%2fetc", "absent", "%00"]
)
def test_case_20_repository_calls_touch_nothing_outside(
    server: RunningServer, fault_repository: Path, name: str, action: str
) -> None:
    before = snapshot(fault_repository.parent)
    with Wire(server.http_port) as wire:
        wire.send(request_bytes("POST", f"/v2/repository/models/{name}/{action}"))
        reply = wire.reply()
    assert reply.status in (400, 404), (reply.status, reply.body)
    assert_no_leak(reply.body.decode())
    assert snapshot(fault_repository.parent) == before
    assert server.http.get("/v2/models/echo_fp32/ready").status_code == 200


VERBS = [
    ("GET", "/v2/models/echo_fp32/infer", {"POST"}),
    ("PUT", "/v2/models/echo_fp32/infer", {"POST"}),
    ("DELETE", "/v2/models/echo_fp32/versions/1/infer", {"POST"}),
    ("POST", "/v2/models/echo_fp32", {"GET"}),
    ("POST", "/v2/models/echo_fp32/ready", {"GET"}),
    ("POST", "/v2/health/ready", {"GET"}),
    ("GET", "/v2/repository/index", {"POST"}),
    ("GET", "/v2/repository/models/echo_fp32/load", {"POST"}),
    ("GET", "/v1/classify", {"POST"}),
    ("DELETE", "/v1/models", {"GET"}),
    ("POST", "/metrics", {"GET"}),
]


@pytest.mark.parametrize(("verb", "path", "allowed"), VERBS)
def test_case_21_a_wrong_verb_is_405_with_allow(
    server: RunningServer, verb: str, path: str, allowed: set[str]
) -> None:
    reply = server.http.request(verb, path)
    assert_refused(reply, 405)
    assert allowed <= {name.strip() for name in reply.headers["Allow"].split(",")}


@pytest.mark.parametrize("content_type", ["application/xml", "text/html", "image/png", "multipart/mixed"])
@pytest.mark.parametrize("path", ["/v2/models/echo_fp32/infer", "/v1/classify"])
def test_case_21_a_wrong_content_type_is_415(server: RunningServer, path: str, content_type: str) -> None:
    content = json.dumps({"inputs": [X]})
    reply = server.http.post(path, content=content, headers={"Content-Type": content_type})
    assert_refused(reply, 415)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "APPLICATION/JSON"},
        {},
    ],
)
def test_case_21_the_content_types_clients_really_send_are_taken(
    server: RunningServer, headers: dict[str, str]
) -> None:
    with Wire(server.http_port) as wire:
        wire.send(
            request_bytes("POST", "/v2/models/echo_fp32/infer", json.dumps({"inputs": [X]}).encode(), headers)
        )
        assert wire.reply().status == 200


@pytest.mark.parametrize(
    "path", ["/v2/nothing", "/v1/nothing", "/v2/models", "/v2/models/echo_fp32/versions", "/v9"]
)
def test_an_unknown_route_is_404_in_the_shape_of_its_face(server: RunningServer, path: str) -> None:
    reply = server.http.get(path)
    assert reply.status_code == 404
    error: Any = reply.json()["error"]
    assert isinstance(error, dict if path.startswith("/v1") else str)
    assert_no_leak(reply.text)
