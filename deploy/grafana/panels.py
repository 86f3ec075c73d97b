"""Panels, and how a dashboard of them is written in Grafana's JSON model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

_COLUMNS = 24
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclasses.dataclass(frozen=True)
class Query:
    """PromQL, and what a line of its answer is called (``{{label}}`` for its labels)."""

    expression: str
    legend: str = ""


@dataclasses.dataclass(frozen=True)
class Panel:
    """One rectangle of a dashboard.

    Args:
        title: what it shows.
        unit: of Grafana: ``s``, ``reqps``, ``percentunit``, ``bytes``, ``short``, ...
        queries: drawn together.
        kind: ``timeseries`` or ``stat`` (one number).
        width: in columns, of 24; what does not fit into a row begins the next.
        stacked: whether lines are drawn on top of each other, because their sum means something.
        note: what to read out of it, where the title does not say.
    """

    title: str
    unit: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    width: int = 12
    stacked: bool = False
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Dashboard:
    """One page; ``variables`` are label -> the metric whose values of that label are offered."""

    name: str
    title: str
    panels: Sequence[Panel]
    variables: Mapping[str, str]


def _variables(variables: Mapping[str, str]) -> list[dict[str, Any]]:
    offered: list[dict[str, Any]] = [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    ]
    for label, metric in variables.items():
        offered.append(
            {
                "name": label,
                "label": label.capitalize(),
                "type": "query",
                "datasource": _SOURCE,
                "query": {"query": f"label_values({metric}, {label})", "refId": label},
                "refresh": 2,
                "multi": True,
                "includeAll": True,
                "allValue": ".*",
                "current": {"text": "All", "value": "$__all"},
            }
        )
    return offered


def _drawn(panel: Panel) -> dict[str, Any]:
    """The part of a panel that depends on its kind."""
    if panel.kind == "stat":
        return {
            "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
            "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area"},
        }
    custom: dict[str, Any] = {"fillOpacity": 20 if panel.stacked else 0, "showPoints": "never"}
    if panel.stacked:
        custom["stacking"] = {"mode": "normal"}
    return {
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def rendered(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    left = top = tallest = 0
    for number, panel in enumerate(dashboard.panels, 1):
        height = 4 if panel.kind == "stat" else 8
        if left + panel.width > _COLUMNS:
            left, top, tallest = 0, top + tallest, 0
        panels.append(
            {
                "id": number,
                "title": panel.title,
                "description": panel.note,
                "type": panel.kind,
                "datasource": _SOURCE,
                "gridPos": {"x": left, "y": top, "w": panel.width, "h": height},
                "targets": [
                    {
                        "refId": chr(ord("A") + place),
                        "datasource": _SOURCE,
                        "expr": query.expression,
                        "legendFormat": query.legend or "__auto",
                    }
                    for place, query in enumerate(panel.queries)
                ],
                **_drawn(panel),
            }
        )
        left, tallest = left + panel.width, max(tallest, height)
    return {
        "uid": dashboard.name,
        "title": dashboard.title,
        "tags": ["nonet"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "title": "Nonet", "tags": ["nonet"], "asDropdown": True}],
        "templating": {"list": _variables(dashboard.variables)},
        "panels": panels,
    }
