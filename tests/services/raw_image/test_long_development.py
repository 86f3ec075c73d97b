"""A development from file to file: the service's own bytes, whatever stops it on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import ModelOutputInvalid, ServingError
from nonet.runtime.requests import InferRequest, Outcome
from nonet.runtime.servable import ModelInfo, Servable
from nonet.services.raw_image import RawLimits, develop_file, read_options, take_upload
from tests.support import handmade_captures

MOSAIC = handmade_captures.npy(handmade_captures.capture(90, 120, "GBRG"))


class Counted:
    """A network that counts the tiles it is given."""

    def __init__(self, network: Servable) -> None:
        self._network = network
        self.tiles = 0

    @property
    def info(self) -> ModelInfo:
        return self._network.info

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        self.tiles += sum(request.inputs[0].shape[0] for request in batch)
        return self._network.execute(batch)

    def sample_request(self, rows: int) -> InferRequest:
        return self._network.sample_request(rows)

    def warm_up(self) -> None:
        self._network.warm_up()

    def close(self) -> None:
        self._network.close()


class Halt(Exception):
    """What a report raises to end the work."""


class Reports:
    """Notes what it is told, and ends the work at a share."""

    def __init__(self, end: float = 2.0) -> None:
        self.told: list[tuple[float, str]] = []
        self._end = end

    def __call__(self, progress: float, phase: str) -> None:
        self.told.append((progress, phase))
        if progress >= self._end:
            raise Halt


@pytest.fixture
def network(restorers: Catalog) -> Any:
    with restorers.lease("small") as lease:
        yield lease.servable


def develop(network: Any, folder: Path, report: Any = lambda progress, phase: None, **options: Any) -> bytes:
    """The picture of the capture in a folder."""
    threads = options.pop("threads", 1)
    target = folder / "target"
    facts = develop_file(
        network,
        folder / "capture",
        target,
        read_options(options),
        folder=folder,
        report=report,
        threads=threads,
    )
    picture = target.read_bytes()
    assert facts["bytes"] == len(picture)
    assert facts["sha256"] == hashlib.sha256(picture).hexdigest()
    return picture


@pytest.mark.parametrize("output", ["png", "png16", "tiff16", "jpeg"])
@pytest.mark.parametrize("how", [{}, {"render": "srgb"}, {"uncertainty": True}, {"noise": 3.0}])
def test_it_is_the_picture_of_the_service(lab, network, tmp_path, output, how) -> None:
    (tmp_path / "capture").write_bytes(MOSAIC)
    options = {"cfa": "GBRG", "output": output, **how}
    assert develop(network, tmp_path, **options) == lab.run(MOSAIC, **options).output("picture").data[0]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("output", ["png", "png16", "tiff16"])
def test_a_camera_file_is_turned_as_by_the_service(lab, network, tmp_path, orientation, output) -> None:
    pytest.importorskip("rawpy")
    file = handmade_captures.dng(handmade_captures.capture(44, 60) // 8 + 512, orientation=orientation)
    (tmp_path / "capture").write_bytes(file)
    picture = develop(network, tmp_path, output=output)
    assert picture == lab.run(file, output=output).output("picture").data[0]


def test_the_details_are_those_of_the_service(lab, network, tmp_path) -> None:
    (tmp_path / "capture").write_bytes(MOSAIC)
    options = {"cfa": "GBRG", "render": "srgb"}
    facts = develop_file(
        network,
        tmp_path / "capture",
        tmp_path / "target",
        read_options(options),
        folder=tmp_path,
        report=Reports(),
    )
    assert facts["details"] == lab.details(MOSAIC, **options)
    assert (facts["width"], facts["height"], facts["content_type"]) == (120, 90, "image/png")


def test_several_threads_give_the_same_bytes(network, tmp_path) -> None:
    pictures = set()
    for threads in (1, 2, 5):
        folder = tmp_path / str(threads)
        folder.mkdir()
        (folder / "capture").write_bytes(MOSAIC)
        pictures.add(develop(network, folder, cfa="GBRG", output="png16", threads=threads))
    assert len(pictures) == 1


def test_what_is_told_grows_and_names_every_phase(network, tmp_path) -> None:
    (tmp_path / "capture").write_bytes(MOSAIC)
    reports = Reports()
    develop(network, tmp_path, reports, cfa="GBRG")
    shares = [share for share, _ in reports.told]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert list(dict.fromkeys(phase for _, phase in reports.told)) == [
        "reading the capture",
        "developing",
        "encoding",
    ]


@settings(max_examples=12)
@given(ends=st.lists(st.floats(0.05, 0.96), min_size=1, max_size=4))
def test_stopped_anywhere_it_goes_on_without_doing_a_tile_twice(
    restorers: Catalog, tmp_path_factory: pytest.TempPathFactory, ends: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "capture").write_bytes(MOSAIC)
    with restorers.lease("small") as lease:
        counted = Counted(lease.servable)
        told: list[float] = []
        for end in sorted(ends):
            reports = Reports(end)
            with pytest.raises(Halt):
                develop(counted, folder, reports, cfa="GBRG", output="tiff16")
            told += [share for share, _ in reports.told]
        picture = develop(counted, folder, reports := Reports(), cfa="GBRG", output="tiff16")
        told += [share for share, _ in reports.told]
        whole = folder / "whole"
        whole.mkdir()
        (whole / "capture").write_bytes(MOSAIC)
        tiles = counted.tiles
        assert develop(counted, whole, cfa="GBRG", output="tiff16") == picture
        assert tiles == counted.tiles - tiles
    assert told == sorted(told)


def stopped(network: Any, folder: Path) -> None:
    """A development of which about half is finished."""
    (folder / "capture").write_bytes(MOSAIC)
    with pytest.raises(Halt):
        develop(network, folder, Reports(0.5), cfa="GBRG")
    assert 0 < json.loads((folder / "finished.json").read_bytes())["finished"] < 25


@pytest.mark.parametrize("damage", ["count", "count cut", "count lies", "pixels", "pixels cut", "rules"])
def test_what_cannot_be_trusted_is_done_again(lab, network, tmp_path, damage) -> None:
    stopped(network, tmp_path)
    count, pixels = tmp_path / "finished.json", tmp_path / "pixels"
    said = json.loads(count.read_bytes())
    if damage == "count":
        count.unlink()
        pixels.write_bytes(b"\xff" * pixels.stat().st_size)
    elif damage == "count cut":
        count.write_bytes(count.read_bytes()[:10])
    elif damage == "count lies":
        count.write_text("[1, 2]")
    elif damage == "pixels":
        pixels.unlink()
    elif damage == "pixels cut":
        pixels.write_bytes(pixels.read_bytes()[:100])
    else:
        count.write_text(json.dumps({**said, "rules": [0, "another network"]}))
        pixels.write_bytes(b"\xff" * pixels.stat().st_size)
    picture = develop(network, tmp_path, cfa="GBRG")
    assert picture == lab.run(MOSAIC, cfa="GBRG").output("picture").data[0]


def test_a_network_that_fails_on_a_tile_fails_the_development(restorers, tmp_path) -> None:
    bright = np.full((90, 120), 20_000, np.uint16)
    bright[80:, 100:] = 65_535
    (tmp_path / "capture").write_bytes(handmade_captures.npy(bright))
    with restorers.lease("brittle") as lease, pytest.raises(ModelOutputInvalid):
        develop(lease.servable, tmp_path, cfa="GBRG", white_level=30_000)


BAD = {
    "no raw file": (b"rubbish", {}),
    "a jpeg": (b"\xff\xd8\xff\xe0" + b"0" * 100, {}),
    "an archive": (b"PK\x03\x04" + b"0" * 100, {}),
    "no phase": (handmade_captures.npy(handmade_captures.capture()), {}),
    "three dimensions": (handmade_captures.npy(np.zeros((4, 4, 3), np.uint16)), {"cfa": "RGGB"}),
    "eight bits": (handmade_captures.npy(np.zeros((4, 4), np.uint8)), {"cfa": "RGGB"}),
    "odd": (handmade_captures.npy(np.zeros((5, 4), np.uint16)), {"cfa": "RGGB"}),
    "cut": (handmade_captures.npy(handmade_captures.capture())[:-7], {"cfa": "RGGB"}),
    "huge": (
        handmade_captures.npy(np.zeros((2, 2), np.uint16)).replace(b"(2, 2)", b"(90000, 9000)"),
        {"cfa": "RGGB"},
    ),
    "a png of eight bits": (handmade_captures.image_file(np.zeros((4, 4), np.uint8)), {"cfa": "RGGB"}),
    "a png that is cut": (handmade_captures.image_file(handmade_captures.capture())[:-30], {"cfa": "RGGB"}),
    "a tiff that is cut": (
        handmade_captures.image_file(handmade_captures.capture(), "TIFF")[:-30],
        {"cfa": "RGGB"},
    ),
    "a dng that is cut": (handmade_captures.dng(handmade_captures.capture())[:-100], {}),
    "bare of another size": (b"0" * 100, {"cfa": "RGGB", "width": 10, "height": 10}),
    "a white level below black": (
        handmade_captures.npy(handmade_captures.capture()),
        {"cfa": "RGGB", "black_level": 70000},
    ),
    "a balance of nothing": (
        handmade_captures.npy(handmade_captures.capture()),
        {"cfa": "RGGB", "white_balance": "auto"},
    ),
    "no such option": (handmade_captures.npy(handmade_captures.capture()), {"colour": "red"}),
    "no such output": (handmade_captures.npy(handmade_captures.capture()), {"cfa": "RGGB", "output": "gif"}),
}


@pytest.mark.parametrize("kind", BAD)
def test_taking_refuses_in_the_words_of_the_service(lab, tmp_path, kind) -> None:
    file, options = BAD[kind]
    with pytest.raises(ServingError) as said:
        lab.run(file, **options)
    source = tmp_path / "upload"
    source.write_bytes(b"before" + file + b"behind")
    with pytest.raises(ServingError) as refused:
        take_upload(source, tmp_path / "capture", options, offset=6, length=len(file))
    for name in ("message", "code", "param", "http_status"):
        assert getattr(refused.value, name) == getattr(said.value, name)


def test_taking_tells_captures_and_meanings_apart_and_nothing_else(tmp_path) -> None:
    digests = {}
    for name, file, options in [
        ("plain", MOSAIC, {"cfa": "GBRG"}),
        ("said otherwise", MOSAIC, {"cfa": "gbrg", "output": "png", "noise": "auto"}),
        ("other phase", MOSAIC, {"cfa": "RGGB"}),
        (
            "other samples",
            handmade_captures.npy(handmade_captures.capture(90, 120, "GBRG", seed=1)),
            {"cfa": "GBRG"},
        ),
    ]:
        source = tmp_path / "upload"
        source.write_bytes(file)
        digests[name] = take_upload(source, tmp_path / name, options)
        assert (tmp_path / name).read_bytes() == file
    assert digests["plain"] == digests["said otherwise"]
    assert len(set(digests.values())) == 3


def test_taking_keeps_to_the_limits(tmp_path) -> None:
    (tmp_path / "upload").write_bytes(MOSAIC)
    with pytest.raises(ServingError) as refused:
        take_upload(tmp_path / "upload", tmp_path / "capture", {"cfa": "RGGB"}, limits=RawLimits(pixels=100))
    assert refused.value.http_status == 413
