"""Completes requests with the answers of other models, each asked as a caller's own request would be."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence

from nonet.runtime.composition import Composition, Told
from nonet.runtime.errors import Internal
from nonet.runtime.requests import InferRequest, InferResponse, Parameter
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Tensor

Choose = Callable[[str, str, InferRequest], ModelInfo]
"""The service for what a caller of a task calls its model."""

Describe = Callable[[str, str], ModelInfo]
"""What is known of a model by its own name and a version, "" for the preferred one."""

Infer = Callable[[InferRequest], Awaitable[InferResponse]]
"""The whole path of a request that was let in."""


class Composer:
    """See the module's text.

    Args:
        compositions: by task, what requests to its models need of others.
        choose, describe, infer: of the data plane.
    """

    def __init__(
        self, compositions: Mapping[str, Composition], choose: Choose, describe: Describe, infer: Infer
    ) -> None:
        self._compositions = dict(compositions)
        self._choose = choose
        self._describe = describe
        self._infer = infer

    def concerns(self, info: ModelInfo) -> bool:
        """Whether requests to this model may need others."""
        return info.task in self._compositions

    async def complete(self, request: InferRequest, info: ModelInfo) -> InferRequest:
        """A valid request with what it needs. Raises what the questions raise, Internal if the model asks, in
        the end, itself."""
        composition = self._compositions[info.task]
        if info.name in request.asked_by:
            raise Internal(f"the model asks itself: {' > '.join((*request.asked_by, info.name))}")
        template = dataclasses.replace(
            request, inputs=(), outputs=(), parameters={}, id="", asked_by=(*request.asked_by, info.name)
        )
        ask = _Asking(composition.asks, template, self._choose, self._describe, self._infer)
        return await composition.complete(request, info, ask)


@dataclasses.dataclass(frozen=True, slots=True)
class _Asking:
    """An :class:`~nonet.runtime.composition.Ask` for one request: ``template`` has its
    handling and no inputs, ``tasks`` are those it may name."""

    tasks: tuple[str, ...]
    template: InferRequest
    choose: Choose
    describe: Describe
    infer: Infer

    async def __call__(
        self,
        inputs: Sequence[Tensor],
        parameters: Mapping[str, Parameter] | None = None,
        *,
        task: str = "",
        model: str,
        version: str = "",
    ) -> Told:
        question = dataclasses.replace(
            self.template, model=model, version=version, inputs=tuple(inputs), parameters=parameters or {}
        )
        if not task:
            info = self.describe(model, version)
        elif task in self.tasks:
            info = self.choose(task, model, question)
        else:
            raise Internal(f"the composition of {self.template.asked_by[-1]} does not name the task {task}")
        question = dataclasses.replace(question, model=info.name, version=info.version)
        return Told(info, await self.infer(question))
