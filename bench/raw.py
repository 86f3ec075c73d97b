"""Megapixels per second of raw development, as a ratio to Menon2007 and to demosaicnet, in one run.

    python -m bench.raw --repository model_repository [--megapixels 2] [--rounds 3] [--json FILE]

Needs bench/requirements-raw.txt. The three get the same noisy Bayer mosaic, on one thread, in turn (A B C, A
B C, ...); the figure is each one's least CPU time over the rounds, which other load on the machine disturbs
least. `service` is the whole service: reading, noise estimate, tiles through the network, encoding. It
demosaicks and denoises; the other two only demosaick, so the ratios favour them. `batched` is eight captures
of one tile in one batch against one after another.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nonet.runtime.backends.contract import BackendOptions
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import ServingError
from nonet.runtime.repository import RepositoryManager
from nonet.runtime.requests import InferRequest
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Tensor
from nonet.services import raw_image

MEGA = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--megapixels", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    height = round((options.megapixels * MEGA / 1.5) ** 0.5 / 2) * 2
    mosaic = capture(height, height * 3 // 4 * 2)
    service = load(options.repository)
    methods: dict[str, Callable[[], object]] = {
        "service": lambda: develop(service, [mosaic]),
        "Menon2007": menon(mosaic),
        "demosaicnet": demosaicnet(mosaic),
    }
    seconds = least_cpu_time(methods, options.rounds)
    small = [capture(200, 200, seed) for seed in range(8)]
    batches = least_cpu_time(
        {
            "batched": lambda: develop(service, small),
            "one by one": lambda: [develop(service, [each]) for each in small],
        },
        options.rounds,
    )
    speeds = {name: mosaic.size / MEGA / each for name, each in seconds.items()}
    result = {
        "machine": {"processor": platform.processor(), "python": platform.python_version()},
        "model": service.info.network,
        "pixels": list(mosaic.shape),
        "rounds": options.rounds,
        "megapixels_per_cpu_second": speeds,
        "ratio_to_menon2007": speeds["service"] / speeds["Menon2007"],
        "ratio_to_demosaicnet": speeds["service"] / speeds["demosaicnet"],
        "eight_small_captures_batched_to_one_by_one": batches["one by one"] / batches["batched"],
    }
    print(f"{'method':<12} {'Mpx / CPU s':>12} {'service is':>12}")
    for name, speed in speeds.items():
        print(f"{name:<12} {speed:>12.3f} {speeds['service'] / speed:>11.2f}x")
    gain = result["eight_small_captures_batched_to_one_by_one"]
    print(f"eight small captures: batched is {gain:.2f}x as fast")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def least_cpu_time(methods: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least CPU seconds of each method over the rounds, after one round unmeasured."""
    least = dict.fromkeys(methods, float("inf"))
    for turn in range(rounds + 1):
        for name, method in methods.items():
            started = time.process_time()
            method()
            if turn > 0:
                least[name] = min(least[name], time.process_time() - started)
    return least


def capture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A uint16 RGGB mosaic of smooth shapes with noise of sigma 10 of 255."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = 0.5 + 0.2 * np.sin(rows / 17 + seed) * np.cos(columns / 29) + 0.2 * np.sin((rows + columns) / 5)
    return ((smooth + random.normal(0, 10 / 255, smooth.shape)).clip(0, 1) * 65535).astype(np.uint16)


def load(repository: Path) -> Servable:
    catalog = Catalog()
    RepositoryManager(
        repository, catalog, options=BackendOptions(concurrency=1), derivations=[raw_image.derive]
    ).load_all()
    name = next(info.name for info in catalog.infos() if info.name.startswith(raw_image.SERVICE_PREFIX))
    return catalog.lease(name).__enter__().servable


def develop(service: Servable, mosaics: list[np.ndarray]) -> None:
    requests = [
        InferRequest(
            model=service.info.name,
            inputs=(Tensor.of_bytes("raw", [mosaic.tobytes()]),),
            parameters={
                "cfa": "RGGB",
                "height": mosaic.shape[0],
                "width": mosaic.shape[1],
                "output": "png16",
            },
        )
        for mosaic in mosaics
    ]
    for outcome in service.execute(requests):
        if isinstance(outcome, ServingError):
            raise outcome


def menon(mosaic: np.ndarray) -> Callable[[], object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from colour_demosaicing import demosaicing_CFA_Bayer_Menon2007

    levels = mosaic / 65535
    return lambda: demosaicing_CFA_Bayer_Menon2007(levels, "RGGB")


def demosaicnet(mosaic: np.ndarray) -> Callable[[], object]:
    """The pretrained network, which expects a GRBG mosaic spread over three planes; in strips of 256 rows."""
    import demosaicnet as package
    import torch

    torch.set_num_threads(1)
    network: Any = package.BayerDemosaick().eval()
    planes = np.zeros((1, 3, *mosaic.shape), np.float32)
    levels = mosaic / np.float32(65535)
    planes[0, 1, 0::2, 0::2] = levels[0::2, 0::2]
    planes[0, 0, 0::2, 1::2] = levels[0::2, 1::2]
    planes[0, 2, 1::2, 0::2] = levels[1::2, 0::2]
    planes[0, 1, 1::2, 1::2] = levels[1::2, 1::2]
    tensor = torch.from_numpy(planes)

    def run() -> None:
        with torch.no_grad():
            for top in range(0, mosaic.shape[0], 256):
                strip = tensor[:, :, top : top + 256]
                if strip.shape[2] >= 64:
                    network(strip)

    return run


if __name__ == "__main__":
    main()
