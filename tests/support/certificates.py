"""Self-signed TLS certificates for tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def made_certificate(folder: Path) -> tuple[Path, Path]:
    """A key, and a certificate for this address that it has signed itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    command = [openssl, *words.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return key, certificate
