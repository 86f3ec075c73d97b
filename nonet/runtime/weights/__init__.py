"""Reading official weights: bounded checkpoint readers that execute nothing, and networks built from them."""

from nonet.runtime.weights.checkpoint import read_checkpoint
from nonet.runtime.weights.limits import CheckpointLimits

__all__ = ["CheckpointLimits", "read_checkpoint"]
