"""What is read of camera files, and what LibRaw may cost."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from nonet.runtime.errors import DeadlineExceeded, ServingError
from nonet.services.raw_image.camera import read_camera_file
from nonet.services.raw_image.dng import DngColours
from nonet.services.raw_image.limits import RawLimits
from nonet.services.raw_image.options import DevelopOptions
from nonet.services.raw_image.reading import read_capture
from tests.support import handmade_captures

pytest.importorskip("rawpy")
MOSAIC = handmade_captures.capture(44, 60, "GBRG") // 8 + 512


@pytest.mark.parametrize("cfa", handmade_captures.PATTERNS)
def test_a_dng_says_everything_itself(cfa: str) -> None:
    mosaic = handmade_captures.capture(120, 160, cfa) // 8 + 512
    capture = read_capture(handmade_captures.dng(mosaic, cfa), DevelopOptions(), RawLimits(), seconds=30)
    assert np.array_equal(capture.mosaic, mosaic)
    assert capture.cfa == cfa
    assert capture.black == (512.0,) * 4
    assert capture.white == (16383.0,) * 4
    assert capture.gains == pytest.approx((2.0, 1.0, 1.6), rel=1e-3)
    wanted = [[0.9020, -0.2890, -0.0715], [-0.4535, 1.2436, 0.2348], [-0.0934, 0.1919, 0.7086]]
    assert isinstance(capture.colours, DngColours)
    assert capture.colours.matrices[0] == pytest.approx(np.array(wanted))


def test_the_callers_levels_replace_the_files_and_another_phase_is_refused() -> None:
    file = handmade_captures.dng(MOSAIC, "GBRG")
    told = DevelopOptions(black=(600.0,) * 4, white=(9000.0,) * 4, cfa="GBRG")
    capture = read_capture(file, told, RawLimits(), seconds=30)
    assert (capture.black, capture.white) == ((600.0,) * 4, (9000.0,) * 4)
    with pytest.raises(ServingError, match="contradicts") as caught:
        read_capture(file, DevelopOptions(cfa="RGGB"), RawLimits(), seconds=30)
    assert caught.value.http_status == 400


def test_reading_stops_at_the_deadline_and_at_the_limit_of_time() -> None:
    file = handmade_captures.dng(MOSAIC)
    with pytest.raises(DeadlineExceeded):
        read_camera_file(file, RawLimits(), seconds=0.0)
    with pytest.raises(DeadlineExceeded):
        read_camera_file(file, RawLimits(), seconds=0.001)
    with pytest.raises(ServingError, match="too long") as caught:
        read_camera_file(file, RawLimits(camera_seconds=0.001), seconds=30)
    assert caught.value.http_status == 400


def test_a_decoder_without_memory_costs_one_capture() -> None:
    with pytest.raises(ServingError) as caught:
        read_camera_file(handmade_captures.dng(MOSAIC), RawLimits(camera_bytes=64 << 20), seconds=30)
    assert caught.value.http_status in (400, 501, 507)


def test_the_largest_claims_are_refused_quickly() -> None:
    claim = handmade_captures.dng(MOSAIC, tags={256: (4, [30_000]), 257: (4, [30_000])})
    started = time.perf_counter()
    with pytest.raises(ServingError, match="30000 x 30000"):
        read_capture(claim, DevelopOptions(), RawLimits(), seconds=30)
    assert time.perf_counter() - started < 20


def test_a_camera_file_is_turned_upright_and_rendered(lab) -> None:
    flat = lab.picture(handmade_captures.dng(MOSAIC, "GBRG"))
    assert flat.shape == (44, 60, 3)
    for orientation in range(1, 9):
        turned = lab.picture(handmade_captures.dng(MOSAIC, "GBRG", orientation=orientation))
        meant = Image.fromarray(flat)
        meant.getexif()[274] = orientation
        assert np.array_equal(turned, np.asarray(ImageOps.exif_transpose(meant)))


def test_camera_values_come_without_rendering_too(lab) -> None:
    level = np.full((40, 40), 4000, np.uint16)
    assert (lab.picture(handmade_captures.dng(level), render="none", output="tiff16") == 4000).all()


def test_a_real_camera_file_becomes_a_picture_with_its_colours(lab, data_root: Path) -> None:
    """Houses under a sky: upright, the sky at the top blue, the scene neither black nor blown."""
    file = (data_root / "raw_bayer" / "RAW_KODAK_DC50.KDC").read_bytes()
    picture = lab.picture(file).astype(float)
    assert picture.shape == (512, 768, 3)
    sky, trees = picture[30:60, 100:500].mean(axis=(0, 1)), picture[420:, 200:460].mean(axis=(0, 1))
    assert sky[2] > sky[0] + 10
    assert sky.mean() > trees.mean() + 60
    assert 60 < picture.mean() < 190
    details = lab.details(file)
    assert details["cfa"] == "GRBG"
    assert details["render"] == "srgb"
    for share in (0.3, 0.9, 0.999):
        with pytest.raises(ServingError) as caught:
            lab.run(file[: int(len(file) * share)])
        assert caught.value.http_status == 400


def test_bare_captures_of_real_cameras_develop(lab, data_root: Path) -> None:
    """The rose is red, its surroundings are not."""
    raw = (data_root / "raw_bayer" / "DSC_1339_768x512_rggb_u16.raw").read_bytes()
    how = {"width": 768, "height": 512, "cfa": "RGGB", "black_level": 600, "white_level": 15520}
    picture = lab.picture(raw, **how, render="srgb", white_balance="1.94921875,1,1.34375").astype(float)
    petal, leaf = picture[350:400, 180:240].mean(axis=(0, 1)), picture[80:140, 85:120].mean(axis=(0, 1))
    assert petal[0] > 2 * petal[1]
    assert leaf[1] > leaf[2]
    values = lab.picture(raw, **how, output="tiff16", noise=1)
    mosaic = np.frombuffer(raw, "<u2").reshape(512, 768)
    assert np.abs(values[0::2, 0::2, 0].astype(int) - mosaic[0::2, 0::2].clip(0, 65535)).max() <= 1
