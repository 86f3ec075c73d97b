"""A trained network -> a version of the model repository: exported, proven, described, published."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from nonet.research.wild_jdd.bayer import mosaic, pack
from nonet.research.wild_jdd.calibration import Calibration, Quantiles
from nonet.research.wild_jdd.network import WildJdd
from nonet.research.wild_jdd.noise import add_gaussian
from nonet.research.wild_jdd.onnx_graph import (
    BATCHES,
    OUTPUTS,
    TileForm,
    check_batch_invariant,
    check_equal_to_torch,
    export_graph,
    open_session,
    run_graph,
)
from nonet.research.wild_jdd.photographs import TrainingSet
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.layout import VersionFolder
from nonet.runtime.repository.manifest import DataSource, Manifest
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import DataType, TensorSpec

MAX_BATCH = 8
CHECK_ROWS = 1  # full-size outputs are megabytes per row
TASK = "raw-restoration"
DATA = (
    DataSource(
        name="BSDS500 training images",
        licence="non-commercial research and education",
        origin="P. Arbelaez, M. Maire, C. Fowlkes, J. Malik, TPAMI 2011",
    ),
    DataSource(
        name="Sun-Hays 80 (reduced by two)",
        licence="none stated; research use",
        origin="L. Sun, J. Hays, ICCP 2012; J.-B. Huang et al., CVPR 2015",
    ),
)
PUBLISHED_START = DataSource(
    name="starting weights: demosaicnet bayer.pth",
    licence="MIT",
    origin="M. Gharbi, G. Chaurasia, S. Paris, F. Durand, SIGGRAPH Asia 2016",
)


NOISE_AWARE_TEACHER = DataSource(
    name="teacher of noisy patches: demosaicnet_caffe bayer_noise",
    licence="MIT",
    origin="M. Gharbi, G. Chaurasia, S. Paris, F. Durand, SIGGRAPH Asia 2016",
)


@dataclass(frozen=True)
class Release:
    """What the manifest says of a version beyond its files."""

    variant: str
    command: str
    published_start: bool
    taught: bool = False
    quality: Mapping[str, float | int | str] = field(default_factory=dict)

    def sources(self) -> tuple[DataSource, ...]:
        """Everything that the version has learnt from."""
        start = (PUBLISHED_START,) if self.published_start else ()
        teacher = (NOISE_AWARE_TEACHER,) if self.taught else ()
        return (*DATA, *start, *teacher)


def check_tiles(pictures: TrainingSet, tile: int, count: int) -> np.ndarray:
    """Packed tiles (count, 4, T/2, T/2) of held-out photographs at levels 0 to 25, repeated to fill."""
    tiles = []
    for index in range(count):
        image = pictures.held_out[index % len(pictures.held_out)]
        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        picture = torch.from_numpy(image[:height, :width].copy()).permute(2, 0, 1).float() / 255
        repeats = (1, -(-tile // height), -(-tile // width))
        filled = picture.repeat(*repeats)[None, :, :tile, :tile]
        level = 25 / 255 * index / max(count - 1, 1)
        tiles.append(pack(add_gaussian(mosaic(filled), level, torch.Generator().manual_seed(index))))
    return torch.cat(tiles).numpy()


def publish(
    repository: Path,
    name: str,
    network: WildJdd,
    calibration: Calibration,
    release: Release,
    pictures: TrainingSet,
    *,
    tile: int = 320,
    replace: bool = False,
) -> VersionFolder:
    """Export, prove and publish one version for tiles of `tile` pixels.

    Raises:
        ExportError: if the graph differs from PyTorch or a batch changes an answer.
        ServingError: what `publish_version` raises.
    """
    form = TileForm(network.eval(), calibration.scale)
    tiles = check_tiles(pictures, tile, max(BATCHES))
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        export_graph(form, tile, graph)
        session = open_session(graph)
        check_equal_to_torch(session, form, tiles[:CHECK_ROWS])
        check_batch_invariant(session, tiles)
        checked = tiles[max(BATCHES) // 2 :][:CHECK_ROWS]
        files: dict[str, bytes | Path] = {
            "model.onnx": graph,
            "check.safetensors": save({"mosaic": checked, **run_graph(session, checked)}),
        }
        manifest = Manifest(
            files={"model.onnx": "0" * 64},  # publish_version puts the real hashes here
            source={
                "system": "wild_jdd",
                "paper": "arXiv 2101.04442",
                "variant": release.variant,
                "tile": tile,
                "halo": network.halo,
                "interval_factors": interval_factors(calibration.quantiles),
            },
            command=release.command,
            data=release.sources(),
            quality=dict(release.quality),
            licence="research use, following the training photographs",
            credit="Wild-JDD by J. Chen, S. Wen, S.-H. G. Chan; starting weights by M. Gharbi et al."
            if release.published_start
            else "Wild-JDD by J. Chen, S. Wen, S.-H. G. Chan",
            task=TASK,
            family="wild_jdd",
            check_set="check.safetensors",
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )
        return publish_version(repository, name, files, tile_config(name, tile), manifest, replace=replace)


def tile_config(name: str, tile: int) -> str:
    """The text of config.pbtxt for tiles of one size."""
    return build_config(
        name,
        max_batch_size=MAX_BATCH,
        inputs=[TensorSpec("mosaic", DataType.FP32, (-1, 4, tile // 2, tile // 2))],
        outputs=[TensorSpec(output, DataType.FP32, (-1, 3, tile, tile)) for output in OUTPUTS],
    )


def interval_factors(quantiles: Quantiles) -> dict[str, float]:
    """Half-widths of central intervals, by level in percent, as multiples of the served `std`."""
    return {f"{round(100 * level)}": round(factor, 4) for level, factor in sorted(quantiles.factors.items())}
