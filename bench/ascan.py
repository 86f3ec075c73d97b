"""AsCAN against its peers on this machine's CPU: who takes how long for a picture, in one run, as ratios.

Run in the environment of ``make bench-fasternet`` (torch and timm; see bench/requirements.txt):

    PYTHONPATH=. python bench/ascan.py --rounds 8

Protocol (specification, check (1).9): one thread, FP32, 224 px, PyTorch as it is, both with fused attention,
random weights, batch norms not folded. Networks run in turn; the figure is the smallest process CPU time of
all rounds, which other load on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import timm_without_torchvision  # noqa: F401  (must come before timm)

# isort: split
import timm
import torch

from nonet.research.ascan.counting import parameters
from nonet.research.ascan.layout_speed import cpu_milliseconds
from nonet.research.ascan.network import build

PEERS = {
    # ours: the peers of timm whose accuracy is near, and the ratio peer / ours that the specification
    # measured
    "t": {"maxvit_tiny_tf_224": 1.16, "swin_small_patch4_window7_224": 1.26, "coatnet_1_224": 1.28},
    "b": {"maxvit_base_tf_224": 2.12},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--ours", default="t", help="sizes of AsCAN with commas between them")
    parser.add_argument("--out", type=Path, default=Path("docs/results/ascan_speed.md"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in given.ours.split(","):
        networks = {f"ascan_{size}": build(size).eval()}
        networks |= {name: timm.create_model(name).eval() for name in PEERS[size]}
        times = cpu_milliseconds(networks, 224, given.rounds)
        for name, stated in PEERS[size].items():
            ours, theirs = times[f"ascan_{size}"], times[name]
            rows.append((size.upper(), name, parameters(networks[name]) / 1e6, ours, theirs, stated))
            print(*rows[-1], flush=True)
    machine = (
        f"{os.cpu_count()} CPUs, {platform.machine()}, torch {torch.__version__}, timm {timm.__version__}"
    )
    lines = [
        "# AsCAN against its peers on CPU",
        "",
        f"`python bench/ascan.py --rounds {given.rounds} --ours {given.ours}`, {time.strftime('%Y-%m-%d')}; "
        f"{machine}. One thread, batch 1, FP32, 224 px, random weights; smallest process CPU time of the "
        "rounds, run in turn.",
        "",
        "| ours | peer | its parameters | ours, CPU ms | peer, CPU ms | peer / ours | specification |",
        "|---|---|---|---|---|---|---|",
    ]
    for size, name, count, ours, theirs, stated in rows:
        figures = f"{count:.1f} M | {ours:.0f} | {theirs:.0f} | {theirs / ours:.2f} | {stated:.2f}"
        lines.append(f"| AsCAN-{size} | {name} | {figures} |")
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"table in {given.out}")


if __name__ == "__main__":
    main()
