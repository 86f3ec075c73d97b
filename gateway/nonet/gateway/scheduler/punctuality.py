"""How much later than predicted answers come, at a high percentile: what a promise must leave room for.

A prediction is a mean, and half of what is promised by a mean comes too late. So for each answer the time it
took is held against the time that was predicted when it was queued, and the percentile of that ratio is
followed with one multiplication an answer (stochastic approximation, after Robbins and Monro, 1951): up by a
share of itself for each ratio above it, down by so much less for each below that the two balance where the
wanted share lies above. Answers that are late together, behind the same burst or the same pause, are late
once: a ratio rises no more until what it was raised for is over. Each octave of predicted seconds has its
own, since what disturbs an answer of five milliseconds is nothing to one of a second.
"""

from __future__ import annotations

import math

HALF_LIFE = 30.0
"""Seconds without an answer after which half of what was learnt is forgotten, so that a ratio that refuses
everything is tested again."""

LATE_SHARE = 0.0015
"""Of the answers that may take longer than they were given: less than the one in a hundred that may be late,
since of those that are late together one is counted, and some are late for what happens outside."""

_STEP = 0.08
_MOST = 4.0
_SHORTEST = 1e-4  # seconds; below it all predictions are one octave


class _Percentile:
    """The ratio in one octave."""

    __slots__ = ("_raised", "_ratio", "_seen")

    def __init__(self) -> None:
        self._ratio = 1.0
        self._seen = 0.0
        self._raised = -math.inf

    def at(self, now: float) -> float:
        kept: float = 0.5 ** (max(now - self._seen, 0.0) / HALF_LIFE)
        return 1.0 + (self._ratio - 1.0) * kept

    def observe(self, ratio: float, begun: float, now: float) -> None:
        current = self.at(now)
        self._seen = now
        if ratio <= current:
            current *= 1.0 - _STEP * LATE_SHARE / (1.0 - LATE_SHARE)
        elif begun >= self._raised:
            current *= 1.0 + _STEP
            self._raised = now
        self._ratio = min(max(current, 1.0), _MOST)


class Punctuality:
    """See the module's text. Of one model."""

    __slots__ = ("_octaves",)

    def __init__(self) -> None:
        self._octaves: dict[int, _Percentile] = {}

    def ratio(self, predicted: float, now: float) -> float:
        """Actual over ``predicted`` seconds that nearly all answers stay below, 1 to 4. What was learnt of
        the nearest octave stands in for one without answers."""
        if not self._octaves:
            return 1.0
        octave = _octave(predicted)
        known = self._octaves.get(octave)
        if known is None:
            known = self._octaves[min(self._octaves, key=lambda other: abs(other - octave))]
        return known.at(now)

    def observe(self, predicted: float, seconds: float, now: float) -> None:
        """An answer that was predicted to take ``predicted`` seconds has come after ``seconds``, or
        (``math.inf``) was given up."""
        known = self._octaves.setdefault(_octave(predicted), _Percentile())
        begun = now if seconds == math.inf else now - seconds
        known.observe(seconds / max(predicted, _SHORTEST), begun, now)


def _octave(seconds: float) -> int:
    return math.frexp(max(seconds, _SHORTEST))[1]
