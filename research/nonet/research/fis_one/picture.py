"""A fitted building as a picture: the scans in the plane by floor, and how far signals spill over."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nonet.research.fis_one.building import FittedBuilding

_MOST_POINTS = 5000
_DPI = 110


def draw_building(fitted: FittedBuilding) -> bytes:
    """PNG: left the scans (5,000 at most) on their two main axes, coloured by floor; right the similarity of
    the floors in the chosen order, bottom first, with the cost of that order."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    floors = len(fitted.floors)
    chosen = np.flatnonzero(fitted.floor_of_scan >= 0)
    if len(chosen) > _MOST_POINTS:
        chosen = np.random.default_rng(0).choice(chosen, _MOST_POINTS, replace=False)
    drawn = left.scatter(
        *fitted.picture[chosen].T,
        c=fitted.floor_of_scan[chosen],
        cmap="viridis",
        vmin=-0.5,
        vmax=floors - 0.5,
        s=5,
        linewidths=0,
    )
    left.set_title(f"{len(chosen)} scans, one colour a floor")
    left.set_xticks([])
    left.set_yticks([])
    bar = figure.colorbar(drawn, ax=left, ticks=range(floors))
    bar.ax.set_yticklabels(fitted.floors)
    matrix = np.array(fitted.facts["spillover"])
    right.imshow(matrix, origin="lower", cmap="magma", vmin=0, vmax=1)
    right.set_xticks(range(floors), fitted.floors)
    right.set_yticks(range(floors), fitted.floors)
    for row in range(floors):
        for column in range(floors):
            shade = "white" if matrix[row, column] < 0.6 else "black"
            right.text(
                column, row, f"{matrix[row, column]:.2f}", ha="center", va="center", color=shade, fontsize=8
            )
    right.plot(range(floors - 1), range(1, floors), color="deepskyblue", linewidth=1.5)
    order = fitted.facts["order"]
    undecided = "" if order["decided"] else ", up or down undecided"
    right.set_title(f"spillover in the chosen order (cost {order['cost']:.2f}{undecided})")
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=_DPI, metadata={"Software": "nonet"})
    return target.getvalue()
