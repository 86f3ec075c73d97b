"""What a caller asks of a development: the request's parameters, checked and typed."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Final

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.requests import Parameter
from nonet.services.raw_image.capture import PATTERNS

OUTPUTS: Final = ("png", "png16", "tiff16", "jpeg")
RENDERS: Final = ("none", "srgb")
WHITE_BALANCES: Final = ("camera", "auto", "none")
NAMES: Final = (
    "cfa",
    "black_level",
    "white_level",
    "width",
    "height",
    "output",
    "noise",
    "render",
    "white_balance",
    "camera_matrix",
    "exposure",
    "strength",
    "uncertainty",
)
"""The parameters of a development."""

_NUMBER: Final = re.compile(r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})([eE][+-]?\d{1,3})?", re.ASCII)
_MAX_TEXT: Final = 400
_MAX_GAIN: Final = 64.0
_MAX_STOPS: Final = 8.0
_MAX_LEVEL: Final = float(1 << 24)


@dataclasses.dataclass(frozen=True, slots=True)
class DevelopOptions:
    """See the contract of ``/v1/raw/develop``; None leaves the choice to the kind of file.

    Args:
        cfa: Bayer phase of a mosaic.
        black: black level at the four positions of the pattern.
        white: white level at the same positions.
        size: width and height of bare samples.
        output: encoding of the picture.
        noise: None for ``auto``, else the standard deviation of the noise, black to white being 0 to 255.
        render: ``none`` or ``srgb``.
        white_balance: ``camera``, ``auto``, ``none`` or three gains.
        matrix: XYZ (D65) to camera RGB, row by row.
        exposure: stops from the white level of the capture to that of the picture; None for ``auto``.
        strength: share of what the network takes for noise that is taken away, 0 to 1.
        uncertainty: whether the standard-deviation map is wanted instead of the picture.
    """

    cfa: str | None = None
    black: tuple[float, float, float, float] | None = None
    white: tuple[float, float, float, float] | None = None
    size: tuple[int, int] | None = None
    output: str = "png"
    noise: float | None = None
    render: str | None = None
    white_balance: str | tuple[float, float, float] | None = None
    matrix: tuple[float, ...] | None = None
    exposure: float | None = None
    strength: float = 1.0
    uncertainty: bool = False


def read_options(parameters: Mapping[str, Parameter]) -> DevelopOptions:
    """The options in request parameters. Raises InvalidArgument, naming the parameter and what it accepts."""
    for name in parameters:
        if name not in NAMES:
            raise InvalidArgument(
                f"unknown parameter {name[:80]!r}; the parameters are {', '.join(NAMES)}", param=name[:80]
            )
    return DevelopOptions(
        cfa=_choice(parameters, "cfa", PATTERNS, upper=True),
        black=_levels(parameters, "black_level"),
        white=_levels(parameters, "white_level"),
        size=_size(parameters),
        output=_choice(parameters, "output", OUTPUTS) or OUTPUTS[0],
        noise=_noise(parameters),
        render=_choice(parameters, "render", RENDERS),
        white_balance=_white_balance(parameters),
        matrix=_matrix(parameters),
        exposure=_exposure(parameters),
        strength=_strength(parameters),
        uncertainty=_flag(parameters, "uncertainty"),
    )


def _choice(
    parameters: Mapping[str, Parameter], name: str, allowed: tuple[str, ...], *, upper: bool = False
) -> str | None:
    value = parameters.get(name)
    if value is None:
        return None
    text = value.strip() if isinstance(value, str) else ""
    text = text.upper() if upper else text.lower()
    if text not in allowed:
        raise _wrong(name, f"one of {', '.join(allowed)}", value)
    return text


def _levels(parameters: Mapping[str, Parameter], name: str) -> tuple[float, float, float, float] | None:
    if name not in parameters:
        return None
    wanted = "a number, or four (top left, top right, bottom left, bottom right of the pattern)"
    numbers = _numbers(parameters[name], name, (1, 4), wanted)
    if any(abs(number) > _MAX_LEVEL for number in numbers):
        raise _wrong(name, f"{wanted} of at most {_MAX_LEVEL:.0f}", parameters[name])
    a, b, c, d = numbers * 4 if len(numbers) == 1 else numbers
    return a, b, c, d


def _exposure(parameters: Mapping[str, Parameter]) -> float | None:
    value = parameters.get("exposure", "auto")
    if isinstance(value, str) and value.strip().lower() == "auto":
        return None
    wanted = f"'auto' or a number of stops from -{_MAX_STOPS:.0f} to {_MAX_STOPS:.0f}"
    (stops,) = _numbers(value, "exposure", (1,), wanted)
    if abs(stops) > _MAX_STOPS:
        raise _wrong("exposure", wanted, value)
    return stops


def _strength(parameters: Mapping[str, Parameter]) -> float:
    if "strength" not in parameters:
        return 1.0
    wanted = "a share from 0 to 1"
    (share,) = _numbers(parameters["strength"], "strength", (1,), wanted)
    if not 0 <= share <= 1:
        raise _wrong("strength", wanted, parameters["strength"])
    return share


def _size(parameters: Mapping[str, Parameter]) -> tuple[int, int] | None:
    if "width" not in parameters and "height" not in parameters:
        return None
    sides = []
    for name in ("width", "height"):
        value = parameters.get(name)
        wanted = "a whole number of pixels; 'width' and 'height' go together"
        if value is None:
            raise InvalidArgument(f"{name} is missing; {wanted}", param=name)
        (number,) = _numbers(value, name, (1,), wanted)
        if number != int(number) or not 0 <= number < 1 << 31:
            raise _wrong(name, wanted, value)
        sides.append(int(number))
    return sides[0], sides[1]


def _noise(parameters: Mapping[str, Parameter]) -> float | None:
    value = parameters.get("noise", "auto")
    if isinstance(value, str) and value.strip().lower() == "auto":
        return None
    wanted = "'auto' or a standard deviation from 0 to 255"
    (sigma,) = _numbers(value, "noise", (1,), wanted)
    if not 0 <= sigma <= 255:
        raise _wrong("noise", wanted, value)
    return sigma


def _white_balance(parameters: Mapping[str, Parameter]) -> str | tuple[float, float, float] | None:
    name = "white_balance"
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, str) and value.strip().lower() in WHITE_BALANCES:
        return value.strip().lower()
    wanted = f"one of {', '.join(WHITE_BALANCES)}, or three gains for R, G, B"
    red, green, blue = _numbers(value, name, (3,), wanted)
    if not all(1 / _MAX_GAIN <= gain <= _MAX_GAIN for gain in (red, green, blue)):
        raise _wrong(name, f"{wanted} from {1 / _MAX_GAIN:.4f} to {_MAX_GAIN:.0f}", value)
    return red, green, blue


def _matrix(parameters: Mapping[str, Parameter]) -> tuple[float, ...] | None:
    name = "camera_matrix"
    if name not in parameters:
        return None
    wanted = "nine numbers, row by row, that turn XYZ (D65) into camera RGB and can be inverted"
    numbers = _numbers(parameters[name], name, (9,), wanted)
    a, b, c, d, e, f, g, h, i = numbers
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if max(map(abs, numbers)) > 100 or abs(determinant) < 1e-6:
        raise _wrong(name, wanted, parameters[name])
    return numbers


def _flag(parameters: Mapping[str, Parameter], name: str) -> bool:
    value = parameters.get(name, False)
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in ("true", "false", "1", "0"):
        raise _wrong(name, "true or false", value)
    return text in ("true", "1")


def _numbers(value: Parameter, name: str, counts: tuple[int, ...], wanted: str) -> tuple[float, ...]:
    """Finite numbers: one, or several in a text with commas between them."""
    if isinstance(value, bool):
        raise _wrong(name, wanted, value)
    if isinstance(value, int | float):
        numbers = [float(value)] if abs(value) < 1e300 else [math.inf]
    else:
        parts = value.strip().strip("[]").split(",") if len(value) <= _MAX_TEXT else []
        if not parts or any(_NUMBER.fullmatch(part.strip()) is None for part in parts):
            raise _wrong(name, wanted, value)
        numbers = [float(part) for part in parts]
    if len(numbers) not in counts or not all(map(math.isfinite, numbers)):
        raise _wrong(name, wanted, value)
    return tuple(numbers)


def _wrong(name: str, wanted: str, value: Parameter) -> InvalidArgument:
    return InvalidArgument(f"{name} must be {wanted}; got {value!r:.60}", param=name)
