"""The Open Inference Protocol over HTTP: routes, verbs, names, headers."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nonet.runtime.errors import GrpcStatus, ServingError
from tests.support import handmade_networks
from tests.support.http_server import Wire


def tensor(*values: float) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, len(values)], "data": list(values)}


def raw(
    server: Any, method: str, path: str, body: bytes = b"", *headers: str
) -> tuple[int, dict[str, str], bytes]:
    """A request whose path is sent exactly as written."""
    with Wire(server.port) as wire:
        lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers, "", ""]
        wire.send("\r\n".join(lines).encode() + body)
        return wire.answer()


def test_a_reply_says_how_it_was_made(rest: Any) -> None:
    reply = rest.http.post(
        "/v2/models/scaled/versions/1/infer",
        json={"inputs": [tensor(0.125, 3.0)]},
        headers={"X-Request-Id": "abc", "Cache-Control": "no-store"},
    )
    assert reply.json()["outputs"][0]["data"] == [1.25, 30.0]
    assert reply.headers["x-request-id"] == "abc"
    assert reply.headers["x-model-version"] == "1"
    assert reply.headers["x-device"] == "cpu"
    assert reply.headers["x-cache"] == "bypass"
    assert reply.headers["x-batch-size"] == "1"
    names = [part.split(";")[0].strip() for part in reply.headers["server-timing"].split(",")]
    assert names == ["decode", "queue", "compute", "encode"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nobody/infer", 404),
        ("/v2/models/scaled/versions/9/infer", 404),
        ("/v2/models/scaled/versions/..%2f..%2fetc/infer", 404),
        ("/v2/models/..%2f..%2fetc%2fpasswd/infer", 404),
        ("/v2/models/%2e%2e/infer", 404),
        ("/v2/models/../../etc/infer", 404),
        ("/v2/models/echo%2finfer", 404),
        ("/v2%2fmodels/echo/infer", 404),
        ("/v2/models//infer", 404),
        ("/v2/models/a%00b/infer", 404),
        ("/v2/models/a%0d%0aX:%20b/infer", 404),
        ("/v2/models/%ff/infer", 404),
        ("/v2/models/" + "a" * 3000 + "/infer", 404),
        ("/v2/nothing", 404),
        ("/v2/models/echo/infer/more", 404),
    ],
)
def test_names_and_paths_that_are_none_are_404_in_the_protocols_shape(
    rest: Any, path: str, status: int
) -> None:
    answered, headers, body = raw(rest, "POST", path, json.dumps({"inputs": [tensor(1.0)]}).encode())
    assert answered == status
    assert isinstance(json.loads(body)["error"], str)
    assert len(body) < 600
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path", ["/v2/repository/models/..%2f..%2fetc/load", "/v2/repository/models/%2e%2e/unload"]
)
def test_no_name_reaches_outside_the_repository(rest: Any, path: str) -> None:
    assert raw(rest, "POST", path)[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/models/echo/infer", "OPTIONS, POST"),
        ("DELETE", "/v2/models/echo", "GET, HEAD, OPTIONS"),
        ("PUT", "/v2", "GET, HEAD, OPTIONS"),
        ("GET", "/v2/repository/index", "OPTIONS, POST"),
        ("DELETE", "/v2/logging", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/v2/health/ready", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_verb_is_405_and_says_what_is_allowed(
    rest: Any, method: str, path: str, allowed: str
) -> None:
    reply = rest.http.request(method, path)
    assert (reply.status_code, reply.headers["allow"]) == (405, allowed)
    assert method in reply.json()["error"]


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/v2/health/live", "/v2/models/echo"])
def test_head_is_get_without_the_body(rest: Any, path: str) -> None:
    head, get = rest.http.head(path), rest.http.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 200),
        ("application/json; charset=utf-8", 200),
        ("application/octet-stream", 200),
        ("application/x-www-form-urlencoded", 200),
        ("multipart/form-data; boundary=a", 415),
        ("application/xml", 415),
        ("image/jpeg", 415),
    ],
)
def test_content_types_are_what_clients_send(rest: Any, content_type: str | None, status: int) -> None:
    headers = [f"Content-Type: {content_type}"] if content_type else []
    body = json.dumps({"inputs": [tensor(1.0)]}).encode()
    assert raw(rest, "POST", "/v2/models/echo/infer", body, *headers)[0] == status


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "", "99999", "0x10", "+5"])
def test_a_wrong_header_length_is_400(rest: Any, length: str) -> None:
    body = json.dumps({"inputs": [tensor(1.0)]}).encode()
    header = f"Inference-Header-Content-Length: {length}"
    status, _, answered = raw(rest, "POST", "/v2/models/echo/infer", body, header)
    assert status == 400
    assert "Inference-Header-Content-Length" in json.loads(answered)["error"]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("X-Request-Timeout-Ms: 5000", 200),
        ("X-Request-Timeout-Ms: 5000.5", 200),
        ("X-Request-Timeout-Ms: 0", 504),
        ("X-Request-Timeout-Ms: 0.0001", 504),
        ("X-Request-Timeout-Ms: -1", 400),
        ("X-Request-Timeout-Ms: soon", 400),
        ("X-Request-Timeout-Ms: nan", 400),
        ("X-Request-Timeout-Ms: inf", 400),
        ("X-Request-Timeout-Ms: 5e3", 200),
        ("X-Request-Timeout-Ms: 1e999", 400),
        ("X-Request-Timeout-Ms: 0x10", 400),
        ("X-Request-Timeout-Ms: 99999999999", 400),
        ("X-Request-Timeout-Ms:", 400),
        ("X-Priority: 0", 200),
        ("X-Priority: -1", 400),
        ("X-Priority: high", 400),
        ("X-Priority: 256", 400),
        ("X-Priority: 00000000000000000001", 400),
    ],
)
def test_call_headers_are_checked(rest: Any, header: str, status: int) -> None:
    body = json.dumps({"inputs": [tensor(1.0)]}).encode()
    answered, _, text = raw(rest, "POST", "/v2/models/echo/infer", body, header)
    assert answered == status, text
    if status == 400:
        assert header.partition(":")[0] in json.loads(text)["error"]


def test_a_deadline_counts_from_the_first_byte(rest: Any) -> None:
    body = json.dumps({"inputs": [tensor(1.0)]}).encode()
    with Wire(rest.port) as wire:
        wire.send(b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: a\r\nX-Request-Timeout-Ms: 50\r\n")
        wire.send(f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
        wire.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            wire.socket.recv(1)
        wire.socket.settimeout(20)
        wire.send(body[10:])
        assert wire.answer()[0] == 504


def test_the_cache_is_used_unless_the_caller_objects(rest: Any) -> None:
    def cache(*directives: str) -> str:
        headers = {"Cache-Control": ", ".join(directives)} if directives else {}
        body = {"inputs": [tensor(4.0, 5.0, 6.0)]}
        reply = rest.http.post("/v2/models/echo/infer", json=body, headers=headers)
        return str(reply.headers["x-cache"])

    assert [cache(), cache(), cache("no-cache"), cache(), cache("max-age=0", "no-store")] == [
        "miss",
        "hit",
        "bypass",
        "hit",
        "bypass",
    ]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_body_that_is_not_what_its_encoding_says_is_400(rest: Any, coding: str) -> None:
    reply = rest.http.post("/v2/models/echo/infer", content=b"garbage", headers={"Content-Encoding": coding})
    assert reply.status_code == 400
    assert coding in reply.json()["error"]


def test_an_unknown_encoding_is_415_before_the_body_is_read(rest: Any) -> None:
    with Wire(rest.port) as wire:
        wire.send(
            b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: a\r\nContent-Encoding: zstd\r\n"
            b"Content-Length: 9\r\n\r\n"
        )
        assert wire.answer()[0] == 415


def test_an_unknown_model_is_404_before_the_body_is_read(rest: Any) -> None:
    with Wire(rest.port) as wire:
        wire.send(b"POST /v2/models/nobody/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
        assert wire.answer()[0] == 404


def test_keys_are_asked_for_everywhere_but_health(start_gateway: Any) -> None:
    server = start_gateway(auth={"keys": {"team": "s3cret"}})
    body = {"inputs": [tensor(1.0)]}
    assert server.http.get("/v2/health/ready").status_code == 200
    for reply in (
        server.http.get("/v2"),
        server.http.get("/v1/models"),
        server.http.post("/v1/classify", content=b"x"),
        server.http.post("/v2/models/echo/infer", json=body),
        server.http.post("/v2/models/echo/infer", json=body, headers={"Authorization": "Bearer wrong"}),
    ):
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"].startswith("Bearer")
        assert "s3cret" not in reply.text
    key = {"Authorization": "Bearer s3cret"}
    assert server.http.post("/v2/models/echo/infer", json=body, headers=key).status_code == 200
    operation = server.http.get("/openapi.json").json()["paths"]["/v2/models/{model}/infer"]["post"]
    assert operation["security"] == [{"key": []}]


def test_a_draining_server_says_so_and_closes(start_gateway: Any) -> None:
    server = start_gateway()
    server.gateway.plane.leaving = True
    reply = server.http.get("/v2/health/ready")
    assert (reply.status_code, reply.headers["connection"]) == (503, "close")
    assert reply.headers["retry-after"]
    served = server.http.post("/v2/models/echo/infer", json={"inputs": [tensor(1.0)]})
    assert (served.status_code, served.headers["connection"]) == (200, "close")
    asyncio.run_coroutine_threadsafe(server.gateway.plane.drain(1.0), server.loop).result(20)
    refused = server.http.post("/v2/models/echo/infer", json={"inputs": [tensor(1.0)]})
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")
    assert refused.headers["retry-after"]


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "http://127.0.0.1:1"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"}, False),
        ({"Origin": "own"}, False),
        ({}, False),
    ],
)
def test_no_page_of_another_site_changes_the_server(
    start_gateway: Any, tmp_path: Path, headers: dict[str, str], refused: bool
) -> None:
    handmade_networks.add_identity(tmp_path, "echo", "FP32", (-1,))
    server = start_gateway(root=tmp_path)
    if headers.get("Origin") == "own":
        headers = {"Origin": server.url}
    for path, text in (
        ("/v2/logging", '{"log_info": null}'),
        ("/v2/trace/setting", "{}"),
        ("/v2/repository/models/echo/load", "{}"),
        ("/v2/repository/models/echo/unload", ""),
    ):
        reply = server.http.post(path, content=text, headers=headers)
        assert reply.status_code == (403 if refused else 200), reply.text
    assert server.http.get("/v2/models/echo/ready").status_code == (200 if refused else 503)
    assert server.http.get("/v2/logging", headers=headers).status_code == 200


def test_a_load_request_cannot_ask_for_all_memory(start_gateway: Any, tmp_path: Path) -> None:
    handmade_networks.add_identity(tmp_path, "echo", "FP32", (-1,))
    server = start_gateway(root=tmp_path)
    tensors = {"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [1 << 28]}]}
    for config in ({"max_batch_size": 1_000_000}, {"max_batch_size": 4, **tensors}):
        body = {"parameters": {"config": json.dumps(config)}}
        reply = server.http.post("/v2/repository/models/echo/load", json=body)
        assert (reply.status_code, "at most" in reply.text) == (400, True), reply.text
    assert server.http.get("/v2/models/echo/ready").status_code == 200


def test_many_clients_at_once_get_their_own_answers(rest: Any) -> None:
    def ask(number: int) -> bool:
        reply = rest.http.post(
            "/v2/models/scaled/infer", json={"id": str(number), "inputs": [tensor(number)]}
        )
        answer = reply.json()
        return bool(answer["id"] == str(number) and answer["outputs"][0]["data"] == [20.0 * number])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(80)))


def test_every_failure_has_a_status_the_face_can_say() -> None:
    def all_kinds(kind: type[ServingError]) -> list[type[ServingError]]:
        return [kind, *(each for sub in kind.__subclasses__() for each in all_kinds(sub))]

    for kind in all_kinds(ServingError):
        assert 400 <= kind.http_status < 600
        assert kind.grpc_status is not GrpcStatus.OK
