"""The made-up building that most tests fit."""

from __future__ import annotations

import pytest

from nonet.research.fis_one.data import SurveyedBuilding
from tests.support.synthetic_wifi import made_up


@pytest.fixture(scope="session")
def building() -> SurveyedBuilding:
    return made_up()
