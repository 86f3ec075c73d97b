"""Between gRPC messages and plain values: what a task's fields are read from, and what its answers become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from google.protobuf.descriptor import FieldDescriptor

from nonet.runtime.errors import PayloadTooLarge

MOST_ELEMENTS = 1 << 17
"""Messages in one list; each becomes an object of its own, so a small message could take much memory."""


def plain_values(message: Any) -> dict[str, Any]:
    """The fields of a message that are set, by name: numbers, texts, bytes, lists and mappings of them.

    A field without presence counts as set when it is not its type's zero. Raises PayloadTooLarge for a list
    of too many messages.
    """
    return {descriptor.name: _plain(descriptor, value) for descriptor, value in message.ListFields()}


def _plain(descriptor: FieldDescriptor, value: Any) -> Any:
    kind = descriptor.message_type
    if kind is not None and kind.GetOptions().map_entry:
        inner = kind.fields_by_name["value"].message_type
        return {key: value[key] if inner is None else plain_values(value[key]) for key in value}
    if kind is None:
        return list(value) if descriptor.is_repeated else value
    if not descriptor.is_repeated:
        return plain_values(value)
    if len(value) > MOST_ELEMENTS:
        raise PayloadTooLarge(
            f"{descriptor.name} has more than {MOST_ELEMENTS} elements", param=descriptor.name
        )
    return [plain_values(each) for each in value]


def fill(message: Any, values: Mapping[str, Any]) -> Any:
    """Put ``values`` into a message and return it: None leaves a field unset, a name that the message lacks
    is left out, unless it has ``NAME_json``, a text; the ``data`` of a list goes into the message's only
    repeated field."""
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        if value is None:
            continue
        descriptor = fields.get(name)
        if descriptor is None:
            if f"{name}_json" in fields:
                setattr(message, f"{name}_json", orjson.dumps(value).decode())
            elif name == "data" and isinstance(value, list):
                repeated = [each for each in message.DESCRIPTOR.fields if each.is_repeated]
                if len(repeated) == 1:
                    _put(message, repeated[0], value)
            continue
        _put(message, descriptor, value)
    return message


def _put(message: Any, descriptor: FieldDescriptor, value: Any) -> None:
    kind, name = descriptor.message_type, descriptor.name
    if kind is not None and kind.GetOptions().map_entry:
        getattr(message, name).update(value)
    elif kind is not None and descriptor.is_repeated:
        for each in value:
            fill(getattr(message, name).add(), each)
    elif kind is not None:
        fill(getattr(message, name), value)
    elif descriptor.is_repeated:
        texts = descriptor.type == FieldDescriptor.TYPE_STRING
        getattr(message, name).extend(str(each) if texts else each for each in value)
    else:
        setattr(message, name, value)
