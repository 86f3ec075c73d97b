"""The types that the sections of settings are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

KIB = 1024
MIB = 1024 * KIB

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Milliseconds = Annotated[int, Field(ge=0, le=2**31 - 1)]
HostName = Annotated[str, StringConstraints(pattern=r"^(\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)$")]
Origin = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/\s]+)$")]
RootPath = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._~-]+)*$")]
ApiKey = Annotated[SecretStr, Field(min_length=1)]
TenantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Section(BaseModel):
    """One table of the settings: immutable, and an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
