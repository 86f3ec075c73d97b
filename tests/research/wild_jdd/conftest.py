"""One short training, published, that several tests look at: exporting a graph is what takes long."""

import numpy as np
import pytest
from PIL import Image

from nonet.research.systems import TrainOptions
from nonet.research.wild_jdd import commands


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    sets = {
        "bsds500_train": (12, "jpg"),
        "sunhays80_half": (11, "webp"),
        "kodak": (1, "png"),
        "mcmaster": (1, "png"),
    }
    for name, (count, suffix) in sets.items():
        (root / name).mkdir()
        for index in range(count):
            coarse = generator.integers(0, 256, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC).save(
                root / name / f"{index:02d}.{suffix}"
            )
    return root


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    options = TrainOptions(
        preset="tiny", repository=folder / "repository", runs=folder / "runs", data=data, seed=1
    )
    commands.train(options)
    return options
