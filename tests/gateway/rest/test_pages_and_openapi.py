"""The pages work without the internet, and the OpenAPI document says what the routes do."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest

from nonet.gateway.oip.openapi import oip_paths

VERBS = ("get", "post", "put", "patch", "delete")


@pytest.mark.parametrize("path", ["/", "/raw", "/segment", "/floors", "/docs"])
def test_a_page_needs_nothing_from_elsewhere(rest: Any, path: str) -> None:
    page = rest.http.get(path)
    assert page.status_code == 200
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", page.text)
    policy = page.headers["content-security-policy"]
    assert "'unsafe" not in policy
    assert policy.startswith("default-src 'none'")
    inline = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", page.text, re.DOTALL)
    assert len(inline) == 2
    for content in inline:
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not re.findall(r"\son[a-z]+=|\sstyle=|javascript:|innerHTML", page.text)
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/raw", "/segment", "/floors", "/docs"])
def test_a_page_can_be_read_by_machines_that_read_aloud(rest: Any, path: str) -> None:
    page = rest.http.get(path).text
    assert '<html lang="en">' in page
    assert page.count("<h1") == 1
    assert "viewport" in page
    for field in re.findall(r"<(?:input|select)[^>]*id=\"(\w+)\"", page):
        before = page[: page.index(f'id="{field}"')]
        assert f'for="{field}"' in page or before.rfind("<label") > before.rfind("</label>"), field


def test_every_route_is_described_with_its_failures(rest: Any) -> None:
    document = rest.http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert {"/v1/classify", "/v1/models", "/v1/models/{model}"} <= set(document["paths"])
    assert set(oip_paths()) <= set(document["paths"])
    names = set()
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            assert {"400", "405", "413", "503"} <= set(operation["responses"]), path
            assert {"200", "202", "204"} & set(operation["responses"]), path
            for status, response in operation["responses"].items():
                assert response["description"]
                if status in ("429", "503"):
                    assert "Retry-After" in response["headers"]
            names.add(operation["operationId"])
            given = {
                parameter["name"]
                for parameter in operation.get("parameters", [])
                if parameter["in"] == "path"
            }
            assert given == set(re.findall(r"{(\w+)}", path)), (verb, path)
    assert len(names) == sum(len(item) for item in document["paths"].values())


def test_every_reference_in_the_document_resolves(rest: Any) -> None:
    document = rest.http.get("/openapi.json").json()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(reference := value.get("$ref"), str):
                target = document
                for key in reference.removeprefix("#/").split("/"):
                    target = target[key]
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)


def test_the_document_tells_which_verbs_a_route_has(rest: Any) -> None:
    for path, item in rest.http.get("/openapi.json").json()["paths"].items():
        url = path.replace("{model}", "echo").replace("{version}", "1").replace("{name}", "any")
        for verb in VERBS:
            if verb not in item:
                reply = rest.http.request(verb, url)
                assert reply.status_code == 405, (verb, path)
                allowed = set(reply.headers["allow"].lower().split(", ")) - {"head", "options"}
                assert allowed == set(item), (verb, path)


def test_the_timeout_in_the_document_is_the_one_in_force(start_gateway: Any) -> None:
    server = start_gateway(scheduler={"lanes": 1, "max_timeout": 7.0, "default_timeout": 5.0})
    operation = server.http.get("/openapi.json").json()["paths"]["/v1/classify"]["post"]
    (found,) = [one for one in operation["parameters"] if one["name"] == "X-Request-Timeout-Ms"]
    assert found["schema"]["maximum"] == 7000.0


def test_metrics_answer_get_and_head(rest: Any) -> None:
    reply = rest.http.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain")
    assert rest.http.head("/metrics").status_code == 200
    assert rest.http.post("/metrics").status_code == 405


def test_routes_become_metrics_by_template_only(rest: Any) -> None:
    for path in ("/v2/models/nobody-7f3a/ready", "/made-up-9c1e", "/v1/models/nobody-7f3a"):
        rest.http.get(path)
    text = rest.http.get("/metrics").text
    assert "nobody-7f3a" not in text
    assert "made-up-9c1e" not in text
    assert "/v2/models/{model}/ready" in text
