"""Long commands: never silent for long, ended by Ctrl-C at once, and the last word says how to go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import handmade_networks

PROGRAM = """
import ctypes, sys, time
from nonet.cli import long_work
from nonet.cli.failure import CommandFailed

long_work.QUIET_SECONDS = 0.05
try:
    with long_work.long_work("baking", "go on with: bake --resume") as say:
        if sys.argv[1] != "silent":
            say("kneading")
        print("begun", flush=True)
        if sys.argv[1] == "python":
            while True:
                time.sleep(0.01)
        elif sys.argv[1] == "library":
            ctypes.CDLL(None).nanosleep((ctypes.c_long * 2)(600, 0), None)
            while True:  # a library that goes on whatever came
                ctypes.CDLL(None).nanosleep((ctypes.c_long * 2)(600, 0), None)
        elif sys.argv[1] == "stubborn":
            while True:
                try:
                    time.sleep(600)
                except KeyboardInterrupt:
                    pass
        time.sleep(1)
except CommandFailed as failed:
    print(failed, file=sys.stderr)
    raise SystemExit(failed.status)
print("done")
"""


def start(kind: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["python", "library", "stubborn"])
def test_a_signal_ends_it_and_it_says_how_to_go_on(kind: str, number: signal.Signals) -> None:
    process = start(kind)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1].endswith("stopped; go on with: bake --resume"), err
    assert "Traceback" not in err


def test_silent_work_is_heard_of() -> None:
    process = start("silent")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n")
    lines = err.splitlines()
    assert len(lines) >= 2, err
    assert all(line.startswith("baking: ") and line.endswith(" s so far") for line in lines), err


def test_what_a_program_reads_is_json_alone(tmp_path: Path) -> None:
    handmade_networks.add_identity(tmp_path / "models", "echo", "FP32", (2,))
    command = [sys.executable, "-m", "nonet.cli.main", "models", "verify", "--json"]
    result = subprocess.run(
        [*command, "--repository", str(tmp_path / "models")],
        capture_output=True,
        text=True,
        env={**os.environ, "NONET_CACHE": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(result.stdout)
    assert (row["model"], row["result"]) == ("echo", "ok")
