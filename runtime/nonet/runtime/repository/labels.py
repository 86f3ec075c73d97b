"""Class names: one per line, in the order of the network's outputs."""

from __future__ import annotations

from pathlib import Path

from nonet.runtime.errors import ModelRefused

LABELS_FILE = "labels.txt"
_LARGEST = 16 << 20


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels in ``path``; blank lines at the end do not count. Raises ModelRefused."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as error:
        raise ModelRefused(
            f"labels '{path.name}' cannot be read ({error.strerror})", permanent=False
        ) from None
    if len(raw) > _LARGEST:
        raise ModelRefused(f"labels '{path.name}' are larger than 16 MiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ModelRefused(f"labels '{path.name}' are not UTF-8 text") from None
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)


def write_labels(labels: tuple[str, ...]) -> bytes:
    """The file's content. Raises ValueError for a label that holds a line break."""
    for label in labels:
        if "\n" in label or "\r" in label:
            raise ValueError(f"a label must not hold a line break: {label!r}")
    return "".join(f"{label}\n" for label in labels).encode()
