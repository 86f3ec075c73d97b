"""Inference engines that a job requires of a worker, written as words and compared."""

from __future__ import annotations

from nonet.runtime.backends.contract import DEFAULT_ENGINE, DEFAULT_PRECISION, ENGINES
from nonet.runtime.backends.registry import backend

__all__ = ["engine_requirements", "installed_engines"]


def engine_requirements(engine: str, precision: str) -> tuple[str, ...]:
    """The words for an engine in a precision; none for those that every installation has."""
    if (engine, precision) == (DEFAULT_ENGINE, DEFAULT_PRECISION):
        return ()
    exact = "" if precision == DEFAULT_PRECISION else f":{precision}"
    return (f"engine:{engine}{exact}",)


def installed_engines() -> dict[str, str]:
    """The words for the engines that not every installation has -> what is missing here, "" if nothing. The
    precisions are those of this processor."""
    found = {}
    for name in ENGINES:
        if name == DEFAULT_ENGINE:
            continue
        (word,) = engine_requirements(name, DEFAULT_PRECISION)
        try:
            words = [engine_requirements(name, precision) for precision in backend(name).precisions()]
        except Exception as error:  # whatever a broken installation raises, the other work goes on
            found[word] = str(error) or type(error).__name__
        else:
            found |= dict.fromkeys((word for (word,) in words), "")
    return found
