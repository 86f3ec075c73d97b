"""Grounding endpoints that the benchmark drives: Nonet's route, and OpenAI-compatible chat models with
vision."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import httpx

from nonet.research.ref_l4.answers import FAMILIES, box_of
from nonet.research.ref_l4.overlaps import Box

__all__ = ["Answered", "ChatEndpoint", "Endpoint", "NonetEndpoint", "Picture"]

Status = Literal["ok", "empty", "unparsed", "failed"]
_RETRIED: Final = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Picture:
    """An encoded picture, its media type, and its size in pixels."""

    content: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True)
class Answered:
    """What became of one expression: the box in pixels or None, and what the endpoint said."""

    box: Box | None
    status: Status
    said: str = ""


class Unreachable(Exception):
    """The endpoint gave no answer that counts: it is asked again later."""


class Endpoint(Protocol):
    """Something that finds what expressions mean in a picture."""

    name: str

    async def ground(self, picture: Picture, expressions: Sequence[str]) -> list[Answered]:
        """An answer for each expression. Raises Unreachable if it may be asked again."""
        ...


class NonetEndpoint:
    """``POST /v1/ground``: all expressions of a picture in one request.

    Args:
        client: with the base address and headers.
        model: name of the model.
    """

    def __init__(self, client: httpx.AsyncClient, model: str = "auto") -> None:
        self._client, self._model = client, model
        self.name = f"nonet:{model}"

    async def ground(self, picture: Picture, expressions: Sequence[str]) -> list[Answered]:
        body = {
            "image": base64.b64encode(picture.content).decode(),
            "expressions": list(expressions),
            "model": self._model,
        }
        answer = await _posted(self._client, "v1/ground", body)
        if isinstance(answer, str):
            return [Answered(None, "failed", answer)] * len(expressions)
        found = answer.get("groundings")
        if not isinstance(found, list) or len(found) != len(expressions):
            return [Answered(None, "unparsed", str(answer)[:500])] * len(expressions)
        return [_grounding(each) for each in found]


def _grounding(found: Mapping[str, Any]) -> Answered:
    box = found.get("box")
    if box is None:
        return Answered(None, "empty")
    try:
        x1, y1, x2, y2 = (float(each) for each in box)
    except (TypeError, ValueError):
        return Answered(None, "unparsed", str(found)[:500])
    return Answered((x1, y1, x2, y2), "ok")


class ChatEndpoint:
    """``POST /v1/chat/completions`` with the picture as a data URL and one expression.

    Args:
        client: with the base address (up to ``/v1``) and headers.
        model: name of the model.
        family: how it is asked and read, a name of FAMILIES.
        resized: size of the picture as the model sees it, if its answers are in those pixels.
        tokens: most that it may answer.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        model: str,
        family: str = "pixels",
        resized: tuple[float, float] | None = None,
        tokens: int = 128,
    ) -> None:
        self._client, self._model, self._family = client, model, family
        self._resized, self._tokens = resized, tokens
        self.name = f"{model}:{family}"

    async def ground(self, picture: Picture, expressions: Sequence[str]) -> list[Answered]:
        return [await self._one(picture, each) for each in expressions]

    async def _one(self, picture: Picture, expression: str) -> Answered:
        prompt = FAMILIES[self._family].prompt.format(
            expression=expression, width=picture.width, height=picture.height
        )
        url = f"data:{picture.media_type};base64,{base64.b64encode(picture.content).decode()}"
        body = {
            "model": self._model,
            "temperature": 0,
            "max_tokens": self._tokens,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": url}},
                        {"type": "text", "text": prompt},
                    ],
                }
            ],
        }
        answer = await _posted(self._client, "chat/completions", body)
        if isinstance(answer, str):
            return Answered(None, "failed", answer)
        try:
            said = str(answer["choices"][0]["message"]["content"])
        except (KeyError, IndexError, TypeError):
            return Answered(None, "unparsed", str(answer)[:500])
        resized = self._resized or (picture.width, picture.height)
        box = box_of(said, self._family, picture.width, picture.height, resized)
        return Answered(box, "unparsed" if box is None else "ok", said[:500])


async def _posted(client: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> dict[str, Any] | str:
    """The JSON answer, or the words of a refusal. Raises Unreachable for what may pass."""
    try:
        reply = await client.post(path, json=body)
    except httpx.HTTPError as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from None
    if reply.status_code in _RETRIED:
        raise Unreachable(f"{reply.status_code} {reply.text[:200]}")
    try:
        answer = reply.json()
    except ValueError:
        return f"{reply.status_code} {reply.text[:500]}"
    return (
        answer if reply.status_code == 200 and isinstance(answer, dict) else f"{reply.status_code} {answer}"
    )
