"""The benchmark: a published version on Kodak and McMaster beside classic and published methods.

Tables: PSNR with a 10 px cut and without, SSIM. Then interval coverage by noise level, and the noise map
    against the
true level. The paper's own tables could not be obtained; its stated gains are quoted beside the result.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from nonet.research.wild_jdd import classic
from nonet.research.wild_jdd.calibration import Quantiles, Reliability, Study
from nonet.research.wild_jdd.classic import Method
from nonet.research.wild_jdd.effects import flat_noise_variance, varying_map_correlation
from nonet.research.wild_jdd.restored import Restored, Restorer
from nonet.research.wild_jdd.restorer import as_method
from nonet.research.wild_jdd.scoring import SIGMAS, PictureSet, row, score_restorer, score_table
from nonet.research.wild_jdd.teachers import has_told_teacher

OURS = "Wild-JDD (blind)"
CROPS = {"kodak": (1, 5, 8, 10), "mcmaster": (1, 3, 5, 8)}  # BM3D takes ten seconds for each of these
CROP = 256
PAPER = "0.2 to 1 dB above earlier methods on synthetic noise, 0.2 dB on MSR (its tables were not available)"


@dataclass(frozen=True)
class Benchmark:
    """Results, ready for JSON: score rows, coverage by set and level, noise map, what was left out."""

    scores: list[dict[str, object]]
    coverage: dict[str, dict[str, dict[str, float]]]
    noise_map: dict[str, dict[str, float]]
    varying_correlation: float
    left_out: list[str]

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "paper": PAPER}


class Witness:
    """Sees every restored picture of one level: feeds the coverage study and averages the noise map."""

    def __init__(self, study: Study, sigma: float) -> None:
        self._study = study
        self._sigma = sigma
        self._variances: list[float] = []

    def __call__(self, picture: Tensor, restored: Restored) -> None:
        self._study.add(self._sigma, picture, restored)
        self._variances.append(flat_noise_variance(picture, restored))

    @property
    def noise_level(self) -> float:
        """Predicted noise on flat pixels, 0-255 scale: root of the mean variance."""
        return 255 * (sum(self._variances) / len(self._variances)) ** 0.5


def reference_methods(*, all_of_them: bool) -> tuple[dict[str, Method], list[str]]:
    """Methods to compare with, and the names of those left out for want of a package or of time."""
    methods: dict[str, Method] = {"bilinear": classic.interpolate}
    left_out = []
    if importlib.util.find_spec("colour_demosaicing"):
        methods |= {"Malvar 2004": classic.malvar, "Menon 2007": classic.menon}
    else:
        left_out.append("Malvar 2004 and Menon 2007 (pip install colour-demosaicing)")
    if all_of_them:
        methods["learned linear 9x9 (told sigma)"] = classic.make_learned_linear()
    else:
        left_out.append("learned linear 9x9 and Menon + BM3D (--baseline)")
    if not importlib.util.find_spec("demosaicnet"):
        left_out.append("demosaicnet (pip install --no-deps demosaicnet)")
    elif all_of_them:
        methods["demosaicnet"] = classic.make_published_network()
    else:
        left_out.append("demosaicnet (--baseline)")
    if not all_of_them:
        left_out.append("noise-aware (told sigma) (--baseline)")
    elif has_told_teacher():
        methods["noise-aware (told sigma)"] = classic.make_told_network()
    else:
        left_out.append("noise-aware (told sigma): its weights are absent from the data folder")
    return methods, left_out


def run_references(
    sets: Sequence[PictureSet],
    *,
    sigmas: Sequence[float] = SIGMAS,
    all_of_them: bool = True,
    report: Callable[[str], None] | None = None,
) -> tuple[list[dict[str, object]], list[str]]:
    """Score rows of the methods to compare with, and what was left out. They depend on no model of ours."""
    methods, left_out = reference_methods(all_of_them=all_of_them)
    scores = score_table(methods, sets, sigmas, report=report)
    if all_of_them and importlib.util.find_spec("bm3d") and "Menon 2007" in methods:
        on_crops = {"Menon 2007": classic.menon, "Menon 2007 + BM3D (told sigma)": classic.menon_bm3d}
        scores += score_table(on_crops, small_crops(sets), sigmas, report=report)
    return scores, left_out


def small_crops(sets: Sequence[PictureSet]) -> list[PictureSet]:
    """Central crops of a few pictures, for methods that take ten seconds for each of these."""
    crops = []
    for pictures in sets:
        large = [index for index, one in enumerate(pictures.pictures, 1) if min(one.shape[-2:]) >= CROP]
        chosen = [number for number in CROPS.get(pictures.name, ()) if number in large]
        if chosen:
            crops.append(pictures.central(CROP, chosen))
    return crops


def run_benchmark(
    restorer: Restorer,
    factors: Quantiles,
    sets: Sequence[PictureSet],
    *,
    sigmas: Sequence[float] = SIGMAS,
    baseline: bool = False,
    report: Callable[[str], None] | None = None,
) -> tuple[Benchmark, dict[str, Reliability]]:
    """Everything measured of one restorer, and the curves of the reliability plot by set."""
    scores: list[dict[str, object]] = []
    coverage: dict[str, dict[str, dict[str, float]]] = {}
    curves: dict[str, Reliability] = {}
    noise_map: dict[str, dict[str, float]] = {}
    for pictures in sets:
        study = Study()
        noise_map[pictures.name] = {}
        for sigma in sigmas:
            witness = Witness(study, sigma)
            found = score_restorer(restorer, pictures, sigma, witness)
            scores.append(row(pictures.name, sigma, OURS, found))
            noise_map[pictures.name][f"{sigma:g}"] = round(witness.noise_level, 2)
            if report is not None:
                report(
                    f"{pictures.name} sigma {sigma:g} {OURS}: {found.psnr_cut:.2f} dB, SSIM {found.ssim:.4f}"
                )
        reliability = study.reliability(factors)
        curves[pictures.name] = reliability["all"]
        coverage[pictures.name] = {
            level: {f"{100 * p:g}": round(100 * result.coverage[p], 2) for p in (0.5, 0.9, 0.95)}
            for level, result in reliability.items()
        }
    scores += score_table({OURS: as_method(restorer)}, small_crops(sets), sigmas, report=report)
    references, left_out = run_references(sets, sigmas=sigmas, all_of_them=baseline, report=report)
    scores += references
    correlation = round(varying_map_correlation(restorer, sets[0]), 3)
    return Benchmark(scores, coverage, noise_map, correlation, left_out), curves


def as_table(scores: Sequence[dict[str, object]], measure_name: str = "psnr_cut") -> list[str]:
    """Lines of a Markdown table: one row per set and method, one column per level."""
    sigmas = sorted({float(str(entry["sigma"])) for entry in scores})
    lines = ["| set | method | " + " | ".join(f"σ={sigma:g}" for sigma in sigmas) + " |"]
    lines.append("|---" * (len(sigmas) + 2) + "|")
    cells: dict[tuple[str, str], dict[float, list[float]]] = {}
    for entry in scores:
        key = (str(entry["set"]), str(entry["method"]))
        cells.setdefault(key, {}).setdefault(float(str(entry["sigma"])), []).append(
            float(str(entry[measure_name]))
        )
    digits = 4 if measure_name == "ssim" else 2
    for (name, method), by_sigma in cells.items():
        values = [
            f"{sum(by_sigma[s]) / len(by_sigma[s]):.{digits}f}" if s in by_sigma else "" for s in sigmas
        ]
        lines.append(f"| {name} | {method} | " + " | ".join(values) + " |")
    return lines
