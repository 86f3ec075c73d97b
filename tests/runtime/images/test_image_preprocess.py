"""Preprocessing is what the manifest says, but for roundings; reduced decoding changes next to nothing."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nonet.runtime.images import DecodedImage, Preprocessing, decode_image, preprocess

Encode = Callable[..., bytes]
IMAGENET = Preprocessing(248, 224)


def decoded(pixels: np.ndarray) -> DecodedImage:
    return DecodedImage(Image.fromarray(pixels), pixels.shape[1], pixels.shape[0], "PNG")


def test_a_square_of_248_is_cropped_at_12_12_and_normalised() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (248, 248, 3), dtype=np.uint8)
    tensor = preprocess(decoded(pixels), IMAGENET)
    assert tensor.shape == (3, 224, 224)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    window = pixels[12:236, 12:236].astype(np.float64) / 255
    expected = ((window - IMAGENET.mean) / IMAGENET.std).transpose(2, 0, 1)
    np.testing.assert_array_equal(tensor, expected.astype(np.float32))
    assert preprocess(decoded(np.zeros((248, 248, 3), np.uint8)), IMAGENET)[0, 0, 0] == np.float32(
        -0.485 / 0.229
    )


def test_resizing_is_bicubic_and_antialiased() -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    spec = Preprocessing(40, 32, mean=(0, 0, 0), std=(1, 1, 1))
    resized = Image.fromarray(pixels).resize((53, 40), Image.Resampling.BICUBIC)
    left, top = round((53 - 32) / 2), 4
    expected = np.asarray(resized)[top : top + 32, left : left + 32].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(preprocess(decoded(pixels), spec), expected, atol=1e-7)
    # Antialiased: noise shrinks to nearly its mean instead of being picked point by point.
    assert preprocess(decoded(pixels), spec).std() < 0.1


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (64, 900), (36, 36)])
def test_a_stretched_picture_keeps_its_ends_and_not_its_shape(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (*size, 3), dtype=np.uint8)
    spec = Preprocessing(36, 32, "bilinear", (0, 0, 0), (1, 1, 1), "standard")
    resized = Image.fromarray(pixels).resize((36, 36), Image.Resampling.BILINEAR)
    expected = np.asarray(resized)[2:34, 2:34].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(preprocess(decoded(pixels), spec), expected, atol=1.001 / 255)
    assert Preprocessing.from_manifest(spec.to_manifest()) == spec
    with pytest.raises(ValueError, match="resize_type must be one of crop, standard"):
        Preprocessing(36, 32, resize_type="pad")


def test_the_result_is_the_same_on_every_run(picture: Image.Image) -> None:
    tensor = preprocess(decoded(np.asarray(picture)), Preprocessing(48, 40))
    digest = hashlib.sha256(np.round(tensor * 58).astype(np.int16).tobytes()).hexdigest()
    assert digest == hashlib.sha256(np.round(tensor.copy() * 58).astype(np.int16).tobytes()).hexdigest()
    np.testing.assert_array_equal(tensor, preprocess(decoded(np.asarray(picture)), Preprocessing(48, 40)))


@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(2, 500),
    height=st.integers(2, 500),
    crop=st.integers(1, 120),
    margin=st.integers(0, 60),
    interpolation=st.sampled_from(["bicubic", "bilinear", "lanczos"]),
)
@settings(deadline=None)
def test_the_crop_has_the_levels_of_the_whole_picture_resized(
    seed: int, width: int, height: int, crop: int, margin: int, interpolation: str
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    spec = Preprocessing(crop + margin, crop, interpolation, (0, 0, 0), (1, 1, 1), "standard")
    whole = Image.fromarray(pixels).resize(
        (spec.resize, spec.resize), getattr(Image.Resampling, interpolation.upper())
    )
    start = round((spec.resize - crop) / 2)
    expected = np.asarray(whole)[start : start + crop, start : start + crop].transpose(2, 0, 1)
    away = np.abs(np.rint(preprocess(decoded(pixels), spec) * 255) - expected)
    assert away.max() <= 2
    assert away.mean() < 0.25  # where many exact values lie halfway between two levels


@given(
    width=st.integers(1, 400), height=st.integers(1, 400), crop=st.integers(1, 40), margin=st.integers(0, 9)
)
@settings(max_examples=40, deadline=None)
def test_any_size_gives_the_crop(width: int, height: int, crop: int, margin: int) -> None:
    grey = decoded(np.full((height, width, 3), 128, np.uint8))
    tensor = preprocess(grey, Preprocessing(crop + margin, crop, mean=(0, 0, 0), std=(1, 1, 1)))
    assert tensor.shape == (3, crop, crop)
    np.testing.assert_allclose(tensor, 128 / 255, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 30_000), (30_000, 1), (3, 20_000)])
def test_a_needle_costs_no_more_than_a_square(shape: tuple[int, int]) -> None:
    ramp = np.zeros((*shape, 3), np.uint8)
    middle = tuple(slice(max(0, side // 2 - 20), side // 2 + 20) for side in shape)
    ramp[middle] = 200
    tensor = preprocess(decoded(ramp), Preprocessing(224, 224, mean=(0, 0, 0), std=(1, 1, 1)))
    np.testing.assert_allclose(tensor, 200 / 255, atol=1e-6)


def large_photograph(encode: Encode, picture: Image.Image, size: tuple[int, int], progressive: bool) -> bytes:
    return encode(picture.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=92, progressive=progressive)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_decoded_no_smaller_than_twice_the_target(
    progressive: bool, encode: Encode, picture: Image.Image
) -> None:
    data = large_photograph(encode, picture, (2000, 1500), progressive)
    for side, reduced in (
        (800, 2000),
        (376, 2000),
        (375, 1000),
        (188, 1000),
        (187, 500),
        (93, 250),
        (10, 250),
    ):
        image = decode_image(data, target=(side, side))
        assert image.image.width == reduced, side
        assert min(image.image.size) >= 2 * side or image.image.size == (2000, 1500)
        assert (image.width, image.height) == (2000, 1500)


def test_reduced_decoding_gives_nearly_the_tensor_of_full_decoding(shared_data: Path, encode: Encode) -> None:
    spec = Preprocessing(256, 224, mean=(0, 0, 0), std=(1, 1, 1))
    for name in ("kodim03.png", "kodim05.png", "kodim08.png"):
        with Image.open(shared_data / "kodak" / name) as source:
            data = encode(source.resize((source.width * 3, source.height * 3)), "JPEG", quality=92)
        full, reduced = decode_image(data), decode_image(data, target=spec.target)
        assert reduced.image.width < full.image.width
        difference = np.abs(preprocess(full, spec) - preprocess(reduced, spec)) * 255
        assert difference.mean() < 0.6
        assert np.quantile(difference, 0.999) < 6


def test_threads_get_the_same_pixels(corpus: dict[str, bytes]) -> None:
    expected = {kind: decode_image(data, target=(20, 20)).pixels for kind, data in corpus.items()}
    wrong: list[str] = []

    def work() -> None:
        for kind, data in corpus.items():
            if not np.array_equal(decode_image(data, target=(20, 20)).pixels, expected[kind]):
                wrong.append(kind)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_manifest_is_read_and_written_without_loss() -> None:
    fields = {
        "resize": 146,
        "crop": 128,
        "interpolation": "bicubic",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.3],
    }
    spec = Preprocessing.from_manifest(fields)
    assert spec.to_manifest() == fields | {"resize_type": "crop"}
    assert spec.target == (146, 146)


@pytest.mark.parametrize(
    "change",
    [
        {"resize": 100},
        {"crop": 0},
        {"resize": 9000},
        {"interpolation": "nearest"},
        {"std": [0.1, 0.0, 0.1]},
        {"mean": [0.1, 0.2]},
        {"mean": [math.nan, 0, 0]},
        {"mean": "abc"},
        {"mean": None},
        {"croop": 3},
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    fields = {"resize": 146, "crop": 128, "mean": [0.5] * 3, "std": [0.2] * 3} | change
    with pytest.raises(ValueError, match=r"preprocessing|could not convert"):
        Preprocessing.from_manifest(fields)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ValueError, match="std is missing"):
        Preprocessing.from_manifest({"resize": 146, "crop": 128, "mean": [0.5] * 3})


@pytest.mark.parametrize(
    ("resize_type", "left", "top", "width", "height"),
    [
        ("fit_to_window", 0, 0, 32, 11),
        ("fit_to_window_letterbox", 0, 10, 32, 11),
        ("standard", 0, 0, 32, 32),
    ],
)
def test_a_whole_picture_lies_where_its_placement_says(
    resize_type: str, left: int, top: int, width: int, height: int, encode: Encode
) -> None:
    spec = Preprocessing(32, 32, mean=(0, 0, 0), std=(1, 1, 1), resize_type=resize_type, pad_value=114)
    place = spec.placement(96, 33)
    assert (place.left, place.top, place.width, place.height) == (left, top, width, height)
    pixels = preprocess(decode_image(encode(Image.new("RGB", (96, 33), (255, 255, 255)), "PNG")), spec)
    picture = np.zeros((32, 32), dtype=bool)
    picture[top : top + height, left : left + width] = True
    np.testing.assert_allclose(pixels, np.where(picture, 1, 114 / 255)[None].repeat(3, 0), atol=1e-6)
    whole = np.array([[left, top, left + width, top + height]], dtype=np.float32)
    np.testing.assert_allclose(spec.in_picture(whole, 96, 33), [[0, 0, 96, 33]])


def test_a_cut_picture_has_no_placement() -> None:
    with pytest.raises(ValueError, match="shown whole"):
        Preprocessing(40, 32).placement(96, 33)
