"""The models that come with the project, on real photos: right answers, as often as promised."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.running_server import RunningServer, running

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def grocery_models() -> list[str]:
    """Names of the shipped networks of the grocery family."""
    names = []
    for manifest in (ROOT / "model_repository").glob("*/*/manifest.json"):
        if json.loads(manifest.read_text()).get("family") == "grocery":
            names.append(manifest.parent.parent.name)
    if not names:
        pytest.skip("no trained grocery model in model_repository")
    return sorted(set(names))


@pytest.fixture(scope="module")
def shipped(grocery_models: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(ROOT / "model_repository", tmp_path_factory.mktemp("shipped")) as started:
        yield started


@pytest.fixture(scope="module")
def photos(data_root: Path) -> list[tuple[Path, str]]:
    """Up to sixty test photos with the name of their class."""
    folder = data_root / "grocery_128"
    if not folder.is_dir():
        pytest.skip("the grocery photos are not there")
    with (folder / "classes.csv").open(newline="") as file:
        names = {row["fine_id"]: row["fine"] for row in csv.DictReader(file)}
    with (folder / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    chosen = rows[:: max(1, len(rows) // 60)][:60]
    return [(folder / row["image"], names[row["fine_id"]]) for row in chosen]


def classify(server: RunningServer, photo: Path, model: str) -> dict[str, Any]:
    reply = server.http.post(
        "/v1/classify", files={"image": (photo.name, photo.read_bytes())}, data={"model": model, "top_k": "5"}
    )
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def test_the_family_is_a_ladder_and_names_itself(shipped: RunningServer, grocery_models: list[str]) -> None:
    assert len(grocery_models) >= 2
    for name in grocery_models:
        assert shipped.http.get(f"/v2/models/{name}/ready").status_code == 200
        assert shipped.http.get(f"/v2/models/classify.{name}/ready").status_code == 200


def test_real_photos_are_recognised_about_as_well_as_the_manifest_says(
    shipped: RunningServer, grocery_models: list[str], photos: list[tuple[Path, str]]
) -> None:
    """Sixty photos measure an accuracy to about 6 %; three times that is the margin."""
    for name in grocery_models:
        claims = sorted((ROOT / "model_repository" / name).glob("*/manifest.json"))
        claimed = json.loads(claims[-1].read_text())["quality"]["top1"]
        answers = [classify(shipped, photo, name)["predictions"][0]["label"] for photo, _ in photos]
        hits = [answer == label for answer, (_, label) in zip(answers, photos, strict=True)]
        measured = sum(hits) / len(hits)
        assert measured > claimed - 0.18, (
            f"{name}: {measured:.2f} of {len(hits)} photos, manifest says {claimed}"
        )


def test_auto_answers_with_a_real_label(shipped: RunningServer, photos: list[tuple[Path, str]]) -> None:
    answer = classify(shipped, photos[0][0], "grocery")
    assert len(answer["predictions"]) == 5
    assert all(entry["label"] for entry in answer["predictions"])
    assert 0 <= answer["predictions"][0]["score"] <= 1


def test_every_version_answers_as_its_check_set_says() -> None:
    command = [sys.executable, "-m", "nonet.cli.main", "models", "verify", "--repository"]
    done = subprocess.run(
        [*command, str(ROOT / "model_repository")], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
