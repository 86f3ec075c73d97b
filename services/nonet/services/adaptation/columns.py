"""One row of a regressor's input, from JSON or the cells of a table: numbers by position or by name, judged
with the row and the column named."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.tensors import Array

__all__ = ["Columns"]

_LARGEST = float(np.finfo(np.float32).max)
_SHOWN = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Columns:
    """What a row of a regressor is.

    Args:
        shape: of one row: (F,) of a table, (C, T) of windows.
        features: names of the F columns, or of the C channels; () if they have none.
        param: the field that errors name.
    """

    shape: tuple[int, ...]
    features: tuple[str, ...] = ()
    param: str = "inputs"

    @property
    def size(self) -> int:
        """Numbers of a row."""
        return math.prod(self.shape)

    def read(self, value: Any, row: int) -> Sequence[float]:
        """The numbers of one row.

        Args:
            value: a list of numbers (of windows also a list of lists), or, of a table with named columns, an
                object; columns that the model does not have are left out.
            row: its index, for errors.

        Raises InvalidArgument that names the row and the column.
        """
        if isinstance(value, dict):
            return self._named(value, row)
        if not isinstance(value, list):
            raise self._refused(
                f"row {row} must be a list of {self.size} numbers{self._or_object}, got {_shown(value)}"
            )
        numbers: list[Any] = value
        if len(self.shape) == 2 and value and isinstance(value[0], list):
            numbers = self._flat(value, row)
        if len(numbers) != self.size:
            raise self._refused(
                f"row {row} has {len(numbers)} numbers, the model takes {self.size}{self._listed}"
            )
        for column, number in enumerate(numbers):
            if type(number) is not float and type(number) is not int:
                raise self._not_a_number(row, self._called(column), number)
            if not -_LARGEST <= number <= _LARGEST:
                raise self._not_finite(row, self._called(column), number)
        return numbers

    def read_all(self, values: Sequence[Any]) -> Array:
        """Rows FP32 [N, *shape]. Raises InvalidArgument."""
        found = np.empty((len(values), self.size), np.float32)
        for row, value in enumerate(values):
            found[row] = self.read(value, row)
        return found.reshape(len(values), *self.shape)

    def check_array(self, rows: Array, first: int = 0) -> None:
        """Whether FP32 rows [N, *shape] hold finite numbers only; ``first`` is the index of the first.

        Raises InvalidArgument.
        """
        bad = ~np.isfinite(rows.reshape(len(rows), self.size))
        if bad.any():
            row, column = (int(each[0]) for each in np.nonzero(bad))
            number = rows.reshape(len(rows), self.size)[row, column]
            raise self._not_finite(first + row, self._called(column), number)

    def places(self, header: Sequence[str]) -> list[int]:
        """Where in a table's header each of the columns is; further columns are left out.

        Raises InvalidArgument for a missing or a repeated one, or where the columns have no names.
        """
        if not self.features or len(self.shape) != 1:
            raise self._refused(
                "the table has a header, and the model's columns have no names: leave it out, and send "
                f"{self.size} numbers a row"
            )
        names = [name.strip() for name in header]
        missing = [name for name in self.features if name not in names]
        if missing:
            raise self._refused(
                f"the table has no column {', '.join(map(repr, missing[:_SHOWN]))}; the model needs "
                f"{self._names}"
            )
        twice = next((name for name in self.features if names.count(name) > 1), None)
        if twice is not None:
            raise self._refused(f"the table has more than one column {twice!r}")
        return [names.index(name) for name in self.features]

    def number(self, cell: str, row: int, column: int) -> float:
        """The number in a cell of a table. Raises InvalidArgument."""
        try:
            number = float(cell)
        except ValueError:
            if not cell.strip():
                raise self._refused(f"row {row}, {self._called(column)} is empty") from None
            raise self._not_a_number(row, self._called(column), cell) from None
        if not -_LARGEST <= number <= _LARGEST:
            raise self._not_finite(row, self._called(column), cell)
        return number

    def wrong_count(self, row: int, found: int, wanted: int) -> InvalidArgument:
        """That a row of a table has not as many cells as it should."""
        return self._refused(f"row {row} has {found} cells, not {wanted}{self._listed}")

    # -- inside ---------------------------------------------------------------------------------

    def _named(self, value: Mapping[str, Any], row: int) -> list[float]:
        if not self.features or len(self.shape) != 1:
            raise self._refused(
                f"row {row} is an object, and the model's columns have no names: send a list of "
                f"{self.size} numbers"
            )
        found: list[float] = []
        for name in self.features:
            number = value.get(name)
            if number is None:
                what = "is null" if name in value else "is missing"
                raise self._refused(
                    f"row {row}, column {name!r} {what}; the model needs a number in {self._names}"
                )
            if type(number) is not float and type(number) is not int:
                raise self._not_a_number(row, f"column {name!r}", number)
            if not -_LARGEST <= number <= _LARGEST:
                raise self._not_finite(row, f"column {name!r}", number)
            found.append(number)
        return found

    def _flat(self, value: Sequence[Any], row: int) -> list[Any]:
        channels, steps = self.shape
        if len(value) != channels:
            raise self._refused(f"row {row} has {len(value)} channels, the model takes {channels}")
        flat: list[Any] = []
        for channel, numbers in enumerate(value):
            if not isinstance(numbers, list) or len(numbers) != steps:
                count = len(numbers) if isinstance(numbers, list) else "no"
                raise self._refused(
                    f"row {row}, channel {self._channel(channel)} has {count} numbers, the model takes "
                    f"{steps}"
                )
            flat += numbers
        return flat

    def _called(self, column: int) -> str:
        if len(self.shape) == 2:
            channel, step = divmod(column, self.shape[1])
            return f"channel {self._channel(channel)}, step {step}"
        return f"column {self.features[column]!r}" if self.features else f"column {column}"

    def _channel(self, channel: int) -> str:
        return repr(self.features[channel]) if self.features else str(channel)

    @property
    def _names(self) -> str:
        more = f" and {len(self.features) - _SHOWN} more" if len(self.features) > _SHOWN else ""
        return ", ".join(self.features[:_SHOWN]) + more

    @property
    def _listed(self) -> str:
        return f": {self._names}" if self.features and len(self.shape) == 1 else ""

    @property
    def _or_object(self) -> str:
        return " or an object of them by name" if self.features and len(self.shape) == 1 else ""

    def _not_a_number(self, row: int, column: str, value: Any) -> InvalidArgument:
        return self._refused(f"row {row}, {column} must be a number, got {_shown(value)}")

    def _not_finite(self, row: int, column: str, value: Any) -> InvalidArgument:
        return self._refused(f"row {row}, {column} must be a finite 32-bit number, got {str(value)[:40]}")

    def _refused(self, message: str) -> InvalidArgument:
        return InvalidArgument(message, param=self.param)


def _shown(value: Any) -> str:
    """A value in a message."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    named = {"True": "true", "False": "false", "None": "null"}
    return named.get(repr(value), f"{value!r:.40}")
