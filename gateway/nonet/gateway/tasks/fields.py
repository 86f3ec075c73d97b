"""From what a caller sent, in whatever form, to the checked fields of a task: the only reader of fields.

A form, JSON, a query and a gRPC message all become plain values by name; the task's pydantic dataclass
checks them. A missing, unknown or ill-typed field is 422, a value out of its range 400.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from nonet.runtime.errors import InvalidArgument, ServingError, Unprocessable
from nonet.runtime.task import Task

_BRACES = re.compile(r"\{([a-z_]+)\}")
_TYPE_ERRORS = re.compile(r".*_(type|parsing|syntax|size)|int_from_float|is_instance_of|none_required")
_LENGTHS = ("string_too_short", "string_too_long")
_FEW_MARKS = 64
_MARKS_A_FIELD = 16


def path_parameters(path: str) -> tuple[str, ...]:
    """The names in braces of a path."""
    return tuple(_BRACES.findall(path))


class FieldReader:
    """Reads the fields of one task.

    Attributes:
        names: of the fields beside the file, in their order, path parameters left out; with ``webhook``
            where the request may become a job.
        schema: the JSON schema of the fields, definitions left out; see ``definitions``.
        definitions: schemas that ``schema`` refers to.
        required: names of those without a default.
        list_texts: texts that all its bounded lists of texts may have together.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._adapter: TypeAdapter[Any] = TypeAdapter(task.fields)
        self._in_path = path_parameters(task.path)
        schema = self._adapter.json_schema(ref_template="#/components/schemas/{model}")
        self.definitions: dict[str, Any] = schema.pop("$defs", {})
        self.schema: dict[str, Any] = {
            name: value for name, value in schema["properties"].items() if name not in self._in_path
        }
        self.required = [name for name in schema.get("required", ()) if name not in self._in_path]
        self.names = tuple(self.schema)
        self._lists = frozenset(name for name, value in self.schema.items() if _takes_lists(value))
        self._files = tuple(part.name for part in task.parts)
        self._known = frozenset((*self._files, *self.names))
        self.list_texts = sum(_most_texts(value) for value in self.schema.values())
        marks = _FEW_MARKS if len(self._known) < 5 else _MARKS_A_FIELD * len(self._known)
        self._most_marks = marks + _MARKS_A_FIELD * self.list_texts
        self._bounded = task.max_bytes == 0

    def known(self, *, job: bool) -> tuple[str, ...]:
        """The fields of a request, the files first; ``webhook`` is one where it becomes a job."""
        more = ("webhook",) if job and "webhook" not in self._known else ()
        return (*self._files, *self.names, *more)

    def check_name(self, name: str, *, job: bool = False, beside: bool = False) -> None:
        """Raises Unprocessable (``UNKNOWN_FIELD``) for a field that the task does not have; ``beside`` the
        body a file is none."""
        in_body = beside and name in self._files
        if in_body or (name not in self._known and not (job and name == "webhook")):
            known = self.known(job=job)[len(self._files) if beside else 0 :]
            where = " in the query" if beside else ""
            raise Unprocessable(
                f"unknown field {name[:80]!r}{where}; the fields are {', '.join(known)}",
                param=name[:80],
                code="UNKNOWN_FIELD",
            )

    def gather(self, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """Texts by name; those of a repeated field that takes a list as a list.

        Raises Unprocessable for any other field that is repeated.
        """
        values: dict[str, Any] = {}
        for name, text in pairs:
            if name not in values:
                values[name] = text
            elif name in self._lists:
                before = values[name]
                values[name] = [*(before if isinstance(before, list) else [before]), text]
            else:
                raise Unprocessable(f"field '{name}' is repeated", param=name)
        return values

    def read_json(self, body: bytes, *, job: bool = False) -> dict[str, Any]:
        """The values of a JSON body. Raises Unprocessable for what is no object of known fields,
        InvalidArgument for no JSON; a body with more structure than the fields can have is not parsed at
        all."""
        first = self.known(job=job)[0]
        if not body.strip():
            raise InvalidArgument(f"the body is empty; send a JSON object with '{first}'", param=first)
        if self._bounded and sum(map(body.count, (b'"', b",", b"[", b"{"))) > self._most_marks:
            names = ", ".join(self.known(job=job))
            raise Unprocessable(f"the body must be an object with the fields {names} and no more")
        values = parse_json_object(body)
        for name in values:
            self.check_name(name, job=job)
        return values

    def check(self, values: Mapping[str, Any]) -> Any:
        """The checked fields. Raises Unprocessable, InvalidArgument, and what the fields' own validators
        raise."""
        try:
            return self._adapter.validate_python(values)
        except ValidationError as error:
            raise self._refusal(error, values) from None

    def _refusal(self, error: ValidationError, values: Mapping[str, Any]) -> ServingError:
        first = error.errors(include_url=False, include_context=True)[0]
        kind, name = first["type"], str(first["loc"][0]) if first["loc"] else ""
        if kind in ("missing", "missing_argument"):
            return Unprocessable(f"field '{name}' is missing", param=name)
        schema, given = self.schema.get(name, {}), values.get(name)
        if kind in _LENGTHS and schema.get("maxLength"):
            low, high = schema.get("minLength", 0), schema["maxLength"]
            return InvalidArgument(f"field '{name}' must have {low} to {high} characters", param=name)
        if _TYPE_ERRORS.fullmatch(kind) or kind.startswith("unexpected"):
            got = "" if schema.get("type") == "string" else f", got {given!r:.40}"
            return Unprocessable(f"field '{name}' must be {_kind(schema)}{got}", param=name)
        return InvalidArgument(
            f"field '{name}' must be {_range(schema, first)}, got {given!r:.40}", param=name
        )


def parse_json_object(body: bytes, other: type[ServingError] = Unprocessable) -> dict[str, Any]:
    """A JSON object. Raises InvalidArgument (``MALFORMED_JSON``), ``other`` for any other JSON value."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"the body is not valid JSON: {error.msg}", code="MALFORMED_JSON") from None
    if not isinstance(value, dict):
        raise other("the body must be a JSON object")
    return value


def _takes_lists(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "array" or any(map(_takes_lists, schema.get("anyOf", ())))


def _most_texts(schema: Mapping[str, Any]) -> int:
    """Elements of a list of texts at most, 0 for what is none and for one without a bound."""
    texts = schema.get("items", {}).get("type") == "string"
    return max([schema.get("maxItems", 0) if texts else 0, *map(_most_texts, schema.get("anyOf", ()))])


def _kind(schema: Mapping[str, Any]) -> str:
    """What a field of a schema is, in words."""
    named = {
        "integer": "an integer",
        "number": "a number",
        "string": "a text",
        "boolean": "true or false",
        "array": "a list",
        "object": "an object",
    }
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    kinds = [_kind(each) for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return " or ".join(kinds) or named.get(schema.get("type", ""), "of another type")


def _range(schema: Mapping[str, Any], error: Mapping[str, Any]) -> str:
    """Which values of a field are accepted, in words."""
    given = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if len(given) == 1:
        schema = given[0]
    if "const" in schema:
        return str(schema["const"])
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"from {low} to {high}"
    if low is not None or high is not None:
        return f"at least {low}" if high is None else f"at most {high}"
    if "enum" in schema:
        return _kind(schema)
    return f"otherwise: {error['msg'][:1].lower()}{error['msg'][1:]}"
