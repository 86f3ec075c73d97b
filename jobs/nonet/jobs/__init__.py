"""Long work: durable jobs that run in worker processes. Free of any transport."""

from nonet.jobs.files import JobFiles, new_job_id
from nonet.jobs.job import Job, JobState, NewJob, Page, Webhook, WebhookState
from nonet.jobs.jobs import Jobs
from nonet.jobs.policy import JobPolicy
from nonet.jobs.request_parameters import DEFAULT_PAGE, MAX_PAGE, PageQuery, read_key, read_states
from nonet.jobs.result_files import ResultFile
from nonet.jobs.sqlite_store import DATABASE, SqliteJobStore
from nonet.jobs.store_address import StoreAddress
from nonet.jobs.store_contract import JobStore, OutcomeUnknown
from nonet.jobs.supervisor import WorkerCommand
from nonet.jobs.webhook_policy import WebhookPolicy
from nonet.jobs.worker import Assignment, RunningJob, Stopped, missing, run_job

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
    "NewJob",
    "OutcomeUnknown",
    "Page",
    "PageQuery",
    "ResultFile",
    "RunningJob",
    "SqliteJobStore",
    "Stopped",
    "StoreAddress",
    "Webhook",
    "WebhookPolicy",
    "WebhookState",
    "WorkerCommand",
    "missing",
    "new_job_id",
    "read_key",
    "read_states",
    "run_job",
]
