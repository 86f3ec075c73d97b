"""`nonet train detection` and `nonet evaluate detection`: presets, their progress, published versions."""

from __future__ import annotations

import json

from nonet.research.detection.presets import PRESETS
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
    """Average precision of every published detector, as a table."""
