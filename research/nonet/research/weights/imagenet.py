"""The thousand classes of ImageNet-1k (ILSVRC 2012) in the usual order of their WordNet identifiers.

Each label is the first WordNet name of the class; the three that would clash are told apart.
"""

from __future__ import annotations

import functools
from importlib import resources


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """The 1000 class names by index; all different."""
    text = resources.files(__package__).joinpath("imagenet_labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
