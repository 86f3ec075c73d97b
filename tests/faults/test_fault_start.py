"""Case 74 and its kind: what is wrong at the start is said in one line, with exit status 1 or 2."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.running_server import RunningServer, write_settings


def serve(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run ``nonet serve`` that is expected to refuse; its exit status and everything it said."""
    command = [
        sys.executable,
        "-m",
        "nonet.cli.main",
        "serve",
        "--http-port",
        "0",
        "--grpc-port",
        "0",
        *arguments,
    ]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("NONET_")}
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={**variables, "XDG_CACHE_HOME": str(folder), **(environment or {})},
    )
    text = result.stdout + result.stderr
    assert "Traceback" not in text
    return result.returncode, text


@pytest.mark.parametrize(
    ("section", "wrong", "right"),
    [
        ("server", "http_prot", "http_port"),
        ("repository", "poll_second", "poll_seconds"),
    ],
)
def test_case_74_a_typo_in_the_file_is_refused_with_the_nearest_key(
    tmp_path: Path, small_repository: Path, section: str, wrong: str, right: str
) -> None:
    config = write_settings(tmp_path / "nonet.toml", {section: {wrong: 1}})
    status, text = serve(tmp_path, "--config", str(config), "--repository", str(small_repository))
    assert status in (1, 2)
    assert wrong in text
    assert right in text


def test_case_74_a_typo_in_the_environment_is_refused_with_the_nearest_key(
    tmp_path: Path, small_repository: Path
) -> None:
    typo = {"NONET_SERVER__GRACEE": "3"}
    status, text = serve(tmp_path, "--repository", str(small_repository), environment=typo)
    assert status in (1, 2)
    assert "NONET_SERVER__GRACE" in text


def test_case_74_a_value_out_of_range_is_refused_by_name(tmp_path: Path, small_repository: Path) -> None:
    config = write_settings(tmp_path / "nonet.toml", {"server": {"grace": -1}})
    status, text = serve(tmp_path, "--config", str(config), "--repository", str(small_repository))
    assert status in (1, 2)
    assert "grace" in text


def test_a_repository_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    status, text = serve(tmp_path, "--repository", str(tmp_path / "nowhere"))
    assert status in (1, 2)
    assert "nowhere" in text


def test_an_unknown_flag_is_bad_usage(tmp_path: Path) -> None:
    status, text = serve(tmp_path, "--prot", "1")
    assert status == 2
    assert "--prot" in text


def test_a_port_in_use_is_one_clear_line(
    start_server: Callable[..., RunningServer], small_repository: Path, tmp_path: Path
) -> None:
    server = start_server(small_repository)
    status, text = serve(
        tmp_path, "--http-port", str(server.http_port), "--repository", str(small_repository)
    )
    assert status == 1
    assert str(server.http_port) in text


def test_the_cache_folder_variable_is_no_setting(
    start_server: Callable[..., RunningServer], small_repository: Path, tmp_path: Path
) -> None:
    """NONET_CACHE says where measured profiles are kept; there is also a section of settings called cache."""
    server = start_server(small_repository, environment={"NONET_CACHE": str(tmp_path / "profiles")})
    assert server.http.get("/v2/health/ready").status_code == 200


def test_serving_never_imports_torch(server: RunningServer) -> None:
    """Read from the process itself: no torch library is mapped into its memory."""
    mapped = {Path(region.path).name for region in server.process.memory_maps()}
    assert any("onnxruntime" in name for name in mapped)
    assert not any(name.startswith(("libtorch", "libc10")) for name in mapped)
