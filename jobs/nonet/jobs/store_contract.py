"""What keeps the jobs: SQLite on one machine, Redis for any number of them.

All calls block and may come from several processes at once; each takes effect whole or not at all. A job that
runs belongs to exactly one *owner*, a name that its starter made up, for as long as the owner's lease lasts:
every call of a worker names the owner, and does nothing once the job is another's. Failures of the medium are
:class:`~nonet.runtime.errors.InsufficientStorage` (full, read-only) or
:class:`~nonet.runtime.errors.Unavailable`, and are over when their cause is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from nonet.jobs.job import Beat, Claim, Job, JobError, JobState, NewJob, Orders, Page, WebhookState
from nonet.jobs.policy import JobPolicy
from nonet.jobs.requirements import Demand
from nonet.runtime.errors import Unavailable

ENDINGS_AT_ONCE = 100
"""Jobs that :meth:`JobStore.ended` gives at most."""
PHASE_LENGTH = 80
"""Characters of a phase that are kept."""


class OutcomeUnknown(Unavailable):
    """The connection was lost or hung in a call: it has taken effect, or it never will."""


class JobStore(Protocol):
    """See the module's text."""

    def submit(self, new: NewJob, policy: JobPolicy) -> tuple[Job, bool]:
        """Queue ``new``; the job, and whether it is new: an equal submit under the same idempotency key gives
        the job there is.

        Raises Conflict (``IDEMPOTENCY_KEY_REUSED``) if the key stands for another submit, QuotaExceeded
        (``JOBS_QUOTA``) or Unavailable (``JOBS_FULL``) if too many wait.
        """

    def get(self, job: str, tenant: str | None = None) -> Job:
        """A job, of ``tenant`` unless None. Raises NotFound (``JOB_NOT_FOUND``), also for another's."""

    def page(
        self, tenant: str | None, *, states: Collection[JobState] = (), after: str = "", limit: int = 20
    ) -> Page:
        """The newest jobs of a tenant (None: of all), in ``states`` if any are given, older than job
        ``after`` if one is given. Raises NotFound for an unknown ``after``."""

    def counts(self) -> Mapping[JobState, int]:
        """Number of jobs in each state."""

    def active(self, kind: str, subject: str) -> Job | None:
        """A job of this kind on this subject that waits or runs."""

    def cancel(self, job: str, tenant: str | None = None) -> Job:
        """Cancel a waiting job at once; ask a running one to stop.

        Raises NotFound, Conflict (``JOB_ENDED``) if it has succeeded or failed.
        """

    def claim(
        self, owner: str, lease_seconds: float, concurrency: int, able: Collection[str] | None = None
    ) -> Claim | None:
        """Make the oldest waiting job ``owner``'s: of those whose kind and requirements are all in ``able``,
        of all if that is None. None if no such job waits or ``concurrency`` jobs run on this machine."""

    def claimed(self, job: str, owner: str) -> Claim | None:
        """What the owner of a job needs to run it; None if it is not its job."""

    def beat(self, job: str, owner: str, lease_seconds: float, beat: Beat) -> Orders:
        """Renew the lease and note how far the work is."""

    def finish(
        self,
        job: str,
        owner: str,
        state: JobState,
        *,
        result: Mapping[str, Any] | None = None,
        error: JobError | None = None,
    ) -> bool:
        """End a job. False, and nothing done, if it is not ``owner``'s."""

    def give_back(
        self, job: str, owner: str, *, blame: str = "", max_attempts: int = 0, begun: bool = True
    ) -> Job | None:
        """The owner does not go on: the job waits again, or is cancelled if it was asked to stop.

        With ``blame`` (why its process died) the death counts: after ``max_attempts`` of them the job fails
        with that reason. ``attempts`` counts every start, unless no process could be started (not
        ``begun``). None if it is not ``owner``'s.
        """

    def reap(self, max_attempts: int, mine: Collection[str] = ()) -> Sequence[Job]:
        """Give back every job whose lease has run out, or whose process was on this machine and is gone,
        unless its owner is one of ``mine``; what has become of them."""

    def forget(self, keep_seconds: float, keep_jobs: int) -> Sequence[str]:
        """Drop ended jobs that are too old or too many; returns their ids."""

    def now(self) -> float:
        """The clock that the times of the jobs are on, in seconds since the epoch."""

    def unfinished(self) -> Sequence[str]:
        """Ids of the jobs that wait or run."""

    def last_ending(self) -> int:
        """Number of the last end of a job so far: see :attr:`Job.ending`."""

    def ended(self, after: int) -> Sequence[Job]:
        """The jobs that have ended after ending number ``after``, in that order; some of them if there are
        many."""

    def announce(self, words: Collection[str], seconds: float) -> None:
        """A process has these words (see :mod:`.requirements`), and says so again within ``seconds``."""

    def is_available(self, kind: str) -> bool:
        """Whether some worker was heard of lately that does this kind."""

    def demand(self) -> Demand:
        """What waits, and what those announced who were heard of lately."""

    def note(self, words: Sequence[str], note: str) -> None:
        """Make ``note`` the phase of the jobs of these words that wait, "" the usual one; what joins them
        later gets it too."""

    def agree_on_folder(self, folder: str) -> bool:
        """Whether the files of the jobs are kept in the folder of that name; the first to ask decides."""

    def durability_warnings(self) -> Sequence[str]:
        """What the operator should change about the medium, in words."""

    def claim_webhook(self, lease_seconds: float) -> Job | None:
        """The ended job whose webhook has been due the longest, with one more attempt counted: it is the
        caller's to send, and due again when ``lease_seconds`` are over. None if none is due."""

    def settle_webhook(
        self, job: str, attempt: int, state: WebhookState, *, error: str = "", again_in: float = 0.0
    ) -> bool:
        """Write how attempt number ``attempt`` went; one that still waits is due ``again_in`` seconds later.
        False, and nothing done, if there was another attempt since."""

    def webhook_counts(self) -> Mapping[WebhookState, int]:
        """Number of webhooks in each state."""

    def close(self) -> None:
        """Let go of the medium; a later call opens it again."""
