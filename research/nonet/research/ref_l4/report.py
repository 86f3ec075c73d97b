"""Tables of a benchmark's results, beside the models that the paper measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.table import Table

__all__ = ["PUBLISHED", "baseline_table", "result_tables"]

#: Acc at 0.5, mAcc and mAcc averaged over categories on all of Ref-L4 (the paper's tables 4 and 5), for
#: scale.
PUBLISHED: Final = {
    "CogVLM-Grounding": (81.70, 66.09, 52.56),
    "SPHINX-v2-1k": (81.31, 65.39, 46.40),
    "Qwen-VL-Chat": (73.80, 55.94, 31.41),
    "KOSMOS-2": (48.53, 34.72, 19.37),
    "GPT-4V": (9.91, 2.88, 1.42),
}
_CATEGORIES_SHOWN: Final = 10


def result_tables(facts: Mapping[str, Any]) -> list[Table]:
    """The official figures, the published ones for scale, and accuracy by source, length and kind."""
    official = Table(title=f"{facts['of']}, split {facts['split']}", title_justify="left")
    official.add_column("item")
    official.add_column("%", justify="right")
    for name, value in facts["metrics"].items():
        if not isinstance(value, list):
            official.add_row(name, "none" if value is None else f"{value:.2f}")
    for status, count in facts["answers"].items():
        official.add_row(f"answers: {status}", str(count))
    if facts["nothing"]["count"]:
        official.add_row(
            "describing nothing, got no box", f"{facts['nothing']['no_box']} of {facts['nothing']['count']}"
        )
    tables = [official, _published()]
    for cut, groups in facts["breakdown"].items():
        if groups:
            tables.append(_groups(cut, groups))
    return tables


def baseline_table(facts: Mapping[str, Any]) -> Table:
    """Grounders without weights."""
    view = Table(title=f"baselines on {facts['data']}, Acc at 0.5 (mAcc), %", title_justify="left")
    view.add_column("method")
    kinds = list(next(iter(facts["baselines"].values())))
    for kind in kinds:
        count = next(iter(facts["baselines"].values()))[kind]["count"]
        view.add_column(f"{kind}, {count}", justify="right")
    for method, row in facts["baselines"].items():
        view.add_row(method, *(f"{row[kind]['acc50']:.1f} ({row[kind]['macc']:.1f})" for kind in kinds))
    return view


def _published() -> Table:
    view = Table(title="on all of Ref-L4, as the paper reports", title_justify="left")
    view.add_column("model")
    for name in ("Acc 0.5", "mAcc", "mAcc over categories"):
        view.add_column(name, justify="right")
    for model, figures in PUBLISHED.items():
        view.add_row(model, *(f"{each:.2f}" for each in figures))
    return view


def _groups(cut: str, groups: Mapping[str, Mapping[str, Any]]) -> Table:
    shown = list(groups.items())
    if cut == "category" and len(shown) > _CATEGORIES_SHOWN:
        shown = sorted(shown, key=lambda each: -each[1]["count"])[:_CATEGORIES_SHOWN]
    view = Table(title=f"by {cut}", title_justify="left")
    view.add_column(cut)
    for name in ("count", "Acc 0.5", "mAcc"):
        view.add_column(name, justify="right")
    for name, figures in shown:
        view.add_row(name, str(figures["count"]), f"{figures['acc50']:.2f}", f"{figures['macc']:.2f}")
    return view
