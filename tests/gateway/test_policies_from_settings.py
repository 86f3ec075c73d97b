"""Policies take the settings of their names: none is left at its default by a name that does not agree."""

from __future__ import annotations

import dataclasses

import pytest

from nonet.gateway.cache.memory import MemoryLimits
from nonet.gateway.process.compose import compose
from nonet.gateway.process.compose_jobs import _webhooks
from nonet.gateway.settings.job_settings import JobSettings
from nonet.gateway.settings.policies import policy_from
from nonet.gateway.settings.schema import CacheSettings, ServerSettings, Settings
from nonet.jobs import JobPolicy


@pytest.mark.parametrize(("section", "policy"), [(JobSettings(), JobPolicy), (CacheSettings(), MemoryLimits)])
def test_every_field_of_the_policy_is_a_setting(section: JobSettings | CacheSettings, policy: type) -> None:
    made = dataclasses.asdict(policy_from(section, policy))
    assert made == {name: getattr(section, name) for name in made}


def test_what_is_given_beside_the_section_counts_and_what_nobody_has_keeps_its_default() -> None:
    limits = policy_from(CacheSettings(max_bytes=1), MemoryLimits, ttl=7.0)
    assert (limits.max_bytes, limits.ttl) == (1, 7.0)
    with pytest.raises(ValueError, match="cache limits"):
        policy_from(CacheSettings(), MemoryLimits, ttl=-1.0)


def test_the_settings_of_webhooks_are_found_by_their_prefix() -> None:
    given = {"hosts": ("a",), "secret": "s", "timeout": 3.0, "attempts": 4, "backoff": 5.0}
    jobs = JobSettings.model_validate({f"webhook_{name}": value for name, value in given.items()})
    policy = dataclasses.asdict(_webhooks(Settings(jobs=jobs)))
    assert policy == {**given, "secret": b"s", "root_path": ""}


def test_the_http_face_takes_every_setting_of_the_server_that_it_has_a_field_for() -> None:
    words = {"hosts": ("gateway.example",), "cors_origins": ("https://page.example",), "root_path": "/nonet"}
    of_the_process = {"host", "http_port", "grpc_port", "drain_delay", "grace", "allow_without_keys"}
    names = set(ServerSettings.model_fields) - of_the_process
    numbers = {name: 70_000 + place for place, name in enumerate(sorted(names - words.keys()))}
    server = ServerSettings.model_validate({**numbers, **words})
    gateway = compose(Settings(server=server), only="recognition")
    made = gateway.http_settings()
    assert {name: getattr(made, name) for name in names} == {name: getattr(server, name) for name in names}
