"""``nonet worker`` whose fits take a few steps: the real worker and the real fit, in seconds."""

from __future__ import annotations

import dataclasses
import sys

from nonet.cli.main import main

if __name__ == "__main__":
    if "--list" not in sys.argv:
        from nonet.research.fis_one import recipes

        short = dataclasses.replace(recipes.RECIPES["default"], steps=250, networks=1)
        recipes.RECIPES["default"] = short
    sys.exit(main(["worker", *sys.argv[1:]]))
