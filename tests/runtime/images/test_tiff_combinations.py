"""Every combination of what a TIFF can say of its samples: right as the reference reader has it, or 415.

tifffile reads the samples; what colour they are is computed here from the definition, or asked of Pillow.
"""

from __future__ import annotations

import io
import itertools
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from nonet.runtime.errors import ServingError, UndecodableMedia
from nonet.runtime.images import decode_image
from nonet.runtime.images.tiff import COMPRESSIONS, KINDS
from tests.support import handmade_tiffs
from tests.support.handmade_tiffs import Storage

HEIGHT, WIDTH = 19, 27
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3}
STORAGES = [
    Storage(),
    Storage(order=">"),
    Storage(planar=True),
    Storage(order=">", planar=True, rows=5),
    Storage(reversed_bits=True),
    Storage(compression=8, rows=4),
    Storage(compression=32946, planar=True, tile=(16, 16)),
    Storage(compression=5, rows=7, reversed_bits=True),
    Storage(compression=5, order=">", planar=True),
    Storage(compression=32773, rows=3),
    Storage(compression=32773, tile=(32, 16), order=">"),
    Storage(tile=(16, 16)),
    Storage(compression=8, predictor=2, order=">", rows=6),
    Storage(compression=5, predictor=2, tile=(16, 32)),
]


def samples(bits: int, count: int, kind: str = "u", seed: int = 3) -> np.ndarray:
    """Samples [height, width, count] over the whole range."""
    random = np.random.default_rng(seed)
    if kind == "f":
        return random.random((HEIGHT, WIDTH, count)).astype(f"f{bits // 8}")
    size = next(size for size in (8, 16, 32, 64) if bits <= size) // 8
    return random.integers(0, 1 << min(bits, 62), (HEIGHT, WIDTH, count)).astype(f"{kind}{size}")


def read(file: bytes) -> np.ndarray:
    """The samples [height, width, n] as tifffile reads them."""
    with tifffile.TiffFile(io.BytesIO(file)) as tiff:
        found = tiff.pages[0].asarray()
        if found.ndim == 3 and tiff.pages[0].planarconfig == 2:
            found = np.moveaxis(found, 0, 2)
    return found.reshape(HEIGHT, WIDTH, -1) * np.uint8(1)


def eight(values: np.ndarray, bits: int) -> np.ndarray:
    return (values >> (bits - 8) if bits > 8 else np.rint(values * (255 / ((1 << bits) - 1)))).astype(
        np.uint8
    )


def palette(bits: int) -> list[int]:
    return np.random.default_rng(bits).integers(0, 65536, 3 << bits).tolist()


def expected(values: np.ndarray, bits: int, photometric: int) -> np.ndarray:
    """The picture by the definition of the photometric interpretation."""
    if photometric == 3:
        table = np.array(palette(bits)).reshape(3, -1).T >> 8
        return table[values[:, :, 0]]
    scaled = eight(values, bits).astype(float)
    if photometric in (0, 1):
        return np.repeat(255 - scaled if photometric == 0 else scaled, 3, axis=2)
    if photometric == 5:
        return (255 - scaled[:, :, :3]) * (255 - scaled[:, :, 3:]) / 255
    if photometric == 6:
        y, cb, cr = scaled[:, :, 0], *(127 / 127 * (scaled[:, :, index] - 128) for index in (1, 2))
        red, blue = y + 1.402 * cr, y + 1.772 * cb
        green = (y - 0.299 * red - 0.114 * blue) / 0.587
        return np.clip(np.stack([red, green, blue], axis=2), 0, 255)
    return scaled


@pytest.mark.parametrize("photometric", [0, 1, 2, 3, 5, 6])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8, 10, 12, 14, 16])
def test_unsigned_samples_in_every_storage(photometric: int, bits: int) -> None:
    """Each depth that the table has is decoded from all storages; each other is 415 and named."""
    values = samples(bits, COLOURS[photometric])
    tags = {320: (3, palette(bits))} if photometric == 3 else {}
    tags |= {530: (3, [1, 1])} if photometric == 6 else {}
    for storage in STORAGES:
        if storage.predictor == 2 and bits not in (8, 16):
            continue
        file = handmade_tiffs.page(values, bits, photometric, storage, tags)
        if bits not in KINDS[photometric].depths:
            with pytest.raises(UndecodableMedia, match=f"{bits} bits"):
                decode_image(file)
            continue
        got = decode_image(file).pixels
        assert np.abs(got - expected(read(file), bits, photometric)).max() <= 1, storage


def test_the_table_names_every_kind_that_is_tested_here() -> None:
    assert set(KINDS) == set(COLOURS)
    assert {storage.compression for storage in STORAGES} == COMPRESSIONS


@pytest.mark.parametrize("photometric", sorted(COLOURS))
@pytest.mark.parametrize(
    ("kind", "bits"), [("i", 8), ("i", 16), ("i", 32), ("f", 16), ("f", 32), ("f", 64), ("u", 32), ("u", 24)]
)
def test_samples_without_a_brightness_are_415_and_named(photometric: int, kind: str, bits: int) -> None:
    values = samples(bits, COLOURS[photometric], kind)
    file = handmade_tiffs.page(values, bits, photometric, tags={530: (3, [1, 1])})
    if photometric == 8 and kind == "i" and bits < 32:
        decode_image(file)  # differences of colour have signs
        return
    words = {"i": f"signed|{bits} bits", "f": "floating-point", "u": f"{bits} bits"}[kind]
    with pytest.raises(UndecodableMedia, match=words):
        decode_image(file)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [8, 9])
def test_lab_is_what_its_definition_says(photometric: int, bits: int) -> None:
    """Against the formulas of CIE 1976 with white mapped to white."""
    random = np.random.default_rng(1)
    lab = np.stack([random.uniform(20, 90, 500), *random.uniform(-25, 25, (2, 500))], axis=1)
    lab[0], lab[1] = (100, 0, 0), (0, 0, 0)
    scale = 1 if bits == 8 else 256
    top = 255 if bits == 8 else (65535 if photometric == 8 else 65280)
    offset = 0 if photometric == 8 else 128 * scale
    stored = np.rint(np.stack([lab[:, 0] * top / 100, *(lab[:, 1:] * scale + offset).T], axis=1))
    stored = stored.astype(np.int64).astype(f"u{bits // 8}").reshape(20, 25, 3)
    for storage in (Storage(), Storage(planar=True, order=">"), Storage(compression=8, predictor=2)):
        got = decode_image(handmade_tiffs.page(stored, bits, photometric, storage)).pixels.reshape(-1, 3)
        wanted = lab_to_srgb(lab)
        inside = (wanted.min(axis=1) > 8) & (wanted.max(axis=1) < 247)
        assert inside.sum() > 300
        off = np.abs(got - wanted)[inside]
        assert off.mean() < 2
        assert off.max() <= (4 if bits == 8 else 14)  # half a level of the 8 bits that count
        assert np.abs(got[:2].astype(int) - [[255] * 3, [0] * 3]).max() <= 1


def lab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* of D50 through the Bradford transform to sRGB, 0 to 255."""
    level = (lab[:, 0] + 16) / 116
    bent = np.stack([level + lab[:, 1] / 500, level, level - lab[:, 2] / 200], axis=1)
    linear = np.where(bent > 6 / 29, bent**3, 3 * (6 / 29) ** 2 * (bent - 4 / 29))
    xyz = linear * [0.96422, 1.0, 0.82521]
    to_srgb = np.array(
        [
            [3.1338561, -1.6168667, -0.4906146],
            [-0.9787684, 1.9161415, 0.0334540],
            [0.0719453, -0.2289914, 1.4052427],
        ]
    )
    rgb = np.clip(xyz @ to_srgb.T, 0, 1)
    return 255 * np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("subsampling", list(itertools.product((1, 2, 4), (1, 2, 4))))
@pytest.mark.parametrize("compression", [1, 5, 8])
def test_subsampled_ycbcr_as_libtiff_has_it(subsampling: tuple[int, int], compression: int) -> None:
    """libtiff, through Pillow, turns LZW pages of YCbCr into RGB by itself."""
    across, down = subsampling
    random = np.random.default_rng(0)
    width, height = 32, 16  # libtiff reads beyond the page otherwise
    columns, rows = -(-width // across), -(-height // down)
    light = random.integers(16, 236, (rows * down, columns * across)).astype(np.uint8)
    colours = random.integers(90, 166, (rows, columns, 2)).astype(np.uint8)
    blocks = light.reshape(rows, down, columns, across).swapaxes(1, 2).reshape(rows, columns, -1)
    body = np.concatenate([blocks, colours], axis=2).tobytes()
    entries = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [8, 8, 8]),
        259: (3, [compression]),
        262: (3, [6]),
        273: (4, [0]),
        277: (3, [3]),
        278: (4, [height]),
        279: (4, [len(handmade_tiffs.COMPRESSORS[compression](body))]),
        530: (3, [across, down]),
        532: (5, [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1]),
    }
    file = handmade_tiffs.assembled(entries, [handmade_tiffs.COMPRESSORS[compression](body)])
    if down > across:  # TIFF 6.0 does not allow these
        with pytest.raises(UndecodableMedia, match="subsampled"):
            decode_image(file)
        return
    got = decode_image(file).pixels
    as_lzw = entries | {259: (3, [5]), 279: (4, [len(handmade_tiffs.lzw(body))])}
    reference = Image.open(io.BytesIO(handmade_tiffs.assembled(as_lzw, [handmade_tiffs.lzw(body)])))
    assert np.abs(got.astype(int) - np.asarray(reference.convert("RGB"))).max() <= 3  # libtiff rounds thrice
    cut = bytearray(file)
    struct.pack_into("<I", cut, file.index(struct.pack("<HHI", 279, 4, 1)) + 8, entries[279][1][0] // 2)
    with pytest.raises(ServingError) as caught:
        decode_image(bytes(cut))
    assert caught.value.http_status == 400


@pytest.mark.parametrize("photometric", [0, 1, 2, 5])
@pytest.mark.parametrize("extra", [(0,), (1,), (2,), (0, 2), (2, 0), (0, 0), (), (7,)])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [False, True])
def test_extra_samples_are_opacity_only_where_they_are_said_to_be(
    photometric: int, extra: tuple[int, ...], bits: int, planar: bool
) -> None:
    count = COLOURS[photometric]
    values = samples(bits, count + max(len(extra), 1))
    opacity = extra.index(2) if 2 in extra else extra.index(1) if 1 in extra else None if extra else 0
    if extra == (1,):
        values[:, :, :count] = (
            values[:, :, :count].astype(float) * eight(values[:, :, count:], bits) / 255
        ).astype(values.dtype)
        if photometric == 0:
            values[:, :, :count] = (1 << bits) - 1 - values[:, :, :count]
    tags = {338: (3, list(extra)) if extra else None}
    file = handmade_tiffs.page(values, bits, photometric, Storage(planar=planar), tags)
    stored = read(file)
    colours = expected(stored[:, :, :count], bits, photometric)
    if opacity is not None:
        alpha = eight(stored[:, :, [count + opacity]], bits) / 255.0
        if extra == (1,) and photometric == 5:
            inks = np.minimum(eight(stored[:, :, :count], bits) / np.maximum(alpha, 1 / 255), 255)
            colours = (255 - inks[:, :, :3]) * (255 - inks[:, :, 3:]) / 255
        elif extra == (1,):
            colours = np.minimum(colours / np.maximum(alpha, 1 / 255), 255)
        colours = colours * alpha + 255 * (1 - alpha)
    assert np.abs(decode_image(file).pixels - colours).max() <= 2.5


def test_an_unexplained_sample_that_would_hide_everything_is_no_opacity() -> None:
    values = samples(8, 4)
    values[:, :, 3] = 0
    file = handmade_tiffs.page(values, 8, 2)
    np.testing.assert_array_equal(decode_image(file).pixels, values[:, :, :3])
    said = handmade_tiffs.page(values, 8, 2, tags={338: (3, [2])})
    assert (decode_image(said).pixels == 255).all()


UNREAD = {
    2: "Huffman",
    4: "group 4",
    7: "JPEG",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    12345: "12345",
}


@pytest.mark.parametrize(
    ("count", "photometric", "tags", "words"),
    [
        (3, 1, {}, "3 samples a pixel"),
        (2, 2, {}, "2 samples a pixel"),
        (6, 2, {}, "6 samples a pixel"),
        (3, 2, {338: (3, [2])}, "1 of them extra"),
        (1, 4, {}, "transparency mask"),
        (3, 10, {}, "ITULab"),
        (1, 32803, {}, "mosaic of a sensor"),
        (3, 32845, {}, "LogLuv"),
        (1, 99, {}, "unknown kind"),
        (1, 1, {262: None}, "unknown kind"),
        (4, 5, {332: (3, [2])}, "other inks"),
        (3, 2, {258: (3, [8, 8, 16])}, "differ in depth"),
        (3, 2, {339: (3, [1, 1, 2])}, "differ in kind"),
        (3, 2, {317: (3, [2])}, "predictor 2"),
        (3, 2, {317: (3, [3])}, "predictor 3"),
        *[(1, 1, {259: (3, [number])}, name) for number, name in UNREAD.items()],
    ],
)
def test_what_has_no_meaning_here_is_415_and_named(
    count: int, photometric: int, tags: dict, words: str
) -> None:
    with pytest.raises(UndecodableMedia, match=words):
        decode_image(handmade_tiffs.page(samples(8, count), 8, photometric, tags=tags))


def test_old_and_sparse_directories_are_read() -> None:
    """Without the lengths of strips, one value for the depth of all samples, a colour map of bytes."""
    values = samples(8, 3)
    for tags in ({279: None}, {258: (3, [8])}, {339: None, 266: None, 284: None, 317: None}):
        file = handmade_tiffs.page(values, 8, 2, tags=tags)
        np.testing.assert_array_equal(decode_image(file).pixels, values)
    indices = samples(8, 1)
    bytes_only = np.random.default_rng(0).integers(0, 256, 768)
    file = handmade_tiffs.page(indices, 8, 3, tags={320: (3, bytes_only.tolist())})
    np.testing.assert_array_equal(decode_image(file).pixels, bytes_only.reshape(3, 256).T[indices[:, :, 0]])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_page_is_turned_upright(orientation: int) -> None:
    values = samples(8, 3)
    file = handmade_tiffs.page(values, 8, 2, Storage(planar=True), {274: (3, [orientation])})
    turned = decode_image(file)
    reference = Image.fromarray(values)
    reference.getexif()[274] = orientation
    np.testing.assert_array_equal(turned.pixels, np.asarray(ImageOps.exif_transpose(reference)))
    assert (turned.width, turned.height) == turned.image.size


@pytest.mark.parametrize("storage", STORAGES)
def test_pieces_that_end_early_are_cut_off_or_damaged(storage: Storage) -> None:
    file = bytearray(handmade_tiffs.page(samples(8, 3), 8, 2, storage))
    tag = 325 if storage.tile else 279
    entry = file.index(struct.pack(storage.order + "HH", tag, 4))
    count, value = struct.unpack_from(storage.order + "II", file, entry + 4)
    place = entry + 8 if count == 1 else value
    (length,) = struct.unpack_from(storage.order + "I", file, place)
    struct.pack_into(storage.order + "I", file, place, length // 2)
    with pytest.raises(ServingError) as caught:
        decode_image(bytes(file))
    assert caught.value.code in ("IMAGE_TRUNCATED", "IMAGE_CORRUPT")


def test_a_page_that_expands_is_refused_before_memory_is_taken() -> None:
    """Tiles far larger than the page, or more bytes a pixel than a picture has."""
    small = samples(8, 1)
    for tags in ({322: (4, [30_000]), 323: (4, [30_000]), 324: (4, [0]), 325: (4, [10])},):
        with pytest.raises(ServingError, match="limit") as caught:
            decode_image(handmade_tiffs.page(small, 8, 1, tags=tags))
        assert caught.value.http_status == 413
    huge = {256: (4, [7000]), 257: (4, [7000]), 258: (3, [64] * 3), 277: (3, [3]), 278: (4, [7000])}
    with pytest.raises(ServingError) as caught:
        decode_image(handmade_tiffs.page(small, 8, 2, tags=huge))
    assert caught.value.http_status in (413, 415)
