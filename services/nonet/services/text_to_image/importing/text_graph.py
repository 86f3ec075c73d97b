"""A pipeline's text encoders as one network: tokens of a prompt to the states that the UNet reads."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from nonet.runtime.network_import import NetworkRefused
from nonet.services.text_to_image.importing.flow_graph import GraphEnds

__all__ = ["joined_encoders", "plain_encoder"]

_HIDDEN: Final = re.compile(r"hidden_states\.(\d+)")


def plain_encoder(model: Any, tokens: int) -> Any:
    """``input_ids`` INT64 [N, L] -> ``context`` FP32 [N, L, D]: the last states, as Stable Diffusion 1 and 2
    read them. Raises NetworkRefused for a network without ``input_ids`` and ``last_hidden_state``.
    """
    ends = GraphEnds(model, "text_encoder")
    _check(ends, "last_hidden_state")
    ends.feed("input_ids", "input_ids")
    return _finished(ends, ends.answer("last_hidden_state"), tokens)


def joined_encoders(
    first: Any, second: Any, tokens: int, end: int, pooled: int, widths: tuple[int, int]
) -> Any:
    """``input_ids`` INT64 [N, L] -> ``context`` FP32 [N, L + 1, D]: the last but one states of both encoders
    side by side, and in one more row the second's state of the whole text, zeros behind it (SDXL, arXiv
    2307.01952, section 2.1).

    Args:
        first, second: the encoders.
        tokens: L.
        end: the token that ends a text and pads it for the first encoder; the second's padding is 0.
        pooled: width of the state of the whole text.
        widths: of the two encoders' states; their sum is D.

    Raises NetworkRefused where they do not give these states, or cannot be put into one network.
    """
    ends = GraphEnds(first, "text_encoder")
    other = GraphEnds(second, "text_encoder_2")
    _check(ends)
    _check(other, "text_embeds")
    opsets = [{each.domain: each.version for each in one.model.opset_import} for one in (ends, other)]
    if opsets[0] != opsets[1]:
        raise NetworkRefused("its two text encoders are of different operator sets: export both alike")
    ends.feed("input_ids", "input_ids")
    own = ends.answer(_last_but_one(ends))
    again = ends.join(other, {"input_ids": _other_padding(ends, end)})
    theirs, whole = (again(name) for name in (_last_but_one(other), "text_embeds"))
    states = ends.add_behind("Concat", own, theirs, axis=2)
    row = ends.add_behind("Unsqueeze", whole, ends.constant([1], np.int64))
    room = ends.constant([0, 0, 0, 0, 0, sum(widths) - pooled], np.int64)
    row = ends.add_behind("Pad", row, room)
    return _finished(ends, ends.add_behind("Concat", states, row, axis=1), tokens)


def _check(ends: GraphEnds, output: str = "") -> None:
    if ends.inputs != ("input_ids",):
        raise NetworkRefused(f"its {ends.what} takes {', '.join(ends.inputs)}; input_ids alone is expected")
    if output and output not in ends.outputs:
        raise NetworkRefused(f"its {ends.what} does not give {output}")


def _last_but_one(ends: GraphEnds) -> str:
    numbers = sorted(int(found[1]) for found in map(_HIDDEN.fullmatch, ends.outputs) if found is not None)
    if len(numbers) < 2:
        raise NetworkRefused(f"its {ends.what} does not give its hidden states: export it with them")
    return f"hidden_states.{numbers[-2]}"


def _other_padding(ends: GraphEnds, end: int) -> str:
    """The tokens with 0 for what follows the first end."""
    is_end = ends.add("Equal", "input_ids", ends.constant(end, np.int64))
    first = ends.add("ArgMax", ends.add("Cast", is_end, to=TensorProto.INT32), axis=1, keepdims=1)
    length = ends.add("Gather", ends.add("Shape", "input_ids"), ends.constant(1, np.int64))
    places = ends.add("Range", ends.constant(0, np.int64), length, ends.constant(1, np.int64))
    within = ends.add("LessOrEqual", places, first)
    return ends.add("Where", within, "input_ids", ends.constant(0, np.int64))


def _finished(ends: GraphEnds, given: str, tokens: int) -> Any:
    return ends.finish([("input_ids", TensorProto.INT64, ["N", tokens])], ("context", ["N", "L", "D"]), given)
