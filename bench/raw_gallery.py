"""Side-by-side pictures for docs/raw.md: real captures developed by LibRaw's own pipeline and by Nonet.

    python -m bench.raw_gallery --repository model_repository --data ../shared/data --output docs/raw

LibRaw gets the bare mosaics wrapped as DNG with the same levels, gains and matrix: both see the same facts.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rawpy
from PIL import Image, ImageDraw

from nonet.runtime.backends.contract import BackendOptions
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import ServingError
from nonet.runtime.repository import RepositoryManager
from nonet.runtime.requests import InferRequest
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Tensor
from nonet.services import raw_image

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from tests.support import handmade_captures

PANEL = (480, 320)
QUALITY = 80


@dataclasses.dataclass(frozen=True)
class Scene:
    """A bare mosaic, its facts, and the detail [left, top, width, height] that is shown enlarged."""

    name: str
    file: str
    width: int
    height: int
    black: int
    white: int
    gains: tuple[float, float, float]
    matrix: tuple[float, ...] | None
    crop: tuple[int, int, int, int]
    detail: tuple[int, int, int, int]


SCENES = (
    Scene(
        "rose",
        "DSC_1339_768x512_rggb_u16.raw",
        768,
        512,
        600,
        15520,
        (1.94921875, 1.0, 1.34375),
        (0.9020, -0.2890, -0.0715, -0.4535, 1.2436, 0.2348, -0.0934, 0.1919, 0.7086),
        (0, 0, 768, 512),
        (400, 280, 144, 96),
    ),
    Scene(
        "chart",
        "openisp_1920x1080_rggb_u16.raw",
        1920,
        1080,
        0,
        1023,
        (1.5, 1.0, 1.1),
        None,
        (192, 0, 768, 512),
        (90, 180, 108, 72),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("docs/raw"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    service = load(options.repository)
    for scene in SCENES:
        mosaic = read(options.data / "raw_bayer" / scene.file, scene)
        ours, facts = develop(service, mosaic, scene)
        deviation, _ = develop(service, mosaic, scene, uncertainty=True)
        panels = {
            "LibRaw (AHD)": libraw(mosaic, scene),
            "Nonet": ours,
            "Nonet, std x 4": np.minimum(deviation.astype(np.uint16) * 4, 255).astype(np.uint8),
        }
        sheet(panels, scene.detail).save(options.output / f"{scene.name}.jpg", quality=QUALITY)
        print(scene.name, json.dumps(facts))


def load(repository: Path) -> Servable:
    """The development service of the first restoration network in a repository."""
    catalog = Catalog()
    RepositoryManager(
        repository, catalog, options=BackendOptions(concurrency=1), derivations=[raw_image.derive]
    ).load_all()
    name = next(info.name for info in catalog.infos() if info.name.startswith(raw_image.SERVICE_PREFIX))
    return catalog.lease(name).__enter__().servable


def read(path: Path, scene: Scene) -> np.ndarray:
    mosaic = np.frombuffer(path.read_bytes(), "<u2").reshape(scene.height, scene.width)
    left, top, width, height = scene.crop
    return np.ascontiguousarray(mosaic[top : top + height, left : left + width])


def develop(service: Servable, mosaic: np.ndarray, scene: Scene, **more: Any) -> tuple[np.ndarray, Any]:
    """The service's picture (8 bits) and what it says of it."""
    parameters: dict[str, Any] = {
        "cfa": "RGGB",
        "render": "srgb",
        "black_level": scene.black,
        "white_level": scene.white,
        "white_balance": ",".join(map(str, scene.gains)),
        **more,
    }
    if scene.matrix is not None:
        parameters["camera_matrix"] = ",".join(map(str, scene.matrix))
    request = InferRequest(
        model=service.info.name,
        inputs=(Tensor.of_bytes("raw", [handmade_captures.npy(mosaic)]),),
        parameters=parameters,
    )
    (outcome,) = service.execute([request])
    if isinstance(outcome, ServingError):
        raise outcome
    with Image.open(io.BytesIO(outcome.output("picture").data[0])) as image:
        return np.asarray(image.convert("RGB")), json.loads(outcome.output("details").data[0])


def libraw(mosaic: np.ndarray, scene: Scene) -> np.ndarray:
    """LibRaw's default rendering of the same mosaic with the same facts."""
    identity = [value for row in np.eye(3).tolist() for value in row]
    tags = {
        50721: (10, [part for value in scene.matrix or identity for part in (round(value * 10000), 10000)]),
        50728: (5, [part for gain in scene.gains for part in (10000, round(gain * 10000))]),
    }
    file = handmade_captures.dng(mosaic, black=scene.black, white=scene.white, tags=tags)
    with rawpy.imread(io.BytesIO(file)) as raw:
        colour = rawpy.ColorSpace.sRGB if scene.matrix else rawpy.ColorSpace.raw
        return np.asarray(raw.postprocess(use_camera_wb=True, output_color=colour))


def sheet(panels: dict[str, np.ndarray], detail: tuple[int, int, int, int]) -> Image.Image:
    """The pictures beside each other, each with its enlarged detail below."""
    width, height = PANEL
    canvas = Image.new("RGB", (len(panels) * width, 2 * height + 20), "white")
    draw = ImageDraw.Draw(canvas)
    left, top, across, down = detail
    for column, (title, pixels) in enumerate(panels.items()):
        image = Image.fromarray(pixels)
        canvas.paste(image.resize(PANEL, Image.Resampling.LANCZOS), (column * width, 20))
        enlarged = image.crop((left, top, left + across, top + down)).resize(PANEL, Image.Resampling.NEAREST)
        canvas.paste(enlarged, (column * width, 20 + height))
        draw.text((column * width + 6, 4), title, fill="black")
    return canvas


if __name__ == "__main__":
    main()
