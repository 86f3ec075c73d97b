"""The trip task: how long a taxi ride in New York takes, from pickups outside Manhattan to those inside.

Data: records of the city's Taxi and Limousine Commission, January to June 2016, as in the Kaggle competition
"New York City Taxi Trip Duration"; a sample. The label is in seconds; it is learnt as log(1 + seconds), since
errors grow with the ride.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import gzip
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nonet.research.tasfar.adaptation import Recipe
from nonet.research.tasfar.networks import NetworkSpec
from nonet.research.tasfar.tasks import Domain, Domains, RegressionTask, SourceTraining
from nonet.runtime.repository.manifest import DataSource

__all__ = ["TRIPS", "TRIPS_SECONDS", "inside", "load_trips"]

FEATURES: Final = (
    "pickup longitude (degrees)",
    "pickup latitude (degrees)",
    "dropoff longitude (degrees)",
    "dropoff latitude (degrees)",
    "distance (km, straight line)",
    "distance along streets (km, east-west and north-south)",
    "log(1 + distance in m)",
    "bearing, sine",
    "bearing, cosine",
    "time of day, sine",
    "time of day, cosine",
    "weekday (0 Monday to 6)",
    "weekend (0 or 1)",
    "day of the year",
    "passengers",
    "highest temperature (Fahrenheit)",
    "precipitation (inches)",
)
_SECONDS: Final = (60, 7_200)
_KILOMETRES: Final = (0.1, 60.0)
_DEGREE: Final = 111.2  # km of latitude
_TRACE: Final = 0.005  # inches: less than can be measured


def load_trips(root: Path) -> Domains:
    """Both domains; rides of less than a minute or more than two hours, and of less than 100 m or more than
    60 km, are left out, as is usual. A day is a unit. Raises FileNotFoundError if `nyc_taxi` is absent."""
    folder = root / "nyc_taxi"
    with gzip.open(folder / "trips_sample_a.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    with (folder / "manhattan_polygon.csv").open(encoding="utf-8") as file:
        polygon = np.array([(float(row["lon"]), float(row["lat"])) for row in csv.DictReader(file)])
    from_x, from_y, to_x, to_y, hour, passengers, warm, duration = (
        np.array([float(row[name]) for row in rows])
        for name in (
            "pickup_longitude",
            "pickup_latitude",
            "dropoff_longitude",
            "dropoff_latitude",
            "Time",
            "passenger_count",
            "maximumTemperature",
            "trip_duration",
        )
    )
    rain = np.array([_TRACE if row["precipitation"] == "T" else float(row["precipitation"]) for row in rows])
    days = [datetime.date(2016, int(row["Month"]), int(row["Day"])) for row in rows]
    weekday = np.array([day.weekday() for day in days])
    of_year = np.array([day.timetuple().tm_yday for day in days])
    east = (to_x - from_x) * _DEGREE * np.cos(np.radians(40.75))
    north = (to_y - from_y) * _DEGREE
    distance, angle, turn = np.hypot(east, north), np.arctan2(north, east), hour * 2 * np.pi / 24
    features = np.stack(
        [
            from_x,
            from_y,
            to_x,
            to_y,
            distance,
            np.abs(east) + np.abs(north),
            np.log1p(1000 * distance),
            np.sin(angle),
            np.cos(angle),
            np.sin(turn),
            np.cos(turn),
            weekday,
            weekday >= 5,
            of_year,
            passengers,
            warm,
            rain,
        ],
        1,
    ).astype(np.float32)
    usual = (duration >= _SECONDS[0]) & (duration <= _SECONDS[1])
    usual &= (distance >= _KILOMETRES[0]) & (distance <= _KILOMETRES[1])
    manhattan = inside(np.stack([from_x, from_y], 1), polygon)
    source, target = (
        Domain(features[part], duration[part, None], of_year[part].astype(np.int64))
        for part in (usual & ~manhattan, usual & manhattan)
    )
    return Domains(source, target)


def inside(points: NDArray[np.float64], polygon: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points [N, 2] lie in a polygon [M, 2]: a ray to the right then crosses its edges an odd number
    of times."""
    x, y = points[:, :1], points[:, 1:]
    x1, y1 = polygon.T
    x2, y2 = np.roll(polygon, -1, 0).T
    crosses = (y1 > y) != (y2 > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x1 + (y - y1) * (x2 - x1) / (y2 - y1)
    return np.asarray((crosses & (x < at)).sum(1) % 2 == 1)


def _log_error(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    return float(np.sqrt(((np.log1p(np.maximum(found, 0)) - np.log1p(wanted)) ** 2).mean()))


TRIPS = RegressionTask(
    name="trips",
    title="taxi trips, from pickups outside Manhattan to those inside",
    load=load_trips,
    spec=NetworkSpec("mlp", (len(FEATURES),), widths=(128, 128), tail=(64,), clip=6.0, space="log1p"),
    training=SourceTraining(epochs=80, batch=64, decay=0.05),
    recipe=Recipe(width=0.1, rate=1e-4, epochs=10),
    metric=_log_error,
    metric_name="root mean square error of log(1 + s)",
    outputs=("trip duration",),
    units=("s",),
    features=FEATURES,
    data=(
        DataSource(
            name="nyc_taxi (pickups outside Manhattan)",
            licence="none stated; public records of the city",
            origin="New York City Taxi and Limousine Commission, 2016, by way of Kaggle",
        ),
    ),
    licence="research use: the data, public records, state no licence",
    credit="Trained by Nonet from random weights.",
)

#: Labels in seconds, as published.
TRIPS_SECONDS = dataclasses.replace(
    TRIPS,
    name="trips_seconds",
    title=f"{TRIPS.title}, labels in seconds",
    spec=dataclasses.replace(TRIPS.spec, space="linear"),
    recipe=Recipe(width=100.0, rate=1e-4, epochs=10),
)
