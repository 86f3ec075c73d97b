"""Layouts of AsCAN: which blocks are convolution (C) and which are transformer (T), stage by stage.

A layout is text such as ``CC|CCCCT|CTTTT|CTTTT``: four stages at strides 4, 8, 16 and 32. The rule that makes
a layout asymmetric (convolution early, attention late) is :meth:`Layout.check_asymmetric`; other layouts are
allowed, for comparison.

Source: the abstract and the architecture figure of arXiv 2411.04967; the bounds of the rule and the layouts
of the published sizes are reconstructions, since no code, weights or table of the authors' were at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

STAGES = 4


@dataclass(frozen=True)
class Layout:
    """Four stages of blocks, each a text of ``C`` and ``T``. Raises ValueError for anything else."""

    stages: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.stages) != STAGES:
            raise ValueError(f"a layout has {STAGES} stages with | between them, not {len(self.stages)}")
        for number, stage in enumerate(self.stages, 1):
            if not stage or set(stage) - {"C", "T"}:
                raise ValueError(f"stage {number} must be one or more of C and T, not {stage!r}")

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read ``CC|CCT|CTT|CT``. Raises ValueError naming what is wrong."""
        return cls(tuple(text.split("|")))

    def __str__(self) -> str:
        return "|".join(self.stages)

    @property
    def blocks(self) -> int:
        return sum(map(len, self.stages))

    def check_asymmetric(self) -> None:
        """Raises ValueError unless attention comes late: no T in stage 1, at most a third of stage 2, at
        least half of stages 3 and 4, and C before T inside each stage.
        """
        for number, stage in enumerate(self.stages, 1):
            share = stage.count("T") / len(stage)
            if "TC" in stage:
                raise ValueError(f"stage {number} ({stage}): C must come before T")
            if number == 1 and share > 0:
                raise ValueError(f"stage 1 ({stage}) must have no T")
            if number == 2 and share > 1 / 3:
                raise ValueError(f"stage 2 ({stage}) must be T for a third at most")
            if number >= 3 and share < 1 / 2:
                raise ValueError(f"stage {number} ({stage}) must be T for a half at least")
