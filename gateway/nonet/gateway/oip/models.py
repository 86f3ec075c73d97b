"""What the Open Inference Protocol tells of models, as plain values for REST and gRPC alike."""

from __future__ import annotations

from typing import Any

from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.records import DurationTotal, ModelStatistics
from nonet.runtime.servable import ModelInfo

__all__ = ["configuration", "described", "statistics"]

_PHASES = ("compute_input", "compute_infer", "compute_output")
_TOTALS = ("success", "fail", "queue", *_PHASES, "cache_hit", "cache_miss")


def described(plane: DataPlane, model: str, version: str) -> tuple[ModelInfo, list[str]]:
    """A model, and its ready versions or the one asked for. Raises NotFound or Unavailable."""
    catalog = plane.catalog
    info = catalog.info(model, version)
    return info, [version] if version else list(catalog.versions(model))


def configuration(plane: DataPlane, info: ModelInfo) -> dict[str, Any]:
    """The model's configuration, with what this server adds to it: whether its answers are kept, and whether
    it takes and gives numbers that are not finite."""
    finite = {"allow_nonfinite": {"string_value": "true" if info.allow_nonfinite else "false"}}
    return {
        **info.config,
        "parameters": {**info.config.get("parameters", {}), **finite},
        "response_cache": {"enable": plane.keeps_answers(info)},
    }


def statistics(plane: DataPlane, model: str, version: str) -> list[dict[str, Any]]:
    """The totals of one version, of one model or ("") of all, by the names of the statistics extension."""
    return [_statistics(entry) for entry in plane.statistics(model, version)]


def _statistics(entry: ModelStatistics) -> dict[str, Any]:
    return {
        "name": entry.name,
        "version": entry.version,
        "last_inference": entry.last_inference_ms,
        "inference_count": entry.inference_count,
        "execution_count": entry.execution_count,
        "inference_stats": {name: _duration(getattr(entry, name)) for name in _TOTALS},
        "batch_stats": [
            {"batch_size": rows, **dict(zip(_PHASES, map(_duration, totals), strict=True))}
            for rows, totals in sorted(entry.batches.items())
        ],
    }


def _duration(total: DurationTotal) -> dict[str, int]:
    return {"count": total.count, "ns": total.nanoseconds}
