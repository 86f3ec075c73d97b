"""A regressor trained elsewhere, described, with weights and pairs of its answers, is served and adapts."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.support import handmade_regressors as handmade
from tests.support.import_runs import refused, run

pytest.importorskip("torch")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``network.json``, ``weights.safetensors`` and ``pairs.csv`` of a trained network."""
    import torch

    from nonet.research.tasfar.networks import save_network
    from nonet.research.tasfar.uncertainty import estimates_of

    made = tmp_path_factory.mktemp("elsewhere")
    answering = handmade.trained()
    files = save_network(answering.network)
    (made / "network.json").write_bytes(files.description)
    (made / "weights.safetensors").write_bytes(files.weights)
    held, truth = handmade.source_rows(600, seed=7)
    found = estimates_of(answering, torch.from_numpy(held))
    with (made / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Prediction", "std", "error"])
        writer.writerows(zip(found.value[:, 0], found.std[:, 0], (truth - found.value)[:, 0], strict=True))
    return made


def words(folder: Path, pairs: str = "pairs.csv") -> list[str | Path]:
    return [folder / "weights.safetensors", "--calibration", folder / pairs]


def test_it_is_served_and_can_be_adapted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from nonet.research.tasfar.site import AdaptOptions, adapt_version
    from nonet.research.tasfar.uncertainty import estimates_of
    from nonet.research.tasfar.version_files import read_regressor

    models = tmp_path / "models"
    status, out, err = run(
        capsys, *words(folder), "--as", "prices", "--features", "area,age,noise", "--repository", models
    )
    assert (status, err) == (0, ""), err
    assert "published prices version 1" in out
    regressor = read_regressor(models / "prices" / "1")
    rows = torch.from_numpy(handmade.source_rows(50, seed=9)[0])
    own = estimates_of(handmade.trained(), rows)
    kept = estimates_of(regressor.answering, rows)
    assert np.abs(kept.value - own.value).max() < 1e-6
    assert regressor.manifest.source["features"] == ["area", "age", "noise"]
    # About nine tenths of rows like those of the pairs are confident.
    _, doubt = estimates_of(
        regressor.answering, torch.from_numpy(handmade.source_rows(600, seed=8)[0])
    ).in_space("linear")
    assert 0.8 < regressor.facts.calibration.confident(doubt).mean() < 0.97
    found = adapt_version(models / "prices" / "1", handmade.site_rows(400), AdaptOptions(epochs=1))
    assert found.accepted, found.reasons


@pytest.mark.parametrize(
    ("content", "needle"),
    [
        ("prediction,std\n1,2\n", "no column truth"),
        ("prediction,std,truth\n1,2,3\n", "at least 80 rows"),
        ("prediction,std,truth\n" + "1,-2,3\n" * 90, "no std below 0"),
        ("prediction,std,truth\n" + "1,2,nan\n" * 90, "finite"),
        ("prediction,std,truth\n" + "1,2,3\n" * 90, "all truths are the same"),
        ("prediction,std,truth\n1,2\n", "no CSV of numbers"),
        ("", "no column prediction"),
    ],
)
def test_pairs_that_say_too_little_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, needle: str
) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(content)
    given = (folder / "weights.safetensors", "--calibration", pairs)
    refused(capsys, tmp_path, *given, status=2, needles=("--calibration", needle))


def test_what_does_not_belong_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = folder / "weights.safetensors"
    refused(capsys, tmp_path, weights, status=2, needles=("--calibration", "prediction, std and truth"))
    refused(
        capsys, tmp_path, *words(folder), "--features", "a,b", status=2, needles=("--features", "takes 3")
    )
    refused(capsys, tmp_path, *words(folder), "--variant", "t0", status=2, needles=("--variant", "not for"))
    alone = tmp_path / "alone" / "t0.safetensors"
    alone.parent.mkdir()
    alone.write_bytes(weights.read_bytes())
    refused(
        capsys, tmp_path, alone, "--features", "a", status=2, needles=("--features", "network.json beside")
    )
    (alone.parent / "network.json").write_text('{"kind": "mlp", "inputs": [4]}')
    given = (alone, "--calibration", folder / "pairs.csv")
    refused(capsys, tmp_path, *given, status=1, needles=("describe no network",))
