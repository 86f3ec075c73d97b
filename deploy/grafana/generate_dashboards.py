"""Write the dashboards of Grafana as JSON: ``python deploy/grafana/generate_dashboards.py [FOLDER]``.

Change a query here and run this again: a test holds the files of ``dashboards/`` to what is written here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from panels import Dashboard, Panel, Query, rendered

QUANTILES = (0.5, 0.95, 0.99)
# Probes and scrapes are calls as well, and would be most of what is seen of a server that has little to do.
_CALLS = 'job=~"$job", route!~"/metrics|/v2/health/.*|/grpc.health.*"'
_MODEL = 'job=~"$job", model=~"$model"'


def _rate(metric: str, labels: str, by: str = "") -> str:
    summed = f"sum by ({by})" if by else "sum"
    return f"{summed} (rate({metric}{{{labels}}}[$__rate_interval]))"


def _quantiles(histogram: str, labels: str, by: str) -> list[Query]:
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    buckets = _rate(f"{histogram}_bucket", labels, f"le, {by}")
    return [
        Query(f"histogram_quantile({each}, {buckets})", f"p{each * 100:g} {legend}") for each in QUANTILES
    ]


def _mean(total: str, count: str, labels: str, by: str) -> str:
    return f"{_rate(total, labels, by)} / {_rate(count, labels, by)}"


def _share_in_time(labels: str, by: str = "") -> str:
    met = _rate("nonet_deadlines_total", f'{labels}, outcome="met"', by)
    return f"{met} / {_rate('nonet_deadlines_total', labels, by)}"


def _stat(title: str, unit: str, expression: str, note: str = "") -> Panel:
    return Panel(title, unit, [Query(expression)], kind="stat", width=4, note=note)


REQUESTS = Dashboard(
    "nonet-requests",
    "Nonet: requests",
    [
        _stat("Gateways that take traffic", "short", 'sum(nonet_ready{job=~"$job"})'),
        _stat("Models", "short", 'max(nonet_models_loaded{job=~"$job"})'),
        _stat("Versions that failed to load", "short", "sum(nonet_models_failed)", "The index says why."),
        _stat("Calls", "reqps", _rate("nonet_requests_total", _CALLS)),
        _stat("Deadlines met", "percentunit", _share_in_time('job=~"$job"')),
        _stat("Refused", "reqps", _rate("nonet_shed_requests_total", 'job=~"$job"')),
        Panel(
            "Calls by route",
            "reqps",
            [Query(_rate("nonet_requests_total", _CALLS, "route"), "{{route}}")],
            stacked=True,
        ),
        Panel(
            "Calls by status",
            "reqps",
            [Query(_rate("nonet_requests_total", _CALLS, "status"), "{{status}}")],
            stacked=True,
        ),
        Panel(
            "Time of a call",
            "s",
            _quantiles("nonet_request_duration_seconds", _CALLS, "route"),
            note="From the end of its headers to the end of its answer.",
        ),
        Panel(
            "Deadlines met, by model",
            "percentunit",
            [Query(_share_in_time('job=~"$job"', "model"), "{{model}}")],
        ),
        Panel(
            "Failures by code",
            "reqps",
            [Query(_rate("nonet_request_failures_total", 'job=~"$job"', "code"), "{{code}}")],
            stacked=True,
        ),
        Panel(
            "Refusals by reason",
            "reqps",
            [Query(_rate("nonet_shed_requests_total", 'job=~"$job"', "reason"), "{{reason}}")],
            stacked=True,
            note="Requests refused before any work was done, to protect the others.",
        ),
        Panel(
            "Callers that left, by how far their request was",
            "reqps",
            [Query(_rate("nonet_cancelled_total", 'job=~"$job"', "stage"), "{{stage}}")],
            stacked=True,
        ),
    ],
    {"job": "nonet_ready"},
)

MODELS = Dashboard(
    "nonet-models",
    "Nonet: models",
    [
        Panel(
            "Answered requests",
            "reqps",
            [Query(_rate("nv_inference_request_success", _MODEL, "model"), "{{model}}")],
            stacked=True,
        ),
        Panel(
            "Failed requests",
            "reqps",
            [Query(_rate("nonet_request_failures_total", _MODEL, "model, code"), "{{model}} {{code}}")],
            stacked=True,
        ),
        Panel(
            "Time in the server, by model",
            "s",
            _quantiles("nonet_inference_duration_seconds", _MODEL, "model"),
        ),
        Panel(
            "Time in the queue, by model",
            "s",
            _quantiles("nonet_queue_duration_seconds", _MODEL, "model"),
            note="Only of requests that were executed: what the cache answered never waited.",
        ),
        Panel(
            "Waiting requests",
            "short",
            [Query(f"sum by (model) (nonet_queue_depth{{{_MODEL}}})", "{{model}}")],
            stacked=True,
        ),
        Panel(
            "Rows of a batch",
            "short",
            [
                Query(
                    _mean("nonet_batch_size_sum", "nonet_batch_size_count", _MODEL, "model"), "mean {{model}}"
                ),
                Query(
                    f"histogram_quantile(0.95, {_rate('nonet_batch_size_bucket', _MODEL, 'le, model')})",
                    "p95 {{model}}",
                ),
            ],
        ),
        Panel(
            "Rows computed",
            "cps",
            [Query(_rate("nv_inference_count", _MODEL, "model"), "{{model}}")],
            stacked=True,
        ),
        Panel(
            "Computing a batch",
            "µs",
            [
                Query(
                    _mean(
                        "nv_inference_compute_infer_duration_us", "nv_inference_exec_count", _MODEL, "model"
                    ),
                    "{{model}}",
                )
            ],
            note="Mean time in the engine per request, over the number of batches.",
        ),
        Panel(
            "Cache: what it did",
            "reqps",
            [Query(_rate("nonet_cache_requests_total", _MODEL, "outcome"), "{{outcome}}")],
            stacked=True,
        ),
        Panel(
            "Answered without an execution of their own",
            "percentunit",
            [
                Query(
                    f"{_rate('nv_cache_num_hits_per_model', _MODEL, 'model')} / "
                    f"({_rate('nv_cache_num_hits_per_model', _MODEL, 'model')} + "
                    f"{_rate('nv_cache_num_misses_per_model', _MODEL, 'model')})",
                    "{{model}}",
                )
            ],
            note="Kept answers, and requests that shared the execution of an equal one.",
        ),
        Panel(
            "Placed on",
            "reqps",
            [Query(_rate("nonet_device_requests_total", _MODEL, "device"), "{{device}}")],
            stacked=True,
        ),
        Panel(
            "Batches that failed",
            "cps",
            [Query(_rate("nonet_batch_failures_total", _MODEL, "model"), "{{model}}")],
        ),
        Panel(
            "Requests of several steps: under way",
            "short",
            [Query(f"sum by (model) (nonet_inflight_steps{{{_MODEL}}})", "{{model}}")],
        ),
        Panel(
            "Requests of several steps: steps taken",
            "cps",
            [Query(_rate("nonet_steps_total", _MODEL, "model"), "{{model}}")],
        ),
    ],
    {"job": "nonet_ready", "model": "nonet_queue_depth"},
)

JOBS = Dashboard(
    "nonet-jobs",
    "Nonet: jobs",
    [
        _stat("Waiting", "short", 'max(nonet_jobs{job=~"$job", state="queued"})'),
        _stat("Running", "short", 'max(nonet_jobs{job=~"$job", state="running"})'),
        _stat("Workers here", "short", 'sum(nonet_job_workers{job=~"$job"})'),
        _stat("That nobody can take", "short", 'sum(nonet_jobs_unserved{job=~"$job"}) or vector(0)'),
        _stat("Failed, of those kept", "short", 'max(nonet_jobs{job=~"$job", state="failed"})'),
        _stat("Webhooks given up", "short", 'max(nonet_webhooks{job=~"$job", state="dead"})'),
        Panel(
            "Jobs by state",
            "short",
            [Query('max by (state) (nonet_jobs{job=~"$job"})', "{{state}}")],
            note="Gateways that share a queue all count the same jobs, so the largest number is shown.",
        ),
        Panel(
            "Jobs that nobody can take, by what is missing",
            "short",
            [
                Query(
                    'max by (kind, missing) (nonet_jobs_unserved{job=~"$job"})',
                    "{{kind}} without {{missing}}",
                )
            ],
        ),
        Panel(
            "Workers",
            "short",
            [Query('sum by (instance) (nonet_job_workers{job=~"$job"})', "{{instance}}")],
            stacked=True,
        ),
        Panel(
            "Webhooks by state",
            "short",
            [Query('max by (state) (nonet_webhooks{job=~"$job"})', "{{state}}")],
        ),
    ],
    {"job": "nonet_jobs"},
)

RESOURCES = Dashboard(
    "nonet-resources",
    "Nonet: resources",
    [
        Panel("Answers scrapes", "short", [Query('up{job=~"nonet-.*|$job"}', "{{instance}}")]),
        Panel(
            "Lanes that execute",
            "percentunit",
            [Query('nonet_device_utilisation_ratio{job=~"$job"}', "{{instance}} {{device}}")],
        ),
        Panel(
            "Lanes lost to executions that hang",
            "short",
            [Query('nonet_lost_lanes{job=~"$job"}', "{{instance}} {{device}}")],
        ),
        Panel(
            "Devices left alone",
            "short",
            [Query('nonet_device_ejected{job=~"$job"}', "{{instance}} {{device}}")],
            note="1 while a device is slow or fails beyond its peers.",
        ),
        Panel(
            "Late executions run twice",
            "cps",
            [Query(_rate("nonet_hedges_total", 'job=~"$job"', "outcome"), "{{outcome}}")],
            note="won: the second device answered first.",
        ),
        Panel(
            "Memory",
            "bytes",
            [Query('process_resident_memory_bytes{job=~"$job"}', "{{instance}}")],
            note="Of the process alone; jobs run in processes of their own.",
        ),
        Panel(
            "Processor time",
            "short",
            [Query(_rate("process_cpu_seconds_total", 'job=~"$job"', "instance"), "{{instance}}")],
            note="Cores in use.",
        ),
        Panel(
            "Open file descriptors",
            "percentunit",
            [Query('process_open_fds{job=~"$job"} / process_max_fds{job=~"$job"}', "{{instance}}")],
        ),
        Panel(
            "Running for",
            "s",
            [Query('time() - process_start_time_seconds{job=~"$job"}', "{{instance}}")],
        ),
        Panel(
            "Version", "short", [Query('count by (version) (nonet_build_info{job=~"$job"})', "{{version}}")]
        ),
    ],
    {"job": "nonet_build_info"},
)

DASHBOARDS = (REQUESTS, MODELS, JOBS, RESOURCES)

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards"
    for each in DASHBOARDS:
        text = json.dumps(rendered(each), indent=1, ensure_ascii=False)
        (folder / f"{each.name}.json").write_text(text + "\n")
