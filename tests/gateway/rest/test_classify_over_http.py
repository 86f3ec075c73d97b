"""``POST /v1/classify`` and ``GET /v1/models``: every way to send an image, every way to get it wrong."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.gateway.tasks.schemas import ModelList
from nonet.runtime.errors import Unavailable
from nonet.services.recognition.task import ClassifyResponse, best_classes
from tests.support.http_server import eventually

SHAPE = {"message", "type", "param", "code"}


def refused(reply: Any, status: int, *words: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == SHAPE
    for word in words:
        assert word in error["message"], error
    assert reply.headers["x-request-id"]
    return error


def test_every_way_to_send_an_image_gives_the_same_answer(rest: Any, photo: bytes) -> None:
    text = base64.b64encode(photo).decode()
    ask = {"model": "shop_small", "top_k": 2}
    post = rest.http.post
    replies = [
        post("/v1/classify", files={"image": ("photo.jpg", photo)}, data=ask),
        post("/v1/classify", files={"image": ("photo.bin", photo, "application/octet-stream")}, data=ask),
        post("/v1/classify", files={"image": (None, photo)}, data=ask),
        post("/v1/classify", files={"image": (None, text)}, data=ask),
        post("/v1/classify", json={"image": text, **ask}),
        post("/v1/classify", json={"image": f"data:image/jpeg;base64,{text}", **ask}),
        post("/v1/classify", json={"image": "\n".join([text[:76], text[76:]]), **ask}),
        post("/v1/classify", content=photo, headers={"Content-Type": "image/jpeg"}, params=ask),
        post("/v1/classify", content=photo, headers={"Content-Type": "application/octet-stream"}, params=ask),
        post("/v1/classify", content=photo, params=ask),
    ]
    assert [reply.status_code for reply in replies] == [200] * len(replies), [each.text for each in replies]
    assert len({reply.text for reply in replies}) == 1
    assert replies[0].json()["model"] == "shop_small"


def test_the_answer_is_what_the_schema_says(rest: Any, photo: bytes) -> None:
    reply = rest.http.post(
        "/v1/classify", files={"image": photo}, headers={"X-Request-Id": "one", "Cache-Control": "no-store"}
    )
    answer = ClassifyResponse.model_validate_json(reply.content)
    assert len(answer.predictions) == 5
    scores = [one.score for one in answer.predictions]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1.0, abs=1e-5)
    assert reply.headers["x-request-id"] == "one"
    assert reply.headers["x-cache"] == "bypass"
    assert reply.headers["x-model-version"] == "1"
    assert reply.headers["server-timing"].startswith("decode;dur=")


@pytest.mark.parametrize("model", ["auto", "shop", "shop_large", "classify.shop_large"])
def test_a_model_is_named_by_itself_its_family_or_auto(rest: Any, photo: bytes, model: str) -> None:
    reply = rest.http.post("/v1/classify", files={"image": photo}, data={"model": model})
    assert reply.json()["model"] == "shop_large"


def test_fewer_classes_than_asked_for_are_all_there_are(rest: Any, photo: bytes) -> None:
    reply = rest.http.post("/v1/classify", files={"image": photo}, data={"top_k": "1000"})
    assert len(reply.json()["predictions"]) == 5


@pytest.mark.parametrize(
    ("fields", "status", "param", "word"),
    [
        ({"top_k": 0}, 400, "top_k", "from 1 to 1000"),
        ({"top_k": 1001}, 400, "top_k", "from 1 to 1000"),
        ({"top_k": -3}, 400, "top_k", "from 1 to 1000"),
        ({"top_k": "many"}, 422, "top_k", "integer"),
        ({"top_k": 1.5}, 422, "top_k", "integer"),
        ({"top_k": True}, 422, "top_k", "integer"),
        ({"top_k": None}, 422, "top_k", "integer"),
        ({"model": "nobody"}, 404, "model", "shop_small"),
        ({"model": ""}, 400, "model", "characters"),
        ({"model": 5}, 422, "model", "text"),
        ({"model": "x" * 300}, 400, "model", "characters"),
        ({"image": None}, 422, "image", "base64"),
        ({"image": ["a"]}, 422, "image", "base64"),
        ({"image": ""}, 400, "image", "empty"),
        ({"image": "not base64!"}, 400, "image", "base64"),
        ({"image": "YWJj\u00e9"}, 400, "image", "base64"),
        ({"image": "data:image/png,plain"}, 400, "image", "data:"),
        ({"image": "http://127.0.0.1/a.jpg"}, 400, "image", "URL"),
        ({"image": "https://example.org/a.jpg"}, 400, "image", "URL"),
        ({"image": "file:///etc/passwd"}, 400, "image", "URL"),
        ({"image": "YWJj"}, 415, "image", "JPEG"),
        ({"topk": 3}, 422, "topk", "unknown field"),
    ],
)
def test_a_wrong_field_is_named(
    rest: Any, photo: bytes, fields: dict[str, Any], status: int, param: str, word: str
) -> None:
    body = {"image": base64.b64encode(photo).decode(), **fields}
    assert refused(rest.http.post("/v1/classify", json=body), status, word)["param"] == param


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"   ", 400),
        (b"{", 400),
        (b"[]", 422),
        (b'"text"', 422),
        (b"{}", 422),
        (b"[" * 10_000, 422),
        (b'{"a":' * 10_000, 422),
        (b"{" + b",".join(b'"k%d":0' % number for number in range(100_000)) + b"}", 422),
        (b'{"image": NaN}', 400),
        (b"\xff\xfe", 400),
    ],
)
def test_json_that_is_no_request_is_refused(rest: Any, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    refused(rest.http.post("/v1/classify", content=body, headers=headers), status)


def test_a_wrong_form_is_refused(rest: Any, photo: bytes) -> None:
    post = rest.http.post
    refused(post("/v1/classify", files={"picture": photo}), 422, "unknown field 'picture'")
    refused(post("/v1/classify", files=[("image", photo), ("image", photo)]), 422, "one image")
    refused(post("/v1/classify", files={"model": (None, "auto")}), 422, "'image' is missing")
    refused(post("/v1/classify", files={"image": photo, "top_k": (None, "x")}), 422, "top_k")
    refused(post("/v1/classify", files={"image": photo, "top_k": (None, b"\xff")}), 400, "UTF-8")
    refused(post("/v1/classify", files={"image": b""}), 400, "empty")
    header = {"Content-Type": "multipart/form-data"}
    refused(post("/v1/classify", content=b"--a--", headers=header), 400, "boundary")
    header = {"Content-Type": "multipart/form-data; boundary=a"}
    refused(post("/v1/classify", content=b"rubbish", headers=header), 400, "malformed")


@pytest.mark.parametrize("content_type", ["text/html", "application/x-www-form-urlencoded", "video/mp4"])
def test_another_content_type_is_415_and_says_how_to_send(rest: Any, content_type: str) -> None:
    reply = rest.http.post("/v1/classify", content=b"a=b", headers={"Content-Type": content_type})
    refused(reply, 415, "-F image=@photo.jpg")


def test_a_broken_image_is_refused_by_its_cause(rest: Any, photo: bytes) -> None:
    error = refused(rest.http.post("/v1/classify", files={"image": photo[: len(photo) // 2]}), 400)
    assert error["code"] == "IMAGE_TRUNCATED"
    refused(rest.http.post("/v1/classify", files={"image": b"%PDF-1.7 nothing"}), 415)


def test_verbs_and_routes_of_v1_fail_in_its_shape(rest: Any) -> None:
    reply = rest.http.get("/v1/classify")
    assert refused(reply, 405)["code"] == "METHOD_NOT_ALLOWED"
    assert reply.headers["allow"] == "OPTIONS, POST"
    refused(rest.http.get("/v1/nothing"), 404)
    refused(rest.http.get("/v1/models/nobody"), 404, "shop")
    refused(rest.http.get("/v1"), 404)


def test_a_deadline_that_cannot_be_met_is_refused_at_once(rest: Any, photo: bytes) -> None:
    reply = rest.http.post("/v1/classify", files={"image": photo}, headers={"X-Request-Timeout-Ms": "0"})
    assert refused(reply, 504)["code"] == "DEADLINE_EXCEEDED"


def test_a_gateway_without_models_says_so(start_gateway: Any, photo: bytes, tmp_path: Any) -> None:
    server = start_gateway(root=tmp_path)
    reply = server.http.post("/v1/classify", files={"image": photo})
    assert refused(reply, 503)["code"] == "NO_MODEL"
    assert int(reply.headers["retry-after"]) >= 1
    assert server.http.get("/v1/models").json() == {"object": "list", "data": []}


def test_models_are_listed_as_openai_lists_them(rest: Any) -> None:
    listed = ModelList.model_validate(rest.http.get("/v1/models").json())
    cards = {card.id: card for card in listed.data}
    assert cards["shop"].variants == ["shop_large", "shop_small"]
    small = cards["shop_small"]
    assert (small.task, small.family, small.versions) == ("classification", "shop", ["1"])
    assert (small.service, small.classes, small.devices) == ("classify.shop_small", 5, ["cpu"])
    assert small.quality["top1"] == pytest.approx(0.6)
    assert small.created > 0
    assert "command" not in small.details
    assert rest.http.get("/v1/models/shop_small").json() == json.loads(small.model_dump_json())


@given(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), min_size=1, max_size=60), st.integers(1, 100))
def test_best_classes_are_the_best_with_ties_by_index(values: list[float], count: int) -> None:
    scores = np.array(values, dtype=np.float32)
    found = best_classes(scores, ["zero", "one"], count)
    order = sorted(range(len(values)), key=lambda index: (-scores[index], index))[:count]
    assert [one["index"] for one in found] == order
    assert [one["score"] for one in found] == [float(scores[index]) for index in order]
    names = {0: "zero", 1: "one"}
    assert [one["label"] for one in found] == [names.get(index, str(index)) for index in order]


def test_nothing_is_left_of_the_requests(rest: Any) -> None:
    eventually(lambda: rest.tasks == 0, "all handlers end")
    assert rest.gateway.plane.in_flight == 0


def test_unavailable_always_says_when_to_come_back() -> None:
    assert Unavailable("busy").retry_after is not None
