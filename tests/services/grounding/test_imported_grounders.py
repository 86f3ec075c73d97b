"""``nonet models import`` of an export of Grounding DINO's layout: it becomes a model of the route."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.services.grounding.conftest import CAT, DOG, picture
from tests.support.exported_grounders import write_export
from tests.support.import_runs import refused, run
from tests.support.running_server import assert_refused, running


@pytest.mark.parametrize("told", [(), ("--task", "ground")])
def test_an_export_is_imported_and_served_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, told: tuple[str, ...]
) -> None:
    seen = picture(("cat", CAT), ("dog", DOG), size=(128, 128))
    (tmp_path / "seen.png").write_bytes(seen)
    file = write_export(tmp_path / "export")
    models = tmp_path / "models"
    words = ("--picture", tmp_path / "seen.png", "--expect", "the red one")
    status, out, err = run(capsys, file, "--as", "dino", "--repository", models, *told, *words)
    assert status == 0, err
    assert "read as a network of a picture and a text (preprocessor_config.json, config.json)" in out
    assert "'the red one' in the picture: [0, 0, 32, 32]" in out
    if told:
        return
    with running(models, tmp_path / "server") as server:
        body = {
            "image": base64.b64encode(seen).decode(),
            "expressions": ["something green", "Red.", "the sky"],
        }
        reply = server.http.post("/v1/ground", json={**body, "model": "dino", "instances": 2})
        assert reply.status_code == 200, reply.text
        green, red, sky = reply.json()["groundings"]
        assert green["box"] == pytest.approx(list(DOG), abs=0.5)
        assert red["box"] == pytest.approx(list(CAT), abs=0.5)
        assert red["score"] > 0.8
        assert (sky["box"], sky["instances"]) == (None, [])
        assert_refused(
            server.http.post("/v1/ground", json={**body, "detector": "x"}), 400, "leave 'detector' out"
        )


@pytest.mark.parametrize(
    ("changed", "needle"),
    [
        ({"input_ids": "ids"}, "takes pixel_values and input_ids"),
        ({"pred_boxes": "boxes"}, "gives logits and pred_boxes"),
    ],
)
def test_another_layout_is_refused_in_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, changed: dict[str, str], needle: str
) -> None:
    file = write_export(tmp_path / "export", **changed)
    refused(capsys, tmp_path, file, "--task", "ground", status=1, needles=(needle,))


def test_what_is_not_said_is_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = write_export(tmp_path / "export", beside=False)
    refused(capsys, tmp_path, file, status=2, needles=("tokenizer.json beside it",))
    write_export(tmp_path / "other")
    (tmp_path / "other" / "preprocessor_config.json").unlink()
    refused(capsys, tmp_path, tmp_path / "other" / "model.onnx", status=2, needles=("--mean",))
    (tmp_path / "other" / "config.json").write_text('{"model_type": "owlv2"}')
    refused(capsys, tmp_path, tmp_path / "other" / "model.onnx", status=1, needles=("owlv2",))
    (tmp_path / "black.png").write_bytes(picture())
    file = write_export(tmp_path / "third")
    words = ("--picture", tmp_path / "black.png", "--expect", "a red thing")
    refused(capsys, tmp_path, file, *words, status=2, needles=("finds no 'a red thing'",))
