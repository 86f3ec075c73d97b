"""Batch normalisations folded into the convolutions before them, for any network whose modules are registered
in the order in which they run."""

from __future__ import annotations

import copy
import itertools
from typing import TypeVar

from torch import nn

from nonet.research.fasternet.fusion import folded

Network = TypeVar("Network", bound=nn.Module)


def followed_by_norm(network: nn.Module) -> dict[str, str]:
    """The convolutions that a batch normalisation directly follows, each with the name of that one."""
    layers = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    return {
        name: after
        for (name, module), (after, follower) in itertools.pairwise(layers)
        if isinstance(module, nn.Conv2d)
        and isinstance(follower, nn.BatchNorm2d)
        and module.out_channels == follower.num_features
        and name.rpartition(".")[0] == after.rpartition(".")[0]
    }


def fold_normalisations(network: Network) -> Network:
    """A copy in eval mode that computes the same without the normalisations that follow a convolution."""
    result = copy.deepcopy(network).eval()
    for conv, norm in followed_by_norm(result).items():
        first, second = result.get_submodule(conv), result.get_submodule(norm)
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.BatchNorm2d)
        result.set_submodule(conv, folded(first, second))
        result.set_submodule(norm, nn.Identity())
    return result
