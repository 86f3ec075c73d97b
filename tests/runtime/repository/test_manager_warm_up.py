"""A model that cannot answer its own sample never becomes ready, and the index says why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from nonet.runtime.backends.contract import BackendOptions
from nonet.runtime.catalog import Catalog, ModelState
from nonet.runtime.errors import ModelOutputInvalid
from nonet.runtime.repository import RepositoryManager
from nonet.runtime.servable import Servable
from tests.support import handmade_networks
from tests.support import misbehaving_servables as bad


class NanAtWarmUp(bad.DoublingServable):
    """A service that finds at its first run that its network answers NaN."""

    def warm_up(self) -> None:
        raise ModelOutputInvalid("output 'scores' holds NaN")


def test_the_reason_is_the_failure_and_no_traceback_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handmade_networks.add_scaled(tmp_path, "scaled", 2.0, 1)
    catalog = Catalog()

    def derive(network: Servable) -> Sequence[Servable]:
        return [NanAtWarmUp(bad.doubling_info(f"classify.{network.info.name}"))]

    RepositoryManager(tmp_path, catalog, options=BackendOptions(), derivations=[derive]).load_all()
    (entry,) = catalog.index()
    assert entry.state is ModelState.UNAVAILABLE
    assert "output 'scores' holds NaN" in entry.reason
    assert not [record for record in caplog.records if record.exc_info]
