"""Layouts of one budget, as the paper's study of stage distributions compares them, and networks of equal
cost.

Source: arXiv 2411.04967 names the families (convolution early, the same mix everywhere, attention early, one
kind alone, all C and then all T); these layouts of 13 blocks are ours.
"""

from __future__ import annotations

from dataclasses import replace

from nonet.research.ascan.layout import Layout
from nonet.research.ascan.network import Variant

LAYOUTS = {
    "asymmetric": "CC|CCCT|CTTT|CTT",
    "symmetric": "CT|CCTT|CCTT|CTT",
    "reversed": "TT|TTTC|TCCC|TCC",
    "all C": "CC|CCCC|CCCC|CCC",
    "all T": "TT|TTTT|TTTT|TTT",
    "C then T": "CC|CCCC|TTTT|TTT",
}
#: Stem and widths at which the layouts are compared as they are.
BUDGET = Variant(32, (32, 64, 128, 256), LAYOUTS["asymmetric"])


def with_layout(variant: Variant, name: str) -> Variant:
    """The same stem and widths with another of :data:`LAYOUTS`."""
    return replace(variant, layout=LAYOUTS[name])


def pyramid_macs(variant: Variant, side: int) -> int:
    """Multiply-accumulates of stem and stages on a picture (3, side, side), by the blocks' closed forms: C
    36·i·o + 4·o² (and i·o where the width changes) at each place, T 12·o² + 2·N·o at each of N places (and
    i·o where it halves).
    """
    rows = -(-side // 2)
    total = (27 * variant.stem + 9 * variant.stem**2) * rows**2
    before = variant.stem
    for kinds, after in zip(Layout.parse(variant.layout).stages, variant.widths, strict=True):
        rows = -(-rows // 2)
        places = rows**2
        for number, kind in enumerate(kinds):
            if kind == "C":
                each = 36 * before * after + 4 * after**2 + (before * after if before != after else 0)
            else:
                each = 12 * after**2 + 2 * places * after + (before * after if number == 0 else 0)
            total += each * places
            before = after
    return total


def at_equal_macs(variant: Variant, name: str, side: int) -> Variant:
    """Another layout whose widths are scaled so that a picture of that side costs what it costs `variant`, as
    nearly as widths that are multiples of the heads' dimension allow.
    """
    goal, unit, found = pyramid_macs(variant, side), variant.head_dim, []
    for percent in range(40, 161):
        first, second, third, last = (
            max(unit, round(width * percent / 100 / unit) * unit) for width in variant.widths
        )
        found.append(replace(with_layout(variant, name), widths=(first, second, third, last)))
    return min(found, key=lambda each: abs(pyramid_macs(each, side) - goal))
