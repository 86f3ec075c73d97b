"""From embeddings to floors: Ward on one network's, or on those of several together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nonet.research.fis_one.clustering import ward
from nonet.research.fis_one.graph import SignalGraph
from nonet.research.fis_one.recipes import Recipe


def cluster_scans(
    graph: SignalGraph,
    embeddings: list[NDArray[np.float32]],
    floors: int,
    recipe: Recipe,
    generator: np.random.Generator,
) -> NDArray[np.int32]:
    """The cluster (N) of each scan, 0 to ``floors`` - 1, none of them empty.

    Args:
        graph: N scans. embeddings: one (N, D) array of unit rows per network. recipe: says how.
    """
    if recipe.clustering == "ward":
        return ward(embeddings[0], floors, generator)
    return ward(np.concatenate(embeddings, axis=1), floors, generator)
