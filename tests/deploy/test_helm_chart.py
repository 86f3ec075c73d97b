"""The chart renders what Kubernetes accepts, confined, and pointing at what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nonet.gateway.process.services import installed_services
from nonet.gateway.settings.topology import load_topology
from tests.support.command_lines import known_variables, taken_arguments
from tests.support.dashboard_queries import DEPLOY, RULES, metrics_of
from tests.support.deployment_programs import assert_accepts, needs, run_program

CHART = DEPLOY / "helm" / "nonet"
SHARED: dict[str, Any] = {
    "redis": {"enabled": True},
    "autoscaling": {"enabled": True, "maxReplicas": 6},
    "auth": {"existingSecret": "keys"},
    "ingress": {"enabled": True, "host": "nonet.example.org", "tlsSecret": "certificate"},
    "monitoring": {"enabled": True, "dashboards": True, "labels": {"release": "prometheus"}},
    "settings": {"SCHEDULER__LANES": 2},
    "image": {"prefix": "registry.example.org/vision/", "pullSecrets": [{"name": "registry"}]},
    "networkPolicy": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "vision", "operator": "Exists"}],
}
VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "shared": SHARED,
    "hpa": {**SHARED, "autoscaling": {"enabled": True, "kind": "hpa"}},
    "split": {
        "split": True,
        "monitoring": {"enabled": True},
        "services": {"recognition": {"replicas": 2, "resources": {"limits": {"memory": "8Gi"}}}},
    },
    "in image": {"repository": {"inImage": True}, "networkPolicy": {"enabled": False}},
}
Objects = list[dict[str, Any]]


def helm(folder: Path, *arguments: str | Path, values: dict[str, Any]) -> tuple[int, str, str]:
    (folder / "values.yaml").write_text(yaml.safe_dump(values))
    ended = run_program("helm", *arguments, CHART, "--values", folder / "values.yaml")
    return ended.returncode, ended.stdout, ended.stderr


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Objects]:
    """What each of VALUES makes, as release `nonet` in the namespace `vision`."""
    folder = tmp_path_factory.mktemp("rendered")
    found: dict[str, Objects] = {}
    for name, values in VALUES.items():
        status, text, errors = helm(folder, "template", "nonet", "--namespace", "vision", values=values)
        assert status == 0, errors
        found[name] = [each for each in yaml.safe_load_all(text) if each]
    return found


def of_kind(objects: Objects, kind: str) -> Objects:
    return [each for each in objects if each["kind"] == kind]


def pods(objects: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod template of all that starts pods."""
    for each in [*of_kind(objects, "Deployment"), *of_kind(objects, "StatefulSet")]:
        yield each["metadata"]["name"], each["spec"]["template"]


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


@needs("helm")
def test_helm_finds_nothing_wrong(tmp_path: Path) -> None:
    status, text, errors = helm(tmp_path, "lint", "--strict", values=VALUES["shared"])
    assert status == 0, text + errors


@needs("helm")
@needs("kubernetes-validate")
def test_kubernetes_accepts_what_is_rendered(rendered: dict[str, Objects], tmp_path: Path) -> None:
    distinct = {yaml.safe_dump(each) for objects in rendered.values() for each in objects}
    (tmp_path / "objects.yaml").write_text("---\n".join(sorted(distinct)))
    assert_accepts("kubernetes-validate", "--strict", "--quiet", "--no-warn", tmp_path / "objects.yaml")


@needs("helm")
def test_pods_are_confined(rendered: dict[str, Objects]) -> None:
    for objects in rendered.values():
        for name, template in pods(objects):
            pod = template["spec"]
            assert pod["automountServiceAccountToken"] is False, name
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["runAsUser"] > 0
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in pod["containers"]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert container["resources"]["limits"]["memory"]
                assert "livenessProbe" in container


@needs("helm")
def test_containers_are_started_as_nonet_wants_it(rendered: dict[str, Objects]) -> None:
    commands = {"gateway": "serve", "service": "service"}
    for objects in rendered.values():
        for _, template in pods(objects):
            for container in template["spec"]["containers"]:
                if container["name"] not in commands:
                    continue
                taken_arguments(commands[container["name"]], container.get("args", []))
                assert {each["name"] for each in container["env"]} <= known_variables()
                mounted = {each["name"] for each in container["volumeMounts"]}
                assert mounted == {each["name"] for each in template["spec"]["volumes"]}


@needs("helm")
def test_split_runs_every_service_where_the_topology_says(
    rendered: dict[str, Objects], tmp_path: Path
) -> None:
    objects = rendered["split"]
    (config,) = of_kind(objects, "ConfigMap")
    (tmp_path / "topology.toml").write_text(config["data"]["topology.toml"])
    topology = load_topology(tmp_path / "topology.toml")
    assert {service.name for service in topology} == set(installed_services())
    sets = {each["spec"]["serviceName"]: each["spec"] for each in of_kind(objects, "StatefulSet")}
    headless = {
        each["metadata"]["name"]: each["spec"]
        for each in of_kind(objects, "Service")
        if each["spec"].get("clusterIP") == "None"
    }
    for service in topology:
        pod, _, domain = service.address.removesuffix(":8001").partition(".")
        spec = sets[domain]
        number = int(pod.removeprefix(f"{domain}-"))
        assert number < spec["replicas"]
        assert spec["template"]["spec"]["containers"][0]["args"][0] == service.name
        assert selects(headless[domain]["selector"], spec["template"]["metadata"]["labels"])
    assert len(topology) == sum(spec["replicas"] for spec in sets.values())


@needs("helm")
def test_services_and_redis_take_calls_of_the_gateway_alone(rendered: dict[str, Objects]) -> None:
    for name in ("split", "shared"):
        policies = of_kind(rendered[name], "NetworkPolicy")
        (gateway,) = (each for each in of_kind(rendered[name], "Deployment"))
        caller = gateway["spec"]["template"]["metadata"]["labels"]
        for workload, template in pods(rendered[name]):
            labels = template["metadata"]["labels"]
            (policy,) = (
                each for each in policies if selects(each["spec"]["podSelector"]["matchLabels"], labels)
            )
            if labels == caller:
                continue
            peers = [peer for rule in policy["spec"]["ingress"] for peer in rule["from"]]
            inside = [peer["podSelector"]["matchLabels"] for peer in peers if "podSelector" in peer]
            assert inside, workload
            assert all(selects(each, caller) for each in inside)
            assert not any(selects(each, labels) for each in inside)
            assert policy["spec"]["egress"] == []


@needs("helm")
def test_prometheus_finds_the_pods_and_gets_the_same_alerts(rendered: dict[str, Objects]) -> None:
    for name, jobs in (("shared", {"nonet-gateway"}), ("split", {"nonet-gateway", "nonet-services"})):
        found = set()
        for monitor in of_kind(rendered[name], "ServiceMonitor"):
            (endpoint,) = monitor["spec"]["endpoints"]
            selected = [
                each
                for each in of_kind(rendered[name], "Service")
                if selects(monitor["spec"]["selector"]["matchLabels"], each["metadata"]["labels"])
            ]
            assert selected
            assert all(
                endpoint["port"] in {port["name"] for port in each["spec"]["ports"]} for each in selected
            )
            found |= {each["replacement"] for each in endpoint["relabelings"]}
        assert found == jobs
        (rule,) = of_kind(rendered[name], "PrometheusRule")
        assert rule["spec"] == yaml.safe_load(RULES.read_text())


@needs("helm")
def test_dashboards_are_handed_to_grafana(rendered: dict[str, Objects]) -> None:
    (config,) = of_kind(rendered["shared"], "ConfigMap")
    files = (DEPLOY / "grafana" / "dashboards").glob("*.json")
    assert config["data"] == {path.name: path.read_text() for path in files}


@needs("helm")
@needs("promtool")
def test_gateways_are_scaled_by_what_waits(rendered: dict[str, Objects], tmp_path: Path) -> None:
    (scaled,) = of_kind(rendered["shared"], "ScaledObject")
    (deployment,) = of_kind(rendered["shared"], "Deployment")
    (other,) = of_kind(rendered["hpa"], "HorizontalPodAutoscaler")
    for target in (scaled["spec"]["scaleTargetRef"], other["spec"]["scaleTargetRef"]):
        assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    # Whoever scales says how many there are: a number in the deployment would undo it at every upgrade.
    assert "replicas" not in deployment["spec"]
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert metrics_of(query) == {"nonet_queue_depth"}
    rule = {"groups": [{"name": "scaling", "rules": [{"record": "depth", "expr": query}]}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rule))
    assert_accepts("promtool", "check", "rules", tmp_path / "rules.yml")


@needs("helm")
def test_one_gateway_ends_before_the_next_unless_they_share_their_jobs(rendered: dict[str, Objects]) -> None:
    strategies = {
        name: of_kind(objects, "Deployment")[0]["spec"]["strategy"]["type"]
        for name, objects in rendered.items()
    }
    assert strategies["default"] == strategies["split"] == "Recreate"
    assert strategies["shared"] == "RollingUpdate"


@needs("helm")
@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"replicas": 2}, "additional properties 'replicas'"),
        ({"gateway": {"replicas": 2}}, "a queue they share"),
        ({"gateway": {"replicas": 0}}, "/gateway/replicas"),
        ({"gateway": {"resources": {"limits": {"memory": "much"}}}}, "/gateway/resources/limits/memory"),
        ({"services": {"recognition": {"replicas": 0}}}, "/services/recognition/replicas"),
        ({"settings": {"lanes": 2}}, "'lanes' does not match pattern"),
        ({"repository": {"accessModes": ["ReadWrite"]}}, "/repository/accessModes/0"),
        ({"autoscaling": {"enabled": True}, "redis": {"enabled": True}, "split": True}, "replicas of the"),
        ({"autoscaling": {"minReplicas": 9}}, "above autoscaling.maxReplicas"),
        ({"ingress": {"enabled": True, "host": "nonet.example.org"}}, "auth.existingSecret"),
        ({"ingress": {"enabled": True}, "auth": {"existingSecret": "keys"}}, "/ingress/host"),
        ({"redis": {"enabled": True}, "jobs": {"existingStoreSecret": "queue"}}, "not both"),
        ({"networkPolicy": {"from": []}}, "/networkPolicy/from"),
    ],
)
def test_values_that_cannot_be_are_refused(values: dict[str, Any], word: str, tmp_path: Path) -> None:
    status, _, errors = helm(tmp_path, "template", "nonet", values=values)
    assert status != 0
    assert word in errors


def test_values_name_the_services_and_templates_name_values_that_are_there() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values["services"]) == set(installed_services())
    for template in (CHART / "templates").iterdir():
        for name in re.findall(r"\.Values\.([\w.]+)", template.read_text()):
            here = values
            for part in name.split("."):
                assert part in here, f"{template.name}: {name}"
                here = here[part]
