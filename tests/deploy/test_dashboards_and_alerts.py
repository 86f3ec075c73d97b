"""Every query of the dashboards and alerts runs on a real Prometheus that scrapes a real server, and names
metrics that it has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.dashboard_queries import (
    DEPLOY,
    RULES,
    alert_expressions,
    metrics_of,
    offered_values,
    panel_queries,
)
from tests.support.deployment_programs import assert_accepts, needs
from tests.support.prometheus_server import PrometheusServer, running_prometheus
from tests.support.running_server import RunningServer, eventually

DASHBOARDS = DEPLOY / "grafana" / "dashboards"
ROOT = DEPLOY.parent
VECTOR = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}


@pytest.fixture(scope="module")
def exported(quiet_server: RunningServer) -> set[str]:
    """Names of all series that a server with an answered and a failed request can have."""
    for _ in range(2):
        assert quiet_server.infer("echo_fp32", [VECTOR]).status_code == 200
    assert quiet_server.infer("echo_fp32", [{**VECTOR, "name": "y"}]).status_code == 400
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", quiet_server.http.get("/metrics").text, re.M):
        endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        names |= {name + ending for ending in endings}
    return names | {"up"}


@pytest.fixture(scope="module")
def prometheus(
    quiet_server: RunningServer, exported: set[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusServer]:
    """The configuration of deploy/ with both jobs pointed at one server that was asked a few things."""
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "2s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(DEPLOY / "prometheus" / each) for each in configuration["rule_files"]]
    for job in configuration["scrape_configs"]:
        job["static_configs"] = [{"targets": [f"127.0.0.1:{quiet_server.http_port}"]}]
    with running_prometheus(configuration, tmp_path_factory.mktemp("prometheus") / "run") as started:
        eventually(
            lambda: len(started.query("rate(process_cpu_seconds_total[1m])")) == 2,
            "both jobs have been scraped twice",
        )
        yield started


def test_every_metric_of_a_dashboard_or_alert_is_exported(exported: set[str]) -> None:
    expressions = {query.place: query.expression for query in panel_queries()} | alert_expressions()
    for place, expression in expressions.items():
        assert metrics_of(expression), place
        assert metrics_of(expression) <= exported, place
    assert {metric for metric, _ in offered_values()} <= exported


@needs("prometheus")
def test_every_query_of_a_dashboard_has_an_answer(prometheus: PrometheusServer) -> None:
    """Those whose series a server begins with must find them; the labels of the legend are in the answer."""
    unseen = {
        name
        for query in panel_queries()
        for name in metrics_of(query.expression)
        if not prometheus.query(f"count({name})")
    }
    assert unseen <= {"nonet_jobs_unserved", "nonet_shed_requests_total"}
    for query in panel_queries():
        answer = prometheus.query(query.expression)
        if not metrics_of(query.expression) & unseen:
            assert answer, f"{query.place}: {query.expression}"
        for series in answer:
            assert query.labels <= series["metric"].keys(), query.place
    for metric, label in offered_values():
        assert prometheus.query(f'{metric}{{{label}!=""}}')


@needs("prometheus")
def test_alerts_are_evaluated_and_a_server_that_is_well_raises_none(prometheus: PrometheusServer) -> None:
    rules = prometheus.rules()
    assert {rule["name"] for rule in rules} == set(alert_expressions())
    for rule in rules:
        assert rule["health"] == "ok", rule
        assert rule["state"] == "inactive", rule


@needs("promtool")
def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    assert_accepts("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert_accepts("promtool", "check", "rules", RULES)


@needs("promtool")
def test_alerts_fire_when_they_should_and_not_before() -> None:
    assert_accepts("promtool", "test", "rules", Path(__file__).with_name("alerts_test.yml"))


def test_alerts_say_what_it_is_and_what_to_do() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["for"], "one odd scrape wakes nobody"


def test_dashboards_are_those_of_their_generator(tmp_path: Path) -> None:
    command = [sys.executable, DEPLOY / "grafana" / "generate_dashboards.py", tmp_path]
    subprocess.run(command, check=True, timeout=60)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in DASHBOARDS.iterdir()}


def test_dashboards_have_names_of_their_own_and_panels_that_do_not_overlap() -> None:
    dashboards = [json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))]
    assert len({each["uid"] for each in dashboards}) == len(dashboards)
    for dashboard in dashboards:
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {
                (place["x"] + column, place["y"] + row)
                for column in range(place["w"])
                for row in range(place["h"])
            }
            assert place["x"] + place["w"] <= 24
            assert not cells & taken, panel["title"]
            taken |= cells


def test_grafana_is_given_the_data_source_and_the_dashboards_where_it_looks() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "nonet.yml").read_text())["providers"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert f":{port}" in services[host]["ports"][0]
    mounted = {volume.split(":")[0]: volume.split(":")[1] for volume in services["grafana"]["volumes"]}
    assert mounted["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
