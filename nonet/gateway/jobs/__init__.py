"""Long work: durable jobs that run in worker processes. Free of any transport."""

from nonet.gateway.jobs.asked import DEFAULT_PAGE, MAX_PAGE, Limits, read_key, read_states
from nonet.gateway.jobs.contract import JobStore, OutcomeUnknown
from nonet.gateway.jobs.files import JobFiles, new_job_id
from nonet.gateway.jobs.job import Job, JobState, NewJob, Page, Webhook, WebhookState
from nonet.gateway.jobs.jobs import Jobs
from nonet.gateway.jobs.policy import JobPolicy
from nonet.gateway.jobs.result_files import ResultFile
from nonet.gateway.jobs.sqlite_store import DATABASE, SqliteJobStore
from nonet.gateway.jobs.store_address import StoreAddress
from nonet.gateway.jobs.supervisor import WorkerCommand
from nonet.gateway.jobs.webhook_policy import WebhookPolicy
from nonet.gateway.jobs.worker import Assignment, Kind, Stopped, Task, run_job

__all__ = [
    "DATABASE",
    "DEFAULT_PAGE",
    "MAX_PAGE",
    "Assignment",
    "Job",
    "JobFiles",
    "JobPolicy",
    "JobState",
    "JobStore",
    "Jobs",
    "Kind",
    "Limits",
    "NewJob",
    "OutcomeUnknown",
    "Page",
    "ResultFile",
    "SqliteJobStore",
    "Stopped",
    "StoreAddress",
    "Task",
    "Webhook",
    "WebhookPolicy",
    "WebhookState",
    "WorkerCommand",
    "new_job_id",
    "read_key",
    "read_states",
    "run_job",
]
