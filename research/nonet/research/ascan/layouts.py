"""Layouts of one budget, as the paper's study of stage distributions compares them, and networks of equal
cost.

Source: arXiv 2411.04967 names the families (convolution early, the same mix everywhere, attention early, one
kind alone, all C and then all T); these layouts of 13 blocks are ours.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from nonet.research.ascan.counting import macs
from nonet.research.ascan.network import AsCAN, Variant

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


def at_equal_macs(variant: Variant, name: str, side: int) -> Variant:
    """Another layout whose widths are scaled so that a picture of that side costs what it costs `variant`, as
    nearly as widths that are multiples of the heads' dimension allow.
    """
    with torch.device("meta"):
        goal = macs(AsCAN(variant, 10), side)
        unit, found = variant.head_dim, []
        for percent in range(40, 161):
            first, second, third, last = (
                max(unit, round(width * percent / 100 / unit) * unit) for width in variant.widths
            )
            scaled = replace(with_layout(variant, name), widths=(first, second, third, last))
            found.append(scaled)
        return min(dict.fromkeys(found), key=lambda each: abs(macs(AsCAN(each, 10), side) - goal))
