"""Asking the core for a task, for both faces: from checked fields to the answer, or to several."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from nonet.gateway.core.call import Call
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.tasks.face_parts import FaceParts
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo
from nonet.runtime.task import Answer, Event, Task


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What is asked of which model, the fields it was made of, and why that model, where the caller asks."""

    info: ModelInfo
    request: InferRequest
    fields: Any
    placement: dict[str, Any] | None = None


class Asking:
    """The questions of one task.

    Args:
        task: what is asked.
        parts: what the faces share.
    """

    def __init__(self, task: Task, parts: FaceParts) -> None:
        self._task = task
        self._plane: DataPlane = parts.plane
        self._host = parts.host

    def admit(self, call: Call, model: str = "") -> contextlib.AbstractContextManager[None]:
        """Let a call in, or refuse it, by its headers alone; ``model`` is what the caller calls the model, ""
        if only the body tells. See :meth:`DataPlane.admit`."""
        return self._plane.admit(
            task=self._task.name,
            model=model,
            deadline=call.deadline,
            priority=call.priority,
            caller=call.caller,
        )

    def check(self, call: Call, model: str = "") -> None:
        """Raises what :meth:`admit` would."""
        self._plane.check(self._task.name, model, "", call.deadline, call.priority, call.caller)

    async def find(self, parameters: Mapping[str, Any]) -> ModelInfo | None:
        """The model that the path names, given the parameters in it; None if the fields name it. Raises what
        the task has for one that is not there."""
        find = self._task.find
        return None if find is None else await find(self._host, parameters)

    def question(self, fields: Any, file: Any, call: Call, info: ModelInfo | None) -> Question:
        """What the fields and the file (of several, a tuple) ask, of the model found or of the one they name.

        Raises InvalidArgument for what the task does not take, and as :meth:`DataPlane.choose`.
        """
        task = self._task
        assert task.ask is not None
        asked = task.ask(fields, file)
        exact = info is None
        request = InferRequest(model="", inputs=asked.inputs, parameters=asked.parameters, **call.handling())
        if asked.drawn:
            request = dataclasses.replace(request, use_cache=False, store_in_cache=False)
        named = fields.model or "auto" if info is None else ""
        if info is None:
            info = self._plane.choose(task.name, named, request, floor=call.floor)
        elif call.floor is not None:
            self._plane.router.above((info,), task.name, call.floor)
        placement = None
        if call.explain:
            placement = self._plane.explainer.explain(task.name, named, request, call.floor, info)
        # Of a family any version that serves will do.
        version = info.version if exact else ""
        asking = dataclasses.replace(request, model=info.name, version=version)
        return Question(info, asking, fields, placement)

    async def response(self, question: Question) -> InferResponse:
        """The model's answer to a question that was let in, with failures in the words of the task's
        callers. Raises as :meth:`DataPlane.infer`."""
        try:
            return await self._plane.infer(question.request, admitted=True)
        except InvalidArgument as error:
            # What the service calls its input may not be what callers do; a service elsewhere names none.
            field = self._task.input_field
            if not field or error.param not in (question.request.inputs[0].name, None):
                raise
            raise InvalidArgument(error.message, param=field, code=error.code) from None

    def placement(self, question: Question, response: InferResponse) -> dict[str, Any] | None:
        """Why the answer came from where it did, None if the caller does not ask."""
        if question.placement is None:
            return None
        shape = question.request.inputs[0].shape if question.request.inputs else ()
        return self._plane.explainer.concluded(question.placement, response, shape[0] if shape else 1)

    def answer(self, question: Question, response: InferResponse) -> Answer:
        """What the caller is told of a model's answer."""
        assert self._task.answer is not None
        return self._task.answer(question.info, response, question.fields)

    async def events(self, question: Question) -> AsyncGenerator[tuple[InferResponse, Event], None]:
        """Each of the model's answers, and what the caller is told of it. Raises as
        :meth:`DataPlane.stream`."""
        assert self._task.event is not None
        number = 0
        async with contextlib.aclosing(self._plane.stream(question.request, admitted=True)) as responses:
            async for response in responses:
                made = self._task.event(question.fields, question.info, response, number)
                for event in (made,) if isinstance(made, Event) else made:
                    yield response, event
                number += 1
