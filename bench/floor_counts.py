"""The number of floors where nobody gives it: FIS-ONE's estimate beside simple rules, on real and made-up
buildings.

Example: python bench/floor_counts.py --seeds 3 --output docs/results/floor_counts.json
Needs nonet[research] and the surveyed buildings.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from made_up_floors import made_up_building
from scipy.cluster.hierarchy import cut_tree, linkage
from sklearn.metrics import calinski_harabasz_score, silhouette_score

from nonet.research.fis_one.data import SurveyedBuilding
from nonet.research.fis_one.floor_count import estimate_floors
from nonet.research.fis_one.graph import GraphRule, build_graph
from nonet.research.fis_one.identifier_fit import scan_weights
from nonet.research.fis_one.network import initial_states
from nonet.research.fis_one.recipes import DEFAULT
from nonet.research.fis_one.study import CASES, load_case
from nonet.research.fis_one.training import Trainer, embed, unit_rows

COUNTS = range(2, 13)
SAMPLE = 600
REFERENCES = 5
FIRST_MADE_UP = 100  # the rule was learnt on seeds 0 to 6
NEIGHBOURS = 10
OURS = "FIS-ONE"


def silhouette(points: np.ndarray) -> int:
    labels = cut_tree(linkage(points, "ward"), list(COUNTS))
    scores = [silhouette_score(points, labels[:, column]) for column in range(len(COUNTS))]
    return COUNTS[int(np.argmax(scores))]


def calinski_harabasz(points: np.ndarray) -> int:
    labels = cut_tree(linkage(points, "ward"), list(COUNTS))
    scores = [calinski_harabasz_score(points, labels[:, column]) for column in range(len(COUNTS))]
    return COUNTS[int(np.argmax(scores))]


def largest_jump(points: np.ndarray) -> int:
    """Where the next merge of Ward's tree costs the most more than the one before."""
    heights = linkage(points, "ward")[::-1, 2]
    return COUNTS[int(np.argmax([heights[count - 2] - heights[count - 1] for count in COUNTS]))]


def gap_statistic(points: np.ndarray) -> int:
    """Tibshirani, Walther and Hastie 2001, references uniform along the principal axes, Ward."""
    draw = np.random.default_rng(0)
    centred = points - points.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    turned = centred @ axes.T
    made = [_spreads(draw.uniform(turned.min(0), turned.max(0), turned.shape)) for _ in range(REFERENCES)]
    gap = np.mean(made, 0) - _spreads(turned)
    error = np.std(made, 0) * np.sqrt(1 + 1 / REFERENCES)
    for index in range(len(COUNTS) - 1):
        if gap[index] >= gap[index + 1] - error[index + 1]:
            return COUNTS[index]
    return COUNTS[-1]


def _spreads(points: np.ndarray) -> np.ndarray:
    labels = cut_tree(linkage(points, "ward"), list(COUNTS)).T
    within = [
        sum(((points[label == each] - points[label == each].mean(0)) ** 2).sum() for each in np.unique(label))
        for label in labels
    ]
    return np.log(np.maximum(within, 1e-9))


def eigengap(points: np.ndarray) -> int:
    """The largest gap of the eigenvalues of the graph of ten neighbours by cosine."""
    rows = unit_rows(points)
    similar = rows @ rows.T
    np.fill_diagonal(similar, -1)
    near = np.argpartition(-similar, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    joined = np.zeros_like(similar)
    np.put_along_axis(joined, near, 1.0, axis=1)
    joined = (joined + joined.T) / 2
    scale = joined.sum(1) ** -0.5
    values = np.linalg.eigvalsh(scale[:, None] * joined * scale)[::-1]
    return COUNTS[int(np.argmax([values[count - 1] - values[count] for count in COUNTS]))]


RULES = {
    "silhouette": silhouette,
    "Calinski-Harabasz": calinski_harabasz,
    "gap statistic": gap_statistic,
    "largest jump": largest_jump,
    "eigengap": eigengap,
}
EMBEDDED = "silhouette, embeddings"


def embeddings(building: SurveyedBuilding, seed: int, kept: Path) -> np.ndarray:
    """The network's embeddings of the usable scans, trained as a fit does; kept in a file."""
    if kept.is_file():
        return np.load(kept)
    graph = build_graph(building.scans, DEFAULT.rule)
    initial = initial_states(graph.nodes, DEFAULT.dimension, np.random.default_rng([seed, 4]))
    trainer = Trainer(graph, initial, DEFAULT, seed)
    trainer.run(lambda _: None)
    rows = unit_rows(embed(trainer.network, initial, graph, DEFAULT.attention)[1][: graph.scans])
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.save(kept, rows)
    return rows


def measure(building: SurveyedBuilding, seed: int, trained: Path | None) -> dict[str, object]:
    graph = build_graph(building.scans, GraphRule())
    started = time.process_time()
    count = estimate_floors(building.scans, graph.scan_rows, seed)
    row: dict[str, object] = {
        OURS: count.floors,
        "chances": [[number, round(chance, 3)] for number, chance in count.chances],
        "warning": count.warning,
        "cpu_seconds": round(time.process_time() - started, 1),
    }
    draw = np.random.default_rng(seed)
    chosen = np.sort(draw.permutation(graph.scans)[:SAMPLE])
    raw = scan_weights(graph)[chosen].toarray().astype(np.float64)
    row |= {name: rule(raw) for name, rule in RULES.items()}
    if trained is not None:
        row[EMBEDDED] = silhouette(embeddings(building, seed, trained)[chosen].astype(np.float64))
    return row


def table(rows: list[dict[str, object]]) -> list[str]:
    names = [OURS, EMBEDDED, *RULES]
    lines = [f"| building | floors | {' | '.join(names)} | warned |", "|---" * (len(names) + 3) + "|"]
    for case in dict.fromkeys(row["case"] for row in rows):
        here = [row for row in rows if row["case"] == case]
        cells = [", ".join(str(row.get(name, "-")) for row in here) for name in names]
        warned = sum(row["warning"] is not None for row in here)
        lines.append(f"| {case} | {here[0]['true']} | {' | '.join(cells)} | {warned} of {len(here)} |")
    return lines


def summary(rows: list[dict[str, object]]) -> list[str]:
    lines = []
    for name in (OURS, *RULES):
        off = np.array([int(str(row[name])) - int(str(row["true"])) for row in rows])
        lines.append(
            f"| {name} | {np.mean(off == 0):.2f} | {np.mean(abs(off) <= 1):.2f} | {off.mean():+.1f} |"
        )
    right = np.array([row[OURS] == row["true"] for row in rows])
    warned = np.array([row["warning"] is not None for row in rows])
    lines.append(
        f"right without a warning {np.mean(right & ~warned):.2f}, with one {np.mean(right & warned):.2f};"
    )
    lines.append(
        f"wrong without a warning {np.mean(~right & ~warned):.2f}, with one {np.mean(~right & warned):.2f}"
    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--kept", type=Path, default=Path("/tmp/floor_counts"), help="folder of embeddings")
    parser.add_argument("--made-up", type=int, default=1, help="0: surveyed buildings alone")
    parser.add_argument("--output", type=Path, default=Path("docs/results/floor_counts.json"))
    arguments = parser.parse_args()
    real, made = [], []
    for seed in range(arguments.seeds):
        for case in filter(None, arguments.cases.split(",")):
            building = load_case(case, seed)
            kept = arguments.kept / f"emb_{case.replace('/', '-')}_{seed}.npy"
            row = measure(building, seed, kept)
            real.append({"case": case, "seed": seed, "true": len(building.floors), **row})
            print(real[-1], flush=True)
        for floors in COUNTS if arguments.made_up else ():
            row = measure(made_up_building(floors, FIRST_MADE_UP + seed), seed, None)
            made.append({"case": f"{floors} floors", "seed": seed, "true": floors, **row})
            print(made[-1], flush=True)
        arguments.output.write_text(json.dumps({"real": real, "made_up": made}, indent=1) + "\n")
    print("\n".join([*(table(real) if real else []), "", *(summary(made) if made else [])]))


if __name__ == "__main__":
    main()
