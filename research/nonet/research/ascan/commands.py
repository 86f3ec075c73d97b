"""`nonet train ascan` and `nonet evaluate ascan`: recipes with their files, progress and tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.table import Table

from nonet.research.fasternet.commands import console, write
from nonet.research.fasternet.grocery_files import data_root
from nonet.research.systems import EvaluateOptions, TrainOptions

if TYPE_CHECKING:
    from nonet.research.ascan.disc_cup_scores import Score
    from nonet.research.ascan.evaluation import Size
    from nonet.research.ascan.layout_speed import LayoutCost


def train(options: TrainOptions) -> None:
    """Run a preset: a line of JSON for each report, since runs are followed in a log; then publish."""
    from nonet.research.ascan.disc_cup import train_disc_cup

    root = options.data or data_root()
    trained = train_disc_cup(options, root, lambda line: print(json.dumps(line), flush=True))
    from nonet.research.ascan.disc_cup_release import finish

    for line in finish(options, root, trained):
        print(line, flush=True)


def evaluate(options: EvaluateOptions) -> None:
    """Measure the published networks beside baselines, the sizes and the layouts; print the tables, write the
    results if asked.
    """
    from nonet.research.ascan.evaluation import evaluate_all

    results = evaluate_all(options.repository, data_root(), options.split)
    out = console()
    out.print(mask_table(results.masks))
    out.print(size_table(results.sizes))
    out.print(layout_table(results.layouts))
    if options.output is not None:
        write(options.output, results.as_json(f"nonet evaluate ascan --split {options.split}"))
        out.print(f"results in {options.output}")


def mask_table(scores: list[Score]) -> Table:
    """Dice of optic disc and cup."""
    title = f"Optic disc and cup, {scores[0].photographs} photographs of {scores[0].split}: mean Dice (worst)"
    view = _table(title, "", "disc", "cup", "error of the cup-to-disc ratio (areas)")
    for row in scores:
        cells = [f"{mean:.3f} ({worst:.3f})" for mean, worst in zip(row.dice, row.worst, strict=True)]
        view.add_row(row.name, *cells, f"{row.ratio_error:.3f}")
    return view


def size_table(sizes: list[Size]) -> Table:
    """The published sizes beside what is stated of them."""
    view = _table("AsCAN at 224 px", "size", "parameters", "stated", "MACs", "stated")
    for row in sizes:
        view.add_row(
            row.name,
            f"{row.parameters / 1e6:.2f} M",
            f"{row.stated_parameters / 1e6:.0f} M",
            f"{row.macs / 1e9:.2f} G",
            f"{row.stated_macs / 1e9:.1f} G",
        )
    return view


def layout_table(costs: list[LayoutCost]) -> Table:
    """CPU time of each layout in units of the asymmetric one's."""
    title = "Layouts of 13 blocks, widths 32/64/128/256, CPU time of one run"
    view = _table(title, "layout", "side", "parameters", "MACs", "CPU ms", "ratio")
    for row in costs:
        view.add_row(
            f"{row.name} {row.layout}",
            str(row.side),
            f"{row.parameters / 1e6:.2f} M",
            f"{row.macs / 1e9:.2f} G",
            f"{row.milliseconds:.0f}",
            f"{row.ratio:.2f}",
        )
    return view


def _table(title: str, first: str, *headings: str) -> Table:
    view = Table(title=title, title_justify="left")
    view.add_column(first)
    for heading in headings:
        view.add_column(heading, justify="right")
    return view
