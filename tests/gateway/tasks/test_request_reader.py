"""The limit of a task, which is less than that of any body."""

from __future__ import annotations

import time
from typing import Any

import pytest

from nonet.gateway.core.request_context import RequestContext
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.http.settings import HttpSettings
from nonet.gateway.tasks.fields import FieldReader
from nonet.gateway.tasks.request_reader import JSON, RequestReader
from nonet.runtime.errors import PayloadTooLarge
from nonet.services.floor_identification.task import SERVICE


async def test_a_body_that_says_that_it_is_over_the_tasks_limit_is_refused_before_it_is_read() -> None:
    task = next(task for task in SERVICE.tasks if task.file is None)
    reader = RequestReader(task, FieldReader(task), Bodies(HttpSettings()))
    context = RequestContext(time.monotonic())
    context.begin([(b"content-length", b"%d" % (task.max_bytes + 1))])

    async def receive() -> Any:
        pytest.fail("the body was read")

    with pytest.raises(PayloadTooLarge) as refused:
        await reader.read(context, receive, JSON)
    assert refused.value.code == "BODY_TOO_LARGE"
