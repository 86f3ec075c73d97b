"""Reading official weights: bounded checkpoint readers that execute nothing, and networks built from them."""

from nonet.research.weights.checkpoint import read_checkpoint
from nonet.research.weights.limits import CheckpointLimits

__all__ = ["CheckpointLimits", "read_checkpoint"]
