"""``HEAD`` and ``OPTIONS`` on every route, whose names and pages are let in, CORS, and a server under a
path."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.bare_sockets import Wire, request_bytes

FIT = "/v1/floors/buildings"
READS = ("/", "/raw", "/floors", "/docs", "/openapi.json", "/metrics", "/v1/models", "/v1/jobs", FIT, "/v2")


def paths_of(rest: Any) -> dict[str, set[str]]:
    """Every path of the server with names put in, and the methods that it declares."""
    described = rest.http.get("/openapi.json").json()["paths"]
    names = {"model": "echo", "version": "1", "name": "any", "job": "job_x", "building": "x", "site": "x"}
    found = {
        re.sub(r"{(\w+)}", lambda match: names[match[1]], path): item for path, item in described.items()
    }
    paths = {path: {verb.upper() for verb in item} for path, item in found.items()}
    return paths | {path: {"GET"} for path in READS if path not in paths}


def test_options_tell_the_methods_of_every_path(rest: Any) -> None:
    for path, declared in paths_of(rest).items():
        reply = rest.http.options(path)
        implied = {"HEAD", "OPTIONS"} if "GET" in declared else {"OPTIONS"}
        assert (reply.status_code, reply.content) == (204, b""), path
        assert set(reply.headers["allow"].split(", ")) == declared | implied, path
        assert reply.headers["x-request-id"]
        for method in {"PUT", "PATCH", "DELETE", "POST", "GET", "HEAD", "PROPFIND"} - declared - implied:
            refused = rest.http.request(method, path)
            assert refused.status_code == 405, (method, path)
            assert refused.headers["allow"] == reply.headers["allow"], (method, path)
            assert method == "HEAD" or method in refused.text


def test_head_is_get_without_the_body(rest: Any) -> None:
    for path, declared in paths_of(rest).items():
        if "GET" not in declared or path == "/metrics":
            continue
        got, head = rest.http.get(path), rest.http.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        for name in set(got.headers) - {"date", "x-request-id", "transfer-encoding"}:
            assert head.headers[name] == got.headers[name], (path, name)
    with Wire(rest.port) as wire:  # nothing of a body is left on the connection
        wire.send(request_bytes("HEAD", "/v1/models") + request_bytes("GET", "/v2/health/live"))
        wire._take_until(b"\r\n\r\n")
        assert wire.reply().json() == {"live": True}


def test_a_path_that_there_is_not_has_no_methods(rest: Any) -> None:
    for path in ("/nowhere", "/v1/nowhere", "/v2/nowhere", "/v2/models//infer"):
        for method in ("OPTIONS", "HEAD", "GET", "POST"):
            assert rest.http.request(method, path).status_code == 404, (method, path)


def test_options_about_the_server_as_a_whole(rest: Any) -> None:
    with Wire(rest.port) as wire:
        wire.send(b"OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n")
        reply = wire.reply()
        assert (reply.status, reply.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, POST")
        wire.send(b"OPTIONS / HTTP/1.0\r\n\r\n")  # what haproxy sends by default
        assert wire.reply().status == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", FIT),
        ("POST", "/v1/classify"),
        ("POST", "/v1/raw/develop"),
        ("DELETE", FIT + "/x"),
        ("DELETE", "/v1/jobs/job_x"),
        ("POST", "/v2/models/echo/infer"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/echo/unload"),
        ("POST", "/v2/logging"),
        ("POST", "/v2/systemsharedmemory/unregister"),
    ],
)
@pytest.mark.parametrize(
    "page",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
    ],
)
def test_the_page_of_another_site_changes_nothing(
    rest: Any, method: str, path: str, page: dict[str, str]
) -> None:
    with Wire(rest.port) as wire:  # refused before the body is sent
        wire.send(request_bytes(method, path, headers=page | {"Content-Type": "text/plain"}))
        reply = wire.reply()
    assert reply.status == 403
    assert b"other sites" in reply.body


def test_the_own_page_and_programs_are_let_in(rest: Any, photo: bytes) -> None:
    for headers in (
        {},
        {"Origin": rest.url},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"},
    ):
        assert rest.http.post("/v1/classify", files={"image": photo}, headers=headers).status_code == 200
    assert rest.http.get("/v1/models", headers={"Origin": "http://evil.example"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example.", 403),
        ("127.0.0.1:5", 200),
        ("[::1]:8000", 200),
        ("192.168.7.9", 200),
        ("LocalHost:8000", 200),
        ("nonet", 200),
        ("laptop.local", 200),
        ("host.docker.internal:8000", 200),
        ("", 200),
    ],
)
def test_a_name_that_a_stranger_may_have_is_not_answered_to(rest: Any, host: str, wanted: int) -> None:
    for path in ("/v1/models", "/v2", "/", "/metrics"):
        reply = rest.http.get(path, headers={"Host": host, "Origin": f"http://{host}"})
        assert reply.status_code == wanted, path
    assert rest.http.post("/v2/repository/index", headers={"Host": host}).status_code == wanted


@pytest.mark.parametrize(
    ("url", "host", "status"),
    [("http://evil.example/v2", "localhost", 403), ("http://localhost:7/v2?a=b", "evil.example", 200)],
)
def test_the_whole_url_goes_before_the_host_header(rest: Any, url: str, host: str, status: int) -> None:
    with Wire(rest.port) as wire:
        wire.send(f"GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert wire.reply().status == status


def test_listed_names_are_answered_to_and_no_others(start_gateway: Any) -> None:
    server = start_gateway(server={"hosts": ["nonet.example.org", "*.inside.example"]})
    for host, status in {
        "nonet.example.org": 200,
        "NONET.example.org:443": 200,
        "a.b.inside.example": 200,
        "inside.example": 403,
        "other.example.org": 403,
        "nonet": 403,
        "127.0.0.1": 200,
        "localhost": 200,
    }.items():
        assert server.http.get("/v2", headers={"Host": host}).status_code == status, host
    # The proxy in front puts its own name into Host.
    page = {"Origin": "https://nonet.example.org", "Host": "127.0.0.1:8000"}
    assert server.http.post("/v2/repository/index", headers=page).status_code == 200


def test_beyond_loopback_every_name_counts_unless_names_are_listed(start_gateway: Any) -> None:
    server = start_gateway(server={"host": "0.0.0.0"})
    assert server.http.get("/v2", headers={"Host": "nonet.example.org"}).status_code == 200


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


def test_without_the_setting_no_page_of_another_site_may_read(rest: Any) -> None:
    page = {"Origin": "https://app.example"}
    for reply in (
        rest.http.get("/v1/models", headers=page),
        rest.http.options("/v1/classify", headers=page | PREFLIGHT),
    ):
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_pages_of_listed_sites_may_use_the_server(start_gateway: Any, photo: bytes) -> None:
    server = start_gateway(server={"cors_origins": ["https://app.example"]})
    page = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    preflight = server.http.options("/v1/classify", headers=page | PREFLIGHT)
    assert preflight.is_success
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    for reply, status in (
        (server.http.post("/v1/classify", files={"image": photo}, headers=page), 200),
        (server.http.post("/v1/classify", files={"image": b""}, headers=page), 400),
        (server.http.get("/v2/models/nobody", headers=page), 404),
    ):
        assert reply.status_code == status, reply.text
        assert reply.headers["access-control-allow-origin"] == "https://app.example"
        assert reply.headers["access-control-expose-headers"] == "*"
    other = {"Origin": "https://evil.example"}
    assert "access-control-allow-origin" not in server.http.get("/v2", headers=other).headers
    assert server.http.post("/v1/classify", files={"image": photo}, headers=other).status_code == 403
    assert not server.http.options("/v1/classify", headers=other | PREFLIGHT).is_success


def test_every_site_may_use_a_server_that_says_so(start_gateway: Any, photo: bytes) -> None:
    server = start_gateway(server={"cors_origins": ["*"]})
    page = {"Origin": "https://anything.example"}
    reply = server.http.post("/v1/classify", files={"image": photo}, headers=page)
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize("path", ["/", "/raw", "/floors", "/docs"])
def test_the_pages_work_under_any_path(rest: Any, path: str) -> None:
    page = rest.http.get(path).text
    assert not re.findall(r"""(?:href|src|action)\s*=\s*["']?/|["'`]/(?:v1|v2|docs|metrics|openapi)""", page)


def test_a_server_under_a_path(start_gateway: Any) -> None:
    server = start_gateway(server={"root_path": "/nonet"})
    for path in ("/v2", "/v1/models", "/", "/openapi.json", "/v2/models/echo/ready"):
        direct, under = server.http.get(path), server.http.get("/nonet" + path)
        assert (direct.status_code, under.status_code) == (200, 200), path
    assert server.http.get("/nonet").status_code == 200
    assert server.http.get("/nonetwork").status_code == 404
    assert server.http.get("/openapi.json").json()["servers"] == [{"url": "/nonet"}]


def test_a_server_at_the_root_says_so(rest: Any) -> None:
    assert rest.http.get("/openapi.json").json()["servers"] == [{"url": "/"}]
