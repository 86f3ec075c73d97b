"""A camera whose noise is known, from ISO 100 to 12,800: what becomes of its captures, beside AHD."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nonet.runtime.backends.contract import BackendOptions
from nonet.runtime.catalog import Catalog
from nonet.runtime.repository import RepositoryManager
from nonet.services import raw_image
from nonet.services.raw_image.capture import Capture
from nonet.services.raw_image.colour import Rendering, rendering_of
from nonet.services.raw_image.colour_models import OneMatrix
from nonet.services.raw_image.domain import Domain
from nonet.services.raw_image.noise import NoiseModel, estimate_noise
from tests.services.raw_image.conftest import Lab
from tests.support.simulated_camera import BLACK, GAINS, MATRIX, WHITE, SimulatedCamera

ROOT = Path(__file__).resolve().parents[3]
ISOS = (100, 1600, 6400, 12_800)


@pytest.fixture(scope="module")
def shipped() -> Iterator[Lab]:
    """The development service over the network of the repository."""
    catalog = Catalog()
    options = BackendOptions(concurrency=1)
    manager = RepositoryManager(
        ROOT / "model_repository", catalog, options=options, derivations=[raw_image.derive]
    )
    manager.load("wild_jdd")
    with catalog.lease("develop.wild_jdd") as lease:
        yield Lab(lease.servable)
    manager.unload("wild_jdd")


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    with Image.open(ROOT / "docs" / "examples" / "bananas.jpg") as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64) / 255


def rendering(mosaic: np.ndarray) -> Rendering:
    colours = OneMatrix(MATRIX)
    capture = Capture(mosaic, "RGGB", (BLACK,) * 4, (WHITE,) * 4, gains=GAINS, colours=colours)
    return rendering_of(capture, GAINS, colours)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return -10 * math.log10(float(np.mean((one - other)[8:-8, 8:-8] ** 2)))


def by_ahd(file: bytes, scene: np.ndarray) -> np.ndarray:
    """Balanced camera RGB as LibRaw's AHD gives it, at the brightness that comes closest to the scene."""
    rawpy = pytest.importorskip("rawpy")
    with rawpy.imread(io.BytesIO(file)) as raw:
        linear = raw.postprocess(
            demosaic_algorithm=rawpy.DemosaicAlgorithm.AHD,
            output_color=rawpy.ColorSpace.raw,
            gamma=(1, 1),
            no_auto_bright=True,
            user_wb=[*GAINS, 1.0],
            output_bps=16,
        ).astype(np.float64)
    scaled: np.ndarray = linear * (np.sum(linear * scene) / np.sum(linear**2))
    return scaled


@pytest.mark.slow
@pytest.mark.parametrize("iso", ISOS)
def test_the_picture_is_nearer_to_the_scene_than_ahd_makes_it(iso, shipped, photograph) -> None:
    camera = SimulatedCamera(iso)
    scene = camera.scene(photograph)
    mosaic, file = camera.mosaic(scene, iso), camera.file(scene, iso)
    render = rendering(mosaic)

    def shown(levels: np.ndarray) -> np.ndarray:
        return render.picture(levels.transpose(2, 0, 1).astype(np.float32)).transpose(1, 2, 0)

    picture = shipped.picture(file, render="srgb", output="png16") / 65535
    ours, theirs = psnr(picture, shown(scene)), psnr(shown(by_ahd(file, scene)), shown(scene))
    assert ours > theirs + (1 if iso == 100 else 2), f"{ours:.2f} dB, AHD {theirs:.2f} dB"


@pytest.mark.parametrize("iso", [400, 3200, 12_800])
def test_every_colour_has_even_noise_where_the_network_looks(iso) -> None:
    """Whatever the level; a common offset for all colours leaves dark reds and blues far too noisy."""
    noise = SimulatedCamera(iso).noise
    domain = Domain.of_light(NoiseModel(noise.a, noise.b, 0.2), None, GAINS)
    random = np.random.default_rng(0)
    gains = np.array([GAINS[0], GAINS[1], GAINS[1], GAINS[2]]).reshape(4, 1, 1)
    spreads = []
    for level in (0.02, 0.1, 0.4):
        deviation = math.sqrt(noise.a * level + noise.b)
        samples = gains * (level + deviation * random.standard_normal((4, 300, 300)))
        spreads.append(domain.forth(samples.astype(np.float32)).std(axis=(1, 2)))
    spread = np.array(spreads)
    assert (spread.max(axis=0) / spread.min(axis=0) < 1.12).all()
    assert spread.max() < 26 / 255


@pytest.mark.parametrize("iso", [3200, 6400, 12_800])
def test_the_offset_is_that_of_the_noise_even_where_no_intercept_is_measured(iso) -> None:
    """Dark places are few in most pictures, and the line through the others often ends at zero."""
    noise = SimulatedCamera(iso).noise
    domain = Domain.of_light(NoiseModel(noise.a, 0.0, 0.2), None, GAINS)
    assert 0.3 < domain.offset / (noise.b / noise.a) < 1.5


@pytest.mark.parametrize("iso", ISOS[1:])
def test_the_noise_of_a_capture_is_found_at_the_level_that_counts(iso, photograph) -> None:
    camera = SimulatedCamera(iso)
    smooth = np.repeat(np.repeat(photograph[::8, ::8], 24, axis=0), 24, axis=1)
    mosaic = camera.mosaic(camera.scene(smooth), iso)
    found = estimate_noise(Capture(mosaic, "RGGB", (BLACK,) * 4, (WHITE,) * 4))
    assert found.sigma(0.2) == pytest.approx(camera.noise.sigma(0.2), rel=0.2)
