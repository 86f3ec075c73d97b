"""One echo server per test: what a test breaks stays its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.echo_application import Echo


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.stop()
