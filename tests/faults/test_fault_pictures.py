"""Case 53: impossible settings of a picture are refused by name; equal ones give equal bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import handmade_diffusion
from tests.support.running_server import RunningServer, assert_refused, running

PATH = "/v1/images/generations"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("pictures") / "models"
    root.mkdir()
    handmade_diffusion.add_text_to_image(root, "shapes_full")
    with running(root, tmp_path_factory.mktemp("server"), {"cache": {"enabled": False}}) as started:
        yield started


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 10_000}, "steps"),
        ({"size": "63x64"}, "size"),
        ({"size": "64"}, "size"),
        ({"size": "-64x64"}, "size"),
        ({"size": "0x0"}, "size"),
        ({"seed": -1}, "seed"),
        ({"n": 11}, "n"),
        ({"prompt": "a" * 10_000}, "prompt"),
    ],
)
def test_case_53_impossible_settings_are_refused_by_name(
    pictures: RunningServer, fields: dict[str, Any], named: str
) -> None:
    reply = pictures.http.post(PATH, json={"prompt": "a cat", **fields})
    assert_refused(reply, 400, named)
    assert reply.json()["error"]["param"] == named


def test_case_53_the_same_seed_and_settings_give_identical_bytes(pictures: RunningServer) -> None:
    fields = {"prompt": "a red apple on the car", "seed": 12, "steps": 5, "n": 2, "output_format": "jpeg"}
    answers = [pictures.http.post(PATH, json=fields) for _ in range(3)]
    assert [answer.headers["X-Cache"] for answer in answers] == ["bypass"] * 3
    first, *others = [answer.json()["data"] for answer in answers]
    assert others == [first, first]
