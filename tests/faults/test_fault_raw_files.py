"""Cases 40, 41, 46, 48 and 49 for raw captures, and a large capture in bounded memory, on a real server."""

from __future__ import annotations

import io
import os
import shutil
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support import handmade_captures
from tests.support.running_server import RunningServer, assert_refused, running

MIB = 1 << 20


@pytest.fixture(scope="module")
def darkroom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with one restoration network, and a temporary folder of its own that stays empty."""
    root = tmp_path_factory.mktemp("darkroom") / "models"
    root.mkdir()
    handmade_captures.add_restorer(root, "stand_in", 512)
    scratch = tmp_path_factory.mktemp("scratch")
    settings = {"scheduler": {"lanes": 1}, "repository": {"poll_seconds": 0.0}, "cache": {"enabled": False}}
    folder = tmp_path_factory.mktemp("darkroom_server")
    with running(root, folder, settings, environment={"TMPDIR": str(scratch)}) as started:
        at_start = set(os.listdir(scratch))
        yield started
    assert set(os.listdir(scratch)) <= at_start, "something was left in the temporary folder"


def develop(server: RunningServer, raw: bytes, **fields: str) -> httpx.Response:
    return server.http.post("/v1/raw/develop", files={"raw": ("capture.dng", raw)}, data=fields)


def mosaic(height: int = 44, width: int = 60) -> np.ndarray:
    return np.random.default_rng(1).integers(600, 16_000, (height, width)).astype(np.uint16)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("share", [0.2, 0.6, 0.98])
@pytest.mark.parametrize("kind", ["png", "tiff", "npy", "dng"])
def test_case_40_a_truncated_capture_is_400(darkroom: RunningServer, kind: str, share: float) -> None:
    files = {
        "png": handmade_captures.image_file(mosaic()),
        "tiff": handmade_captures.image_file(mosaic(), "TIFF"),
        "npy": handmade_captures.npy(mosaic()),
        "dng": handmade_captures.dng(mosaic()),
    }
    whole = files[kind]
    fields = {} if kind == "dng" else {"cfa": "RGGB"}
    assert develop(darkroom, whole, **fields).status_code == 200
    assert_refused(develop(darkroom, whole[: int(len(whole) * share)], **fields), 400, "raw")


def test_case_41_two_hundred_megapixels_are_413_by_their_header_and_cost_no_memory(
    darkroom: RunningServer,
) -> None:
    before, start = darkroom.rss(), time.monotonic()
    claims = [
        png_header(20_000, 10_000),
        handmade_captures.dng(mosaic(), tags={256: (4, [20_000]), 257: (4, [10_000])}),
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<u2', 'fortran_order': False, 'shape': (10000, 20000)}".ljust(117)
        + b"\n",
    ]
    for claim in claims:
        assert_refused(develop(darkroom, claim, cfa="RGGB"), 413, "20000 x 10000", "limit")
    assert darkroom.rss() - before < 32 * MIB
    assert time.monotonic() - start < 20


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "raw",
    [
        archive({"../../capture.dng": b"x", "/etc/capture.dng": b"x"}),
        archive({"bomb.dng": bytes(64 * MIB)}),
        archive({f"{index}.dng": b"" for index in range(5_000)}),
        handmade_captures.image_file(mosaic()) + archive({"capture.dng": b"x"}),
        handmade_captures.dng(mosaic()) + archive({"capture.dng": b"x"}),
        b"\x1f\x8b" + bytes(100),
        b"FOVb" + bytes(400),
        b"<svg/>",
        bytes(1000),
    ],
    ids=["paths", "bomb", "members", "png polyglot", "dng polyglot", "gzip", "foveon", "svg", "zeros"],
)
def test_case_46_48_archives_and_other_content_are_415_and_nothing_is_unpacked(
    darkroom: RunningServer, raw: bytes
) -> None:
    before = darkroom.rss()
    assert_refused(develop(darkroom, raw, cfa="RGGB"), 415, "accepted are", "DNG")
    assert darkroom.rss() - before < 16 * MIB


def test_case_49_wrong_sizes_and_depths_are_400_with_the_expected_bytes(darkroom: RunningServer) -> None:
    how = {"cfa": "RGGB"}
    bare = mosaic().tobytes()
    assert develop(darkroom, bare, **how, width="60", height="44").status_code == 200
    assert_refused(develop(darkroom, bare, **how, width="60", height="46"), 400, "5520", "5280")
    assert_refused(develop(darkroom, handmade_captures.npy(mosaic())[:-2], **how), 400, "5280", "5278")
    assert_refused(develop(darkroom, handmade_captures.npy(mosaic(43, 60)), **how), 400, "even", "5280")
    eight = handmade_captures.image_file(mosaic().astype(np.uint8))
    assert_refused(develop(darkroom, eight, **how), 400, "8 bits", "5280")
    broken = mosaic() / 65535
    broken[0, 0] = np.nan
    assert_refused(develop(darkroom, handmade_captures.npy(broken), **how), 400, "finite")
    assert_refused(
        develop(darkroom, handmade_captures.npy(mosaic()), **how, black_level="900", white_level="900"),
        400,
        "above",
    )


@pytest.mark.parametrize(
    "tags",
    [
        {262: (3, [34892]), 33421: None, 33422: None},
        {33421: (3, [6, 6]), 33422: (1, [1, 1, 0, 1, 1, 2] * 6)},
    ],
    ids=["monochrome", "x-trans"],
)
def test_case_49_a_sensor_without_a_bayer_pattern_is_415(darkroom: RunningServer, tags: dict) -> None:
    assert_refused(develop(darkroom, handmade_captures.dng(mosaic(), tags=tags)), 415, "sensor", "Bayer")


def test_a_hostile_npy_runs_nothing(darkroom: RunningServer, tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"

    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(mark),)

    buffer = io.BytesIO()
    np.save(buffer, np.array([[Bomb()]], dtype=object), allow_pickle=True)
    assert_refused(develop(darkroom, buffer.getvalue(), cfa="RGGB"), 400)
    assert not mark.exists()


def test_bad_captures_do_not_harm_the_good_one_beside_them(darkroom: RunningServer) -> None:
    good = handmade_captures.npy(handmade_captures.capture(200, 300))
    alone = develop(darkroom, good, cfa="RGGB").content
    replies: list[httpx.Response] = []

    def send(raw: bytes) -> None:
        replies.append(develop(darkroom, raw, cfa="RGGB"))

    threads = [threading.Thread(target=send, args=(raw,)) for raw in (good, b"bad", good, good[:-9], good)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply.status_code for reply in replies) == [200, 200, 200, 400, 415]
    assert all(reply.content == alone for reply in replies if reply.status_code == 200)


def test_samples_far_above_white_are_developed_with_the_shipped_network(tmp_path: Path) -> None:
    """Levels that were forgotten, and a hot pixel: the network is not driven to where it overflows."""
    shipped = Path(__file__).parents[2] / "model_repository" / "wild_jdd"
    if not shipped.is_dir():
        pytest.skip("no trained network in model_repository")
    root = tmp_path / "models"
    shutil.copytree(shipped, root / "wild_jdd")
    random = np.random.default_rng(0)
    with running(root, tmp_path / "server", {"scheduler": {"lanes": 1}}) as server:
        for scale in (30.0, 65_535.0, 1e30, 3e38):
            bright = (random.random((44, 60)) * scale).astype(np.float32)
            hot = np.full((44, 60), 0.1, np.float32)
            hot[10, 10], hot[21, 30] = scale, -scale
            for samples in (bright, -bright, hot):
                for uncertainty in ("true", "false"):
                    reply = develop(
                        server, handmade_captures.npy(samples), cfa="RGGB", uncertainty=uncertainty
                    )
                    assert reply.status_code == 200, f"{scale:g}: {reply.text[:300]}"
        reply = develop(server, handmade_captures.npy(hot), cfa="RGGB", white_level="1e-40")
        assert_refused(reply, 400, "white_level")


def test_a_capture_of_twenty_four_megapixels_is_developed_in_bounded_memory(darkroom: RunningServer) -> None:
    """The file, the mosaic, the picture and its encoding are held, and none of the network's floats."""
    height, width = 4000, 6000
    block = handmade_captures.capture(200, 300)
    raw = np.tile(block, (height // 200, width // 300)).tobytes()
    before = darkroom.rss()
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, darkroom.rss())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        reply = darkroom.http.post(
            "/v1/raw/develop",
            content=raw,
            params={"cfa": "RGGB", "width": width, "height": height, "output": "jpeg"},
            headers={"content-type": "application/octet-stream", "x-request-timeout-ms": "110000"},
            timeout=115,
        )
    finally:
        done.set()
        watcher.join()
    assert reply.status_code == 200, reply.text[:300]
    assert reply.headers["content-type"] == "image/jpeg"
    assert peak - before < 8 * len(raw), f"{(peak - before) / MIB:.0f} MiB for a file of {len(raw) / MIB:.0f}"
