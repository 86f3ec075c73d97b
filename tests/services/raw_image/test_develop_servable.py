"""What the development service promises: right colours and phases, no seams, own answers in a batch."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nonet.runtime.errors import DeadlineExceeded, DeadlineUnattainable, ServingError
from nonet.runtime.requests import InferResponse
from nonet.services.raw_image.capture_cost import request_cost
from nonet.services.raw_image.tiling import TileForm, Tiling, mirrored, packed, spread
from tests.support import handmade_captures


def bilinear(mosaic: np.ndarray, cfa: str) -> np.ndarray:
    """Plain bilinear interpolation [height, width, 3] with mirrored edges, written independently."""
    height, width = mosaic.shape
    out = np.zeros((height, width, 3))
    padded = np.pad(mosaic.astype(np.float64), 2, mode="reflect")
    for y in range(height):
        for x in range(width):
            for channel, colour in enumerate("RGB"):
                near = [
                    (abs(dy) + abs(dx), padded[y + 2 + dy, x + 2 + dx])
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                    if cfa[2 * ((y + dy) % 2) + (x + dx) % 2] == colour
                ]
                closest = min(distance for distance, _ in near)
                out[y, x, channel] = np.mean([value for distance, value in near if distance == closest])
    return out


@pytest.mark.parametrize("cfa", handmade_captures.PATTERNS)
def test_every_bayer_phase_keeps_its_colours(lab, cfa) -> None:
    mosaic = handmade_captures.capture(38, 50, cfa)
    got = lab.picture(handmade_captures.npy(mosaic), cfa=cfa, output="tiff16", noise=1)
    assert np.abs(got - bilinear(mosaic, cfa)).max() <= 1.01


def test_a_wrong_phase_is_not_silently_the_same(lab) -> None:
    mosaic = handmade_captures.npy(handmade_captures.capture())
    right, wrong = lab.picture(mosaic, cfa="RGGB"), lab.picture(mosaic, cfa="BGGR")
    assert np.abs(right.astype(int) - wrong).mean() > 5


@pytest.mark.parametrize("render", ["none", "srgb"])
@pytest.mark.parametrize("uncertainty", [False, True])
def test_tiles_leave_no_seams(lab, large_tiles, render, uncertainty) -> None:
    """Fifteen tiles and one tile give the same picture, whatever is done with it."""
    mosaic = handmade_captures.npy(handmade_captures.capture(90, 120, "GBRG"))
    how = {"cfa": "GBRG", "output": "png16", "render": render, "uncertainty": uncertainty}
    assert lab.details(mosaic, **how)["tiles"] >= 15
    assert large_tiles.details(mosaic, **how)["tiles"] == 1
    many, one = lab.picture(mosaic, **how), large_tiles.picture(mosaic, **how)
    assert np.abs(many.astype(int) - one).max() <= 2


def test_what_goes_in_constant_comes_out_constant_in_the_mosaics_own_scale(lab) -> None:
    flat = np.full((34, 40), 3000, np.uint16)
    how = {"cfa": "BGGR", "black_level": 600, "white_level": 15520, "output": "tiff16"}
    assert (lab.picture(handmade_captures.npy(flat), **how) == 3000).all()
    assert (lab.picture(handmade_captures.npy(flat), **how, noise=3) == 3000).all()


def test_each_place_of_the_pattern_has_its_own_black_level(lab) -> None:
    light = np.full((36, 36), 1000.0)
    black = (100, 200, 300, 400)
    for index, level in enumerate(black):
        light[index // 2 :: 2, index % 2 :: 2] = level + 0.25 * (1000 - level)
    how = {"cfa": "GRBG", "black_level": "100,200,300,400", "white_level": 1000}
    got = lab.picture(
        handmade_captures.npy(light.astype(np.uint16)), **how, render="srgb", white_balance="none"
    )
    assert np.ptp(got.reshape(-1, 3).astype(int), axis=0).max() <= 1
    assert np.ptp(got[0, 0].astype(int)) <= 1


@pytest.mark.parametrize("output", ["png", "png16", "tiff16", "jpeg"])
def test_all_encodings_hold_the_same_picture(lab, output) -> None:
    mosaic = handmade_captures.capture(40, 64)
    answer = lab.run(handmade_captures.npy(mosaic), cfa="RGGB", output=output)
    pixels = handmade_captures.decoded(answer.output("picture").data[0]).astype(np.float64)
    if output in ("png16", "tiff16"):
        pixels /= 257
    reference = lab.picture(handmade_captures.npy(mosaic), cfa="RGGB", output="tiff16") / 257
    assert pixels.shape == (40, 64, 3)
    assert np.abs(pixels - reference).max() <= (8 if output == "jpeg" else 0.51)


@pytest.mark.parametrize(
    "kind", ["npy", "npy float", "png", "tiff", "tiff deflate", "bare", "npy by columns"]
)
def test_every_container_gives_the_same_picture(lab, kind) -> None:
    mosaic = handmade_captures.capture(40, 52, "GRBG")
    files = {
        "npy": lambda: handmade_captures.npy(mosaic),
        "npy by columns": lambda: handmade_captures.npy(np.asfortranarray(mosaic)),
        "npy float": lambda: handmade_captures.npy(mosaic / 65535),
        "png": lambda: handmade_captures.image_file(mosaic),
        "tiff": lambda: handmade_captures.image_file(mosaic, "TIFF"),
        "tiff deflate": lambda: handmade_captures.image_file(
            mosaic, "TIFF", compression="tiff_adobe_deflate"
        ),
        "bare": lambda: mosaic.astype("<u2").tobytes(),
    }
    size = {"width": 52, "height": 40} if kind == "bare" else {}
    got = lab.picture(files[kind](), cfa="GRBG", output="png", **size)
    assert np.array_equal(got, lab.picture(handmade_captures.npy(mosaic), cfa="GRBG"))


def test_captures_of_one_batch_get_the_answers_they_get_alone(lab) -> None:
    files = [
        handmade_captures.npy(handmade_captures.capture(30 + 8 * seed, 70 - 6 * seed, seed=seed))
        for seed in range(5)
    ]
    requests = [lab.request(file, cfa="RGGB", output="tiff16") for file in files]
    together = lab.service.execute(requests)
    for request, outcome in zip(requests, together, strict=True):
        assert isinstance(outcome, InferResponse)
        (alone,) = lab.service.execute([request])
        assert outcome.output("picture").data[0] == alone.output("picture").data[0]
        assert outcome.batch_size > 1


def test_rows_of_one_request_are_captures_of_their_own(lab) -> None:
    files = [handmade_captures.npy(handmade_captures.capture(34, 36, seed=seed)) for seed in range(3)]
    answer = lab.run(*files, cfa="RGGB")
    assert answer.output("picture").shape == answer.output("details").shape == (3,)
    assert list(answer.output("picture").data) == [
        lab.run(file, cfa="RGGB").output("picture").data[0] for file in files
    ]


def test_a_bad_capture_fails_alone(lab) -> None:
    good = [handmade_captures.npy(handmade_captures.capture(seed=seed)) for seed in range(2)]
    batch = [lab.request(file, cfa="RGGB") for file in (good[0], b"rubbish", good[1])]
    first, bad, last = lab.service.execute(batch)
    assert isinstance(bad, ServingError)
    assert bad.http_status == 415
    for outcome, file in ((first, good[0]), (last, good[1])):
        assert outcome.output("picture").data[0] == lab.run(file, cfa="RGGB").output("picture").data[0]


def test_a_capture_the_network_fails_on_does_not_fail_its_peers(brittle) -> None:
    sound, loud = handmade_captures.capture(seed=1) // 8, handmade_captures.capture(seed=2)
    how = {"cfa": "RGGB", "white_level": 20000}
    batch = [brittle.request(handmade_captures.npy(each), **how) for each in (sound, loud, sound)]
    first, bad, last = brittle.service.execute(batch)
    assert isinstance(bad, ServingError)
    assert bad.code == "MODEL_OUTPUT_INVALID"
    alone = brittle.run(handmade_captures.npy(sound), **how).output("picture").data[0]
    assert first.output("picture").data[0] == last.output("picture").data[0] == alone


def test_a_row_that_fails_is_named(lab) -> None:
    with pytest.raises(ServingError, match="row 1 of 'raw'"):
        lab.run(handmade_captures.npy(handmade_captures.capture()), b"rubbish", cfa="RGGB")


def test_a_deadline_that_has_passed_stops_the_work(lab) -> None:
    (outcome,) = lab.service.execute(
        [lab.request(handmade_captures.npy(handmade_captures.capture()), cfa="RGGB", deadline=0.0)]
    )
    assert isinstance(outcome, DeadlineExceeded)


def test_a_capture_too_large_for_its_deadline_is_refused_with_the_time_it_needs() -> None:
    from nonet.services.raw_image.tile_timing import Pace

    pace = Pace()
    assert pace.objection(1000, 0.001, "a capture") is None
    pace.learn(10, 5.0)
    assert pace.objection(10, 5.0, "a capture") is None
    refusal = pace.objection(100, 5.0, "4000 x 3000 pixels")
    assert isinstance(refusal, DeadlineUnattainable)
    assert "50 s" in refusal.message
    assert "4000 x 3000" in refusal.message


def test_the_uncertainty_map_is_the_networks_deviation_in_the_pictures_units(lab) -> None:
    flat = np.full((34, 40), 6000, np.uint16)
    how = {"cfa": "RGGB", "white_level": 10000, "output": "tiff16", "uncertainty": True}
    answer = lab.run(handmade_captures.npy(flat), **how)
    scale = json.loads(answer.output("details").data[0])["std_scale"]
    deviation = handmade_captures.decoded(answer.output("picture").data[0]) * scale
    assert deviation == pytest.approx((0.002 + 0.6 / 100) * 10000, rel=2e-3)


def test_telling_less_noise_gives_the_samples_back_and_more_keeps_the_network(lab) -> None:
    """The stand-in does not denoise, so all three agree where it samples; noise=0 is exact there."""
    noisy = handmade_captures.capture(60, 60).astype(np.float64) * 0.8
    noisy += np.random.default_rng(1).normal(0, 1500, noisy.shape)
    mosaic = noisy.clip(0, 65535).astype(np.uint16)
    exact = lab.picture(handmade_captures.npy(mosaic), cfa="RGGB", output="tiff16", noise=0)
    assert np.abs(exact[0::2, 0::2, 0].astype(int) - mosaic[0::2, 0::2]).max() <= 1
    assert np.abs(exact[1::2, 1::2, 2].astype(int) - mosaic[1::2, 1::2]).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(2, 90),
    width=st.integers(2, 90),
    size=st.sampled_from([16, 32, 64]),
    halo=st.integers(0, 6),
    cfa=st.sampled_from(handmade_captures.PATTERNS),
)
def test_tiles_cover_every_pixel_once_and_start_on_red(height, width, size, halo, cfa) -> None:
    row, column = divmod(cfa.index("R"), 2)
    tiling = Tiling(TileForm(size, halo), height, width, (row, column))
    colours = np.empty((height, width), dtype="<U1")
    for index, colour in enumerate(cfa):
        colours[index // 2 :: 2, index % 2 :: 2] = colour
    seen = np.zeros((height, width), dtype=int)
    places = np.arange(height * width).reshape(height, width)
    for index in range(tiling.count):
        tile = tiling.tile(index)
        seen[tile.rows, tile.columns] += 1
        cut = tiling.cut(places, index)
        assert np.array_equal(cut[tile.inner_rows, tile.inner_columns], places[tile.rows, tile.columns])
        planes = packed(tiling.cut(colours, index))
        assert [set(plane.reshape(-1)) for plane in planes] == [{"R"}, {"G"}, {"G"}, {"B"}]
        assert tile.inner_rows.start >= halo
        assert tile.inner_columns.stop <= size - halo
    assert (seen == 1).all()


@given(length=st.integers(2, 50), start=st.integers(-200, 200))
def test_mirroring_keeps_the_phase(length, start) -> None:
    positions = np.arange(start, start + 30)
    folded = mirrored(positions, length)
    assert ((folded >= 0) & (folded < length)).all()
    assert (folded % 2 == positions % 2).all() or length == 1
    inside = (positions >= 0) & (positions < length)
    assert (folded[inside] == positions[inside]).all()


def test_spreading_planes_is_bilinear_interpolation() -> None:
    mosaic = handmade_captures.capture(24, 24).astype(np.float32)
    got = spread(packed(mosaic)[None])[0].transpose(1, 2, 0)
    assert np.abs(got - bilinear(mosaic, "RGGB")).max() < 0.1


def test_the_sample_request_is_one_tile_and_works(lab) -> None:
    (outcome,) = lab.service.execute([lab.service.sample_request(2)])
    assert isinstance(outcome, InferResponse)
    assert json.loads(outcome.output("details").data[0])["tiles"] == 1


@pytest.mark.parametrize("kind", ["npy", "npy64", "png", "tiff", "bare"])
def test_what_a_capture_costs_is_told_by_its_head_and_length(lab, kind) -> None:
    """In tiles, the sample being one: as many as are computed, but for the rims."""
    mosaic = handmade_captures.capture(280, 560)
    how = {"cfa": "RGGB"}
    if kind == "bare":
        file = mosaic.astype("<u2").tobytes()
        how |= {"width": 560, "height": 280}
    elif kind.startswith("npy"):
        file = handmade_captures.npy(mosaic.astype(np.float64) / 65535 if kind == "npy64" else mosaic)
    else:
        file = handmade_captures.image_file(mosaic, kind.upper())
    tiles = lab.details(file, **how)["tiles"]
    cost = request_cost(lab.request(file, **how), lab.service.info)
    assert 0.8 * tiles <= cost <= 1.1 * tiles
    assert request_cost(lab.request(file, file, **how), lab.service.info) == 2 * cost


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY"]), rest=st.binary(max_size=200))
def test_any_bytes_have_a_cost_that_their_length_bounds(lab, head, rest) -> None:
    cost = request_cost(lab.request(head + rest), lab.service.info)
    assert 1 <= cost <= 1 + 1100 * len(head + rest)
