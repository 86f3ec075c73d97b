"""`nonet train snapgen` and `nonet evaluate snapgen`: data, sittings of training, versions, scores."""

from __future__ import annotations

import json

import torch

from nonet.research.systems import EvaluateOptions, TrainOptions
from nonet.runtime.errors import InvalidArgument


def train(options: TrainOptions) -> None:
    """One sitting of a preset, a line of JSON for each report; then publish what the preset ships.

    Raises InvalidArgument for an unknown variant, and where a device, data or an earlier training are absent.
    """
    from nonet.research.snapgen.training import sitting

    if options.variant not in (None, "final"):
        raise InvalidArgument("snapgen's only variant is 'final', the last sitting", param="variant")
    torch.set_num_threads(options.threads)
    try:
        sitting(options, lambda line: print(json.dumps(line), flush=True))
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None
    if options.publish:
        from nonet.research.snapgen.release import publish

        print(publish(options))


def evaluate(options: EvaluateOptions) -> None:
    """Scores of every published version beside their floors, as a table, and as a file if asked.

    Raises InvalidArgument where the repository has no such version or the data are absent.
    """
    from nonet.research.snapgen.evaluation import evaluate_all

    try:
        evaluate_all(options)
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None
