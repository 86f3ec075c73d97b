"""Real captures through the shipped network, as a request and as a job: the same picture, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.building_gateway import wait_for
from tests.support.capture_gateway import ASYNC, DEVELOP, result_of
from tests.support.running_server import RunningServer, running

ROOT = Path(__file__).parents[2]
ROSE = {"cfa": "RGGB", "black_level": "600", "white_level": "15520", "width": "768", "height": "512"}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    if not (ROOT / "model_repository" / "wild_jdd").is_dir():
        pytest.skip("no trained restoration network in model_repository")
    settings = {"jobs": {"nice": 0}, "scheduler": {"default_timeout": 300.0}}
    with running(ROOT / "model_repository", tmp_path_factory.mktemp("captures"), settings) as started:
        yield started


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("DSC_1339_768x512_rggb_u16.raw", {**ROSE, "render": "srgb", "white_balance": "1.949,1,1.344"}),
        ("DSC_1339_768x512_rggb_u16.raw", {**ROSE, "output": "png16"}),
        ("DSC_1339_768x512_rggb_u16.raw", {**ROSE, "output": "tiff16", "uncertainty": "true"}),
        ("RAW_KODAK_DC50.KDC", {"output": "jpeg"}),
    ],
)
def test_a_real_capture_is_developed_alike_by_a_request_and_by_a_job(
    shipped: RunningServer, data_root: Path, name: str, fields: dict[str, Any]
) -> None:
    path = data_root / "raw_bayer" / name
    if not path.is_file():
        pytest.skip(f"the capture {name} is not here")
    if name.endswith("KDC"):
        pytest.importorskip("rawpy")
    raw = path.read_bytes()
    reply = shipped.http.post(DEVELOP, files={"raw": (name, raw)}, data=fields, headers=ASYNC)
    assert reply.status_code == 202, reply.text
    job = reply.json()["job"]
    assert job["subject"] == name
    awaited = shipped.http.post(DEVELOP, files={"raw": (name, raw)}, data=fields)
    assert awaited.status_code == 200, awaited.text
    ended = wait_for(shipped, job["id"], "succeeded")
    fetched = result_of(shipped, job["id"])
    assert fetched.content == awaited.content
    assert ended["result"]["model"] == "wild_jdd"
    for header in ("content-type", "x-noise-sigma", "x-white-balance", "x-std-scale", "x-model-version"):
        assert fetched.headers.get(header) == awaited.headers.get(header)
