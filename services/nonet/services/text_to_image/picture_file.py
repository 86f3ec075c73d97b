"""A picture as a file that says where it comes from: model, seed, settings, and that a machine made it.

PNG carries the facts as text chunks, all formats carry them as an XMP packet: the digital source type of the
IPTC (``trainedAlgorithmicMedia``), which programs show as "AI-generated", and a description. The prompt is
not in the file, its SHA-256 is: who knows the prompt can check it, and nobody reads what was not shown.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, Final
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image, PngImagePlugin

from nonet.runtime.tensors import Array

__all__ = ["FORMATS", "encode_picture"]

FORMATS: Final = ("png", "jpeg", "webp")

_SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_SOFTWARE: Final = "Nonet"
_EXIF_DESCRIPTION: Final = 0x010E
_EXIF_SOFTWARE: Final = 0x0131
_SMALLEST_JPEG_CHROMA: Final = 90  # from this quality on colours keep their full resolution


def encode_picture(pixels: Array, kind: str, compression: int, facts: Mapping[str, Any]) -> bytes:
    """A file of ``pixels`` FP32 [3, H, W] in 0..1.

    Args:
        pixels: the picture; what lies outside of the range is cut.
        kind: one of :data:`FORMATS`.
        compression: 0 (smallest file) to 100 (best picture); PNG loses nothing and does not look at it.
        facts: where it comes from, JSON-able.
    """
    levels = np.rint(np.clip(pixels, 0.0, 1.0) * np.float32(255.0)).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))
    about = json.dumps(facts, ensure_ascii=True, sort_keys=True)
    xmp = _xmp(about)
    file = io.BytesIO()
    if kind == "png":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("Software", _SOFTWARE)
        chunks.add_text("Source", "AI-generated")
        chunks.add_text("Comment", about)
        chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
        image.save(file, "PNG", pnginfo=chunks)
        return file.getvalue()
    exif = Image.Exif()
    exif[_EXIF_SOFTWARE], exif[_EXIF_DESCRIPTION] = _SOFTWARE, about
    if kind == "webp":
        image.save(file, "WEBP", quality=compression, xmp=xmp, exif=exif)
    else:
        chroma = 0 if compression >= _SMALLEST_JPEG_CHROMA else 2
        image.save(file, "JPEG", quality=max(compression, 1), subsampling=chroma, xmp=xmp, exif=exif)
    return file.getvalue()


def _xmp(about: str) -> bytes:
    """The packet, as ISO 16684-1 and the IPTC Photo Metadata Standard have it."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about=""'
        ' xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        ' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
        f" xmp:CreatorTool={quoteattr(_SOFTWARE)}"
        f" Iptc4xmpExt:DigitalSourceType={quoteattr(_SOURCE_TYPE)}"
        f" photoshop:Instructions={quoteattr(about)}/>"
        "</rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()
