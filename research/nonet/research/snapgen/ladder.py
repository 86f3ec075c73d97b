"""The design steps of SnapGen's UNet, from a thin SDXL-like network to the final one, as configurations.

Source: the ablation of arXiv 2412.09619 on ImageNet at 256 pixels; what is reported is by steps and partly
rounded, so each step keeps the reported changes beside its own configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nonet.research.snapgen.config import IMAGENET, UNetConfig


@dataclass(frozen=True)
class Step:
    """One rung: what changes against the step named `after`, and the reported change of parameters and of
    multiply-accumulates in per cent (None: not reported).
    """

    name: str
    change: str
    config: UNetConfig
    after: str | None = None
    reported_parameters: float | None = None
    reported_macs: float | None = None


def steps(final: UNetConfig = IMAGENET) -> dict[str, Step]:
    """The rungs a to g that end in `final`, which must have what g adds (rotary positions, QK normalisation)
    and a transformer in stage 1. Raises ValueError for a `final` that lacks them.
    """
    if not (final.rope and final.qk_norm and final.multi_query and final.transformer_layers[0]):
        raise ValueError("the last configuration of the ladder must have all that its steps add")
    f = replace(final, qk_norm=False, rope=False)
    e = replace(f, transformer_layers=(0, *final.transformer_layers[1:]), stage1_replace_res=False)
    d = replace(e, multi_query=False)
    c2 = replace(d, ffn_ratio=4)
    c1 = replace(c2, expansion=1)
    b = replace(c1, separable=False)
    a = replace(b, self_attention=(False, *(True for _ in final.channels[1:])))
    rungs = [
        Step("a", "thinner and shorter: dense convolutions, self-attention in stages 2 and 3", a),
        Step("b", "self-attention at the lowest resolution alone", b, "a", None, -17.0),
        Step("c1", "separable convolutions", c1, "b", -24.0, None),
        Step("c2", "separable convolutions that expand by 2", c2, "b", -15.0, -27.0),
        Step("d", "feed-forwards of 3 widths instead of 4", d, "c2", -12.0, -12.0),
        Step("e", "one key and one value for all heads", e, "d", -16.0, -6.0),
        Step("f", "the text enters at stage 1, on the way down", f, "e"),
        Step("g", "QK RMS normalisation and rotary positions", final, "f"),
    ]
    return {step.name: step for step in rungs}
