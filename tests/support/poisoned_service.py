"""The command ``nonet``, but for networks whose process ends when they are given the value of poison.

Run as a file in the place of the command; the processes, their sockets and their deaths are real.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from nonet.cli.main import main
from nonet.runtime.backends.onnxruntime import OnnxRuntimeNetwork

POISON: Final = 666.0
_infer = OnnxRuntimeNetwork.infer


def _poisoned(self: OnnxRuntimeNetwork, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
    if any((array == POISON).any() for array in inputs.values() if array.dtype == np.float32):
        os._exit(9)
    return _infer(self, inputs, outputs)


if __name__ == "__main__":
    OnnxRuntimeNetwork.infer = _poisoned  # type: ignore[method-assign]
    sys.exit(main())
