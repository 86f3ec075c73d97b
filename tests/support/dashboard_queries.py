"""The PromQL of the dashboards and alerts of deploy/, and the metrics that it names."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules" / "nonet.yml"
_METRIC = re.compile(r"\b(?:nonet|nv|process|python)_\w+|\bup\b")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
# What Grafana puts in before it asks: everything, over a time that has two scrapes.
_VARIABLES = {"$__rate_interval": "1m", "$job": ".*", "$model": ".*"}


@dataclasses.dataclass(frozen=True)
class PanelQuery:
    """One query of a panel, as Prometheus gets it; ``labels`` are those its legend names."""

    place: str
    expression: str
    labels: frozenset[str]


def panel_queries() -> list[PanelQuery]:
    """All queries of all dashboards."""
    found = []
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expression = target["expr"]
                for variable, value in _VARIABLES.items():
                    expression = expression.replace(variable, value)
                labels = frozenset(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                found.append(PanelQuery(f"{path.stem}: {panel['title']}", expression, labels))
    return found


def offered_values() -> list[tuple[str, str]]:
    """Metric and label whose values the variables of the dashboards offer."""
    found = []
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if variable["type"] == "query":
                match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
                assert match is not None, variable
                found.append((match[1], match[2]))
    return found


def alert_expressions() -> dict[str, str]:
    """Name of each alert -> its expression."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def metrics_of(expression: str) -> set[str]:
    """Names of the metrics in a PromQL expression."""
    return set(_METRIC.findall(_STRING.sub('""', expression)))
