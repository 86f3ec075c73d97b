"""The housing task: prices of Californian districts, from the coast to the inland.

Data: R. K. Pace, R. Barry, "Sparse Spatial Autoregressions", 1997, one row for each block group of the 1990
census. Eight features as scikit-learn has them; the label is the median price in 100,000 USD.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
from pathlib import Path

import numpy as np

from nonet.research.tasfar.adaptation import Recipe
from nonet.research.tasfar.networks import NetworkSpec
from nonet.research.tasfar.tasks import Domain, Domains, RegressionTask, SourceTraining, mean_square_error
from nonet.runtime.repository.manifest import DataSource

__all__ = ["HOUSING", "HOUSING_RAW", "load_housing"]

FEATURES = (
    "median income (10,000 USD)",
    "median age of houses (years)",
    "rooms per household",
    "bedrooms per household",
    "population",
    "people per household",
    "latitude (degrees)",
    "longitude (degrees)",
)


def load_housing(root: Path) -> Domains:
    """Both domains: source on the coast, target inland, cut by two lines (specification, section 8), rows in
    the order of the file. Raises FileNotFoundError if `california_housing` is absent."""
    with gzip.open(root / "california_housing" / "cal_housing.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    column = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    households = column["households"]
    features = np.stack(
        [
            column["median_income"],
            column["housing_median_age"],
            column["total_rooms"] / households,
            column["total_bedrooms"] / households,
            column["population"],
            column["population"] / households,
            column["latitude"],
            column["longitude"],
        ],
        1,
    ).astype(np.float32)
    labels = column["median_house_value"][:, None] / 100_000
    west, north = column["longitude"], column["latitude"]
    coast = np.where(west <= -120, north <= -1.2 * west - 108, north <= -0.75 * west - 54)
    each = np.arange(len(rows))
    source, target = (Domain(features[part], labels[part], each[part]) for part in (coast, ~coast))
    return Domains(source, target)


HOUSING = RegressionTask(
    name="housing",
    title="house prices, from the coast of California to the inland",
    load=load_housing,
    spec=NetworkSpec("mlp", (8,), widths=(128, 128), tail=(64,), clip=6.0),
    # Scaled labels fit the coast a little better and are far worse inland: the network extrapolates further.
    training=SourceTraining(epochs=30, scaled="inputs"),
    recipe=Recipe(width=0.5, rate=1e-4, epochs=10),
    metric=mean_square_error,
    metric_name="mean square error, (100,000 USD)²",
    outputs=("median house price",),
    units=("100,000 USD",),
    features=FEATURES,
    data=(
        DataSource(
            name="california_housing (coast)",
            licence="none stated; aggregates of the United States census of 1990",
            origin="R. K. Pace and R. Barry, Statistics and Probability Letters 33, 1997; StatLib",
        ),
    ),
    licence="research use: the data, census aggregates, state no licence",
    credit="Trained by Nonet from random weights.",
)

#: Features as they are, as published: much of the error there is the missing scaling's.
HOUSING_RAW = dataclasses.replace(
    HOUSING,
    name="housing_raw",
    title=f"{HOUSING.title}, features not scaled",
    spec=dataclasses.replace(HOUSING.spec, clip=0.0),
    training=SourceTraining(epochs=60, scaled="nothing"),
    recipe=Recipe(width=0.5, rate=1e-5, epochs=10),
)
