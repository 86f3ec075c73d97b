"""``POST /v1/ground`` on a real server: what an expression means, and what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from nonet.services.grounding.task import GroundResponse
from tests.services.grounding.conftest import BOTH, CAT, DOG, picture
from tests.support.running_server import RunningServer, assert_refused

PATH = "/v1/ground"


def post(server: RunningServer, image: bytes, expressions: Any, **fields: Any) -> httpx.Response:
    body = {"image": base64.b64encode(image).decode(), "expressions": expressions, **fields}
    return server.http.post(PATH, json=body)


def boxes(reply: httpx.Response) -> list[Any]:
    assert reply.status_code == 200, reply.text
    return [each["box"] for each in reply.json()["groundings"]]


def test_each_expression_gets_the_region_that_it_means(grounding: RunningServer) -> None:
    reply = post(grounding, BOTH, ["the dog", "the cat", "a cat, please"])
    assert boxes(reply) == [list(DOG), list(CAT), list(CAT)]
    answer = reply.json()
    assert (answer["model"], answer["image"]) == ("matcher", {"width": 128, "height": 128})
    assert [each["label"] for each in answer["groundings"]] == ["dog", "cat", "cat"]
    assert all(0.4 < each["score"] <= 1 - each["nothing"] for each in answer["groundings"])
    GroundResponse.model_validate(answer)


def test_a_form_takes_repeated_fields_and_one_json_array(grounding: RunningServer) -> None:
    image = {"image": ("a.png", BOTH)}
    repeated = grounding.http.post(PATH, files=image, data={"expressions": ["the dog", "[cat]"]})
    array = grounding.http.post(PATH, files=image, data={"expressions": json.dumps(["the dog", "[cat]"])})
    one = grounding.http.post(PATH, files=image, data={"expressions": "the dog"})
    assert boxes(repeated) == boxes(array) == [list(DOG), list(CAT)]
    assert boxes(one) == [list(DOG)]
    many = grounding.http.post(PATH, files=image, data={"expressions": ["the dog"] * 256})
    assert boxes(many) == [list(DOG)] * 256


def test_nothing_that_matches_is_no_box_and_says_how_sure(grounding: RunningServer) -> None:
    reply = post(grounding, BOTH, ["quarterly revenue of the insurance company"])
    (only,) = reply.json()["groundings"]
    assert (only["box"], only["label"]) == (None, None)
    assert only["score"] == only["nothing"] > 0.5
    forced = post(grounding, BOTH, ["quarterly revenue of the insurance company"], nothing_threshold=1)
    assert boxes(forced) != [None]
    GroundResponse.model_validate(reply.json())


def test_a_picture_without_regions_has_nothing_for_any_expression(grounding: RunningServer) -> None:
    empty = post(grounding, picture(), ["the cat", "the dog"], nothing_threshold=1)
    assert boxes(empty) == [None, None]
    assert [each["score"] for each in empty.json()["groundings"]] == [1, 1]


def test_several_instances_come_best_first_and_least_score_leaves_some_out(grounding: RunningServer) -> None:
    herd = picture(("cat", CAT), ("cat", DOG), ("dog", (0, 96, 32, 128)))
    reply = post(grounding, herd, ["the cat"], instances=3)
    (only,) = reply.json()["groundings"]
    assert [each["label"] for each in only["instances"]] == ["cat", "cat", "dog"]
    assert sorted(each["box"] for each in only["instances"][:2]) == sorted([list(CAT), list(DOG)])
    scores = [each["score"] for each in only["instances"]]
    assert scores == sorted(scores, reverse=True)
    assert (only["box"], only["score"]) == (only["instances"][0]["box"], scores[0])
    few = post(grounding, herd, ["the cat"], instances=3, least_score=scores[1]).json()["groundings"][0]
    assert len(few["instances"]) == 2
    assert boxes(post(grounding, herd, ["the cat"], least_score=0.99)) == [None]
    GroundResponse.model_validate(reply.json())


def test_another_detector_finds_other_regions(grounding: RunningServer) -> None:
    reply = post(grounding, BOTH, ["the green one", "something red"], detector="colours")
    assert boxes(reply) == [list(DOG), list(CAT)]
    missing = post(grounding, BOTH, ["the cat"], detector="nobody")
    assert_refused(missing, 404, "unknown model 'nobody'")
    assert missing.json()["error"]["param"] == "detector"
    assert_refused(post(grounding, BOTH, ["the cat"], model="nobody"), 404, "unknown model")


def test_the_better_quality_finds_what_is_small(grounding: RunningServer) -> None:
    """What lies on four of the detector's blocks in the whole picture fills one of them in a tile."""
    small = picture(("cat", (40, 40, 76, 76)), size=(256, 256))
    assert boxes(post(grounding, small, ["the cat"])) == [None]
    (box,) = boxes(post(grounding, small, ["the cat"], quality="best"))
    assert box == pytest.approx([38.5, 38.5, 77, 77], abs=1)


@pytest.mark.parametrize(
    ("expressions", "status", "param", "words"),
    [
        ([], 400, "expressions", "at least one"),
        ([""], 400, "expressions[0]", "is empty"),
        (["the cat", " \t "], 400, "expressions[1]", "is empty"),
        (["x" * 100_000], 400, "expressions[0]", "at most 2000"),
        (["the cat"] * 257, 400, "expressions", "at most 256"),
        (["the cat"] * 1000, 400, "expressions", "at most 256"),
        (["the\x00cat"], 400, "expressions[0]", "U+0000"),
        ([5], 422, "expressions[0]", "a text"),
        ({"the": "cat"}, 422, "expressions", "a list"),
        (5, 422, "expressions", "a list"),
    ],
)
def test_what_is_no_expression_is_refused_by_its_place(
    grounding: RunningServer, expressions: Any, status: int, param: str, words: str
) -> None:
    reply = post(grounding, BOTH, expressions)
    assert_refused(reply, status, words)
    assert reply.json()["error"]["param"] == param


def test_a_flood_of_expressions_is_refused_before_it_is_read(grounding: RunningServer) -> None:
    assert_refused(post(grounding, BOTH, ["the cat"] * 50_000), 422)
    assert_refused(grounding.http.post(PATH, json={"image": base64.b64encode(BOTH).decode()}), 422, "missing")


@pytest.mark.parametrize(
    "expression",
    ["\U0001f431", "\U0001f469‍\U0001f680 ❤️", "die Katze", "左边的猫", "القطة", "x" * 2000, "'; --", "[cat"],
)
def test_any_text_gets_an_answer(grounding: RunningServer, expression: str) -> None:
    (only,) = post(grounding, BOTH, [expression]).json()["groundings"]
    assert only["expression"] == expression
    assert 0 <= only["score"] <= 1


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"quality": "great"}, 400, "fast, best"),
        ({"instances": 0}, 400, "from 1 to 16"),
        ({"instances": 17}, 400, "from 1 to 16"),
        ({"least_score": 1.5}, 400, "from 0 to 1"),
        ({"nothing_threshold": -1}, 400, "from 0 to 1"),
        ({"colour": "red"}, 422, "unknown field"),
    ],
)
def test_other_fields_are_held_to_their_ranges(
    grounding: RunningServer, fields: dict[str, Any], status: int, words: str
) -> None:
    assert_refused(post(grounding, BOTH, ["the cat"], **fields), status, words)


def test_what_is_no_image_is_refused_as_everywhere(grounding: RunningServer) -> None:
    assert_refused(post(grounding, BOTH[:200], ["the cat"]), 400, "cut off")
    assert_refused(post(grounding, b"%PDF-1.4 ...", ["the cat"]), 415)
    reply = post(grounding, b"", ["the cat"])
    assert_refused(reply, 400)


def test_no_box_leaves_the_picture(grounding: RunningServer) -> None:
    """The detector's square is larger than a long picture: its boxes reach beyond the edge."""
    flat = picture(("cat", (0, 0, 200, 40)), size=(200, 40), kind="JPEG")
    for quality in ("fast", "best"):
        reply = post(grounding, flat, ["the cat"], instances=16, quality=quality)
        found = reply.json()["groundings"][0]["instances"]
        assert found
        for x1, y1, x2, y2 in (each["box"] for each in found):
            assert 0 <= x1 <= x2 <= 200
            assert 0 <= y1 <= y2 <= 40
