"""The archive of pictures that a distillation is given: checked and copied before there is a job."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Final

from nonet.runtime.errors import InvalidArgument, PayloadTooLarge, UndecodableMedia

__all__ = ["FEWEST", "MOST", "check_archive", "copy"]

#: Bounds of the number of pictures.
FEWEST: Final = 40
MOST: Final = 50_000
_PARAM: Final = "pictures"
_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_STEP: Final = 1 << 20
_UNREADABLE: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
)


def check_archive(path: Path, most_bytes: int) -> int:
    """The number of picture files in a zip or a tar (also compressed); their pixels are not looked at.

    Raises UndecodableMedia for another file or a damaged one, InvalidArgument for too few pictures,
    PayloadTooLarge for too many or for more than ``most_bytes`` when unpacked.
    """
    count = size = 0
    try:
        for name, length in _members(path):
            size += length
            if size > most_bytes:
                raise PayloadTooLarge(
                    f"the archive holds more than {most_bytes} bytes when unpacked", param=_PARAM
                )
            if name.lower().endswith(_SUFFIXES):
                count += 1
                if count > MOST:
                    raise PayloadTooLarge(f"the archive holds more than {MOST} pictures", param=_PARAM)
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UndecodableMedia(
            "field 'pictures' must be a whole zip or tar archive of pictures", param=_PARAM
        ) from None
    if count < FEWEST:
        raise InvalidArgument(
            f"the archive holds {count} pictures ({', '.join(_SUFFIXES)}); send at least {FEWEST}",
            param=_PARAM,
        )
    return count


def _members(path: Path) -> list[tuple[str, int]]:
    """Names and unpacked sizes of the files; no more than twice the most that are of use."""
    found: list[tuple[str, int]] = []
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return [(each.filename, each.file_size) for each in archive.infolist() if not each.is_dir()]
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile():
                found.append((member.name, member.size))
            if len(found) > 2 * MOST:
                break
    return found


def copy(source: Path, target: Path) -> str:
    """Copy to the new file ``target``; sha256 (hex) of the content. Raises OSError when the disk is full."""
    seen = hashlib.sha256()
    with source.open("rb") as file, target.open("xb") as out:
        while piece := file.read(_STEP):
            seen.update(piece)
            out.write(piece)
    return seen.hexdigest()
