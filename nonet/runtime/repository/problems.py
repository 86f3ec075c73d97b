"""Why a model version is not served. The reason is shown in the index, so it never holds a server's path."""

from __future__ import annotations


class ModelRefused(Exception):
    """A model or version must not be loaded.

    Args:
        reason: one sentence for the operator, without paths outside the repository.
        permanent: whether trying again with the same files is pointless.
    """

    def __init__(self, reason: str, *, permanent: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
