"""Names and sizes that the parts of the grounding service share."""

from __future__ import annotations

from typing import Final

TASK: Final = "ground"
DETECTION: Final = "detection"
"""The task whose models propose regions."""

GROUND_PREFIX: Final = "ground."
LOOKS_PREFIX: Final = "looks."
VIEWS_PREFIX: Final = "views."
TEXTS_PREFIX: Final = "texts."

IMAGE: Final = "image"
EXPRESSIONS: Final = "expressions"
BOXES: Final = "boxes"
BOX_SCORES: Final = "box_scores"
BOX_LABELS: Final = "box_labels"
SCORES: Final = "scores"
LABELS: Final = "labels"
LOOKS: Final = "looks"
NOTHING: Final = "nothing"
SIZE: Final = "size"
VIEWS: Final = "views"
FRAMES: Final = "frames"
TEXT: Final = "text"
TOKENS: Final = "tokens"
TOKEN_MASK: Final = "token_mask"

DETECTOR: Final = "detector"
QUALITY: Final = "quality"

MOST_EXPRESSIONS: Final = 256
LONGEST: Final = 2000
"""Characters of an expression."""
MOST_INSTANCES: Final = 16
"""Boxes for one expression."""
