"""Cases 40-47: images that are broken, bombs, turned, in rare colour modes, animated, or no images at all.

The answers are compared bit for bit with those of a plain RGB PNG made by the documented conversion, so a
wrong pixel anywhere between the bytes and the network shows.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import time
import zipfile
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from tests.support.running_server import RunningServer, assert_no_leak, assert_refused

MIB = 1 << 20


def photo(width: int = 48, height: int = 40, seed: int = 3) -> Image.Image:
    """A smooth random colour image, different in every corner."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def classify(server: RunningServer, data: bytes, **fields: str) -> httpx.Response:
    """``POST /v1/classify`` as a form with a file part."""
    return server.http.post(
        "/v1/classify", files={"image": ("image.bin", data)}, data={"model": "tinynet"} | fields
    )


def scores(server: RunningServer, *images: bytes) -> list[bytes]:
    """Raw scores of each image, through the service as an OIP model."""
    payload = b"".join(struct.pack("<I", len(image)) + image for image in images)
    entry = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(images)],
        "parameters": {"binary_data_size": len(payload)},
    }
    document = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    reply = server.http.post(
        "/v2/models/classify.tinynet/infer",
        content=document + payload,
        headers={"Inference-Header-Content-Length": str(len(document))},
    )
    assert reply.status_code == 200, reply.text
    raw = reply.content[int(reply.headers["Inference-Header-Content-Length"]) :]
    size = len(raw) // len(images)
    return [raw[start : start + size] for start in range(0, len(raw), size)]


def refused(server: RunningServer, data: bytes, status: int, code: str = "") -> None:
    """Both faces refuse the image, alike."""
    reply = classify(server, data)
    assert_refused(reply, status)
    if code:
        assert reply.json()["error"]["code"] == code
    oip = server.infer("classify.tinynet", []) if not data else oip_json(server, data)
    assert oip.status_code == status, oip.text
    assert_no_leak(oip.text)


def oip_json(server: RunningServer, data: bytes) -> httpx.Response:
    payload = struct.pack("<I", len(data)) + data
    entry = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": len(payload)},
    }
    document = json.dumps({"inputs": [entry]}).encode()
    return server.http.post(
        "/v2/models/classify.tinynet/infer",
        content=document + payload,
        headers={"Inference-Header-Content-Length": str(len(document))},
    )


def same(server: RunningServer, image: bytes, reference: Image.Image) -> None:
    assert reference.mode == "RGB"
    got, wanted = scores(server, image), scores(server, encode(reference))
    assert got == wanted, f"{np.frombuffer(got[0], np.float32)} is not {np.frombuffer(wanted[0], np.float32)}"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_case_40_a_truncated_image_is_400_and_never_filled_with_grey(
    server: RunningServer, kind: str, share: float
) -> None:
    whole = encode(photo(200, 160), kind)
    refused(server, whole[: int(len(whole) * share)], 400, "IMAGE_TRUNCATED")


def test_case_40_a_jpeg_without_its_last_bytes_is_truncated(server: RunningServer) -> None:
    refused(server, encode(photo(200, 160), "JPEG")[:-40], 400, "IMAGE_TRUNCATED")


def test_case_40_a_damaged_png_is_400(server: RunningServer) -> None:
    whole = bytearray(encode(photo(200, 160)))
    whole[len(whole) // 2] ^= 0xFF
    reply = classify(server, bytes(whole))
    assert_refused(reply, 400)


def png(width: int, height: int, *, data: bytes | None, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that claims a size; ``data`` is its compressed pixels, None leaves them out."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = b"" if data is None else chunk(b"IDAT", data)
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(min(8 * MIB, count - start))) for start in range(0, count, 8 * MIB)]
    return b"".join(parts) + packer.flush()


def test_case_41_a_pixel_bomb_is_413_and_costs_no_memory(server: RunningServer) -> None:
    """50,000 x 50,000 pixels of one bit: 300 KB on the wire, 7.5 GB as RGB."""
    bomb = png(50_000, 50_000, data=zeros(50_000 * (1 + 50_000 // 8)), depth=1, colour=0)
    assert len(bomb) < MIB
    classify(server, encode(photo()))
    before, start = server.rss(), time.monotonic()
    refused(server, bomb, 413)
    assert server.rss() - before < 32 * MIB
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("width", "height"), [(50_000, 50_000), (13_400, 13_400), (100_000_001, 1), (2**31 - 1,) * 2]
)
def test_case_41_the_size_is_judged_by_the_header_alone(
    server: RunningServer, width: int, height: int
) -> None:
    """There are no pixels at all in this file: whoever decodes first would call it truncated."""
    reply = classify(server, png(width, height, data=None))
    assert_refused(reply, 413)


def test_case_41_a_bomb_in_jpeg_clothes_is_413(server: RunningServer) -> None:
    small = bytearray(encode(photo(16, 16), "JPEG"))
    frame = small.index(b"\xff\xc0")
    small[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    assert_refused(classify(server, bytes(small)), 413)


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0), (0, 0)])
def test_case_41_an_image_without_pixels_is_refused(server: RunningServer, width: int, height: int) -> None:
    assert classify(server, png(width, height, data=zlib.compress(b""))).status_code in (400, 415)


TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_case_42_exif_orientation_gives_the_tensor_of_the_upright_image(
    server: RunningServer, orientation: int
) -> None:
    stored = photo()
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = stored.transpose(TURNED[orientation]) if orientation > 1 else stored
    same(server, encode(stored, "PNG", exif=exif), upright)
    jpeg = encode(stored, "JPEG", quality=95, subsampling=0, exif=exif)
    decoded = ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg))).convert("RGB")
    same(server, jpeg, decoded)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_case_42_a_senseless_orientation_is_ignored(server: RunningServer, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    same(server, encode(photo(), "PNG", exif=exif), photo())


def test_case_42_a_broken_exif_block_does_no_harm(server: RunningServer) -> None:
    broken = encode(photo(), "JPEG", quality=95, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert classify(server, broken).status_code == 200


def test_case_43_grey_images_become_rgb(server: RunningServer) -> None:
    grey = photo().convert("L")
    same(server, encode(grey), grey.convert("RGB"))
    one_bit = photo().convert("1")
    same(server, encode(one_bit), one_bit.convert("RGB"))


def test_case_43_sixteen_bit_grey_is_scaled_not_cut(server: RunningServer) -> None:
    grey = np.asarray(photo().convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    same(server, encode(deep), Image.fromarray(grey).convert("RGB"))


def test_case_43_palette_images_become_rgb(server: RunningServer) -> None:
    palette = photo().quantize(64)
    same(server, encode(palette), palette.convert("RGB"))
    same(server, encode(palette, "GIF"), palette.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_case_43_opaque_alpha_changes_nothing(server: RunningServer, mode: str) -> None:
    image = photo().convert("L") if mode == "LA" else photo()
    with_alpha = image.convert(mode)
    same(server, encode(with_alpha), image.convert("RGB"))


def test_case_43_transparent_pixels_do_not_show_their_hidden_colour(server: RunningServer) -> None:
    """Two files that look the same on any screen have the same answer, whatever lies below."""
    visible = photo().convert("RGBA")
    variants = []
    for hidden in ((255, 0, 0, 0), (0, 255, 77, 0)):
        image = visible.copy()
        image.paste(hidden, (0, 0, 24, 40))
        variants.append(encode(image))
    first, second = scores(server, *variants)
    assert first == second


def test_case_43_transparency_is_laid_on_white(server: RunningServer) -> None:
    holed = photo().convert("RGBA")
    holed.paste((255, 0, 0, 0), (0, 0, 24, 40))
    shown = photo()
    shown.paste((255, 255, 255), (0, 0, 24, 40))
    same(server, encode(holed), shown)


def test_case_43_cmyk_and_ycck_jpegs_are_converted(server: RunningServer) -> None:
    cmyk = photo().convert("CMYK")
    jpeg = encode(cmyk, "JPEG", quality=95)
    same(server, jpeg, Image.open(io.BytesIO(jpeg)).convert("RGB"))


def test_case_44_a_colour_profile_never_breaks_an_image(server: RunningServer) -> None:
    """sRGB in a profile is the same image; a profile of garbage is ignored, not a failure."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    got, plain = scores(server, encode(photo(), "PNG", icc_profile=profile), encode(photo()))
    assert np.allclose(np.frombuffer(got, np.float32), np.frombuffer(plain, np.float32), atol=0.02)
    assert classify(server, encode(photo(), "PNG", icc_profile=b"garbage" * 30)).status_code == 200


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_case_45_an_animation_is_its_first_frame_or_refused(server: RunningServer, kind: str) -> None:
    frames = [photo(seed=seed).quantize(64).convert("RGB") for seed in (3, 4, 5)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, loop=0, **options)
    reply = classify(server, data)
    assert reply.status_code in (200, 400), reply.text
    if reply.status_code == 200:
        first = Image.open(io.BytesIO(data))
        first.seek(0)
        same(server, data, first.convert("RGB"))


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("image.png", b"hello")
    return buffer.getvalue()


NO_IMAGES = {
    "zip": zipped(),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>',
    "svg with xml": b'<?xml version="1.0"?><!DOCTYPE svg><svg xmlns="http://www.w3.org/2000/svg"/>',
    "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF",
    "ico": b"\x00\x00\x01\x00\x01\x00\x10\x10\x00\x00\x01\x00\x20\x00\x68\x04\x00\x00\x16\x00\x00\x00"
    + bytes(1200),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n",
    "psd": b"8BPS\x00\x01" + bytes(60),
    "text": b"this is not an image",
    "html": b"<html><body><img src=x></body></html>",
    "noise": bytes(range(256)) * 8,
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
}


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_case_46_47_what_is_no_accepted_image_is_415_whatever_its_name(
    server: RunningServer, kind: str
) -> None:
    part = {"image": ("photo.png", NO_IMAGES[kind], "image/png")}
    reply = server.http.post("/v1/classify", files=part, data={"model": "tinynet"})
    assert_refused(reply, 415)
    refused(server, NO_IMAGES[kind], 415)


def test_case_46_a_wrong_extension_does_not_matter(server: RunningServer) -> None:
    part = {"image": ("photo.gif", encode(photo(), "JPEG"), "image/gif")}
    assert server.http.post("/v1/classify", files=part, data={"model": "tinynet"}).status_code == 200


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_case_46_an_image_with_an_archive_behind_it_is_415(server: RunningServer, kind: str) -> None:
    refused(server, encode(photo(), kind) + zipped(), 415)


def test_an_empty_image_is_refused(server: RunningServer) -> None:
    assert classify(server, b"").status_code in (400, 415, 422)
    assert oip_json(server, b"").status_code in (400, 415)


FIELDS = [
    {},
    {"image": None},
    {"image": 5},
    {"image": []},
    {"image": "!!! not base64 !!!"},
    {"image": "data:image/png;base64,@@@"},
    {"image": "http://127.0.0.1:1/x.png"},
    {"image": "file:///etc/passwd"},
]


@pytest.mark.parametrize("body", FIELDS)
def test_image_fields_of_the_wrong_kind_are_refused_by_name(server: RunningServer, body: Any) -> None:
    reply = server.http.post("/v1/classify", json={"model": "tinynet", **body})
    assert reply.status_code in (400, 415, 422), reply.text
    assert reply.json()["error"]["param"] == "image" or "image" in reply.json()["error"]["message"]
    assert_no_leak(reply.text)


def test_every_way_to_send_an_image_gives_the_same_answer(server: RunningServer) -> None:
    data = encode(photo())
    text = base64.b64encode(data).decode()
    replies = [
        classify(server, data),
        server.http.post("/v1/classify", json={"model": "tinynet", "image": text}),
        server.http.post("/v1/classify", json={"model": "tinynet", "image": f"data:image/png;base64,{text}"}),
        server.http.post("/v1/classify", files={"model": (None, "tinynet"), "image": (None, text)}),
    ]
    assert [reply.status_code for reply in replies] == [200] * 4, [reply.text for reply in replies]
    answers = [reply.json()["predictions"] for reply in replies]
    assert answers[0]
    assert all(answer == answers[0] for answer in answers)
    raw = np.frombuffer(scores(server, data)[0], np.float32)
    assert answers[0][0]["index"] == int(raw.argmax())
    assert answers[0][0]["score"] == pytest.approx(float(raw.max()), abs=1e-6)
    assert raw.sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("top_k", ["0", "-1", "x", "1.5", "1000000"])
def test_top_k_out_of_range_is_refused_by_name_or_cut(server: RunningServer, top_k: str) -> None:
    reply = classify(server, encode(photo()), top_k=top_k)
    if top_k == "1000000" and reply.status_code == 200:
        assert len(reply.json()["predictions"]) == 5
        return
    assert reply.status_code in (400, 422), reply.text
    assert "top_k" in reply.text


def test_an_unknown_classifier_is_404_and_the_known_ones_are_named(server: RunningServer) -> None:
    reply = classify(server, encode(photo()), model="nobody")
    assert_refused(reply, 404, "tinynet")


def test_case_15_a_classifier_that_answers_nan_is_502_with_its_code(server: RunningServer) -> None:
    assert classify(server, encode(photo()), model="nannet").status_code == 200
    reply = classify(server, encode(Image.new("RGB", (40, 40), "white")), model="nannet")
    assert_refused(reply, 502)
    assert reply.json()["error"]["code"] == "MODEL_OUTPUT_INVALID"


def test_images_share_batches_and_their_answers_stay_their_own(server: RunningServer) -> None:
    images = [encode(photo(seed=seed)) for seed in range(6)]
    assert scores(server, *images) == [scores(server, image)[0] for image in images]
