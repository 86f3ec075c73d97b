"""What the page of devices says is what there is: commands, settings, codes, metrics and measured figures."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import typer

from nonet.cli import main as cli
from nonet.gateway.metrics.exposition import _OF_THE_PROCESS
from nonet.gateway.settings.schema import setting_keys
from nonet.runtime.repository.manifest import Variant, parse_manifest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "devices.md").read_text()


def test_its_commands_and_flags_are_there() -> None:
    models = typer.main.get_command(cli.app).commands["models"].commands  # type: ignore[attr-defined]
    (block,) = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines():
        nonet, group, name, *words = shlex.split(line)
        assert (nonet, group) == ("nonet", "models")
        context = models[name].make_context(name, words)
        assert context.params["model"]
    for name in re.findall(r"`nonet models (\w+)`", PAGE):
        assert name in models


def test_its_settings_codes_and_metrics_are_there() -> None:
    for key in re.findall(r"`(repository\.\w+)", PAGE):
        assert key in setting_keys()
    known = {name for name, *_ in _OF_THE_PROCESS}
    for name in re.findall(r"`(nonet_\w+)`", PAGE):
        assert name.removesuffix("_total") in known
    sources = "\n".join(path.read_text() for path in (ROOT / "runtime").rglob("*.py"))
    for code in re.findall(r"`([A-Z]+_[A-Z_]+)`", PAGE):
        assert code == "NONET_CACHE" or f'"{code}"' in sources


def test_its_figures_are_those_of_the_manifests() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| (\d+) \| (\d+) \| [\d.]+ \| yes \|", PAGE, re.M
    )
    assert len(rows) == 2
    for name, before, after, only_before, only_after in rows:
        manifest = parse_manifest((ROOT / "model_repository" / f"{name}_int8/1/manifest.json").read_bytes())
        assert isinstance(manifest.variant, Variant)
        assert manifest.variant.of == name
        top1 = 100 * float(manifest.quality["top1"])
        assert abs(top1 - float(after)) < 0.01
        assert abs(top1 + 100 * manifest.variant.loss - float(before)) < 0.02
        said = manifest.source["comparison"]
        assert f"only before {only_before}, only after {only_after};" in said


def test_the_manifests_page_explains_every_field_of_a_variant() -> None:
    page = (ROOT / "docs" / "manifest.md").read_text().partition("\n## variant")[2]
    named = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| (`.*?) \|", page, re.M))))
    assert named == set(json.loads(json.dumps(list(Variant.model_fields))))
