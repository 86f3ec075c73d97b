"""How unsure a network is, behind one contract: a module that gives the value and its standard deviation.

Monte Carlo dropout keeps its masks as constants, so that an answer is repeatable and depends on no other row
of its batch; an ensemble takes the deviation of its members; a learned variance is the network's own output.
Everything that adapts works on the two tensors and knows no kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nonet.research.tasfar.networks import Ensemble, SourceNetwork, Space, from_space, members_of

__all__ = ["Answering", "Estimates", "UncertaintySpec", "estimates_of"]

UncertaintyKind = Literal["mc_dropout", "ensemble", "learned_variance"]
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class UncertaintySpec:
    """What the deviation is of.

    Args:
        kind: passes with dropout, members of an ensemble, or the network's own second output.
        passes: with dropout, whose masks are drawn from ``seed``.

    Raises ValueError for an unknown kind or fewer than two passes.
    """

    kind: UncertaintyKind = "mc_dropout"
    passes: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("mc_dropout", "ensemble", "learned_variance") or not 2 <= self.passes <= 1000:
            raise ValueError("an uncertainty is mc_dropout with 2 to 1000 passes, ensemble, learned_variance")

    def to_facts(self) -> dict[str, Any]:
        """For a manifest."""
        if self.kind == "mc_dropout":
            return asdict(self)
        return {"kind": self.kind}


@dataclass(frozen=True)
class Estimates:
    """Of N inputs, in the labels' units: the deterministic prediction and its standard deviation, [N, D]."""

    value: NDArray[np.float64]
    std: NDArray[np.float64]

    def in_space(self, space: Space) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predictions [N, D] in the network's space and the uncertainty u [N]: the variance there, summed
        over the label's values (section 2; of one value the published definition). Of log(1 + label) the
        deviation is std / (1 + value), to first order, so that the two outputs of a graph suffice."""
        if space == "linear":
            return self.value, np.asarray((self.std**2).sum(1))
        most = np.maximum(self.value, -0.999)
        return np.log1p(most), np.asarray(((self.std / (1 + most)) ** 2).sum(1))

    def rows(self, chosen: NDArray[Any]) -> Estimates:
        """Those of some inputs."""
        return Estimates(self.value[chosen], self.std[chosen])


class Answering(nn.Module):
    """inputs -> (value [N, D], std [N, D]) in the labels' units: what is exported and what adapts.

    Raises ValueError where the network has not what the kind needs.
    """

    masks: Tensor

    def __init__(self, network: SourceNetwork | Ensemble, spec: UncertaintySpec) -> None:
        super().__init__()
        self.network, self.spec = network, spec
        described = network.spec
        if (spec.kind == "ensemble") != (described.members > 1):
            raise ValueError("an ensemble's deviation is that of at least two networks")
        if (spec.kind == "learned_variance") != described.learned_variance:
            raise ValueError("a learned variance is an output of its own")
        if spec.kind == "mc_dropout":
            if not described.dropout:
                raise ValueError("a network without dropout has no such uncertainty")
            generator = torch.Generator().manual_seed(spec.seed)
            kept = torch.rand(described.widths[-1], spec.passes, generator=generator) >= described.dropout
            self.register_buffer("masks", kept.float() / (1 - described.dropout))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        space, outputs = self.network.spec.space, self.network.spec.outputs
        members = members_of(self.network)
        if self.spec.kind == "mc_dropout":
            vectors = members[0].embedded(inputs)
            passes = members[0].labelled(vectors[..., None] * self.masks)  # [N, D, K]
            found = members[0].labelled(vectors[..., None])[..., 0]
            return from_space(found, space), _deviation(from_space(passes, space))
        each = torch.stack(
            [member.labelled(member.embedded(inputs)[..., None])[..., 0] for member in members], -1
        )
        if self.spec.kind == "ensemble":
            return from_space(each.mean(-1), space), _deviation(from_space(each, space))
        found, deviation = each[:, :outputs, 0], (0.5 * each[:, outputs:, 0]).exp()
        value = from_space(found, space)
        return value, deviation if space == "linear" else deviation * (1 + value)


def _deviation(passes: Tensor) -> Tensor:
    """Of [N, D, K] over the last axis, dividing by K (section 2)."""
    return (passes - passes.mean(-1, keepdim=True)).square().mean(-1).sqrt()


def estimates_of(
    answering: Answering, inputs: Tensor, told: Callable[[Estimates], None] = lambda estimates: None
) -> Estimates:
    """Of many inputs, a part at a time, in inference mode; ``told`` gets those of the first 1, 2, 4, ...
    parts."""
    answering.eval()
    parts: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for part in inputs.split(_ROWS_AT_ONCE):
            parts.append(answering(part))
            if len(parts).bit_count() == 1:
                told(_joined(parts))
    return _joined(parts)


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> Estimates:
    value, std = (torch.cat([part[index] for part in parts]).double().numpy() for index in (0, 1))
    return Estimates(np.asarray(value), np.asarray(std))
