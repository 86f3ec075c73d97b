"""A loaded network that multiplies, without an engine: for what is done with any loaded network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nonet.runtime.backends import BackendError
from nonet.runtime.tensors import Array


class Scale:
    """A network that multiplies, and notices when it is run after it was unloaded."""

    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.unloaded = False

    def warm_up(self, inputs: Mapping[str, Array]) -> None:
        self.infer(inputs, ["y"])

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        if self.unloaded:
            raise BackendError("run after it was unloaded")
        return {"y": inputs["x"] * self.factor}

    def release_memory(self, inputs: Mapping[str, Array]) -> None:
        assert not self.unloaded

    def unload(self) -> None:
        assert not self.unloaded
        self.unloaded = True

    def describe(self) -> dict[str, Any]:
        return {"factor": self.factor}
