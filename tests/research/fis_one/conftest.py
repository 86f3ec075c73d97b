"""The made-up building that most tests fit, and fits that look at few partitions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nonet.research.fis_one import consensus, floor_count, floor_evidence
from nonet.research.fis_one.data import SurveyedBuilding
from nonet.research.fis_one.propagation import RULES
from tests.support.synthetic_wifi import made_up


@pytest.fixture(scope="session")
def building() -> SurveyedBuilding:
    return made_up()


@pytest.fixture(scope="module")
def few_partitions() -> Iterator[None]:
    """One scale of spectral clusters in place of six, two weightings of the graph in place of three, a
    number of floors up to six from three feature sets: seconds a fit, by the same path. How good the full
    setting is the committed results say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consensus, "_NEIGHBOURS", (30,))
        patch.setattr(consensus, "_STEPS", (1,))
        patch.setattr(consensus, "RULES", RULES[:2])
        patch.setattr(floor_evidence, "_NEIGHBOURS", (20,))
        patch.setattr(floor_evidence, "_DIRECTIONS", (16,))
        patch.setattr(floor_evidence, "_STEPS", (1,))
        patch.setattr(floor_count, "MOST_TRIED", 6)
        yield
