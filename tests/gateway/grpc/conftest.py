"""Fixtures of the gRPC face's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.grpc_server import Face, serving_grpc
from tests.support.misbehaving_servables import DoublingServable


@pytest.fixture
async def start_face() -> AsyncIterator[Callable[..., Any]]:
    """Start faces: ``await start_face(servable, ..., lanes=1)``; they end with the test."""
    async with AsyncExitStack() as stack:

        async def start(*servables: DoublingServable, **options: Any) -> Face:
            return await stack.enter_async_context(serving_grpc(*servables, **options))

        yield start
