"""Looks rows of a table up before they are widened, in networks that keep their tables as 8-bit integers.

Such a network casts and scales its whole table and takes rows of the result. ONNX Runtime computes what is
constant when it loads, so the table lies in memory as FP32, at four times its size, for the few rows of a
text. Taking the rows first and widening those gives the same numbers.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper

__all__ = ["widen_rows_only"]


def widen_rows_only(content: bytes) -> bytes:
    """The network with ``Gather(Mul(Cast(table), scale))`` as ``Mul(Cast(Gather(table)), scale)``.

    Args:
        content: an ONNX file. Only lookups of rows (axis 0) in constants are changed, and only where the
        scale
            is one number or one for each column or row; a network with branches or loops is left as it is.
    """
    model = onnx.load_model_from_string(content)
    graph = model.graph
    if any(
        attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute
    ):
        return content  # what a branch or a loop reads from outside is not seen here
    constants = {each.name: each for each in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    nodes: list[Any] = []
    changed = False
    for node in graph.node:
        widened = _widened(node, made, constants)
        if widened is None:
            nodes.append(node)
            continue
        changed = True
        table, cast, scale = widened
        rows, wide, by = (f"{node.output[0]}/{part}" for part in ("rows", "wide", "scale"))
        nodes.append(helper.make_node("Gather", [table, node.input[1]], [rows]))
        nodes.append(helper.make_node("Cast", [rows], [wide], to=cast))
        if list(constants[scale].dims[:1]) == list(constants[table].dims[:1]):
            nodes.append(helper.make_node("Gather", [scale, node.input[1]], [by]))
        else:
            by = scale
        nodes.append(helper.make_node("Mul", [wide, by], list(node.output)))
    if not changed:
        return content
    used, kept = {each.name for each in graph.output}, []
    for node in reversed(nodes):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    widened_bytes: bytes = model.SerializeToString()
    return widened_bytes


def _widened(node: Any, made: dict[str, Any], constants: dict[str, Any]) -> tuple[str, int, str] | None:
    """The table, the type it is cast to and the scale of a lookup of its rows; None for anything else."""
    if node.op_type != "Gather" or any(each.name == "axis" and each.i != 0 for each in node.attribute):
        return None
    scaled = made.get(node.input[0])
    if scaled is None or scaled.op_type != "Mul":
        return None
    cast = made.get(scaled.input[0])
    if cast is None or cast.op_type != "Cast":
        return None
    table, scale = cast.input[0], scaled.input[1]
    if table not in constants or scale not in constants or len(constants[table].dims) != 2:
        return None
    rows, columns = constants[table].dims
    if list(constants[scale].dims) not in ([], [1], [1, 1], [columns], [1, columns], [rows, 1]):
        return None
    return table, next(each.i for each in cast.attribute if each.name == "to"), scale
