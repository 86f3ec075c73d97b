"""Pictures to distil with: a folder, a zip or a tar of photographs, labelled by the names of their folders.

A picture whose folder is called as a class of the teacher, but for case and punctuation, has that label; any
other has none and teaches all the same. A tenth of the pictures is held back for the measurement at the end.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nonet.research.stablekd.distillation import UNLABELLED
from nonet.runtime.errors import InvalidArgument, ServingError
from nonet.runtime.images import ImageLimits, Preprocessing, decode_image, preprocess

__all__ = ["FEWEST", "MOST_BYTES", "Photographs", "Split", "members", "read_photographs"]

#: Fewer pictures than this cannot teach and be measured.
FEWEST: Final = 40
#: Of pixels that are kept in memory; putting them in order takes twice as much for a moment.
MOST_BYTES: Final = 1 << 30
#: What reading one damaged member of an archive raises.
_DAMAGED: Final = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError)
_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Split:
    """Pictures uint8 [N, 3, side, side] and labels int64 [N], -1 for none."""

    pictures: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Photographs:
    """Both parts, and how many files were no pictures."""

    train: Split
    test: Split
    refused: int

    @property
    def labelled(self) -> bool:
        """Whether every picture of the last measurement has a label."""
        return bool((self.test.labels != UNLABELLED).all())


def members(source: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size in bytes and content of each picture file of a folder, a zip or a tar: in the order of names
    or that of the archive. Raises InvalidArgument for another file."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file() and path.suffix.lower() in _SUFFIXES:
                with path.open("rb") as file:
                    yield str(path.relative_to(source)), path.stat().st_size, file
    elif zipfile.is_zipfile(source):
        try:
            with zipfile.ZipFile(source) as archive:
                for info in archive.infolist():
                    if info.filename.lower().endswith(_SUFFIXES) and not info.is_dir():
                        with archive.open(info) as file:
                            yield info.filename, info.file_size, file
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise InvalidArgument(f"the zip file cannot be read: {error}", param="pictures") from None
    else:
        try:
            with tarfile.open(source) as archive:
                for entry in archive:
                    content = archive.extractfile(entry) if entry.isfile() else None
                    if content is not None and entry.name.lower().endswith(_SUFFIXES):
                        yield entry.name, entry.size, content
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InvalidArgument(
                f"the pictures must be a folder, a zip or a tar: {error}", param="pictures"
            ) from None


def read_photographs(
    source: Path, labels: Sequence[str], spec: Preprocessing, seed: int, limits: ImageLimits | None = None
) -> Photographs:
    """Every picture, upright, as the square of side ``spec.resize`` in its middle.

    Args:
        source: folder, zip or tar.
        labels: of the teacher's classes.
        spec: of the teacher.
        seed: of the parts.
        limits: bounds of one picture.

    Raises InvalidArgument for fewer than 40 pictures or for more than fit in 1 GiB.
    """
    limits = limits or ImageLimits()
    index_of = {_plain(name): index for index, name in enumerate(labels)}
    whole = Preprocessing(
        resize=spec.resize, crop=spec.resize, interpolation=spec.interpolation, mean=(0, 0, 0), std=(1, 1, 1)
    )
    found: list[NDArray[np.uint8]] = []
    known: list[int] = []
    refused = 0
    for name, size, file in members(source):
        if size > limits.encoded_bytes:
            refused += 1
            continue
        try:
            content = file.read(limits.encoded_bytes + 1)
            decoded = decode_image(content, limits=limits, target=whole.target)
        except (ServingError, *_DAMAGED):
            refused += 1
            continue
        found.append(np.rint(preprocess(decoded, whole) * 255).astype(np.uint8))
        known.append(index_of.get(_plain(PurePosixPath(name).parent.name), UNLABELLED))
        if len(found) * found[0].nbytes > MOST_BYTES:
            raise InvalidArgument(
                f"more than {len(found) - 1} pictures of {spec.resize} pixels do not fit; send fewer",
                param="pictures",
            )
    if len(found) < FEWEST:
        raise InvalidArgument(
            f"{len(found)} pictures are too few to teach and to measure ({refused} files could not be read); "
            f"send at least {FEWEST}",
            param="pictures",
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(found)))
    pictures, wanted = torch.from_numpy(np.stack(found))[order], torch.tensor(known)[order]
    tenth = len(found) // 10
    return Photographs(
        train=Split(pictures[tenth:], wanted[tenth:]),
        test=Split(pictures[:tenth], wanted[:tenth]),
        refused=refused,
    )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
