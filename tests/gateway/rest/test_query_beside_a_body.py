"""What stands in the query counts beside every body: the body wins, an unknown name is refused."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.rest.test_classify_over_http import refused
from tests.support.bare_sockets import Wire
from tests.support.building_gateway import BUILDINGS, toy_settings, upload
from tests.support.running_server import RunningServer, running

CLASSIFY = "/v1/classify"
IMAGE = {"Content-Type": "image/jpeg"}


def in_every_body(photo: bytes, **fields: str) -> list[dict[str, Any]]:
    """The same request as a form and as JSON."""
    return [
        {"files": {"image": ("photo.jpg", photo)}, "data": fields},
        {"json": {"image": base64.b64encode(photo).decode(), **fields}},
    ]


def test_the_query_counts_beside_every_body(rest: Any, photo: bytes) -> None:
    asked = {"model": "shop_small", "top_k": "1"}
    alone = {"content": photo, "headers": IMAGE}
    for body in (*in_every_body(photo), alone):
        reply = rest.http.post(CLASSIFY, params=asked, **body)
        assert reply.status_code == 200, reply.text
        assert reply.json()["model"] == "shop_small"
        assert len(reply.json()["predictions"]) == 1


def test_the_body_wins(rest: Any, photo: bytes) -> None:
    for body in in_every_body(photo, model="shop_small"):
        reply = rest.http.post(CLASSIFY, params={"model": "auto", "top_k": "2"}, **body)
        assert reply.json()["model"] == "shop_small"
        assert len(reply.json()["predictions"]) == 2


def test_a_wrong_value_in_the_query_is_refused_beside_every_body(rest: Any, photo: bytes) -> None:
    for body in in_every_body(photo):
        for params, status, param in (
            ({"top_k": "none"}, 422, "top_k"),
            ({"top_k": "0"}, 400, "top_k"),
            ({"model": "nobody"}, 404, "model"),
            ({"model": ["shop_small", "shop_large"]}, 422, "model"),
        ):
            assert refused(rest.http.post(CLASSIFY, params=params, **body), status)["param"] == param


@pytest.mark.parametrize("name", ["topk", "Model", "image", "webhook", ""])
def test_a_name_that_nobody_knows_is_refused_before_the_body_is_sent(rest: Any, name: str) -> None:
    with Wire(rest.port) as wire:
        wire.send(
            f"POST {CLASSIFY}?{name}=1 HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
            "Content-Length: 100000\r\n\r\n".encode()
        )
        reply = wire.reply()
    assert reply.status == 422
    assert reply.json()["error"]["code"] == "UNKNOWN_FIELD"  # type: ignore[index]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root: Path = tmp_path_factory.mktemp("queries") / "models"
    root.mkdir()
    with running(root, tmp_path_factory.mktemp("queries_server"), toy_settings()) as started:
        yield started


def test_defaults_that_a_generated_client_sends_do_not_disturb_a_submit(house: RunningServer) -> None:
    sent = {"preset": "default", "seed": "0", "building": "other_name"}
    reply = house.http.post(BUILDINGS, json=upload("quick_json", seed=5), params=sent)
    assert reply.status_code == 202, reply.text
    assert reply.json()["job"]["subject"] == "quick_json"
    files = {"scans": ("s.csv", b"scan,bssid,rssi\na,m1,-40\na,m2,-60\nb,m2,-50\n")}
    form = {"building": "quick_form", "labelled": '{"scan": "a", "floor": "B1"}', "seed": "5"}
    reply = house.http.post(BUILDINGS, files=files, data=form, params=sent)
    assert reply.status_code == 202, reply.text
    assert reply.json()["job"]["subject"] == "quick_form"


def test_a_query_with_a_route_that_takes_json_alone(house: RunningServer) -> None:
    reply = house.http.post(f"{BUILDINGS}/any/identify", params={"building": "other"}, json={"scans": []})
    assert refused(reply, 422)["code"] == "UNKNOWN_FIELD"
