"""How one version of a grounding network finds regions and reads text, as its manifest says it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from nonet.runtime.errors import ModelRefused
from nonet.runtime.images.regions import LOOKS_VERSION
from nonet.runtime.servable import ModelInfo

__all__ = ["MOST_REGIONS", "Recipe", "recipe_of"]

MOST_REGIONS: Final = 256
_LONGEST_TEXT: Final = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """What a version says of itself under ``source``.

    Args:
        encoder: name of the distribution that holds the text encoder.
        encoder_sha256: of the encoder's file.
        length: tokens of an expression that the network takes; what is longer is cut.
        detector: the model that proposes regions if the caller names none: its network, or a family.
        least_score: detections below it are no regions, 0..1.
        regions: that the network takes; of more the best are kept.
        nothing: share of "nothing is meant", 0..1, above which no box is the answer.
    """

    encoder: str
    encoder_sha256: str
    length: int
    detector: str
    least_score: float
    regions: int
    nothing: float


def recipe_of(info: ModelInfo) -> Recipe:
    """The recipe of a version. Raises ModelRefused, saying what in its manifest is not as it must be."""
    source: Mapping[str, Any] = info.details.get("source") or {}
    encoder, detector = source.get("text_encoder"), source.get("detector")
    if not isinstance(encoder, Mapping) or not _texts(encoder, "package", "sha256"):
        raise _refused("text_encoder", "an object with package, sha256 and length")
    if not isinstance(detector, Mapping) or not _texts(detector, "model"):
        raise _refused("detector", "an object with model and score_threshold")
    if source.get("looks") != LOOKS_VERSION:
        raise _refused("looks", f"{LOOKS_VERSION}, the looks of regions that are computed here")
    return Recipe(
        encoder=encoder["package"],
        encoder_sha256=encoder["sha256"],
        length=_whole(encoder, "length", _LONGEST_TEXT, "text_encoder.length"),
        detector=detector["model"],
        least_score=_share(detector, "score_threshold", "detector.score_threshold"),
        regions=_whole(source, "regions", MOST_REGIONS, "regions"),
        nothing=_share({"nothing": 0.5, **source}, "nothing", "nothing"),
    )


def _texts(stated: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(stated.get(name), str) and stated[name] for name in names)


def _whole(stated: Mapping[str, Any], name: str, most: int, called: str) -> int:
    value = stated.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _refused(called, f"a whole number from 1 to {most}")
    return value


def _share(stated: Mapping[str, Any], name: str, called: str) -> float:
    value = stated.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise _refused(called, "a number from 0 to 1")
    return float(value)


def _refused(name: str, wanted: str) -> ModelRefused:
    return ModelRefused(f"its manifest's source.{name} must be {wanted}")
