"""JPEG: the segments are walked to the end marker, so that a cut or unfinished file is known before decoding.

libjpeg fills what is missing with grey and only warns, so completeness is established here: the end marker
is there, every scan has data and its restart markers, and every component was coded. A progressive file may
leave out refinements and even all detail of a component (ITU-T T.81, G.1.1.1), as encoders do where it is not
worth its bytes: what it must bring is the first scan of every component's means. A bit error inside a scan
cannot be detected in this format.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from nonet.runtime.images.header import ImageHeader
from nonet.runtime.images.limits import ImageLimits, corrupt, too_large, truncated, unsupported
from nonet.runtime.images.sniffing import refuse_archive
from nonet.runtime.images.tags import exif_orientation

_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_NOT_FRAMES: Final = frozenset({0xC4, 0xC8, 0xCC})
_DHT, _EOI, _SOI, _SOS, _DQT, _DRI = 0xC4, 0xD9, 0xD8, 0xDA, 0xDB, 0xDD
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_PROFILE_MARK: Final = b"ICC_PROFILE\x00"


def inspect_jpeg(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Walk the segments up to the end marker.

    Accepted are baseline, extended and progressive Huffman files of 8 bits with 1, 3 or 4 components. Raises
    Refusal for a file that is cut off, damaged, over a limit, of another kind, or an archive too.
    """
    walk = _Walk(data, limits)
    walk.run()
    refuse_archive(data, walk.position)
    frame = walk.finished_frame()
    return ImageHeader(
        format="JPEG",
        width=frame.width,
        height=frame.height,
        payload=b"".join(walk.kept),
        orientation=walk.orientation,
        profile=walk.profile(),
        mcu=frame.mcu if walk.scans == 1 and not frame.progressive else None,
    )


class _Frame:
    """The frame header, and which coefficients the scans have brought so far."""

    def __init__(self, marker: int, body: bytes, limits: ImageLimits) -> None:
        if marker not in (_BASELINE, _EXTENDED, _PROGRESSIVE):
            raise unsupported("a lossless, hierarchical or arithmetic-coded JPEG is not decoded")
        if len(body) < 6:
            raise corrupt("a JPEG frame header is too short")
        self.height: int
        self.width: int
        precision, self.height, self.width, count = struct.unpack_from(">BHHB", body)
        if precision != 8:
            raise unsupported(f"a JPEG of {precision} bits is not decoded")
        if len(body) != 6 + 3 * count:
            raise corrupt("a JPEG frame header is not as long as its components need")
        if count not in (1, 3, 4):
            raise unsupported(f"a JPEG with {count} components is not decoded")
        if self.height == 0:
            raise unsupported("a JPEG that says its height behind its first scan is not decoded")
        limits.check_size(self.width, self.height)
        self.progressive = marker == _PROGRESSIVE
        self._sampling: dict[int, tuple[int, int]] = {}
        for offset in range(6, len(body), 3):
            horizontal, vertical = body[offset + 1] >> 4, body[offset + 1] & 15
            if not (1 <= horizontal <= 4 and 1 <= vertical <= 4):
                raise corrupt("a JPEG with impossible sampling factors")
            self._sampling[body[offset]] = (horizontal, vertical)
        if len(self._sampling) != count:
            raise corrupt("a JPEG with two components of the same name")
        self._widest = max(horizontal for horizontal, _ in self._sampling.values())
        self._tallest = max(vertical for _, vertical in self._sampling.values())
        self._uncoded = set(self._sampling)  # components whose mean levels no scan has brought yet

    @property
    def mcu(self) -> tuple[int, int]:
        """Size in pixels of the unit in which an interleaved scan is coded."""
        return (8, 8) if len(self._sampling) == 1 else (8 * self._widest, 8 * self._tallest)

    def scan(self, body: bytes) -> int:
        """Note a scan header; returns the number of units that the scan codes."""
        count = body[0] if body else 0
        if not 1 <= count <= 4 or len(body) != 4 + 2 * count:
            raise corrupt("a JPEG scan header of the wrong length")
        names = [body[1 + 2 * index] for index in range(count)]
        if any(name not in self._sampling for name in names):
            raise corrupt("a JPEG scan of a component that is not there")
        first, last = body[-3], body[-2]
        if self.progressive and (first > last or last > 63):
            raise corrupt("a JPEG scan of impossible coefficients")
        if not self.progressive or first == 0:
            self._uncoded.difference_update(names)
        if count > 1:
            return -(-self.width // (8 * self._widest)) * -(-self.height // (8 * self._tallest))
        horizontal, vertical = self._sampling[names[0]]
        columns = -(-self.width * horizontal // self._widest)
        rows = -(-self.height * vertical // self._tallest)
        return -(-columns // 8) * -(-rows // 8)

    @property
    def complete(self) -> bool:
        return not self._uncoded


class _Walk:
    """Position in the file and what was collected on the way."""

    def __init__(self, data: bytes, limits: ImageLimits) -> None:
        self.position = 2
        self.kept: list[memoryview] = []
        self.orientation = 1
        self.scans = 0
        self._data = data
        self._view = memoryview(data)
        self._limits = limits
        self._frame: _Frame | None = None
        self._restart_interval = 0
        self._exif_seen = False
        self._profile_parts: dict[int, bytes] = {}
        self._profile_count = 0
        codes = np.frombuffer(data, dtype=np.uint8)
        marked = np.flatnonzero(codes[:-1] == 0xFF)
        following = codes[marked + 1]
        restarts = (following >= 0xD0) & (following <= 0xD7)
        self._restarts = marked[restarts]
        self._scan_ends = marked[(following != 0) & (following != 0xFF) & ~restarts]

    def finished_frame(self) -> _Frame:
        if self._frame is None or self.scans == 0:
            raise truncated("a JPEG without pixel data")
        if not self._frame.complete:
            raise truncated("scans of the JPEG are missing")
        return self._frame

    def profile(self) -> bytes:
        """The ICC profile joined from its parts; empty if one is missing or the whole is over the limit."""
        parts = [self._profile_parts.get(index, b"") for index in range(1, self._profile_count + 1)]
        if not all(parts) or sum(map(len, parts)) > self._limits.profile_bytes:
            return b""
        return b"".join(parts)

    def run(self) -> None:
        self.kept.append(self._view[:2])
        while True:
            start = self._data.find(b"\xff", self.position)
            marker_at = start + 1
            while start >= 0 and marker_at < len(self._data) and self._data[marker_at] == 0xFF:
                marker_at += 1
            if start < 0 or marker_at >= len(self._data):
                raise truncated("the end marker of the JPEG is missing")
            marker = self._data[marker_at]
            self.position = marker_at + 1
            if marker == _EOI:
                self.kept.append(self._view[marker_at - 1 : marker_at + 1])
                return
            if marker == _SOI:
                raise corrupt("a JPEG inside a JPEG")
            if marker not in _STANDALONE and marker != 0:
                self._segment(marker, marker_at - 1)

    def _segment(self, marker: int, start: int) -> None:
        data = self._data
        if self.position + 2 > len(data):
            raise truncated("a JPEG segment is missing")
        (length,) = struct.unpack_from(">H", data, self.position)
        end = self.position + length
        if length < 2:
            raise corrupt("a JPEG segment has an impossible length")
        if end > len(data):
            raise truncated("a JPEG segment is incomplete")
        body = data[self.position + 2 : end]
        self.position = end
        if marker == _SOS:
            self._scan(body)
        elif 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
            if self._frame is not None:
                raise corrupt("a JPEG with two frame headers")
            self._frame = _Frame(marker, body, self._limits)
        elif marker == _DRI and len(body) == 2:
            (self._restart_interval,) = struct.unpack(">H", body)
        elif not self._metadata(marker, body):
            return
        self.kept.append(self._view[start : self.position])

    def _metadata(self, marker: int, body: bytes) -> bool:
        """Note metadata; True for a segment that the decoder needs."""
        if marker == _APP1 and body.startswith(b"Exif\x00\x00") and not self._exif_seen:
            self._exif_seen = True
            self.orientation = exif_orientation(body)
        elif marker == _APP2 and body.startswith(_PROFILE_MARK) and len(body) > len(_PROFILE_MARK) + 2:
            index, self._profile_count = body[len(_PROFILE_MARK) : len(_PROFILE_MARK) + 2]
            self._profile_parts[index] = body[len(_PROFILE_MARK) + 2 :]
        return (
            marker in (_DHT, _DQT)
            or (marker == _APP0 and body.startswith(b"JFIF\x00"))
            or (marker == _APP14 and body.startswith(b"Adobe"))
        )

    def _scan(self, body: bytes) -> None:
        if self._frame is None:
            raise corrupt("a JPEG scan without a frame header")
        self.scans += 1
        if self.scans > self._limits.scans:
            raise too_large(f"the JPEG has more than the limit of {self._limits.scans} scans")
        units = self._frame.scan(body)
        found = int(np.searchsorted(self._scan_ends, self.position))
        if found == len(self._scan_ends):
            raise truncated("the end marker of the JPEG is missing")
        end = int(self._scan_ends[found])
        if end == self.position:
            raise truncated("a JPEG scan without data")
        if self._restart_interval:
            expected = -(-units // self._restart_interval) - 1
            restarts = int(np.diff(np.searchsorted(self._restarts, (self.position, end)))[0])
            if restarts < expected:
                raise truncated(f"{restarts} of {expected} restart markers of a JPEG scan are there")
        self.position = end
