"""Regressors with dropout that carry the scaling of their inputs and labels: how one is described, built and
kept.

Each is a trunk that makes a vector of the input, one dropout, and a tail of linear layers. Because the
dropout stands in one place, passes with dropout repeat the tail alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor, nn

__all__ = [
    "Ensemble",
    "Kind",
    "NetworkSpec",
    "SourceNetwork",
    "Space",
    "build",
    "from_space",
    "load_network",
    "members_of",
    "save_network",
    "to_space",
]

Kind = Literal["mlp", "window_cnn", "density_cnn"]
Space = Literal["linear", "log1p"]
"""Where labels are learnt: as they are, or as log(1 + label), for labels whose errors grow with them."""

#: Most values of an input, weights of a layer, and members: a description from elsewhere asks for no more.
MOST_VALUES: Final = 1 << 22
MOST_WIDTH: Final = 4096
MOST_MEMBERS: Final = 16


@dataclass(frozen=True)
class NetworkSpec:
    """How a network is built.

    Args:
        kind: of the trunk: ``mlp`` of rows [F], ``window_cnn`` of windows [C, T], ``density_cnn`` of pictures
            [3, H, W], whose label is the sum of a density over the picture.
        inputs: shape of one input.
        outputs: values of a label (D).
        widths: of the trunk's layers.
        tail: of the hidden layers behind the dropout.
        dropout: share 0..1 of the trunk's values that a pass with dropout drops.
        space: of the labels.
        clip: standard deviations at which scaled inputs are cut off; 0 leaves them.
        members: networks of an ensemble.
        learned_variance: the tail also gives the logarithm of the label's variance.

    Raises ValueError for sizes that no network has.
    """

    kind: Kind
    inputs: tuple[int, ...]
    outputs: int = 1
    widths: tuple[int, ...] = (128, 128)
    tail: tuple[int, ...] = (64,)
    dropout: float = 0.2
    space: Space = "linear"
    clip: float = 0.0
    members: int = 1
    learned_variance: bool = False

    def __post_init__(self) -> None:
        dimensions = {"mlp": 1, "window_cnn": 2, "density_cnn": 3}
        sizes = (self.outputs, *self.widths, *self.tail)
        if self.kind not in dimensions or self.space not in ("linear", "log1p"):
            raise ValueError(f"no network is a '{self.kind}' with labels in '{self.space}'")
        if len(self.inputs) != dimensions[self.kind] or not self.widths:
            raise ValueError(f"inputs of {list(self.inputs)} are none of a {self.kind}")
        if min(*sizes, *self.inputs, self.members) < 1 or max(sizes) > MOST_WIDTH:
            raise ValueError(f"a network's sizes are 1 to {MOST_WIDTH}")
        if int(np.prod(self.inputs)) > MOST_VALUES or self.members > MOST_MEMBERS:
            raise ValueError("the network is larger than any that is adapted here")
        if not 0 <= self.dropout < 1 or self.clip < 0:
            raise ValueError("dropout is 0 to 1, a clip at least 0")

    def to_facts(self) -> dict[str, Any]:
        """For a file of JSON."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> NetworkSpec:
        """From a file of JSON. Raises ValueError or TypeError for what describes none."""
        lists: dict[str, Any] = {
            name: tuple(facts[name]) for name in ("inputs", "widths", "tail") if name in facts
        }
        return cls(**(facts | lists))

    @classmethod
    def from_json(cls, content: bytes) -> NetworkSpec:
        """From a file. Raises ValueError for what describes none."""
        try:
            return cls.from_facts(json.loads(content))
        except (TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"no network is described: {error}") from None


class Pointwise(nn.Linear):
    """A linear layer over [N, C], or over [N, C, K] for K vectors of each input: a convolution then, whose
    results do not depend on how many inputs share the batch."""

    def forward(self, values: Tensor) -> Tensor:
        if values.dim() == 3:
            return F.conv1d(values, self.weight[:, :, None], self.bias)
        return F.linear(values, self.weight, self.bias)


class WindowTrunk(nn.Sequential):
    """[N, C, T] -> [N, widths[-1]]: convolutions of width 5 that halve the time, then its mean."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Conv1d(channels, width, 5, stride=2, padding=2), nn.ReLU()]
            channels = width
        super().__init__(*layers)

    def forward(self, windows: Tensor) -> Tensor:
        return torch.as_tensor(super().forward(windows)).mean(2)


class DensityTrunk(nn.Module):
    """[N, 3, H, W] -> [N, widths[-1]]: three columns of convolutions with large, middle and small kernels, as
    MCNN (Zhang et al., CVPR 2016) has them, one convolution over all, and the sums over the picture."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.columns = nn.ModuleList(_column(channels, size, widths[:-1]) for size in (7, 5, 3))
        self.fuse = nn.Conv2d(3 * widths[-2], widths[-1], 1)

    def features(self, pictures: Tensor) -> Tensor:
        """[N, widths[-1], H/4, W/4], before they are summed."""
        columns = torch.cat([column(pictures) for column in self.columns], 1)
        return torch.relu(self.fuse(columns))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.features(pictures).sum((2, 3))


def _column(channels: int, size: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, width in enumerate(widths):
        kernel = size if index == 0 else max(3, size - 2)
        stride = 2 if index == 0 else 1
        layers += [nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2), nn.ReLU()]
        if index == 1:
            layers.append(nn.MaxPool2d(2))
        channels = width
    return nn.Sequential(*layers)


def _vector_trunk(features: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [Pointwise(features, width), nn.ReLU()]
        features = width
    return nn.Sequential(*layers)


class SourceNetwork(nn.Module):
    """Inputs in the data's own units -> labels in the network's space, [N, D]; with a learned variance
    [N, 2 D], the logarithms of the variances last."""

    centre: Tensor
    spread: Tensor
    label_centre: Tensor
    label_spread: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        last = spec.widths[-1]
        self.trunk: nn.Module
        if spec.kind == "mlp":
            self.trunk = _vector_trunk(spec.inputs[0], spec.widths)
        elif spec.kind == "window_cnn":
            self.trunk = WindowTrunk(spec.inputs[0], spec.widths)
        else:
            self.trunk = DensityTrunk(spec.inputs[0], spec.widths)
        self.drop = nn.Dropout(spec.dropout)
        ends = _vector_trunk(last, spec.tail)
        # A picture without objects has the count 0: a density has no offset.
        final = Pointwise(
            spec.tail[-1] if spec.tail else last,
            spec.outputs * (1 + spec.learned_variance),
            bias=spec.kind != "density_cnn",
        )
        self.tail = nn.Sequential(*ends, final)
        shape = (spec.inputs[0],) + (1,) * (len(spec.inputs) - 1)
        self.register_buffer("centre", torch.zeros(shape))
        self.register_buffer("spread", torch.ones(shape))
        self.register_buffer("label_centre", torch.zeros(spec.outputs))
        self.register_buffer("label_spread", torch.ones(spec.outputs))

    def scale_by(self, inputs: Tensor, labels: Tensor | None) -> None:
        """Take the scaling from training data: means and deviations of each channel, and of labels [N, D] in
        the network's space where they are given. A channel that never varies is only centred; a count is not
        scaled."""
        axes = (0, *range(2, inputs.dim()))
        scaled = [("", inputs, axes)]
        if labels is not None and self.spec.kind != "density_cnn":
            scaled.append(("label_", labels, (0,)))
        for name, values, over in scaled:
            centre, spread = values.mean(over, keepdim=True)[0], values.std(over, keepdim=True)[0]
            getattr(self, f"{name}centre").copy_(centre)
            getattr(self, f"{name}spread").copy_(torch.where(spread > 1e-6, spread, 1.0))

    def embedded(self, inputs: Tensor) -> Tensor:
        """[N, C]: what the dropout drops from."""
        scaled = (inputs - self.centre) / self.spread
        if self.spec.clip:
            scaled = scaled.clamp(-self.spec.clip, self.spec.clip)
        if self.spec.kind == "mlp":  # as a convolution where a graph is made, see Pointwise
            scaled = scaled[..., None] if torch.onnx.is_in_onnx_export() else scaled
        found = torch.as_tensor(self.trunk(scaled))
        return found[..., 0] if found.dim() == 3 else found

    def labelled(self, vectors: Tensor) -> Tensor:
        """Vectors [N, C] -> [N, D], or [N, C, K] -> [N, D, K], in the network's space."""
        found = torch.as_tensor(self.tail(vectors))
        centre, spread = self.label_centre, self.label_spread
        if self.spec.learned_variance:
            centre = torch.cat([centre, 2 * spread.log()])
            spread = torch.cat([spread, torch.ones_like(spread)])
        shape = (-1, 1) if vectors.dim() == 3 else (-1,)
        return found * spread.view(shape) + centre.view(shape)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.labelled(self.drop(self.embedded(inputs)))


class Ensemble(nn.Module):
    """Networks of one description; the label is the mean of theirs."""

    def __init__(self, members: Sequence[SourceNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.spec = members[0].spec

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([member(inputs) for member in self.members]).mean(0)


def build(spec: NetworkSpec) -> SourceNetwork | Ensemble:
    """The untrained network of a description, or its ensemble."""
    if spec.members == 1:
        return SourceNetwork(spec)
    return Ensemble([SourceNetwork(spec) for _ in range(spec.members)])


def members_of(network: SourceNetwork | Ensemble) -> list[SourceNetwork]:
    """The networks that are trained: itself, or the members of an ensemble."""
    if isinstance(network, SourceNetwork):
        return [network]
    return [each for each in network.members if isinstance(each, SourceNetwork)]


@dataclass(frozen=True)
class NetworkFiles:
    """A network as two files: the description (JSON) and the weights (safetensors)."""

    description: bytes
    weights: bytes = field(repr=False)


def save_network(network: SourceNetwork | Ensemble) -> NetworkFiles:
    """The two files of a network."""
    description = json.dumps(network.spec.to_facts(), indent=1) + "\n"
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    return NetworkFiles(description.encode(), save(tensors))


def load_network(files: NetworkFiles) -> SourceNetwork | Ensemble:
    """The network of two files, in inference mode. Raises ValueError for files that describe none."""
    try:
        network = build(NetworkSpec.from_json(files.description))
        network.load_state_dict(load(files.weights))
    except Exception as error:  # whatever a file from elsewhere makes of the two readers
        raise ValueError(f"the files describe no network: {error}") from None
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise ValueError("a weight of the network is not finite")
    return network.eval()


def to_space(labels: NDArray[np.float64], space: Space) -> NDArray[np.float64]:
    """Labels in the network's space. Raises ValueError for one that has no logarithm."""
    if space == "linear":
        return labels
    if (labels <= -1).any():
        raise ValueError("a label of -1 or less has no log(1 + label)")
    return np.asarray(np.log1p(labels), dtype=np.float64)


def from_space(labels: Tensor, space: Space) -> Tensor:
    """Labels in their own units."""
    return labels if space == "linear" else torch.expm1(labels)
