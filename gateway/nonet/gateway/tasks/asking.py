"""Asking the core for a task: the answer, with failures in the words of the task's callers."""

from __future__ import annotations

from nonet.gateway.core.data_plane import DataPlane
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.task import Task

__all__ = ["answered"]


async def answered(plane: DataPlane, task: Task, request: InferRequest) -> InferResponse:
    """The answer to a request that was let in. Raises as :meth:`DataPlane.infer`."""
    try:
        return await plane.infer(request, admitted=True)
    except InvalidArgument as error:
        # What the service calls its input may not be what callers do; a service elsewhere names none.
        if not task.input_field or error.param not in (request.inputs[0].name, None):
            raise
        raise InvalidArgument(error.message, param=task.input_field, code=error.code) from None
