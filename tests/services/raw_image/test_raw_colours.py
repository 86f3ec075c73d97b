"""Colours of a DNG as its tags say; highlights, defects and exposure; what is written beside the pixels."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from nonet.runtime.errors import ServingError
from nonet.services.raw_image.colour import blended
from nonet.services.raw_image.colour_models import XYZ_OF_SRGB, OneMatrix
from nonet.services.raw_image.dng import adaptation, read_dng, temperature_of
from nonet.services.raw_image.encoding import srgb_profile
from tests.support import handmade_captures

FIRST = [0.8, -0.1, -0.05, -0.4, 1.1, 0.3, -0.1, 0.25, 0.5]
SECOND = [0.9, -0.3, -0.1, -0.4, 1.2, 0.2, -0.1, 0.2, 0.6]
A, D65 = (0.44757, 0.40745), (0.3127, 0.3290)


def rational(values: list[float]) -> tuple[int, list[int]]:
    return 10, [number for value in values for number in (round(value * 10000), 10000)]


def tags(white: tuple[float, float], **more: Any) -> dict[int, Any]:
    """Of a DNG with matrices for lights A and D65, taken under the light of ``white``."""
    share = 1.0 if white == A else 0.0
    matrix = share * np.reshape(FIRST, (3, 3)) + (1 - share) * np.reshape(SECOND, (3, 3))
    x, y = white
    neutral = more.pop("balance", np.eye(3)) @ matrix @ [x / y, 1, (1 - x - y) / y]
    unsigned = [number for value in neutral / neutral.max() for number in (round(value * 100000), 100000)]
    return {
        50721: rational(FIRST),
        50722: rational(SECOND),
        50778: (3, [17]),
        50779: (3, [21]),
        50728: (5, unsigned),
        **{int(tag): value for tag, value in more.items()},
    }


def dng(mosaic: np.ndarray, **more: Any) -> bytes:
    return handmade_captures.dng(mosaic, **more)


MOSAIC = handmade_captures.capture(44, 60) // 8 + 512


@pytest.mark.parametrize("white", [A, D65])
@pytest.mark.parametrize("balance", [(1.0, 1.0, 1.0), (1.2, 1.0, 0.9)])
def test_the_light_and_its_matrix_are_found_from_the_neutral_values(white: Any, balance: Any) -> None:
    analog = {"50727": (5, [number for value in balance for number in (round(value * 1000), 1000)])}
    file = dng(MOSAIC, tags=tags(white, balance=np.diag(balance), **analog))
    colours, gains = read_dng(file)
    assert colours is not None
    assert gains is not None
    found = colours.white(1 / np.array(gains))
    assert found == pytest.approx(white, abs=2e-3)
    matrix = np.reshape(FIRST if white == A else SECOND, (3, 3))
    camera = np.diag(balance) @ matrix
    wanted = (
        np.linalg.inv(XYZ_OF_SRGB)
        @ adaptation(white, D65)
        @ np.linalg.inv(camera)
        @ np.diag(1 / np.array(gains))
    )
    wanted /= wanted.sum(axis=1, keepdims=True)
    assert colours.to_srgb(gains) == pytest.approx(wanted, abs=0.02)


def test_between_two_lights_matrices_are_mixed_by_reciprocal_temperature() -> None:
    colours, _ = read_dng(dng(MOSAIC, tags=tags(A)))
    assert colours is not None
    middle = 2 / (1 / 2850 + 1 / 6500)
    neutral = (np.reshape(FIRST, (3, 3)) + np.reshape(SECOND, (3, 3))) / 2 @ [0.4 / 0.38, 1, 0.22 / 0.38]
    x, y = colours.white(neutral)
    assert colours._share((x, y)) == pytest.approx(
        (1 / temperature_of((x, y)) - 1 / 6500) / (1 / 2850 - 1 / 6500), abs=1e-6
    )
    assert temperature_of(D65) == pytest.approx(6504, abs=10)
    assert temperature_of(A) == pytest.approx(2856, abs=10)
    assert 2850 < middle < 6500


def test_a_single_matrix_and_forward_matrices_keep_white_white() -> None:
    only = tags(D65) | {50721: None, 50779: (3, [0])}
    forward = {
        50964: rational([0.6, 0.3, 0.0642, 0.25, 0.7, 0.05, 0.02, 0.05, 0.7551]),
        50965: rational([0.5, 0.36, 0.1042, 0.22, 0.72, 0.06, 0.03, 0.05, 0.7451]),
    }
    for each in (only, tags(D65), tags(A) | forward):
        colours, gains = read_dng(dng(MOSAIC, tags=each))
        assert colours is not None
        assert gains is not None
        assert colours.to_srgb(gains).sum(axis=1) == pytest.approx([1, 1, 1])
    colours, gains = read_dng(dng(MOSAIC, tags=tags(A) | forward))
    assert colours is not None
    assert gains is not None
    wanted = np.linalg.inv(XYZ_OF_SRGB) @ adaptation((0.3457, 0.3585), D65)
    wanted = wanted @ np.array(forward[50964][1][0::2]).reshape(3, 3) / 10000
    assert colours.to_srgb(gains) == pytest.approx(wanted / wanted.sum(axis=1, keepdims=True), abs=0.01)


def test_white_as_a_chromaticity_gives_the_same_gains() -> None:
    _, neutral = read_dng(dng(MOSAIC, tags=tags(A)))
    _, chromaticity = read_dng(
        dng(MOSAIC, tags=tags(A) | {50728: None, 50729: (5, [44757, 100000, 40745, 100000])})
    )
    assert chromaticity == pytest.approx(neutral, rel=2e-3)


def test_a_colour_does_not_depend_on_what_is_beside_it(lab) -> None:
    blue = np.tile([0.1, 0.15, 0.5], (44, 60, 1))
    beside = blue.copy()
    beside[:, :20] = np.random.default_rng(0).random((44, 20, 3))
    files = [
        dng((512 + 15871 * handmade_captures.mosaicked(image)).astype(np.uint16)) for image in (blue, beside)
    ]
    first, second = (lab.picture(file, exposure=1)[20:30, 40:50].astype(int) for file in files)
    assert np.abs(first - second).max() <= 1


def test_libraws_own_rendering_has_the_same_colours(lab) -> None:
    """Of a camera that LibRaw does not know its rendering takes the DNG's matrix for D65 too."""
    rawpy = pytest.importorskip("rawpy")
    random = np.random.default_rng(0)
    patches = random.uniform(0.1, 0.6, (4, 6, 3)).repeat(16, axis=0).repeat(16, axis=1)
    mosaic = (512 + 15871 * handmade_captures.mosaicked(patches)).astype(np.uint16)
    file = dng(mosaic, tags={50728: (5, [1, 1, 1, 1, 1, 1])})
    how = {
        "gamma": (1, 1),
        "no_auto_bright": True,
        "output_bps": 16,
        "use_camera_wb": True,
        "half_size": True,
    }
    with rawpy.imread(io.BytesIO(file)) as raw:
        theirs = raw.postprocess(**how, adjust_maximum_thr=0.0).astype(float)[4::8, 4::8] / 65535
    own = [[0.9020, -0.2890, -0.0715], [-0.4535, 1.2436, 0.2348], [-0.0934, 0.1919, 0.7086]]
    matrix = OneMatrix(np.array(own))
    ours = patches[8::16, 8::16] @ matrix.to_srgb((1.0, 1.0, 1.0)).T
    inside = (ours.min(axis=2) > 0.02) & (ours.max(axis=2) < 0.95)
    assert inside.sum() >= 8
    assert np.abs(theirs - ours)[inside].max() < 0.02


def test_channels_that_end_at_their_own_white_are_white_together(lab) -> None:
    """Green ends at 12000, the others at 16383: a burnt-out sky is white; magenta under one white level."""
    light = np.full((40, 40, 3), 2.0)
    light[:, :20] = 0.2
    mosaic = np.minimum(handmade_captures.mosaicked(light) * 16383, 16383)
    mosaic[0::2, 1::2] = np.minimum(mosaic[0::2, 1::2], 12000)
    mosaic[1::2, 0::2] = np.minimum(mosaic[1::2, 0::2], 12000)
    file = handmade_captures.npy(mosaic.astype(np.uint16))
    how = {"cfa": "RGGB", "render": "srgb", "white_balance": "none", "exposure": 0}
    tinted = lab.picture(file, **how, white_level=16383)[20, 35].astype(int)
    neutral = lab.picture(file, **how, white_level="16383,12000,12000,16383")[20, 35].astype(int)
    assert np.ptp(tinted) > 20
    assert neutral.tolist() == [255, 255, 255]


def test_highlights_turn_neutral_and_keep_what_is_not_clipped(lab) -> None:
    """A grey ramp under gains of 2, 1 and 1.6: no tint anywhere, and with less exposure it goes on rising."""
    ramp = np.linspace(0.1, 1.9, 120)
    light = np.stack([ramp / 2, ramp, ramp / 1.6], axis=1)[None].repeat(40, axis=0)
    mosaic = np.minimum(handmade_captures.mosaicked(light) * 16383, 16383).astype(np.uint16)
    how = {"cfa": "RGGB", "render": "srgb", "white_balance": "2,1,1.6", "white_level": 16383}
    for stops in (0, -1):
        row = lab.picture(handmade_captures.npy(mosaic), **how, exposure=stops, strength=0)[20].astype(int)
        assert np.ptp(row[4:-4], axis=1).max() <= 6
    assert row[-8, 1] > row[66, 1] + 10


def test_blending_leaves_everything_below_clipping_alone() -> None:
    levels = np.random.default_rng(0).random((3, 20, 20)).astype(np.float32)
    assert blended(levels) is levels
    levels[:, 3, 3] = (1.8, 1.0, 1.5)
    out = blended(levels)
    assert np.array_equal(
        np.delete(out.reshape(3, -1), 63, axis=1), np.delete(levels.reshape(3, -1), 63, axis=1)
    )
    assert np.ptp(out[:, 3, 3]) < 1e-6
    assert out[:, 3, 3].mean() == pytest.approx(4.3 / 3, abs=1e-5)


@pytest.mark.parametrize("value", [0, 16383])
def test_single_samples_that_lie_leave_no_trace(lab, value: int) -> None:
    random = np.random.default_rng(4)
    scene = handmade_captures.mosaicked(handmade_captures.picture(120, 160)) * 9000 + 1500
    clean = (scene + random.normal(0, 40, scene.shape)).astype(np.uint16)
    broken, places = clean.copy(), random.permutation(58 * 78)[:12]
    for place in places:
        broken[2 + 2 * (place // 78) + random.integers(2), 2 + 2 * (place % 78) + random.integers(2)] = value
    how = {"cfa": "RGGB", "white_level": 16383, "output": "png"}
    first, second = (lab.picture(handmade_captures.npy(each), **how).astype(int) for each in (clean, broken))
    assert (np.abs(first - second).max(axis=2) > 12).sum() <= 3
    assert lab.details(handmade_captures.npy(broken), **how)["defects"] >= 11
    assert lab.details(handmade_captures.npy(clean), **how)["defects"] == 0


def test_texture_and_points_of_light_are_no_defects(lab) -> None:
    random = np.random.default_rng(1)
    stars = np.full((80, 80), 1000.0)
    rows, columns = np.mgrid[:80, :80]
    for y, x in random.uniform(6, 74, (20, 2)):
        stars += 9000 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 0.8**2))
    stars += random.normal(0, 20, stars.shape)
    grain = random.choice([1000, 15000], (80, 80), p=[0.95, 0.05])
    for mosaic in (stars.clip(0, 16383), grain):
        file = handmade_captures.npy(mosaic.astype(np.uint16))
        assert lab.details(file, cfa="RGGB", white_level=16383)["defects"] == 0


def test_exposure_is_stops_and_strength_a_share(lab) -> None:
    flat = handmade_captures.npy(np.full((40, 40), 4000, np.uint16))
    how = {"cfa": "RGGB", "render": "srgb", "white_balance": "none", "white_level": 16000}
    darker, same = (lab.details(flat, **how, exposure=stops)["exposure"] for stops in (-2, 0))
    assert (darker, same) == (0.25, 1.0)
    assert lab.picture(flat, **how, exposure=1).mean() > lab.picture(flat, **how, exposure=0).mean() + 30
    with pytest.raises(ServingError, match="exposure goes with render=srgb"):
        lab.run(flat, cfa="RGGB", exposure=1)
    for name, value in (("exposure", 9), ("exposure", "bright"), ("strength", 1.5), ("strength", -0.1)):
        with pytest.raises(ServingError, match=name) as caught:
            lab.run(flat, **how, **{name: value})
        assert (caught.value.http_status, caught.value.param) == (400, name)


SHOT = {
    306: (2, [*b"2024:05:06 07:08:09\0"]),
    33432: (2, [*b"Somebody\0"]),
}


@pytest.mark.parametrize("output", ["png", "png16", "tiff16", "jpeg"])
@pytest.mark.parametrize("render", ["srgb", "none"])
def test_pictures_say_how_they_were_taken_and_that_they_are_srgb(lab, output: str, render: str) -> None:
    file = dng(MOSAIC, orientation=6, tags=SHOT)
    answer = lab.run(file, output=output, render=render).output("picture").data[0]
    assert answer == lab.run(file, output=output, render=render).output("picture").data[0]
    with Image.open(io.BytesIO(answer)) as picture:
        exif = picture.getexif()
        assert (exif[271], exif[272], exif[306]) == ("Nonet", "Testcam", "2024:05:06 07:08:09")
        assert exif.get(274, 1) == 1
        assert exif.get_ifd(34665)[40961] == (1 if render == "srgb" else 0xFFFF)
        assert picture.size == (44, 60)
        profile = picture.info.get("icc_profile")
        if output.startswith("png"):
            assert ("srgb" in picture.info) == (render == "srgb")
        else:
            assert (profile == srgb_profile()) == (render == "srgb")
    assert ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))).startswith(
        "sRGB"
    )


def test_the_details_say_one_white_level_or_four(lab) -> None:
    file = handmade_captures.npy(handmade_captures.capture(34, 36))
    for told, said in (("60000", 60000), ("60000,50000,50000,60000", [60000, 50000, 50000, 60000])):
        facts = json.loads(lab.run(file, cfa="RGGB", white_level=told).output("details").data[0])
        assert facts["white_level"] == said


def test_no_place_is_carried_over(lab) -> None:
    from nonet.services.raw_image import shot

    assert 34853 not in {**shot.MAIN, **shot.EXIF}
    assert dataclasses.asdict(shot.read_shot(b"II\x2a\0")) == dataclasses.asdict(shot.NO_SHOT)
