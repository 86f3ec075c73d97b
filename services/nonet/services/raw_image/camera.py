"""Camera files through LibRaw, in a child process with limits on memory and time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from nonet.runtime.errors import DeadlineExceeded, InsufficientStorage, NotImplementedHere, ServingError
from nonet.services.raw_image.capture import Capture
from nonet.services.raw_image.colour_models import XYZ_OF_SRGB, OneMatrix
from nonet.services.raw_image.dng import read_dng
from nonet.services.raw_image.limits import RawLimits, corrupt, too_large, truncated, unsupported
from nonet.services.raw_image.shot import find_shot

_SCRIPT: Final = Path(__file__).with_name("libraw_process.py")
_ORIENTATIONS: Final = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}
"""LibRaw's ``flip`` as EXIF orientation. Its bits: columns mirrored, rows mirrored, transposed at last."""
_MAX_GAIN: Final = 64.0


def read_camera_file(data: bytes, limits: RawLimits, *, seconds: float) -> Capture:
    """The capture in a camera file.

    Args:
        data: the file.
        limits: bounds for size, memory and time.
        seconds: time left before the caller's deadline.

    Raises what :mod:`.limits` names, DeadlineExceeded if the time was not enough, InsufficientStorage without
    memory, NotImplementedHere if LibRaw is not installed.
    """
    if seconds <= 0:
        raise DeadlineExceeded("the deadline passed before the capture was read")
    patience = min(seconds, limits.camera_seconds)
    command = [
        *(sys.executable, "-I", str(_SCRIPT)),
        *(str(limits.pixels), str(limits.side), str(limits.camera_bytes)),
    ]
    try:
        done = subprocess.run(
            command, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=patience
        )
    except subprocess.TimeoutExpired:
        if seconds <= limits.camera_seconds:
            raise DeadlineExceeded("the deadline passed while the capture was read") from None
        raise corrupt("reading it takes too long") from None
    line, _, samples = done.stdout.partition(b"\n")
    try:
        header = json.loads(line)
    except ValueError:
        raise _died(done.returncode) from None
    if "error" in header:
        raise _refusal(header)
    return _capture(header, samples, data)


def _died(status: int) -> ServingError:
    """The child ended without an answer: killed by a signal, by its limits, or it could not start."""
    if status < 0:
        return corrupt("its decoder failed on it")
    return NotImplementedHere(
        "camera files cannot be read here; the server needs the package rawpy", code="RAW_DECODER_MISSING"
    )


def _refusal(header: dict[str, Any]) -> ServingError:
    match header["error"]:
        case "truncated":
            return truncated("pixels are missing")
        case "size":
            return too_large(f"{header['width']} x {header['height']} pixels are more than the limit allows")
        case "memory":
            return InsufficientStorage("there is not enough memory for this capture")
        case "sensor":
            return unsupported(f"the sensor is {header['kind']}", "RAW_SENSOR_UNSUPPORTED")
        case "unreadable":
            return unsupported("the content is not a camera file that LibRaw knows")
        case _:
            return corrupt("its pixels cannot be decoded")


def _capture(header: dict[str, Any], samples: bytes, data: bytes) -> Capture:
    width, height = header["width"], header["height"]
    if len(samples) != width * height * 2:
        raise corrupt("its decoder failed on it")
    known = bool(np.any(header["matrix"]))
    colours, gains = read_dng(data)
    a, b, c, d = header["black"]
    e, f, g, h = header["white"]
    return Capture(
        mosaic=np.frombuffer(samples, dtype="<u2").reshape((height, width)),
        cfa=header["cfa"],
        black=(a, b, c, d),
        white=(e, f, g, h),
        orientation=_ORIENTATIONS.get(header["flip"], 1),
        gains=_gains(gains or header["gains"], known or gains is not None)
        or _gains(header["daylight"], known),
        colours=colours or _libraw_colours(header),
        source="camera file",
        shot=find_shot(data),
    )


def _libraw_colours(header: dict[str, Any]) -> OneMatrix | None:
    """The matrix that LibRaw has for the camera, by its name or as it develops with it; None without any."""
    matrix = np.array(header["matrix"], dtype=np.float64)
    if header.get("srgb"):
        to_srgb = np.array(header["srgb"], dtype=np.float64)
        if abs(np.linalg.det(to_srgb)) > 1e-6:
            matrix = np.asarray(np.linalg.inv(XYZ_OF_SRGB @ to_srgb), dtype=np.float64)
    usable = matrix.shape == (3, 3) and abs(np.linalg.det(matrix)) > 1e-6
    return OneMatrix(matrix) if usable else None


def _gains(values: Sequence[float], known_camera: bool) -> tuple[float, float, float] | None:
    """R, G, B with G = 1. All ones from a camera that LibRaw does not know means that none were found."""
    red, green, blue = values[:3]
    if not all(math.isfinite(value) and value > 0 for value in (red, green, blue)):
        return None
    if red == green == blue and not known_camera:
        return None
    red, blue = red / green, blue / green
    return (red, 1.0, blue) if max(red, blue, 1 / red, 1 / blue) <= _MAX_GAIN else None
