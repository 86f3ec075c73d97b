"""The preset `paper`: the ImageNet-1k recipe of the publication, for any folder of class folders.

`--data FOLDER` holds `train/<class>/*` and `val/<class>/*`. The published runs used 8 accelerators; on one
CPU this is for fine-tuning studies and small data, and it says so by its estimate of the time left.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nonet.research.fasternet.augment import ViewPolicy, mix
from nonet.research.fasternet.distillation import smoothed, soft_cross_entropy
from nonet.research.fasternet.importer import PAPER, PREPROCESSING
from nonet.research.fasternet.network import MEAN, PUBLISHED, STD, VARIANTS, FasterNet
from nonet.research.fasternet.randaugment import randaugment
from nonet.research.fasternet.release import Release, publish
from nonet.research.fasternet.training import Order, Report, Schedule, fit
from nonet.research.systems import TrainOptions
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.images import Preprocessing, decode_image, preprocess

_MEAN = torch.tensor(MEAN)[:, None, None]
_STD = torch.tensor(STD)[:, None, None]
_ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True)
class PaperRecipe:
    """Section "Training recipe" of the specification; lr is 0.001 x batch / 1024."""

    batch: int
    weight_decay: float
    mixup: float
    magnitude: float = 0.0  # of RandAugment; 0 switches it off
    clip: float = 0.0
    epochs: int = 300
    warmup_epochs: int = 20
    deviation: float = 0.5
    smoothing: float = 0.1
    micro_batch: int = (
        128  # pictures in memory at a time; gradients of batch / micro_batch of them are averaged
    )
    sizes: tuple[int, int] = (192, 224)
    last_size_share: float = 20 / 300  # the end of training that sees the larger size

    @property
    def lr(self) -> float:
        return 0.001 * self.batch / 1024


RECIPES: dict[str, PaperRecipe] = {
    "t0": PaperRecipe(4096, 0.005, 0.05),
    "t1": PaperRecipe(4096, 0.01, 0.1, magnitude=3),
    "t2": PaperRecipe(4096, 0.02, 0.1, magnitude=5),
    "s": PaperRecipe(4096, 0.03, 0.3, magnitude=7),
    "m": PaperRecipe(2048, 0.05, 0.5, magnitude=7, clip=1.0),
    "l": PaperRecipe(2048, 0.05, 0.7, magnitude=7, clip=0.01),
}


@dataclass(frozen=True)
class ClassFolders:
    """Files and class indices of one split."""

    files: tuple[Path, ...]
    labels: Tensor
    names: tuple[str, ...] = field(default_factory=tuple)


def list_folders(root: Path, split: str) -> ClassFolders:
    """`root/split/<class>/<picture>`. Raises InvalidArgument if there is no picture or only one class."""
    folder = root / split
    names = (
        tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir())) if folder.is_dir() else ()
    )
    files, labels = [], []
    for index, name in enumerate(names):
        for file in sorted((folder / name).iterdir()):
            if file.suffix.lower() in _ENDINGS:
                files.append(file)
                labels.append(index)
    if len(set(labels)) < 2:
        raise InvalidArgument(
            f"the data folder needs '{split}' with a folder of pictures for each class", param="data"
        )
    return ClassFolders(tuple(files), torch.tensor(labels), names)


def training_view(path: Path, size: int, recipe: PaperRecipe, random: np.random.Generator) -> np.ndarray:
    """Random resized crop (8 to 100 % of the area, bicubic), mirror, RandAugment: (3, size, size) uint8."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    width, height = picture.size
    box = (0.0, 0.0, float(width), float(height))
    for _ in range(10):
        area = random.uniform(0.08, 1.0) * width * height
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = random.uniform(0, width - w), random.uniform(0, height - h)
            box = (left, top, left + w, top + h)
            break
    view = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if random.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if recipe.magnitude:
        view = randaugment(view, recipe.magnitude, recipe.deviation, random)
    return np.asarray(view).transpose(2, 0, 1)


def train_paper(options: TrainOptions, report: Report, recipe: PaperRecipe | None = None) -> float:
    """Train one published variant (`--variant`, default t0); returns top-1 in percent on the val folder."""
    variant = options.variant or "t0"
    if variant not in PUBLISHED:
        raise InvalidArgument(
            f"the paper has no variant '{variant}'; it has {', '.join(PUBLISHED)}", param="variant"
        )
    if options.data is None:
        raise InvalidArgument(
            "the preset 'paper' needs --data FOLDER with train/ and val/ class folders", param="data"
        )
    torch.set_num_threads(options.threads)
    recipe = recipe or RECIPES[variant]
    train, val = list_folders(options.data, "train"), list_folders(options.data, "val")
    batch = min(recipe.batch, len(train.files))
    micro = min(recipe.micro_batch, batch)
    pieces = batch // micro
    per_epoch = max(1, len(train.files) // (micro * pieces))
    schedule = Schedule(
        steps=recipe.epochs * per_epoch,
        batch=micro * pieces,
        lr=recipe.lr,
        min_lr=1e-5,
        start_lr=1e-6,
        warmup=recipe.warmup_epochs * per_epoch,
        weight_decay=recipe.weight_decay,
        clip=recipe.clip,
        ema=0.0,
        seed=options.seed,
    )
    torch.manual_seed(options.seed)
    network = FasterNet(VARIANTS[variant], len(train.names))
    order = Order(len(train.files), micro, options.seed)
    policy = ViewPolicy(mix_probability=1.0, mixup_alpha=recipe.mixup, cutmix_alpha=1.0)
    switch = int(schedule.steps * (1 - recipe.last_size_share))

    with ThreadPoolExecutor(options.threads) as pool:

        def loss_of(micro_step: int, generator: torch.Generator) -> Tensor:
            chosen = order.at(micro_step)
            size = recipe.sizes[0 if micro_step // pieces < switch else 1]
            seeds = torch.randint(2**31, (len(chosen),), generator=generator).tolist()
            views = pool.map(
                lambda pair: training_view(
                    train.files[pair[0]], size, recipe, np.random.default_rng(pair[1])
                ),
                zip(chosen.tolist(), seeds, strict=True),
            )
            images = torch.from_numpy(np.stack(list(views))).float().div_(255)
            targets = smoothed(train.labels[chosen], len(train.names), recipe.smoothing)
            images, targets = mix((images - _MEAN) / _STD, targets, policy, generator)
            return soft_cross_entropy(network(images), targets)

        checkpoint = options.runs / f"paper_{variant}.pt"
        average = fit(
            network,
            loss_of,
            schedule,
            checkpoint,
            resume=options.resume,
            report=lambda line: report({"stage": f"fasternet_{variant}", **line}),
            accumulate=pieces,
        )
    network.load_state_dict(average.state)
    result = top1(network.eval(), val)
    if options.publish:
        publish(
            options.repository,
            f"fasternet_{variant}",
            network,
            Release(
                system="fasternet",
                variant=variant,
                paper=PAPER,
                command=f"nonet train fasternet --preset paper --variant {variant}",
                preprocessing=PREPROCESSING,
                labels=train.names,
                quality={"top1": round(result / 100, 4), "split": "val", "pictures": len(val.files)},
            ),
        )
    return result


@torch.no_grad()
def top1(network: FasterNet, data: ClassFolders) -> float:
    """Percent of right answers on the official central view, through the product's own decoder."""
    spec = Preprocessing.from_manifest(PREPROCESSING.model_dump())
    right = 0
    for start in range(0, len(data.files), 32):
        part = data.files[start : start + 32]
        images = np.stack(
            [preprocess(decode_image(file.read_bytes(), target=spec.target), spec) for file in part]
        )
        guess = network(torch.from_numpy(images)).argmax(1)
        right += int((guess == data.labels[start : start + 32]).sum())
    return 100 * right / len(data.files)
