"""The metrics: Triton's names and meanings, valid in both formats, and bounded whatever callers send."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from nonet.gateway.core.records import BatchRecord, RequestRecord
from nonet.gateway.metrics.counters import OTHER, Histogram, Metrics
from nonet.gateway.metrics.exposition import MetricsPage
from tests.support.running_server import written_name

TRITON = {
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
    "nv_inference_pending_request_count",
    "nv_cache_num_hits_per_model",
    "nv_cache_num_misses_per_model",
}
ANSWERED = RequestRecord(
    model="net",
    version="1",
    rows=2,
    ok=True,
    code="",
    stage="done",
    cache="miss",
    device="cpu",
    batch_size=4,
    total=0.5,
    queue=0.1,
    decode=0.02,
    compute=0.3,
    encode=0.01,
    deadline_met=True,
)
FAILED = dataclasses.replace(
    ANSWERED, ok=False, code="DEADLINE_UNATTAINABLE", stage="admission", batch_size=0
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def page_of(metrics: Metrics) -> MetricsPage:
    return MetricsPage(
        metrics,
        lambda: {
            "nonet_ready": 1,
            "nonet_device_utilisation_ratio": {"cpu": 0.5},
            "nonet_models_loaded": 3,
            "nonet_models_failed": 1,
            "nonet_build_info": {"9": 1},
        },
    )


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = page_of(metrics).render()[0].decode()
    return {
        (written_name(sample.name), tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


@pytest.fixture
def value(metrics: Metrics) -> Callable[..., float]:
    def read(name: str, **labels: str) -> float:
        return samples(metrics)[(name, tuple(sorted(labels.items())))]

    return read


NET = {"model": "net", "version": "1"}


def test_tritons_metrics_have_tritons_types(metrics: Metrics) -> None:
    metrics.on_request(ANSWERED)
    text = page_of(metrics).render()[0].decode()
    types = dict(re.findall(r"^# TYPE (nv_\S+) (\S+)$", text, re.MULTILINE))
    assert types == dict.fromkeys(TRITON, "counter") | {"nv_inference_pending_request_count": "gauge"}
    assert not re.search(r"^# TYPE \S+ (untyped|unknown)$", text, re.MULTILINE)
    assert re.search(r"^nv_inference_count\{", text, re.MULTILINE)


def test_an_executed_request_counts_as_in_triton(metrics: Metrics, value: Callable[..., float]) -> None:
    metrics.on_request(ANSWERED)
    metrics.on_batch(BatchRecord("net", "1", "cpu", requests=2, rows=4, seconds=0.3, failed=False))
    assert value("nv_inference_request_success", **NET) == 1
    assert value("nv_inference_request_failure", **NET) == 0
    assert value("nv_inference_count", **NET) == 2
    assert value("nv_inference_exec_count", **NET) == 1
    assert value("nv_inference_request_duration_us", **NET) == pytest.approx(500_000)
    assert value("nv_inference_queue_duration_us", **NET) == pytest.approx(100_000)
    assert value("nv_inference_compute_input_duration_us", **NET) == pytest.approx(20_000)
    assert value("nv_inference_compute_infer_duration_us", **NET) == pytest.approx(300_000)
    assert value("nv_inference_compute_output_duration_us", **NET) == pytest.approx(10_000)
    assert value("nv_cache_num_misses_per_model", **NET) == 1
    assert value("nonet_batch_size_bucket", le="4.0", **NET) == 1
    assert value("nonet_batch_size_bucket", le="2.0", **NET) == 0
    assert value("nonet_device_requests_total", device="cpu", **NET) == 1
    assert value("nonet_deadlines_total", outcome="met", **NET) == 1


@pytest.mark.parametrize("outcome", ["hit", "coalesced"])
def test_what_the_cache_answers_is_a_success_and_no_inference(
    metrics: Metrics, value: Callable[..., float], outcome: str
) -> None:
    metrics.on_request(dataclasses.replace(ANSWERED, cache=outcome))
    assert value("nv_inference_request_success", **NET) == 1
    assert value("nv_inference_count", **NET) == 0
    assert value("nv_inference_compute_infer_duration_us", **NET) == 0
    assert value("nv_cache_num_hits_per_model", **NET) == 1
    assert value("nv_cache_num_misses_per_model", **NET) == 0
    assert value("nonet_cache_requests_total", outcome=outcome, **NET) == 1


def test_failures_shed_requests_and_cancellations_are_told_apart(
    metrics: Metrics, value: Callable[..., float]
) -> None:
    metrics.on_request(FAILED)
    metrics.on_request(dataclasses.replace(FAILED, code="CLIENT_CLOSED", stage="queued", deadline_met=False))
    metrics.on_request(dataclasses.replace(FAILED, code="MODEL_FAILED", stage="executing", deadline_met=None))
    assert value("nv_inference_request_failure", **NET) == 3
    assert value("nv_inference_request_duration_us", **NET) == 0
    assert value("nonet_shed_requests_total", reason="DEADLINE_UNATTAINABLE", **NET) == 1
    assert value("nonet_cancelled_total", stage="queued") == 1
    assert value("nonet_cancelled_total", stage="executing") == 0
    assert value("nonet_request_failures_total", code="MODEL_FAILED", **NET) == 1
    assert value("nonet_deadlines_total", outcome="missed", **NET) == 1
    assert not any(name == "nonet_shed_requests_total" and "MODEL_FAILED" in str(labels)
                   for name, labels in samples(metrics))  # fmt: skip


def test_the_queue_is_a_gauge(metrics: Metrics, value: Callable[..., float]) -> None:
    metrics.on_queue_depth("net", "1", 7)
    assert value("nv_inference_pending_request_count", **NET) == 7
    metrics.on_queue_depth("net", "1", 0)
    assert value("nonet_queue_depth", **NET) == 0


def test_a_failed_batch_is_no_execution(metrics: Metrics, value: Callable[..., float]) -> None:
    metrics.on_batch(BatchRecord("net", "1", "cpu", requests=1, rows=1, seconds=0.1, failed=True))
    assert value("nv_inference_exec_count", **NET) == 0
    assert value("nonet_batch_failures_total", **NET) == 1


def test_routes_have_a_latency_and_a_status(metrics: Metrics, value: Callable[..., float]) -> None:
    metrics.observe_route("/v1/classify", 200, 0.02, "net")
    metrics.observe_route("/v1/classify", 503, 0.001)
    assert value("nonet_requests_total", route="/v1/classify", status="503") == 1
    assert value("nonet_request_duration_seconds_count", route="/v1/classify", model="net") == 1
    assert value("nonet_request_duration_seconds_sum", route="/v1/classify", model="net") == 0.02


def test_state_is_looked_at_when_scraped(metrics: Metrics, value: Callable[..., float]) -> None:
    assert value("nonet_ready") == 1
    assert value("nonet_models_loaded") == 3
    assert value("nonet_models_failed") == 1
    assert value("nonet_device_utilisation_ratio", device="cpu") == 0.5
    assert value("nonet_build_info", version="9") == 1
    assert any(name == "process_resident_memory_bytes" for name, _ in samples(metrics))


def test_fault_39_labels_are_capped_and_unknown_models_share_one() -> None:
    metrics = Metrics(max_models=3)
    for number in range(50):
        metrics.on_request(dataclasses.replace(ANSWERED, model=f"net{number}"))
        metrics.on_request(dataclasses.replace(FAILED, model="", version="", code="MODEL_NOT_FOUND"))
        metrics.on_queue_depth(f"other{number}", "1", 1)
        metrics.observe_route("/v2", 200, 0.1, f"net{number}")
    assert len(metrics.models) <= 4
    assert len(metrics.routes) <= 4
    found = samples(metrics)
    assert found[("nv_inference_request_failure", (("model", OTHER), ("version", "")))] == 50
    success = sum(count for (name, _), count in found.items() if name == "nv_inference_request_success")
    assert success == 50


def test_a_model_is_there_from_its_first_moment_to_its_last(
    metrics: Metrics, value: Callable[..., float]
) -> None:
    metrics.on_model("net", "1", present=True)
    assert value("nv_inference_request_success", **NET) == 0
    assert value("nv_inference_pending_request_count", **NET) == 0
    metrics.on_request(ANSWERED)
    metrics.on_model("net", "1", present=True)  # loaded again
    assert value("nv_inference_request_success", **NET) == 1
    metrics.on_model("net", "1", present=False)
    assert not any(dict(labels).get("model") == "net" for _, labels in samples(metrics))


def full(metrics: Metrics) -> Metrics:
    metrics.on_request(ANSWERED)
    metrics.on_request(FAILED)
    metrics.on_batch(BatchRecord("net", "1", "cpu", requests=1, rows=2, seconds=0.3, failed=False))
    metrics.observe_route("/v1/classify", 200, 0.02, "net")
    return metrics


def test_both_formats_hold_the_same_numbers_under_tritons_names(metrics: Metrics) -> None:
    page = page_of(full(metrics))
    text, text_type = page.render("text/plain")
    openmetrics, openmetrics_type = page.render("application/openmetrics-text; version=1.0.0")
    assert text_type.startswith("text/plain; version=0.0.4")
    assert openmetrics_type.startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.endswith(b"# EOF\n")

    def ours(families: object) -> dict[tuple[str, str], float]:
        return {
            (written_name(sample.name), str(sorted(sample.labels.items()))): sample.value
            for family in families  # type: ignore[attr-defined]
            for sample in family.samples
            if sample.name.startswith(("nv_", "nonet_")) and not sample.name.endswith("_created")
        }

    first, second = ours(parse_text(text.decode())), ours(parse_openmetrics(openmetrics.decode()))
    assert first == second
    assert {name for name, _ in first if name.startswith("nv_")} == TRITON


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", True),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.9", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=nonsense;q=x", False),
        ("APPLICATION/OPENMETRICS-TEXT", True),
    ],
)
def test_the_format_is_negotiated(metrics: Metrics, accept: str, openmetrics: bool) -> None:
    assert ("openmetrics" in page_of(metrics).render(accept)[1]) is openmetrics


@given(accept=st.text(max_size=60))
def test_no_accept_header_breaks_the_page(accept: str) -> None:
    assert page_of(Metrics()).render(accept)[0]


def test_names_help_and_labels_follow_prometheus_rules(metrics: Metrics) -> None:
    for family in parse_text(page_of(full(metrics)).render()[0].decode()):
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert family.documentation, family.name
        if family.type == "counter" and not family.name.startswith("process_"):
            assert all(sample.name.endswith("_total") for sample in family.samples)
        if family.name.startswith("nonet_") and "duration" in family.name:
            assert family.name.endswith("_seconds")


def test_hostile_label_values_cannot_forge_a_line(metrics: Metrics) -> None:
    metrics.on_request(dataclasses.replace(ANSWERED, model='a"} 1\nforged 2\n', version="\\"))
    text = page_of(metrics).render()[0].decode()
    assert not any(line.startswith("forged") for line in text.splitlines())
    labels = {sample.labels["model"] for family in parse_text(text) for sample in family.samples
              if "model" in sample.labels}  # fmt: skip
    assert 'a"} 1\nforged 2\n' in labels


@given(st.lists(st.floats(0, 100), max_size=30))
def test_a_histogram_holds_every_value_once(values: list[float]) -> None:
    histogram = Histogram((0.5, 1.0, 10.0))
    for each in values:
        histogram.add(each)
    buckets = histogram.cumulative()
    assert buckets[-1] == ("+Inf", len(values))
    assert histogram.count == len(values)
    for bound, count in buckets[:-1]:
        assert count == sum(each <= float(bound) for each in values)


def test_the_page_is_written_while_the_loop_goes_on_and_shows_one_moment(metrics: Metrics) -> None:
    """Requests that end while a page is being written are on the next one, wholly or not at all."""
    for number in range(200):
        metrics.on_request(dataclasses.replace(ANSWERED, model=f"model{number}"))
    page = page_of(metrics)

    async def scrape() -> tuple[str, int]:
        asked = asyncio.create_task(page.answer())
        turns = 0
        while not asked.done():
            await asyncio.sleep(0)
            if turns > 0:  # the page has been asked for
                for number in range(200):
                    metrics.on_request(dataclasses.replace(ANSWERED, model=f"model{number}"))
            turns += 1
        return (await asked)[0].decode(), turns

    text, turns = asyncio.run(scrape())
    assert turns > 2, "the loop stood still"
    counts = {
        sample.value
        for family in parse_text(text)
        for sample in family.samples
        if sample.name in ("nv_inference_request_success", "nonet_inference_duration_seconds_count")
    }
    assert counts == {1.0}
