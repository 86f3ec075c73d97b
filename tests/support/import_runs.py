"""Runs of ``nonet models import``: what they print, how they end, and options for a silent export."""

from __future__ import annotations

from pathlib import Path

import pytest

from nonet.cli.main import main

SAID = (
    "--mean",
    "0.485,0.456,0.406",
    "--std",
    "0.229,0.224,0.225",
    "--resize",
    "36",
    "--interpolation",
    "bilinear",
)


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    status = main(["models", "import", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    *words: str | Path,
    status: int,
    needles: tuple[str, ...],
) -> None:
    got, out, err = run(capsys, *words, "--as", "net", "--repository", tmp_path / "models")
    assert got == status, (out, err)
    assert err.count("\n") == 1, err
    for needle in needles:
        assert needle in err
    assert not list((tmp_path / "models").glob("*"))
