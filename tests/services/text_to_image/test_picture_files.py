"""A picture's file says where it comes from, in every format, and its pixels are those that were made."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from nonet.services.text_to_image.picture_file import FORMATS, encode_picture

FACTS = {
    "model": "shapes",
    "version": "3",
    "seed": 4,
    "steps": 6,
    "prompt_sha256": "ab" * 32,
    "note": 'a"<b>&',
}
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
PIXELS = np.linspace(-0.1, 1.1, 3 * 16 * 24, dtype=np.float32).reshape(3, 16, 24)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_says_that_a_machine_made_it_and_how(kind: str) -> None:
    image = Image.open(io.BytesIO(encode_picture(PIXELS, kind, 90, FACTS)))
    assert (image.format, image.size) == (kind.upper(), (24, 16))
    packet = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
    assert b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia" in packet
    (about,) = ElementTree.fromstring(packet.decode().lstrip("\ufeff")).iter(f"{{{RDF}}}Description")
    assert json.loads(about.attrib["{http://ns.adobe.com/photoshop/1.0/}Instructions"]) == FACTS
    if kind == "png":
        assert json.loads(image.info["Comment"]) == FACTS
        assert image.info["Source"] == "AI-generated"
    else:
        assert json.loads(image.getexif()[0x010E]) == FACTS


def test_png_keeps_the_levels_and_cuts_what_is_out_of_range() -> None:
    found = np.asarray(Image.open(io.BytesIO(encode_picture(PIXELS, "png", 0, FACTS))))
    expected = np.rint(PIXELS.clip(0, 1) * 255).transpose(1, 2, 0)
    assert (found == expected).all()


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_more_compression_gives_smaller_files(kind: str) -> None:
    noise = np.random.default_rng(0).random((3, 64, 64), dtype=np.float32)
    sizes = [len(encode_picture(noise, kind, quality, FACTS)) for quality in (0, 40, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]
