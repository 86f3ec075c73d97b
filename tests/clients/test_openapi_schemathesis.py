"""Schemathesis over our own OpenAPI: no generated request may find a crash or an undocumented answer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running_server import RunningServer, running

SECONDS = 25
ANSWERS = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 502, 503, 504]
"""  # 502 to 504 are answers of the contract: a model's NaN, overload, a deadline that has passed
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
]


@pytest.fixture(scope="module")
def lone(fault_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of its own: the generated requests unload models."""
    with running(fault_repository, tmp_path_factory.mktemp("schemathesis")) as started:
        yield started


@pytest.mark.timeout(SECONDS * 3)
def test_generated_requests_find_no_crash_and_no_undocumented_answer(
    lone: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "schemathesis.toml").write_text(ANSWERS)
    program = Path(sys.executable).parent / "schemathesis"
    command = [str(program) if program.exists() else str(shutil.which("schemathesis")), "run"]
    command += [
        f"{lone.url}/openapi.json",
        "--checks",
        ",".join(CHECKS),
        "--phases",
        "examples,coverage,fuzzing",
    ]
    command += [
        "--max-time",
        str(SECONDS),
        "--max-examples",
        "20",
        "--generation-deterministic",
        "--no-shrink",
    ]
    command += ["--no-color", "--continue-on-failure", "--warnings", "off"]
    command += ["--request-timeout", "20", "--suppress-health-check", "all"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=SECONDS * 2.5)
    assert result.returncode == 0, result.stdout[-12_000:] + result.stderr[-2_000:]
    assert lone.http.get("/v2/health/live").status_code == 200


def test_the_openapi_document_is_valid_and_documents_errors(lone: RunningServer) -> None:
    schema = lone.http.get("/openapi.json").json()
    assert schema["openapi"].startswith("3.")
    for path, operations in schema["paths"].items():
        for verb, operation in operations.items():
            if verb in ("get", "post", "put", "delete"):
                assert operation["responses"], (verb, path)
                assert operation.get("summary") or operation.get("description"), (verb, path)
