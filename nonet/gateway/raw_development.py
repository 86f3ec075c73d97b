"""What every face of the raw task has in common: its name."""

from __future__ import annotations

__all__ = ["TASK"]

TASK = "raw-restoration"
