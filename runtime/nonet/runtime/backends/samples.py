"""Valid inputs made from a model's specs, for warm-up and for measuring latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec

_SIZES_TO_TRY = (1, 16, 64, 224)
_SEED = 20240


class SampleInputs:
    """Makes inputs for a model.

    Args:
        specs: the inputs; optional ones are left out.
        batches: whether the leading dimension is the batch's.
        shapes: sizes known from elsewhere (the check set), by input name, without the batch dimension.

    Sizes that are free and not known are guessed: :meth:`try_next_size` moves to the next guess.
    """

    def __init__(
        self,
        specs: Sequence[TensorSpec],
        *,
        batches: bool,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self._specs = [spec for spec in specs if not spec.optional]
        self._batches = batches
        self._shapes = dict(shapes or {})
        self._guess = 0

    @property
    def has_free_sizes(self) -> bool:
        """Whether any size had to be guessed."""
        return any(-1 in self._item_shape(spec) for spec in self._specs)

    def try_next_size(self) -> bool:
        """Move to the next guess for free sizes; False when all were tried (the first is then current)."""
        self._guess = (self._guess + 1) % len(_SIZES_TO_TRY)
        return self._guess != 0

    def make(self, rows: int) -> tuple[Tensor, ...]:
        """Inputs of ``rows`` rows (>= 1; ignored if the model does not batch), the same ones every time."""
        random = np.random.default_rng(_SEED)
        tensors = []
        for spec in self._specs:
            free = _SIZES_TO_TRY[self._guess]
            item = tuple(free if size == -1 else size for size in self._item_shape(spec))
            shape = (rows, *item) if self._batches else item
            tensors.append(Tensor(spec.name, spec.datatype, _values(spec.datatype, shape, random)))
        return tuple(tensors)

    def _item_shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """The shape without the batch dimension; -1 where the size is not known."""
        shape = spec.shape[1:] if self._batches else spec.shape
        known = self._shapes.get(spec.name)
        if known is None or len(known) != len(shape):
            return shape
        return tuple(want if size == -1 else size for size, want in zip(shape, known, strict=True))


def _values(datatype: DataType, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    if datatype is DataType.BYTES:
        text = np.empty(shape, dtype=object)
        text.fill(b"")
        return text
    if datatype.is_float:
        return random.standard_normal(shape, dtype=np.float32).astype(datatype.numpy)
    # Zero is a valid class, token or index everywhere; other integers are not.
    return np.zeros(shape, dtype=datatype.numpy)
