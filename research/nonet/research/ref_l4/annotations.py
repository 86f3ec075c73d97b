"""Rows of a grounding benchmark, from Ref-L4's Parquet files, from JSON lines, and from RefCOCO's lists."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from nonet.runtime.errors import InvalidArgument

__all__ = ["SPLITS", "Annotation", "in_split", "read_annotations"]

Split = Literal["val", "test", "all"]
SPLITS: Final = ("val", "test", "all")
_PARQUET: Final = ("ref-l4-val.parquet", "ref-l4-test.parquet")
_REFCOCO: Final = "refcoco"


@dataclass(frozen=True, slots=True)
class Annotation:
    """An expression and the one box that it means (paper, section 2.4 of the specification).

    Args:
        id: unique over all splits; the key of predictions.
        caption: the referring expression.
        box: x, y, width, height in pixels from the top left corner.
        category: with its source before it, e.g. ``o365_64`` or ``refcoco_1``; "" if unknown.
        image: name of the picture's file.
        width, height: of the picture in pixels; 0 if unknown.
        instance: of the object, the same for its rephrasings; "" if unknown.
        rewritten: whether the expression is a rephrasing.
        split: ``val``, ``test`` or another name.
        nothing: whether it describes nothing in the picture; the box is then without meaning.
        kind: of the expression, for tables by kind; "" if unknown.
    """

    id: int
    caption: str
    box: tuple[float, float, float, float]
    category: str = ""
    image: str = ""
    width: int = 0
    height: int = 0
    instance: str = ""
    rewritten: bool = False
    split: str = "val"
    nothing: bool = False
    kind: str = ""

    @property
    def size(self) -> float:
        """sqrt(width * height) of the box in pixels."""
        return float((self.box[2] * self.box[3]) ** 0.5)

    @property
    def words(self) -> list[str]:
        """The lower-cased tokens between white space."""
        return self.caption.lower().split()


def read_annotations(source: Path) -> list[Annotation]:
    """A folder with Ref-L4's two Parquet files, a Parquet file, or JSON lines (also gzipped), in their order.

    JSON lines are in Ref-L4's columns, or in those of RefCOCO lists (`expression`, `bbox_xywh`), whose ids
    are the numbers of their lines where they have none. Raises InvalidArgument for anything else.
    """
    if source.is_dir():
        files = [source / name for name in _PARQUET if (source / name).is_file()]
        if not files:
            raise InvalidArgument(f"{source} has neither of {' and '.join(_PARQUET)}", param="data")
    elif source.is_file():
        files = [source]
    else:
        raise InvalidArgument(f"there is no file or folder {source}", param="data")
    rows = [_annotation(row, number, file) for file in files for number, row in enumerate(_rows(file))]
    _check_unique(rows, source)
    return rows


def in_split(annotations: Iterable[Annotation], split: Split) -> list[Annotation]:
    """Those of a split; ``all`` are those of val, then those of test, then all others.

    Raises InvalidArgument for an unknown split.
    """
    if split not in SPLITS:
        raise InvalidArgument(f"the split is one of {', '.join(SPLITS)}, not '{split}'", param="split")
    rows = list(annotations)
    if split != "all":
        return [row for row in rows if row.split == split]
    order = {"val": 0, "test": 1}
    return sorted(rows, key=lambda row: order.get(row.split, 2))


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    if file.suffix == ".parquet":
        from pyarrow import parquet

        yield from parquet.read_table(file).to_pylist()
        return
    content = file.read_bytes()
    try:
        text = (gzip.decompress(content) if file.suffix == ".gz" else content).decode()
    except (OSError, EOFError, UnicodeDecodeError):
        raise InvalidArgument(f"{file.name} is no text of JSON lines", param="data") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise InvalidArgument(f"{file.name}: line {number} is no JSON object", param="data")
            yield row


def _annotation(row: Mapping[str, Any], number: int, file: Path) -> Annotation:
    try:
        return _ref_l4(row) if "caption" in row else _ref_coco(row, number)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(
            f"{file.name}: row {number} is no annotation of Ref-L4 or RefCOCO ({error!r})",
            param="data",
        ) from None


def _ref_l4(row: Mapping[str, Any]) -> Annotation:
    return Annotation(
        id=int(row["id"]),
        caption=str(row["caption"]),
        box=_four(row["bbox"]),
        category=str(row["ori_category_id"]),
        image=str(row["file_name"]),
        width=int(row["width"]),
        height=int(row["height"]),
        instance=str(row["bbox_id"]),
        rewritten=bool(row["is_rewrite"]),
        split=str(row["split"]),
    )


def _ref_coco(row: Mapping[str, Any], number: int) -> Annotation:
    nothing = bool(row.get("empty", False))
    return Annotation(
        id=int(row.get("id", row.get("idx", number))),
        caption=str(row["expression"]),
        box=(0.0, 0.0, 0.0, 0.0) if nothing else _four(row["bbox_xywh"]),
        category=f"{_REFCOCO}_{row['category_id']}" if "category_id" in row else "",
        image=str(row["file_name"]),
        width=int(row.get("width", 0)),
        height=int(row.get("height", 0)),
        instance=str(row.get("ann_id", "")),
        split=str(row.get("split", "val")),
        nothing=nothing,
        kind=str(row.get("kind", "")),
    )


def _four(value: Sequence[Any]) -> tuple[float, float, float, float]:
    x, y, width, height = (float(each) for each in value)
    return x, y, width, height


def _check_unique(rows: Sequence[Annotation], source: Path) -> None:
    seen: set[int] = set()
    for row in rows:
        if row.id in seen:
            raise InvalidArgument(f"{source.name} has the id {row.id} twice", param="data")
        seen.add(row.id)
