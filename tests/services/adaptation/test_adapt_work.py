"""The work of an adaptation as a worker does it, with a network that was trained for the test: it needs
PyTorch."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from nonet.runtime.errors import Conflict, PermissionDenied
from nonet.runtime.job_context import JobContext
from nonet.runtime.tensors import Array
from tests.support import handmade_regressors as handmade

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

SITE = handmade.site_rows(400)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained") / "models"
    handmade.publish_trained(root, "prices", family="houses")
    return root


def work(
    models: Path, folder: Path, rows: Array, *, job: str = "job_1", tenant: str = "", **spec: Any
) -> tuple[Mapping[str, Any], list[tuple[float, str]]]:
    """The result of the work on some rows, and what it reported."""
    folder.mkdir(exist_ok=True)
    (folder / "rows.f32").write_bytes(rows.astype("<f4").tobytes())
    told: dict[str, Any] = {
        "model": "prices",
        "version": "1",
        "name": "prices@coast",
        "site": "coast",
        "activate": True,
        "method": "tasfar",
        "epochs": 1,
        "seed": 0,
        "rows": len(rows),
        "shape": [3],
        "ignored_columns": [],
        **spec,
    }
    reports: list[tuple[float, str]] = []
    partials: list[Mapping[str, Any]] = []
    context = SimpleNamespace(
        job=job,
        tenant=tenant,
        spec=told,
        repository=models,
        threads=1,
        folder=folder,
        input=lambda name: folder / name,
        report=lambda share, phase, partial=None: (
            reports.append((share, phase)) if partial is None else partials.append(partial)
        ),
    )
    adapt = importlib.import_module("nonet.services.adaptation.job").adapt
    result: Mapping[str, Any] = adapt(cast("JobContext", context))
    if "map" in result.get("evidence", {}):  # what was watched ends as the map that was used
        assert partials[-1]["map"] == result["evidence"]["map"]
        assert partials[0]["rows"] == len(rows)
    return result, reports


def test_a_site_is_adapted_to_published_once_and_says_where_it_comes_from(
    models: Path, tmp_path: Path
) -> None:
    result, reports = work(models, tmp_path / "job", SITE)
    assert result["decision"] == "accepted", result["reasons"]
    assert (result["model"], result["version"]) == ("prices@coast", "1")
    assert result["evidence"]["map"]["shares"]
    (shown,) = result["distributions"]
    assert sum(shown["before"]) == sum(shown["after"]) == len(SITE)
    assert shown["before"] != shown["after"]
    shares = [share for share, _ in reports]
    assert shares == sorted(shares)

    # The worker died after it had published: the next attempt finds that.
    again, reports = work(models, tmp_path / "job", SITE)
    assert (again["version"], reports) == ("1", [])
    assert [each.name for each in (models / "prices@coast").iterdir() if each.is_dir()] == ["1"]

    folder = models / "prices@coast" / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    lineage = manifest["source"]["lineage"]
    parent = json.loads((models / "prices" / "1" / "manifest.json").read_text())
    assert lineage["parent_sha256"] == parent["files"]["model.onnx"]
    facts = [lineage[name] for name in ("parent", "parent_version", "job", "rows")]
    assert facts == ["prices", "1", "job_1", 400]
    assert lineage["decision"] == {"accepted": True, "reasons": []}
    # A site's model is no member of the family of all.
    assert (parent["family"], manifest["family"]) == ("houses", "")
    assert manifest["source"]["features"] == list(handmade.FEATURES)


def test_a_shadow_is_published_only_where_a_version_serves(models: Path, tmp_path: Path) -> None:
    manifests = []
    for number, job in enumerate(("job_7", "job_8"), 1):
        result, _ = work(models, tmp_path / job, SITE, job=job, name="prices@bay", site="bay", shadow=300)
        assert (result["decision"], result["version"]) == ("accepted", str(number)), result["reasons"]
        assert any("beside the one that serves" in note for note in result["notes"]) == (number == 2)
        manifest = models / "prices@bay" / str(number) / "manifest.json"
        manifests.append(json.loads(manifest.read_text())["shadow_rows"])
    assert manifests == [0, 300]


def test_no_row_of_the_source_or_the_site_is_in_a_version_or_a_job(models: Path, tmp_path: Path) -> None:
    result, _ = work(models, tmp_path / "job", SITE, job="job_2", name="prices@hills", site="hills")
    assert result["decision"] == "accepted", result["reasons"]
    learnt = [handmade.source_rows(1200)[0], handmade.source_rows(600, seed=7)[0]]
    versions = [each for each in models.rglob("*") if each.is_file()]
    assert len(versions) >= 12
    for path in [*versions, *(each for each in (tmp_path / "job").rglob("*") if each.is_file())]:
        content = path.read_bytes()
        for rows in (*learnt, *(() if path.name == "rows.f32" else (SITE,))):
            for row in rows:
                assert row.astype("<f4").tobytes() not in content, path
                assert row.astype("<f8").tobytes() not in content, path
                assert repr(float(row[0])).encode() not in content, path


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (handmade.source_rows(400, seed=3)[0], "nothing to adapt to"),
        (SITE[:5], "too few"),
        (np.repeat(SITE[:1], 300, axis=0), "too few"),
    ],
)
def test_what_gives_no_evidence_is_declined_and_nothing_is_published(
    models: Path, tmp_path: Path, rows: Array, says: str
) -> None:
    before = sorted(models.rglob("*"))
    result, _ = work(models, tmp_path / "job", rows, job="job_3", name="prices", site="")
    assert (result["decision"], result["version"]) == ("declined", "")
    assert any(says in reason for reason in result["reasons"]), result["reasons"]
    assert "the model answers as before" in result["notes"]
    assert sorted(models.rglob("*")) == before


def test_a_version_that_has_gone_and_the_model_of_another_end_the_work_at_once(
    models: Path, tmp_path: Path
) -> None:
    with pytest.raises(Conflict) as gone:
        work(models, tmp_path / "job", SITE, job="job_4", version="7")
    assert gone.value.code == "VERSION_GONE"
    handmade.publish_linear(models, "prices@theirs", owner="ann")
    with pytest.raises(PermissionDenied) as refused:
        work(models, tmp_path / "job", SITE, job="job_5", tenant="ben", name="prices@theirs")
    assert refused.value.code == "MODEL_NOT_YOURS"
