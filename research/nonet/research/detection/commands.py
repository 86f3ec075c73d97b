"""`nonet train detection` and `nonet evaluate detection`: presets, their progress, published versions."""

from __future__ import annotations

import datetime
import json
import os

from rich.console import Console

from nonet.research.detection.presets import PRESETS
from nonet.research.fasternet.grocery_files import data_root
from nonet.research.systems import EvaluateOptions, TrainOptions
from nonet.runtime.errors import InvalidArgument


def train(options: TrainOptions) -> None:
    """Run a preset, a line of JSON for each report, then export, measure on what was held back and publish.

    Raises InvalidArgument for a variant, and where a device or data are absent.
    """
    if options.variant is not None:
        raise InvalidArgument("detection has no variants: choose by --preset", param="variant")
    from nonet.research.detection.training import train_detector

    preset = PRESETS[options.preset]
    try:
        detector = train_detector(preset, options, lambda line: print(json.dumps(line), flush=True))
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None
    if options.publish:
        from nonet.research.detection.release import publish

        print(publish(preset, detector, options))


def evaluate(options: EvaluateOptions) -> None:
    """Average precision and CPU time of every published detector, as a table, and as a file if asked.

    Raises InvalidArgument where the repository has no detector or the data are absent.
    """
    from nonet.research.detection.evaluation import as_facts, evaluate_all, table

    try:
        scores = evaluate_all(options.repository, data_root(), options.split)
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None
    console = Console(width=None if os.isatty(1) else 140)
    console.print(table(scores, options.split))
    if options.output is not None:
        facts = {
            "command": f"nonet evaluate detection --split {options.split}",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "detectors": as_facts(scores),
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        console.print(f"results in {options.output}")
