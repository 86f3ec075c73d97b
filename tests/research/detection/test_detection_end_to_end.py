"""A detector is trained for seconds on pictures made here, published, measured and served."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nonet.research.detection.commands import train
from nonet.research.systems import TrainOptions
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.repository.layout import read_model
from nonet.runtime.repository.manifest import read_manifest
from tests.support.running_server import RunningServer

ROOT = Path(__file__).parents[3]
KINDS = {"RBC": (200, 60, 60), "WBC": (90, 60, 200), "Platelets": (60, 170, 90)}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in the layout of `bccd`, with thirty pictures of discs."""
    root = tmp_path_factory.mktemp("data")
    for name in ("JPEGImages", "Annotations"):
        (root / "bccd" / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(30):
        image = Image.new("RGB", (160, 120), (230, 220, 220))
        objects = []
        for _ in range(3):
            kind = list(KINDS)[int(rng.integers(3))]
            x, y = int(rng.integers(0, 120)), int(rng.integers(0, 80))
            image.paste(KINDS[kind], (x, y, x + 36, y + 36))
            corners = "".join(
                f"<{key}>{value}</{key}>"
                for key, value in zip(("xmin", "ymin", "xmax", "ymax"), (x, y, x + 36, y + 36), strict=True)
            )
            objects.append(f"<object><name>{kind}</name><bndbox>{corners}</bndbox></object>")
        image.save(root / "bccd" / "JPEGImages" / f"{number:03}.jpg")
        text = f"<annotation>{''.join(objects)}</annotation>"
        (root / "bccd" / "Annotations" / f"{number:03}.xml").write_text(text)
    return root


def test_what_is_trained_is_published_resumed_and_served(
    cells: Path,
    tmp_path: Path,
    start_server: Callable[..., RunningServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    repository = tmp_path / "models"
    shutil.copytree(
        ROOT / "model_repository" / "fasternet_nano_grocery", repository / "fasternet_nano_grocery"
    )
    options = TrainOptions(
        preset="cells", repository=repository, runs=tmp_path / "runs", data=cells, minutes=0.1
    )
    train(options)
    assert "fasternet_nano_cells version 1" in capsys.readouterr().out
    assert (tmp_path / "runs" / "fasternet_nano_cells" / "checkpoint.pt").is_file()
    again = TrainOptions(
        preset="cells",
        repository=repository,
        runs=tmp_path / "runs",
        data=cells,
        minutes=0.1,
        resume=True,
        publish=False,
    )
    train(again)  # the clock has run out already
    assert capsys.readouterr().out.count('"step"') <= 1

    model = read_model(repository, "fasternet_nano_cells")
    assert model is not None
    manifest = read_manifest(model.versions[-1].path / "manifest.json")
    assert manifest is not None
    assert manifest.task == "detection"
    assert manifest.quality["pictures"] == 3
    shutil.rmtree(repository / "fasternet_nano_grocery")

    server = start_server(repository)
    buffer = io.BytesIO()
    Image.new("RGB", (320, 200), (200, 60, 60)).save(buffer, "PNG")
    answer = server.http.post(
        "/v1/detect", files={"image": ("x.png", buffer.getvalue())}, data={"score_threshold": "0"}
    ).json()
    assert answer["image"] == {"width": 320, "height": 200}
    assert {each["label"] for each in answer["detections"]} <= set(KINDS)


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    options = TrainOptions(preset="cells", repository=tmp_path, runs=tmp_path, variant="t9")
    with pytest.raises(InvalidArgument, match="no variants"):
        train(options)
    empty = TrainOptions(preset="cells", repository=tmp_path, runs=tmp_path, data=tmp_path)
    with pytest.raises(InvalidArgument):
        train(empty)
