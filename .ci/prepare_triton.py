"""Make the Triton server of requirements/tritonserver.in usable with the Python that runs this, and let that
Python find Nonet in the checkout: ``python prepare_triton.py CHECKOUT``."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

_WINGS = ("gateway", "services", "runtime", "jobs")


def main(checkout: Path) -> None:
    """The Python backend starts a program made for one release of Python; those for others go."""
    packages = Path(sysconfig.get_paths()["purelib"])
    server = packages / "pytriton" / "tritonserver"
    programs = server / "python_backend_stubs"
    release = f"{sys.version_info.major}.{sys.version_info.minor}"
    if programs.is_dir():
        shutil.copy2(programs / release / "triton_python_backend_stub", server / "backends" / "python")
        shutil.rmtree(programs)
    lines = [str(checkout.resolve() / wing) for wing in _WINGS]
    (packages / "nonet_checkout.pth").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
