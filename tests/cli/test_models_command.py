"""``nonet models``: what a user sees, one line per error, exit status 0, 1 or 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from nonet.cli.main import main
from tests.support import handmade_networks


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NONET_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "models"
    root.mkdir()
    handmade_networks.add_classifier(root, "net", 8, family="tiny", top1=0.5)
    handmade_networks.add_scaled(root, "scaled", 10, 1)
    handmade_networks.add_scaled(root, "scaled", 20, 2)
    return root


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    status = main(["models", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def assert_one_line(error: str, *words: str) -> None:
    assert error.count("\n") == 1, error
    assert error.startswith("nonet: ")
    for word in words:
        assert word in error


def test_list_shows_versions_and_damage(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "scaled" / "1" / "model.onnx").write_bytes(b"damaged")
    status, out, _ = run(capsys, "list", "--repository", repository, "--json")
    rows = {(row["model"], row["version"]): row for row in json.loads(out)}
    assert status == 0
    assert rows[("net", "1")]["state"] == "ok"
    assert rows[("net", "1")]["quality"] == "top1 0.5"
    assert "does not match its hash" in rows[("scaled", "1")]["state"]
    assert rows[("scaled", "2")]["state"] == "ok"
    status, out, _ = run(capsys, "list", "--repository", repository)
    assert status == 0
    assert "classification" in out


def test_an_empty_repository_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "list", "--repository", tmp_path)
    assert status == 0
    assert "nonet models pull" in out


def test_show_prints_what_is_known(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "show", "net", "--repository", repository)
    facts = json.loads(out)
    assert status == 0
    assert facts["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 32, 32]}]
    assert facts["labels"] == 5
    assert facts["manifest"]["licence"] == "Apache-2.0"
    assert facts["profile"] is None


def test_verify_fails_for_a_changed_byte(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "verify", "--repository", repository)
    assert status == 0
    assert "answers differ from the check set by" in out
    path = repository / "net" / "1" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    status, out, err = run(capsys, "verify", "net", "--repository", repository)
    assert status == 1
    assert "failed" in out
    assert_one_line(err, "1 of 1 versions failed")


def test_profile_measures_chooses_and_keeps(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("profile", "net", "--repository", repository, "--budget", "0.01")
    status, out, _ = run(capsys, *words, "--json")
    (result,) = json.loads(out)
    assert status == 0
    assert result["model"] == "net"
    assert all(seconds > 0 for seconds in result["engines"][0]["latencies"].values())
    status, out, _ = run(capsys, *words)
    assert status == 0
    assert "chosen: " in out
    status, out, _ = run(capsys, "show", "net", "--repository", repository)
    assert json.loads(out)["profile"]["model"] == "net"


@pytest.mark.parametrize(
    ("words", "status", "needles"),
    [
        (("show", "nothing"), 1, ("no model 'nothing'", "models: net, scaled")),
        (("show", "scaled", "--version", "9"), 1, ("no version 9", "versions: 1, 2")),
        (("verify", "nothing"), 1, ("no model 'nothing'",)),
        (("profile", "nothing"), 1, ("no model 'nothing'",)),
        (("show",), 2, ("--help",)),
        (("profile", "net", "--threads", "0"), 2, ("--threads",)),
        (("import", "nothing.pth"), 2, ("--as",)),
        (("frobnicate",), 2, ("frobnicate",)),
    ],
)
def test_errors_are_one_line_with_the_right_status(
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    status: int,
    needles: tuple[str, ...],
) -> None:
    tail = ("--repository", str(repository)) if words[0] != "frobnicate" else ()
    got, _, err = run(capsys, *words, *tail)
    assert got == status, err
    assert_one_line(err, *needles)


def test_a_missing_repository_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "list", "--repository", tmp_path / "nothing")
    assert status == 1
    assert_one_line(err, "--repository")


def test_import_without_torch_says_what_to_install(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("nonet.research")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    status, _, err = run(capsys, "import", "x.pth", "--as", "new", "--repository", repository)
    assert status == 1
    assert_one_line(err, "pip install", "torch")


@pytest.mark.parametrize("command", ["list", "show", "verify", "profile", "import", "pull"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    assert f"Example: nonet models {command}" in out


def test_a_family_is_shown_with_its_members(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, top1 in (("big", 0.9), ("small", 0.7)):
        handmade_networks.add_classifier(repository, name, 4, family="toys", top1=top1)
    status, out, _ = run(capsys, "show", "toys", "--repository", repository)
    assert status == 0
    assert "big" in out
    assert "small" in out
    status, out, _ = run(capsys, "show", "toys", "--json", "--repository", repository)
    assert [row["model"] for row in json.loads(out)] == ["big", "small"]
    status, out, err = run(capsys, "show", "toys", "--version", "1", "--repository", repository)
    assert status == 2
    assert_one_line(err, "toys", "family")
    status, out, err = run(capsys, "show", "tous", "--repository", repository)
    assert status == 1
    assert_one_line(err, "tous", "big")


@pytest.mark.parametrize("command", ["verify", "pull"])
def test_json_is_json(command: str, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, command, "--json", "--repository", repository)
    assert status == 0
    assert isinstance(json.loads(out), list)
