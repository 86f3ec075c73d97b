"""The settings of a fit by preset."""

from __future__ import annotations

import dataclasses

from nonet.research.fis_one.graph import GraphRule
from nonet.runtime.errors import InvalidArgument


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """How the network is trained and the clusters are found.

    Args:
        rule: which readings are edges, and their weights.
        attention: "none", "sampling" or "sampling+aggregate" (section 4.1).
        fan_out: neighbours drawn for the inner and the outer layer.
        positives: 0 = edges; from 1, the length of random walks whose consecutive nodes are positives.
        steps, batch, negatives: of training; ``negatives`` are drawn per positive.
        learning_rate: of AdamW.
        dropout: on hidden states in training.
        dimension: of initial, hidden and output states.
        networks: how many networks are trained, each from its own seed.
        clustering: "ward" on the embeddings of the first network (section 5), or "consensus" (see
            ``consensus``).
        similarity, cost: of the clusters' order (sections 6 and 7).
        most_trained: scans the network is trained on; of more, as many are drawn evenly, and the others are
            embedded by the trained network.
    """

    rule: GraphRule = dataclasses.field(default_factory=GraphRule)
    attention: str = "sampling+aggregate"
    fan_out: tuple[int, int] = (10, 25)
    positives: int = 0
    steps: int = 4000
    batch: int = 2000
    negatives: int = 4
    learning_rate: float = 0.01
    dropout: float = 0.0
    dimension: int = 32
    networks: int = 1
    clustering: str = "ward"
    similarity: str = "adapted"
    cost: str = "inverse"
    most_trained: int = 8000

    def __post_init__(self) -> None:
        if self.clustering not in ("ward", "consensus"):
            raise InvalidArgument(f"clustering must be ward or consensus, got '{self.clustering}'")
        counts = (self.steps, self.batch, self.negatives, self.dimension, self.networks, *self.fan_out)
        if min(counts) < 1 or self.positives < 0:
            raise InvalidArgument("counts of a recipe must be at least 1, and positives not negative")


PAPER = Recipe()
DEFAULT = Recipe(clustering="consensus", steps=1000)
RECIPES = {"paper": PAPER, "default": DEFAULT}
