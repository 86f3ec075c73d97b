"""The command line: exit status, one-line errors, help with examples."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from nonet.cli import main as cli
from nonet.cli.data import DATASETS
from nonet.cli.failure import CommandFailed
from nonet.runtime.errors import NotFound
from nonet.runtime.release import VERSION
from tests.support.running_server import RunningServer, free_port

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in this process: (status, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(list(arguments))
        out, err = capsys.readouterr()
        return status, out, err

    return command


def commands() -> list[tuple[str, ...]]:
    """Every command and subcommand."""
    found: list[tuple[str, ...]] = []
    for name, command in typer.main.get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        found.append((name,))
        found += [(name, below) for below in getattr(command, "commands", {})]
    return found


def test_the_version(run: Run) -> None:
    assert run("--version") == (0, f"nonet {VERSION}\n", "")


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(run: Run, command: tuple[str, ...]) -> None:
    status, out, _ = run(*command, "--help")
    assert status == 0
    assert re.search(r"Example: .*nonet " + command[0], " ".join(out.split())), out


def test_the_commands_of_the_contract_are_there() -> None:
    found = {" ".join(command) for command in commands()}
    assert found >= {"serve", "service", "train", "evaluate", "doctor", "models list", "models show"}
    assert found >= {"models verify", "models pull", "models import", "models profile"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["srve"], ["srve", "serve"]),
        (["serve", "--http-prot", "1"], ["--http-prot", "nonet serve --help"]),
        (["serve", "--http-port", "many"], ["--http-port", "integer"]),
        (["service", "recognition"], ["--port"]),
        (["service", "cooking", "--port", "1"], ["cooking", "recognition"]),
        (["models", "show"], ["nonet models show --help"]),
        (["serve", "--http-port", "70000"], ["--http-port", "65535"]),
        (["serve", "--grpc-port", "-1"], ["--grpc-port", "0"]),
        (["service", "recognition", "--port", "70000"], ["--port", "65535"]),
        (["train", "fasternot"], ["fasternot", "fasternet", "nonet train --help"]),
        (["train", "fasternet", "--preset", "huge"], ["huge", "tiny", "nonet train --help"]),
        (["evaluate", "fasternot"], ["fasternot", "fasternet", "nonet evaluate --help"]),
        (["serve", "--config", "/nowhere.toml"], ["/nowhere.toml"]),
        (["serve", "--topology", "/nowhere.toml"], ["/nowhere.toml"]),
        (["settings", "--config", "/nowhere.toml"], ["/nowhere.toml"]),
        (["serve", "--host", "0.0.0.0"], ["auth.keys", "NONET_AUTH__KEYS", "--allow-without-keys"]),
        (["serve", "--host", "::"], ["auth.keys"]),
        (["service", "recognition", "--port", "0", "--host", "0.0.0.0"], ["auth.keys"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(run: Run, arguments: list[str], words: list[str]) -> None:
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["serve", "--repository", "/nowhere/at/all", "--http-port", "0", "--grpc-port", "0"],
            ["--repository"],
        ),
    ],
)
def test_a_failure_is_one_line_and_exit_1(run: Run, arguments: list[str], words: list[str]) -> None:
    status, out, err = run(*arguments)
    assert status == 1
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("nonet: ")]
    for word in words:
        assert word in line


def test_a_taken_port_is_told_with_the_flag_that_changes_it(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        repository = ["--repository", str(tmp_path)]
        status, _, err = run("service", "recognition", "--port", port, *repository)
        assert (status, err.split()[-1]) == (1, "--port")
        status, _, err = run("serve", "--http-port", "0", "--grpc-port", port, *repository)
        assert (status, err.split()[-1]) == (1, "--grpc-port")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Make a command that raises."""
    app = typer.Typer(pretty_exceptions_enable=False)
    monkeypatch.setattr(cli, "app", app)

    def define(error: Exception) -> None:
        @app.command("fail")
        def fail() -> None:
            raise error

        app.command("other")(lambda: None)

    return define


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CommandFailed("do this instead"), "nonet: do this instead"),
        (NotFound("unknown model 'x'"), "nonet: unknown model 'x'"),
        (PermissionError(13, "Permission denied", "there"), "nonet: permission denied: there"),
        (ModuleNotFoundError("no", name="torch"), "pip install"),
        (ModuleNotFoundError("no", name="surprise"), "nonet doctor"),
        (RuntimeError("two\nlines"), "nonet: two lines (details: --debug)"),
        (RuntimeError(), "nonet: RuntimeError (details: --debug)"),
    ],
)
def test_whatever_a_command_raises_is_one_line(
    run: Run, failing: Callable[[Exception], None], error: Exception, text: str
) -> None:
    failing(error)
    status, _, err = run("fail")
    assert status == 1
    assert text in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("line", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_shows_the_traceback(run: Run, failing: Callable[[Exception], None], line: list[str]) -> None:
    failing(RuntimeError("deep"))
    status, _, err = run(*line)
    assert status == 1
    assert "Traceback" in err
    assert err.rstrip().endswith("nonet: deep (details: --debug)")


def test_the_module_and_the_console_script_give_the_status_to_the_shell() -> None:
    for command in ([sys.executable, "-m", "nonet.cli.main"], [str(Path(sys.executable).with_name("nonet"))]):
        if not Path(command[0]).exists():
            pytest.skip("the console script is not installed in this environment")
        result = subprocess.run([*command, "srve"], capture_output=True, text=True)
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 1


# -- doctor, data, settings


def test_doctor_finds_what_serving_needs(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("doctor", "--json", "--repository", str(tmp_path))
    findings = {(entry["area"], entry["subject"]): entry for entry in json.loads(out)}
    assert status == 0
    assert findings[("engine", "onnxruntime")]["state"] == "ok"
    assert findings[("device", "cpu")]["state"] == "ok"
    assert findings[("package", "grpcio")]["state"] == "ok"
    assert findings[("models", str(tmp_path))]["state"] == "missing"
    assert "nonet models pull" in findings[("models", str(tmp_path))]["detail"]
    assert {("extra", "matplotlib"), ("extra", "pyarrow")} <= findings.keys()
    for entry in findings.values():
        if entry["area"] == "extra" and entry["state"] == "missing":
            assert "-m pip install " in entry["detail"]
            assert "nonet[" not in entry["detail"]


def test_doctor_says_of_gpus_what_there_is_or_why_there_is_none(run: Run) -> None:
    _, out, _ = run("doctor", "--json")
    found = [entry for entry in json.loads(out) if entry["subject"].startswith("gpu")]
    assert found
    for entry in found:
        if entry["state"] == "ok":
            assert "unverified" in entry["detail"]
        else:
            assert entry["state"] == "missing"
            assert entry["detail"]


def test_doctor_asks_the_services_of_a_topology(run: Run, server: RunningServer, tmp_path: Path) -> None:
    topology = tmp_path / "topology.toml"
    answering, dead = f"127.0.0.1:{server.grpc_port}", f"127.0.0.1:{free_port()}"
    topology.write_text(
        "".join(f'[[service]]\nname = "recognition"\naddress = "{each}"\n' for each in (answering, dead))
    )
    status, out, _ = run("doctor", "--json", "--topology", str(topology))
    findings = {entry["subject"]: entry for entry in json.loads(out)}
    assert status == 1
    assert findings[f"recognition at {answering}"]["state"] == "ok"
    assert "echo_fp32" in findings[f"recognition at {answering}"]["detail"]
    assert findings[f"recognition at {dead}"]["state"] == "broken"
    assert "UNAVAILABLE" in findings[f"recognition at {dead}"]["detail"]


def test_doctor_reports_a_topology_that_is_none(run: Run, tmp_path: Path) -> None:
    topology = tmp_path / "topology.toml"
    topology.write_text('[[service]]\nname = "recognition"\naddres = "127.0.0.1:9001"\n')
    status, out, _ = run("doctor", "--json", "--topology", str(topology))
    (finding,) = [entry for entry in json.loads(out) if entry["subject"] == str(topology)]
    assert status == 1
    assert "did you mean 'address'" in finding["detail"]


def test_doctor_prints_a_table_that_keeps_brackets(run: Run) -> None:
    status, out, _ = run("doctor")
    assert status == 0
    assert "onnxruntime" in out


def test_doctor_names_a_broken_engine_and_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("no such instruction")

    monkeypatch.setattr("nonet.cli.doctor._try", broken)
    status, out, _ = run("doctor", "--json")
    assert status == 1
    broken_ones = [entry for entry in json.loads(out) if entry["state"] == "broken"]
    assert broken_ones
    assert "no such instruction" in broken_ones[0]["detail"]


def test_data_says_where_each_set_comes_from(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kodak").mkdir()
    monkeypatch.setenv("NONET_DATA", str(tmp_path))
    status, out, _ = run("data")
    assert status == 0
    assert f"1 of {len(DATASETS)} are in" in " ".join(out.split())
    monkeypatch.delenv("NONET_DATA")
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("data")
    assert status == 0
    assert "NONET_DATA" in out
    for dataset in DATASETS:
        assert dataset.name in out
        assert dataset.licence
        assert dataset.origin


def test_data_knows_every_set_that_is_here(data_root: Path) -> None:
    here = {path.name for path in data_root.iterdir() if path.is_dir()}
    assert here <= {dataset.name for dataset in DATASETS}


def test_settings_prints_toml_that_can_be_given_back(run: Run, tmp_path: Path) -> None:
    import tomllib

    config = tmp_path / "nonet.toml"
    config.write_text("[server]\nhttp_port = 9\n[auth.keys]\nalice = 'sesame'\n")
    status, out, _ = run("settings", "--config", str(config))
    assert status == 0
    assert "sesame" not in out
    values = tomllib.loads(out)
    assert values["server"]["http_port"] == 9
    config.write_text(out)
    assert run("settings", "--config", str(config)) == (0, out, "")


def test_settings_prints_the_reference_page(run: Run) -> None:
    status, out, _ = run("settings", "--reference")
    assert status == 0
    assert out.startswith("# Settings\n")
