"""The made-up building that most tests fit."""

from __future__ import annotations

import pytest
from wifi_zoo import made_up

from nonet.research.fis_one.data import SurveyedBuilding


@pytest.fixture(scope="session")
def building() -> SurveyedBuilding:
    return made_up()
