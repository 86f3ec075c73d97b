"""Whether a tensor holds only finite numbers, in one pass over its bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from nonet.runtime.tensors import DataType, Tensor

# Exponent bits of the two-byte floats: all of them set means infinity or NaN. numpy's own isfinite is
# vectorised for the wider floats but converts these one by one.
_EXPONENT: dict[DataType, Any] = {DataType.FP16: np.uint16(0x7C00), DataType.BF16: np.uint16(0x7F80)}


def is_finite(tensor: Tensor) -> bool:
    """True if no element is NaN or infinite; integers, booleans and bytes always are finite."""
    if not tensor.datatype.is_float:
        return True
    exponent = _EXPONENT.get(tensor.datatype)
    if exponent is None:
        return bool(np.isfinite(tensor.data).all())
    bits = tensor.data.view(np.uint16)
    return not ((bits & exponent) == exponent).any()
