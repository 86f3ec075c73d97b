"""A pipeline's networks between the ports that a served text-to-image version has.

New nodes are put before and behind a network; the network itself, and where its weights lie, stay as they
are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nonet.runtime.network_import import NetworkRefused
from nonet.runtime.tensors import Array
from nonet.services.text_to_image.importing.noise_schedules import Schedule

__all__ = ["GraphEnds", "decoder_graph", "velocity_graph"]

_INTEGERS: Final = (TensorProto.INT32, TensorProto.INT64)
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_LEAST_TIME: Final = 1e-6


class GraphEnds:
    """New nodes around a network, whose tensors get a prefix so that no name meets another.

    Args:
        model: read without the weights that lie beside it; it is not changed.
        what: it is, for messages.
    """

    def __init__(self, model: Any, what: str) -> None:
        self.what = what
        self.model = onnx.compose.add_prefix(model, "network/")
        graph = self.model.graph
        constants = {each.name for each in graph.initializer}
        self._inputs = {
            each.name.removeprefix("network/"): each for each in graph.input if each.name not in constants
        }
        self._outputs = {each.name.removeprefix("network/"): each for each in graph.output}
        self._before: list[Any] = []
        self._behind: list[Any] = []
        self._fed: set[str] = set()
        self._made = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what the network takes."""
        return tuple(self._inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it gives."""
        return tuple(self._outputs)

    def dims(self, name: str) -> list[int]:
        """The stated shape of an input, -1 for what is free."""
        shape = self._inputs[name].type.tensor_type.shape
        return [each.dim_value if each.HasField("dim_value") else -1 for each in shape.dim]

    def takes_integers(self, name: str) -> bool:
        """Whether an input is of whole numbers. Raises NetworkRefused if it is of no numbers."""
        kind = self._inputs[name].type.tensor_type.elem_type
        if kind not in (*_INTEGERS, *_FLOATS):
            raise NetworkRefused(f"the {name} of its {self.what} is of type {kind}")
        return kind in _INTEGERS

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """A node before the network; the name of what it gives."""
        return self._add(self._before, operation, inputs, attributes)

    def add_behind(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """A node behind the network."""
        return self._add(self._behind, operation, inputs, attributes)

    def constant(self, value: Any, kind: type[np.generic] = np.float32) -> str:
        """A constant tensor; its name."""
        name = self._name("constant")
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def feed(self, name: str, tensor: str) -> None:
        """Give a tensor to the network, in the type that it takes."""
        kind = self._inputs[name].type.tensor_type.elem_type
        self._before.append(helper.make_node("Cast", [tensor], [f"network/{name}"], to=kind))
        self._fed.add(name)

    def answer(self, name: str) -> str:
        """What the network gives, as FP32."""
        return self.add_behind("Cast", f"network/{name}", to=TensorProto.FLOAT)

    def join(self, other: GraphEnds, feeds: Mapping[str, str]) -> Callable[[str], str]:
        """Put another network behind this one.

        Args:
            other: it; its tensors get a prefix of their own.
            feeds: tensors of this graph by the names of its inputs.

        Returns what gives an answer of the other, as FP32, by its name.
        """
        model = onnx.compose.add_prefix(other.model, "second/")
        for name, tensor in feeds.items():
            kind = other._inputs[name].type.tensor_type.elem_type
            self._behind.append(helper.make_node("Cast", [tensor], [f"second/network/{name}"], to=kind))
        self._behind.extend(model.graph.node)
        self.model.graph.initializer.extend(model.graph.initializer)
        self.model.functions.extend(model.functions)
        return lambda name: self.add_behind("Cast", f"second/network/{name}", to=TensorProto.FLOAT)

    def finish(
        self,
        inputs: Sequence[tuple[str, int, Sequence[int | str]]],
        output: tuple[str, Sequence[int | str]],
        given: str,
    ) -> Any:
        """The whole graph.

        Args:
            inputs: name, type and shape of each.
            output: name and shape of what it gives, FP32.
            given: the tensor that it is.

        Raises NetworkRefused if the network takes something that it was not fed.
        """
        missing = set(self._inputs) - self._fed
        if missing:
            raise NetworkRefused(f"its {self.what} takes {', '.join(sorted(missing))}, too")
        self._behind.append(helper.make_node("Identity", [given], [output[0]]))
        graph = self.model.graph
        nodes = [*self._before, *graph.node, *self._behind]
        del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
        graph.node.extend(nodes)
        graph.input.extend(helper.make_tensor_value_info(*each) for each in inputs)
        graph.output.append(helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1]))
        return self.model

    def _add(self, nodes: list[Any], operation: str, inputs: Sequence[str], attributes: Any) -> str:
        name = self._name(operation.lower())
        nodes.append(helper.make_node(operation, list(inputs), [name], **attributes))
        return name

    def _name(self, what: str) -> str:
        self._made += 1
        return f"ends/{what}_{self._made}"


def velocity_graph(
    model: Any, schedule: Schedule, tokens: int, width: int, pooled: int, reduction: int
) -> Any:
    """``latents``, ``time``, ``context``, ``context_mask`` -> ``velocity`` of a UNet that predicts by steps.

    Args:
        model: the UNet: sample, timestep, encoder_hidden_states, and of SDXL's kind text_embeds and time_ids.
        schedule: of its noise.
        tokens, width: of the texts' states.
        pooled: width of the one state for the whole text, which comes as one more row of the context; 0 if it
            takes none.
        reduction: pixels of the picture for each place of a latent.

    Raises NetworkRefused for a network with other ports.
    """
    ends = GraphEnds(model, "unet")
    wanted = {"sample", "timestep", "encoder_hidden_states"} | (
        {"text_embeds", "time_ids"} if pooled else set()
    )
    if set(ends.inputs) != wanted or len(ends.outputs) != 1:
        raise NetworkRefused(
            f"its unet takes {', '.join(ends.inputs)}; one that takes "
            f"{', '.join(sorted(wanted))} can be served"
        )
    if len(ends.dims("timestep")) != 1 or ends.dims("timestep")[0] >= 1:
        raise NetworkRefused(
            "its unet takes one timestep for all rows of a batch: export it with a timestep for each row"
        )
    channels = ends.dims("sample")[1]
    if channels < 1 or len(ends.dims("sample")) != 4:
        raise NetworkRefused(f"the sample of its unet is {ends.dims('sample')}")
    one, least = ends.constant(1.0), ends.constant(_LEAST_TIME)
    time = ends.add("Max", "time", least)
    rest = ends.add("Max", ends.add("Sub", one, "time"), least)
    squares = ends.add("Add", ends.add("Mul", time, time), ends.add("Mul", rest, rest))
    each = ends.constant([1, 2, 3], np.int64)
    scale = ends.add("Unsqueeze", ends.add("Sqrt", squares), each)
    sample = ends.add("Div", "latents", scale)
    table = schedule.log_sigma.astype(np.float32)
    asked = ends.add("Sub", ends.add("Log", time), ends.add("Log", rest))
    asked = ends.add("Clip", asked, ends.constant(table[0]), ends.constant(table[-1]))
    ends.feed("sample", sample)
    ends.feed("timestep", _step_of(ends, asked, table, ends.takes_integers("timestep")))
    rows = ends.add("Slice", "context", *(ends.constant([at], np.int64) for at in (0, tokens, 1)))
    ends.feed("encoder_hidden_states", rows)
    if pooled:
        _feed_pooled(ends, tokens, pooled, reduction)
    given = _picture_of(ends, schedule, sample, asked, each)
    velocity = ends.add_behind(
        "Div", ends.add_behind("Sub", "latents", given), ends.add_behind("Unsqueeze", time, each)
    )
    length = tokens + (1 if pooled else 0)
    return ends.finish(
        [
            ("latents", TensorProto.FLOAT, ["N", channels, "H", "W"]),
            ("time", TensorProto.FLOAT, ["N"]),
            ("context", TensorProto.FLOAT, ["N", length, width]),
            ("context_mask", TensorProto.FLOAT, ["N", length]),
        ],
        ("velocity", ["N", channels, "H", "W"]),
        velocity,
    )


def _step_of(ends: GraphEnds, asked: str, table: Array, whole: bool) -> str:
    """The step, between two of the table, at which the noise is as strong as asked: [N]."""
    steps, last = ends.constant(table), ends.constant(len(table) - 2, np.int64)
    second = ends.constant([1], np.int64)
    weaker = ends.add("LessOrEqual", steps, ends.add("Unsqueeze", asked, second))
    below = ends.add("ReduceSum", ends.add("Cast", weaker, to=TensorProto.INT64), second, keepdims=0)
    unit, nothing = ends.constant(1, np.int64), ends.constant(0, np.int64)
    low = ends.add("Min", ends.add("Max", ends.add("Sub", below, unit), nothing), last)
    before = ends.add("Gather", steps, low)
    after = ends.add("Gather", steps, ends.add("Add", low, unit))
    share = ends.add("Div", ends.add("Sub", asked, before), ends.add("Sub", after, before))
    step = ends.add("Add", ends.add("Cast", low, to=TensorProto.FLOAT), share)
    return ends.add("Round", step) if whole else step


def _feed_pooled(ends: GraphEnds, tokens: int, pooled: int, reduction: int) -> None:
    """SDXL's further inputs: the state of the whole text, and the picture's size, whole and not cut."""
    at = ends.constant(tokens, np.int64)
    row = ends.add("Gather", "context", at, axis=1)
    begin, end, axis = (ends.constant([value], np.int64) for value in (0, pooled, 1))
    ends.feed("text_embeds", ends.add("Slice", row, begin, end, axis))
    shape = ends.add("Shape", "latents")
    places = ends.add("Slice", shape, ends.constant([2], np.int64), ends.constant([4], np.int64))
    pixels = ends.add("Mul", places, ends.constant(reduction, np.int64))
    corner = ends.constant([0, 0], np.int64)
    size = ends.add(
        "Unsqueeze", ends.add("Concat", pixels, corner, pixels, axis=0), ends.constant([0], np.int64)
    )
    batch = ends.add("Slice", shape, ends.constant([0], np.int64), ends.constant([1], np.int64))
    six = ends.add("Concat", batch, ends.constant([6], np.int64), axis=0)
    ends.feed("time_ids", ends.add("Expand", size, six))


def _picture_of(ends: GraphEnds, schedule: Schedule, sample: str, asked: str, axes: str) -> str:
    """The picture that the network's answer speaks of: x0 of x = a x0 + s n."""
    answer = ends.answer(ends.outputs[0])
    if schedule.prediction == "sample":
        return answer
    sigma = ends.add_behind("Unsqueeze", ends.add_behind("Exp", asked), axes)
    one = ends.constant(1.0)
    length = ends.add_behind("Sqrt", ends.add_behind("Add", ends.add_behind("Mul", sigma, sigma), one))
    if schedule.prediction == "epsilon":  # (x - s n) / a = x / a - sigma n
        return ends.add_behind(
            "Sub", ends.add_behind("Mul", sample, length), ends.add_behind("Mul", sigma, answer)
        )
    signal = ends.add_behind("Div", one, length)
    noise = ends.add_behind("Mul", sigma, signal)
    return ends.add_behind(
        "Sub", ends.add_behind("Mul", signal, sample), ends.add_behind("Mul", noise, answer)
    )


def decoder_graph(model: Any, channels: int, scaling: float, shift: float) -> Any:
    """``latents`` -> ``image`` 0 to 1 of an autoencoder's decoder, which gives -1 to 1.

    Args:
        model: latent_sample to sample.
        channels: of the latents.
        scaling, shift: the network's latents are (the autoencoder's - shift) * scaling.

    Raises NetworkRefused for a network with other ports.
    """
    ends = GraphEnds(model, "vae_decoder")
    if len(ends.inputs) != 1 or not ends.outputs:
        raise NetworkRefused(f"its vae_decoder takes {', '.join(ends.inputs)}; latents alone are expected")
    own = ends.add("Add", ends.add("Div", "latents", ends.constant(scaling)), ends.constant(shift))
    ends.feed(ends.inputs[0], own)
    half = ends.constant(0.5)
    level = ends.add_behind("Add", ends.add_behind("Mul", ends.answer(ends.outputs[0]), half), half)
    level = ends.add_behind("Clip", level, ends.constant(0.0), ends.constant(1.0))
    return ends.finish(
        [("latents", TensorProto.FLOAT, ["N", channels, "H", "W"])],
        ("image", ["N", 3, "rows", "columns"]),
        level,
    )
