"""Where the jobs of a deployment are kept, as one value; and opening that store."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from nonet.jobs.sqlite_store import DATABASE, SqliteJobStore
from nonet.jobs.store_contract import JobStore

_SCHEMES: Final = ("redis://", "rediss://", "unix://")
_URL, _NAMES, _SECONDS = "NONET_JOBS__STORE", "NONET_JOBS__STORE_PREFIX", "NONET_JOBS__STORE_TIMEOUT"


@dataclasses.dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where the jobs are kept.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``; "" for the SQLite file in the jobs' folder. It
            may hold a password, so it is in no message and goes to workers by the environment.
        prefix: what the names of all keys in Redis begin with.
        timeout: seconds that one call on Redis may take.

    Raises ValueError for another scheme, in words that do not repeat the URL.
    """

    url: str = dataclasses.field(default="", repr=False)
    prefix: str = "nonet"
    timeout: float = 2.0

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(_SCHEMES):
            raise ValueError("it must be empty or a URL that begins with redis://, rediss:// or unix://")

    @property
    def shared(self) -> bool:
        """Whether other machines can reach the store."""
        return bool(self.url)

    @property
    def shown(self) -> str:
        """The store in words, without what only those who use it may know."""
        if not self.url:
            return "an SQLite file"
        parts = urlsplit(self.url)
        return f"the Redis at {parts.netloc.rpartition('@')[2]}{parts.path}, keys {{{self.prefix}}}:jobs"

    def open(self, folder: Path) -> JobStore:
        """The store; ``folder`` is that of the jobs. Connects to nothing yet.

        Raises ModuleNotFoundError without what Redis needs, ValueError for a URL that cannot be one.
        """
        if not self.url:
            return SqliteJobStore(folder / DATABASE)
        from nonet.jobs.redis_store import RedisJobStore

        try:
            return RedisJobStore(self.url, self.prefix, self.timeout)
        except ValueError:  # the reason may repeat a part of the password
            raise ValueError("it is no URL of a Redis: redis://[[user]:password@]host[:port][/db]") from None

    def environment(self) -> Mapping[str, str]:
        """The address for a worker: a command line is for everybody to see."""
        return {_URL: self.url, _NAMES: self.prefix, _SECONDS: str(self.timeout)}

    @classmethod
    def from_environment(cls) -> Self:
        """The address that :meth:`environment` gave; what the process starts itself does not get it."""
        given = (os.environ.pop(name, "") for name in (_URL, _NAMES, _SECONDS))
        url, prefix, timeout = given
        return cls(url, prefix or "nonet", float(timeout or 2.0))
