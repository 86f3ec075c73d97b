"""Fills a policy (a frozen dataclass of limits) from the settings of the same names."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from nonet.gateway.settings.types import Section

__all__ = ["policy_from"]

Policy = TypeVar("Policy")


def policy_from(section: Section, policy: type[Policy], *, prefix: str = "", **other: Any) -> Policy:
    """A policy whose fields are those of the same names in ``section``.

    Args:
        section: one table of the settings.
        policy: a frozen dataclass.
        prefix: what the names begin with in the section, e.g. ``webhook_``.
        other: fields that come from elsewhere.

    A field that neither has keeps its default. Raises TypeError for one without a default, and what the
    policy raises.
    """
    assert dataclasses.is_dataclass(policy)
    names = {field.name for field in dataclasses.fields(policy)} - other.keys()
    known = type(section).model_fields
    given = {name: getattr(section, prefix + name) for name in names if prefix + name in known}
    return policy(**given, **other)
