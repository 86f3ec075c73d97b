"""The locks: complete, within what pyproject.toml asks for, pinned by hash, and free of addresses."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from nonet.gateway.process.services import works

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
WANTED = {
    "serve.lock": [
        *PROJECT["dependencies"],
        *EXTRAS["redis"],
        *EXTRAS["floors"],
        *EXTRAS["images"],
        *EXTRAS["tracing"],
    ],
    "test.lock": [
        *PROJECT["dependencies"],
        *EXTRAS["test"],
        *EXTRAS["openvino"],
        *EXTRAS["floors"],
        *EXTRAS["images"],
        *EXTRAS["tracing"],
    ],
}


def pins(name: str) -> dict[str, list[Version]]:
    """Versions by distribution; some have one per Python version."""
    found: dict[str, list[Version]] = {}
    for line in (ROOT / "requirements" / name).read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==(\S+)", line):
            found.setdefault(canonicalize_name(match[1]), []).append(Version(match[2]))
    return found


@pytest.mark.parametrize("name", WANTED)
def test_every_requirement_is_locked_within_its_bounds(name: str) -> None:
    locked = pins(name)
    for text in WANTED[name]:
        requirement = Requirement(text)
        versions = locked.get(canonicalize_name(requirement.name), [])
        assert versions, f"{name} lacks {requirement.name}: run make lock"
        for version in versions:
            assert requirement.specifier.contains(version), (
                f"{name}: {requirement.name} {version}: run make lock"
            )


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "requirements").glob("*.lock")))
def test_locks_have_hashes_and_no_addresses(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert not re.search(r"https?://|file:|--(extra-)?index|--find-links|@ ", text)
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    assert all("--hash=sha256:" in entry for entry in entries if "==" in entry)


@pytest.mark.parametrize("name", WANTED)
def test_torch_is_the_machines_choice(name: str) -> None:
    assert not {"torch", "triton"} & pins(name).keys()
    assert not any(package.startswith("nvidia-") for package in pins(name))


def test_both_locks_pin_the_same_versions() -> None:
    serve, test = pins("serve.lock"), pins("test.lock")
    assert {name: test.get(name) for name in serve} == serve


def test_what_is_served_can_be_done_with_what_serving_installs() -> None:
    """Every module that a task's work requires comes with serve.lock: no 501 out of the box, but where
    networks are trained, since PyTorch is the machine's choice."""
    required = {(kind, module) for kind, (_, work) in works().items() for module in work.requires}
    provided = packages_distributions()
    locked = pins("serve.lock").keys()
    lacking = {
        (kind, module)
        for kind, module in required
        if not {canonicalize_name(one) for one in provided[module]} & locked
    }
    assert len(required) > len(lacking)
    trained = ("recognition.distil", "adaptation.adapt")
    assert lacking == {(kind, module) for kind in trained for module in ("torch", "onnxscript")}
