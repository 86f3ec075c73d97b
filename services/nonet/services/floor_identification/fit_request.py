"""What a caller asks for when a building is to be fitted: checked, and in the form that the job keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson

from nonet.runtime.errors import InvalidArgument, Unprocessable
from nonet.runtime.scans import LONGEST_NAME, Scans

__all__ = ["FIELDS", "checked"]

FIELDS: Final = ("building", "labelled", "floors", "preset", "seed", "webhook")
PRESETS: Final = ("default", "paper")
FEWEST_FLOORS, MOST_FLOORS = 2, 16
LARGEST_SEED: Final = 2**31 - 1


def checked(fields: Mapping[str, Any], scans: Scans) -> dict[str, Any]:
    """The specification of a fit: ``building``, ``scan``, ``floor``, ``position``, ``floors``, ``names``,
    ``preset``, ``seed``; ``webhook`` if there is one.

    Args:
        fields: as sent; texts, as forms have them, may hold JSON.
        scans: the scans; the labelled one must be among them.

    Whether the building's name may be one is for the gateway to say, which makes a model's name of it; so is
    whether the webhook may be called.

    Raises Unprocessable for a missing, unknown or ill-typed field, InvalidArgument for a bad value.
    """
    for name in fields:
        if name not in FIELDS:
            raise Unprocessable(
                f"unknown field {name[:80]!r}; the fields are scans, {', '.join(FIELDS)}",
                param=name[:80],
                code="UNKNOWN_FIELD",
            )
    building = fields.get("building")
    if not isinstance(building, str):
        raise Unprocessable("field 'building' is missing; give the building a name", param="building")
    floors, names = _floors(_parsed(fields.get("floors")))
    labelled = _labelled(_parsed(fields.get("labelled")), scans)
    heard = np.diff(scans.offsets) > 0
    if not heard[scans.ids.index(labelled["scan"])]:
        raise InvalidArgument(
            "field 'labelled.scan': this scan has no readings; label another one", param="labelled"
        )
    count = floors if names is None else len(names)
    if count is not None:
        _check_label(labelled, count, names)
        if count > heard.sum():
            raise InvalidArgument(
                f"field 'floors': {heard.sum()} scans with readings cannot show {count} floors",
                param="floors",
            )
    return {
        "building": building,
        **labelled,
        "floors": floors,
        "names": names,
        "preset": _preset(fields.get("preset", "default")),
        "seed": _seed(_parsed(fields.get("seed", 0))),
        **_webhook(fields.get("webhook")),
    }


def _webhook(value: Any) -> dict[str, str]:
    """Nothing where there is none, so that the submit is the same as before there were any."""
    if value is not None and not isinstance(value, str):
        raise Unprocessable("field 'webhook' must be a URL", param="webhook")
    return {"webhook": value} if value else {}


def _labelled(value: Any, scans: Scans) -> dict[str, Any]:
    if not isinstance(value, dict):
        problem = (
            "is missing; name the one scan whose floor you know" if value is None else "must be an object"
        )
        raise Unprocessable(
            f'field \'labelled\' {problem}: {{"scan": id of the labelled scan, "floor": its floor}}',
            param="labelled",
        )
    if not {"scan", "floor"} <= value.keys() or not value.keys() <= {"scan", "floor", "position"}:
        raise Unprocessable(
            "field 'labelled' must have 'scan' and 'floor', and 'position' at most", param="labelled"
        )
    scan, floor, position = value["scan"], value["floor"], value.get("position")
    if isinstance(scan, int) and not isinstance(scan, bool):
        scan = str(scan)
    if not isinstance(scan, str):
        raise Unprocessable("field 'labelled.scan' must be the id of a scan", param="labelled")
    if isinstance(floor, bool) or not isinstance(floor, str | int):
        raise Unprocessable("field 'labelled.floor' must be a floor's name or number", param="labelled")
    if not str(floor).strip() or len(str(floor)) > LONGEST_NAME or not str(floor).isprintable():
        raise InvalidArgument("field 'labelled.floor' is empty, too long or not printable", param="labelled")
    if position is not None and (isinstance(position, bool) or not isinstance(position, int)):
        raise Unprocessable("field 'labelled.position' must be an integer", param="labelled")
    if position is not None and not 1 <= abs(position) <= MOST_FLOORS:
        raise InvalidArgument(
            f"field 'labelled.position' counts from 1 (bottom) or -1 (top) up to {MOST_FLOORS}",
            param="labelled",
        )
    if scan not in set(scans.ids):
        raise InvalidArgument(
            f"field 'labelled.scan': there is no scan {scan[:80]!r} among the {len(scans)} scans",
            param="labelled",
            code="SCAN_NOT_FOUND",
        )
    return {"scan": scan, "floor": floor, "position": position}


def _floors(value: Any) -> tuple[int | None, list[str] | None]:
    """The number of floors or their names, whichever is given."""
    if value is None:
        return None, None
    if isinstance(value, list):
        if not all(isinstance(name, str) for name in value):
            raise Unprocessable("field 'floors' must be a number, or a list of names", param="floors")
        if len(set(value)) != len(value) or not all(
            name.strip() and name.isprintable() and len(name) <= LONGEST_NAME for name in value
        ):
            raise InvalidArgument(
                "field 'floors': names must be different, printable, not empty", param="floors"
            )
        _check_count(len(value))
        return None, list(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unprocessable("field 'floors' must be a number, or a list of names", param="floors")
    _check_count(value)
    return value, None


def _check_label(labelled: Mapping[str, Any], count: int, names: list[str] | None) -> None:
    """Raises InvalidArgument if the label contradicts the floors that there are."""
    floor, position = str(labelled["floor"]), labelled["position"]
    if position is not None and abs(position) > count:
        raise InvalidArgument(
            f"field 'labelled.position': there is no floor {position} of {count}", param="labelled"
        )
    if names is None:
        return
    if floor not in names:
        raise InvalidArgument(
            f"field 'labelled.floor': {floor!r} is not among the floors {', '.join(names)}", param="labelled"
        )
    if position is not None and (meant := names[position - (position > 0)]) != floor:
        raise InvalidArgument(
            f"field 'labelled': position {position} is floor {meant!r}, not {floor!r}; omit the position",
            param="labelled",
        )


def _check_count(count: int) -> None:
    if not FEWEST_FLOORS <= count <= MOST_FLOORS:
        raise InvalidArgument(
            f"field 'floors' must be {FEWEST_FLOORS} to {MOST_FLOORS} floors, got {count}", param="floors"
        )


def _preset(value: Any) -> str:
    if not isinstance(value, str):
        raise Unprocessable("field 'preset' must be a text", param="preset")
    if value not in PRESETS:
        raise InvalidArgument(f"field 'preset' must be one of {', '.join(PRESETS)}", param="preset")
    return value


def _seed(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unprocessable("field 'seed' must be an integer", param="seed")
    if not 0 <= value <= LARGEST_SEED:
        raise InvalidArgument(f"field 'seed' must be from 0 to {LARGEST_SEED}", param="seed")
    return value


def _parsed(value: Any) -> Any:
    """A form's text as the JSON it holds; any other value, and a text that is no JSON, as it is."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
