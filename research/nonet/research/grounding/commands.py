"""`nonet train grounding` and `nonet evaluate grounding`: training, published versions, figures."""

from __future__ import annotations

import json

from nonet.research.grounding.presets import PRESETS
from nonet.research.systems import EvaluateOptions, TrainOptions
from nonet.runtime.errors import InvalidArgument


def train(options: TrainOptions) -> None:
    """Run a preset, a line of JSON for each report, then choose, export, prove equal and publish.

    Raises InvalidArgument for a variant, and where a device, a tokenizer or data are absent.
    """
    if options.variant is not None:
        raise InvalidArgument("grounding has no variants: choose by --preset", param="variant")
    from nonet.research.grounding.training import train_matcher

    preset = PRESETS[options.preset]
    try:
        trained = train_matcher(preset, options, lambda line: print(json.dumps(line), flush=True))
        if options.publish:
            from nonet.research.grounding.release import publish

            print(publish(preset, trained, options))
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None


def evaluate(options: EvaluateOptions) -> None:
    """Published matchers on expressions that nothing was trained on, beside baselines, by detector and kind.

    Raises InvalidArgument where the repository has no such version or the data are absent.
    """
    from nonet.research.grounding.evaluation import evaluate_all

    try:
        evaluate_all(options)
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None
