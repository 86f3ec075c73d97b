"""Files beside an exported network: JSON configurations, names of classes, and a model card's licence."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any, Final

from nonet.runtime.errors import ModelRefused
from nonet.runtime.network_import import NetworkRefused
from nonet.runtime.repository.labels import read_labels

CONFIG: Final = "config.json"
PROCESSOR: Final = "preprocessor_config.json"
LABEL_FILES: Final = ("labels.txt", "class_names.txt", "classes.txt")
_CARD: Final = "README.md"
_LARGEST_TEXT: Final = 16 << 20
_LICENCE: Final = re.compile(r"^license:[ \t]*['\"]?([^'\"\n]+)", re.MULTILINE)


def folders_of(file: Path) -> tuple[Path, ...]:
    """The file's folder, and the one above where that is called ``onnx``."""
    folder = file.resolve().parent
    return (file.parent, folder.parent) if folder.name == "onnx" else (file.parent,)


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None without one. Raises NetworkRefused."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_TEXT + 1)
        value = json.loads(text) if len(text) <= _LARGEST_TEXT else None
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise NetworkRefused(f"{path.name} beside it cannot be read as a JSON object")
    return value


def labels_in(folder: Path) -> tuple[tuple[str, ...], str]:
    """Names of classes and the file that has them; empty without one. Raises NetworkRefused."""
    for name in LABEL_FILES:
        path = folder / name
        if path.is_file():
            try:
                return read_labels(path), name
            except ModelRefused as refused:
                raise NetworkRefused(refused.reason) from None
    return (), ""


def card_licence(folder: Path) -> str:
    """``license:`` of a model card's head, "" without."""
    try:
        with (folder / _CARD).open("rb") as file:
            text = file.read(1 << 16).decode("utf-8", "replace")
    except OSError:
        return ""
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    found = _LICENCE.search(head)
    return found[1].strip() if found else ""


def literal(text: str, name: str) -> Any:
    """A Python literal, as Ultralytics writes them into ONNX metadata. Raises NetworkRefused."""
    try:
        return ast.literal_eval(text) if len(text) <= _LARGEST_TEXT else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise NetworkRefused(f"its metadata '{name}' cannot be read") from None
