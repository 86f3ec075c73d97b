"""Makes the environments of the peers, one each: ``python bench/peers/environments.py [NAME ...]``.

They are no part of the product and are made on demand. Triton and Ray have theirs from the Makefile, since
tests use them too. What is installed already is left as it is.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main(names: list[str]) -> None:
    """Make those that are named, by default all; one that cannot be made is said and left out."""
    for wanted in sorted((HERE / "requirements").glob("*.in")):
        place = ROOT / ".venv" / "peers" / wanted.stem
        done = place / ".ready"
        if (names and wanted.stem not in names) or (
            done.is_file() and done.read_text() == wanted.read_text()
        ):
            continue
        print(f"making {place.relative_to(ROOT)}", flush=True)
        venv.create(place, with_pip=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        if subprocess.run([*pip, "install", "-r", str(wanted)]).returncode:
            print(f"no {wanted.stem} here: it is left out")
        else:
            done.write_text(wanted.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
