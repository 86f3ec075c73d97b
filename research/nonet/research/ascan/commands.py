"""`nonet train ascan` and `nonet evaluate ascan`: recipes with their files, progress and tables."""

from __future__ import annotations

import json

from nonet.research.fasternet.grocery_files import data_root
from nonet.research.systems import TrainOptions


def train(options: TrainOptions) -> None:
    """Run a preset: a line of JSON for each report, since runs are followed in a log; then publish."""
    from nonet.research.ascan.disc_cup import train_disc_cup

    root = options.data or data_root()
    trained = train_disc_cup(options, root, lambda line: print(json.dumps(line), flush=True))
    from nonet.research.ascan.disc_cup_release import finish

    for line in finish(options, root, trained):
        print(line, flush=True)
