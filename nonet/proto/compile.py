"""Compile every `.proto` of this package into ``descriptors.binpb``.

Run ``python -m nonet.proto.compile`` after an edit; ``--check`` only says whether the file is up to date
(exit status 1 if not). Needs grpcio-tools, which is part of the extra ``test``; serving does not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TARGET = FOLDER / "descriptors.binpb"


def sources(folder: Path = FOLDER) -> list[str]:
    """The `.proto` files below ``folder``, relative to it, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.proto"))


def compiled(folder: Path = FOLDER) -> bytes:
    """The serialised FileDescriptorSet of every `.proto` below ``folder``.

    Comments are not in it, so rewording one changes nothing. Raises ValueError if the compiler refuses a
    file (its own message goes to standard error) and ImportError without grpcio-tools.
    """
    from grpc_tools import protoc  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "descriptors.binpb"
        status = protoc.main(
            ["protoc", f"--proto_path={folder}", f"--descriptor_set_out={target}", *sources(folder)]
        )
        if status != 0:
            raise ValueError("the protobuf compiler refused a file; see its message above")
        return target.read_bytes()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the descriptor set, or with ``--check`` compare it. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m nonet.proto.compile", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is stale")
    options = parser.parse_args(arguments)
    fresh = compiled()
    if options.check:
        if TARGET.is_file() and TARGET.read_bytes() == fresh:
            return 0
        sys.stderr.write(f"{TARGET.name} is stale: run python -m nonet.proto.compile\n")
        return 1
    TARGET.write_bytes(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
