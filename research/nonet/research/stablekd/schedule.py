"""When which blocks learn together: from every block alone to the whole network, never back.

A partition is written as the sizes of its groups of consecutive blocks: (1, 1, 1, 1) is the decomposition of
four blocks, (4,) the network end to end.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

Partition = tuple[int, ...]


@dataclass(frozen=True)
class Phase:
    """A share of all steps with one partition."""

    share: float
    partition: Partition


@dataclass(frozen=True)
class MergeSchedule:
    """The phases in order.

    Raises ValueError unless the shares add up to 1, all partitions are of the same number of blocks, each
    phase's groups are unions of those before, and the last is the whole network.
    """

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        if not self.phases or not math.isclose(sum(phase.share for phase in self.phases), 1.0):
            raise ValueError("the shares of the phases must add up to 1")
        if any(phase.share <= 0 or min(phase.partition) < 1 for phase in self.phases):
            raise ValueError("every phase needs a share, every group a block")
        if len({sum(phase.partition) for phase in self.phases}) != 1:
            raise ValueError("all partitions must be of the same blocks")
        for before, after in itertools.pairwise(self.phases):
            if not _ends(after.partition) <= _ends(before.partition):
                raise ValueError(f"{after.partition} does not merge the groups of {before.partition}")
        if len(self.phases[-1].partition) != 1:
            raise ValueError("the last phase must be end to end")

    @property
    def blocks(self) -> int:
        """How many blocks the network has."""
        return sum(self.phases[0].partition)

    def at(self, share: float) -> Partition:
        """The partition when a share 0..1 of all steps is done."""
        done = 0.0
        for phase in self.phases:
            done += phase.share
            if share < done - 1e-12:
                return phase.partition
        return self.phases[-1].partition


def _ends(partition: Partition) -> set[int]:
    """After which blocks a group ends."""
    return {sum(partition[: count + 1]) for count in range(len(partition))}


def end_to_end(blocks: int) -> MergeSchedule:
    """The whole network from the first step: the control that differs by nothing else."""
    return MergeSchedule((Phase(1.0, (blocks,)),))


def halving(blocks: int) -> MergeSchedule:
    """Each block alone, then neighbours in pairs, pairs of pairs, ..., and the last half of the steps as one.

    The phases before the last half have equal shares.
    """
    partitions: list[Partition] = []
    groups = [1] * blocks
    while len(groups) > 1:
        partitions.append(tuple(groups))
        groups = [sum(groups[index : index + 2]) for index in range(0, len(groups), 2)]
    if not partitions:
        return end_to_end(blocks)
    share = 0.5 / len(partitions)
    return MergeSchedule((*(Phase(share, each) for each in partitions), Phase(0.5, (blocks,))))


def front_growth(blocks: int) -> MergeSchedule:
    """The first group grows by one block at a time; the last half of the steps is end to end."""
    partitions = [(size, *[1] * (blocks - size)) for size in range(1, blocks)]
    if not partitions:
        return end_to_end(blocks)
    share = 0.5 / len(partitions)
    return MergeSchedule((*(Phase(share, each) for each in partitions), Phase(0.5, (blocks,))))


def abrupt(blocks: int) -> MergeSchedule:
    """Each block alone for 15 % of the steps, then the whole at once: worse than gradual merging."""
    if blocks == 1:
        return end_to_end(1)
    return MergeSchedule((Phase(0.15, (1,) * blocks), Phase(0.85, (blocks,))))


SCHEDULES: dict[str, Callable[[int], MergeSchedule]] = {
    "halving": halving,
    "front_growth": front_growth,
    "abrupt": abrupt,
    "end_to_end": end_to_end,
}
