"""Networks cut into consecutive blocks, so that each block of a student can learn from its teacher's.

Source: S. Kao, J. Chen, S.-H. G. Chan, "StableKD", arXiv 2312.13223, of which only the abstract was at hand:
that teacher and student are cut into matching blocks is the paper's, where the cuts are is our design.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nonet.research.efficientnet_lite.network import EfficientNetLite0
from nonet.research.fasternet.network import FasterNet


class Blocks(nn.Module):
    """A classifier as a chain of blocks: forward(images) is the last block's output, the logits.

    Args:
        blocks: in order; each takes what the one before gives.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not blocks:
            raise ValueError("a network has at least one block")
        self.blocks = nn.ModuleList(blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for block in self.blocks:
            x = block(x)
        return x

    def features(self, images: Tensor) -> list[Tensor]:
        """The images, and the output of every block, the logits last: one more than there are blocks."""
        found = [images]
        for block in self.blocks:
            found.append(block(found[-1]))
        return found


class _Tail(nn.Module):
    """The last block of a FasterNet: its last stage, and all that makes logits of it."""

    def __init__(self, body: nn.Module, network: FasterNet) -> None:
        super().__init__()
        self.body, self.pool, self.head = body, network.avgpool_pre_head, network.head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.body(x)).flatten(1))


class _LiteTail(nn.Module):
    """The last block of an EfficientNet-Lite0."""

    def __init__(self, body: nn.Module, network: EfficientNetLite0) -> None:
        super().__init__()
        self.body = body
        self.conv, self.norm = network._conv_head, network._bn1
        self.dropout, self.fc = network._dropout, network._fc

    def forward(self, x: Tensor) -> Tensor:
        maps = nn.functional.relu6(self.norm(self.conv(self.body(x))))
        return self.fc(self.dropout(maps.mean((2, 3))))


def split_fasternet(network: FasterNet) -> Blocks:
    """Four blocks: embedding and stage 1, then merging and stage 2, 3, and 4 with the head.

    The blocks hold the network's own modules: training one trains the other. Their outputs have strides 4, 8,
    16, and the logits.
    """
    stages = list(network.stages)
    return Blocks(
        [
            nn.Sequential(network.patch_embed, stages[0]),
            nn.Sequential(*stages[1:3]),
            nn.Sequential(*stages[3:5]),
            _Tail(nn.Sequential(*stages[5:7]), network),
        ]
    )


#: After which block of Lite0 a cut lies: the last at strides 4, 8 and 16.
_LITE_CUTS = (3, 5, 11)


def split_lite(network: EfficientNetLite0) -> Blocks:
    """Four blocks of an EfficientNet-Lite0, cut at the same strides as :func:`split_fasternet`."""
    blocks = list(network._blocks)
    stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6(), *blocks[: _LITE_CUTS[0]])
    middle = [nn.Sequential(*blocks[first:last]) for first, last in itertools.pairwise(_LITE_CUTS)]
    return Blocks([stem, *middle, _LiteTail(nn.Sequential(*blocks[_LITE_CUTS[-1] :]), network)])


def merged(blocks: Blocks, cuts: Sequence[int]) -> Blocks:
    """The same network with fewer cuts: `cuts` are the indices of the blocks whose ends stay, in order."""
    ends = [*(cut + 1 for cut in cuts), len(blocks)]
    parts = [list(blocks.blocks)[first:last] for first, last in itertools.pairwise([0, *ends])]
    return Blocks([part[0] if len(part) == 1 else nn.Sequential(*part) for part in parts])


@torch.no_grad()
def check_split(network: nn.Module, blocks: Blocks, images: Tensor) -> None:
    """Raises ValueError unless the blocks compute exactly what the network does, and hold each of its
    parameters once. Both must be in eval mode.
    """
    if not torch.equal(network(images), blocks(images)):
        raise ValueError("the blocks do not compute what the network does")
    owned = [parameter for block in blocks.blocks for parameter in block.parameters()]
    if len({id(each) for each in owned}) != len(owned):
        raise ValueError("two blocks share a parameter")
    if {id(each) for each in owned} != {id(each) for each in network.parameters()}:
        raise ValueError("the blocks hold other parameters than the network")
