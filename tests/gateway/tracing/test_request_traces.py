"""The spans of real requests, as a real collector receives them: over HTTP, over gRPC, through a service."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from nonet.runtime.oip.messages import message
from tests.support.running_server import RunningServer, eventually, running
from tests.support.slow_requests import fresh_value
from tests.support.trace_receiver import Span, TraceReceiver, receiving

pytestmark = pytest.mark.server

CALLER = "00f067aa0ba902b7"
STAGES = {"admission", "decode", "infer", "cache", "queue", "execute", "encode"}


@pytest.fixture(scope="module")
def receiver() -> Iterator[TraceReceiver]:
    with receiving() as started:
        yield started


@pytest.fixture(scope="module")
def service(
    small_repository: Path, tmp_path_factory: pytest.TempPathFactory, receiver: TraceReceiver
) -> Iterator[RunningServer]:
    """It stands in for ``nonet service``, which is the same process with one face less."""
    settings = {"tracing": {"endpoint": receiver.url, "service_name": "behind", "ratio": 0.0}}
    with running(small_repository, tmp_path_factory.mktemp("behind"), settings) as started:
        yield started


@pytest.fixture(scope="module")
def gateway(
    service: RunningServer, tmp_path_factory: pytest.TempPathFactory, receiver: TraceReceiver
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("before")
    topology = folder / "topology.toml"
    topology.write_text(f'[[service]]\nname = "recognition"\naddress = "{service.grpc_address}"\n')
    settings = {"tracing": {"endpoint": receiver.url, "service_name": "before", "headers": "x-key=a%20b"}}
    with running(folder, folder / "own", settings, arguments=("--topology", str(topology))) as started:
        eventually(lambda: started.http.get("/v2/health/ready").status_code == 200, "the service is found")
        yield started


def parent(flags: str = "01") -> tuple[str, str]:
    trace_id = os.urandom(16).hex()
    return trace_id, f"00-{trace_id}-{CALLER}-{flags}"


def asked(value: float, rows: int = 1) -> list[dict[str, object]]:
    return [{"name": "x", "datatype": "FP32", "shape": [rows, 4], "data": [value] * 4 * rows}]


def assert_a_tree(spans: dict[str, Span], root: str) -> None:
    """Every span lies within the one that it hangs on, the root on the caller's."""
    assert spans[root].parent_id == CALLER
    by_id = {span.span_id: span for span in spans.values()}
    for name, span in spans.items():
        assert span.start <= span.end
        if name != root:
            above = by_id[span.parent_id]
            assert above.start <= span.start
            assert span.end <= above.end


def test_a_request_over_http_is_followed_through_all_its_stages(
    service: RunningServer, receiver: TraceReceiver
) -> None:
    trace_id, header = parent()
    before = time.time_ns()
    reply = service.infer("echo_fp32", asked(fresh_value(), 2), headers={"traceparent": header})
    assert reply.status_code == 200
    root = "POST /v2/models/{model}/infer"
    spans = receiver.trace(trace_id, root)
    assert spans.keys() == {*STAGES, root}
    assert_a_tree(spans, root)
    assert before <= spans[root].start
    assert spans[root].end <= time.time_ns()
    assert spans[root].attributes["http.response.status_code"] == 200
    assert spans[root].attributes["nonet.request_id"] == reply.headers["x-request-id"]
    assert spans[root].service == "behind"
    execute = spans["execute"].attributes
    assert (execute["nonet.model"], execute["nonet.version"]) == ("echo_fp32", "1")
    assert (execute["nonet.device"], execute["nonet.batch_size"]) == (reply.headers["x-device"], 2)
    assert spans["cache"].attributes["nonet.cache"] == reply.headers["x-cache"]
    assert not any(span.failed for span in spans.values())


def test_a_request_through_a_service_is_one_trace_over_both_processes(
    gateway: RunningServer, receiver: TraceReceiver
) -> None:
    trace_id, header = parent()
    assert (
        gateway.infer("echo_fp32", asked(fresh_value()), headers={"traceparent": header}).status_code == 200
    )
    root = "POST /v2/models/{model}/infer"
    receiver.trace(trace_id, root)
    receiver.trace(trace_id, "/inference.GRPCInferenceService/ModelInfer")
    of_trace = [span for span in receiver.spans if span.trace_id == trace_id]
    execute = next(span for span in of_trace if (span.service, span.name) == ("before", "execute"))
    called = next(span for span in of_trace if span.name.endswith("ModelInfer"))
    assert (called.service, called.parent_id) == ("behind", execute.span_id)
    assert receiver.keys == {"", "a b"}


def test_who_is_not_traced_by_the_gateway_is_not_traced_by_its_services(
    gateway: RunningServer, receiver: TraceReceiver
) -> None:
    unwanted, header = parent("00")
    wanted, header_of_wanted = parent("01")
    for sent in (header, header_of_wanted):
        reply = gateway.infer("echo_fp32", asked(fresh_value()), headers={"traceparent": sent})
        assert reply.status_code == 200
    receiver.trace(wanted, "/inference.GRPCInferenceService/ModelInfer")
    receiver.trace(wanted, "POST /v2/models/{model}/infer")
    assert not [span for span in receiver.spans if span.trace_id == unwanted]


def test_a_failure_is_told_where_it_happened(service: RunningServer, receiver: TraceReceiver) -> None:
    trace_id, header = parent()
    reply = service.infer("nobody", asked(0.0), headers={"traceparent": header})
    assert reply.status_code == 404
    root = receiver.trace(trace_id, "POST /v2/models/{model}/infer")["POST /v2/models/{model}/infer"]
    assert root.attributes["error.type"] == "MODEL_NOT_FOUND"
    assert not root.failed  # the caller's fault, not the server's

    trace_id, header = parent()
    headers = {"traceparent": header, "x-request-timeout-ms": "0.001"}
    assert service.infer("echo_fp32", asked(fresh_value()), headers=headers).status_code == 504
    spans = receiver.trace(trace_id, "POST /v2/models/{model}/infer")
    assert spans["admission"].failed
    assert spans["admission"].attributes["error.type"] == "DEADLINE_EXCEEDED"


def test_a_call_over_grpc_is_followed_too(service: RunningServer, receiver: TraceReceiver) -> None:
    trace_id, header = parent()
    request = message("inference.ModelInferRequest")(model_name="echo_fp32")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    tensor.contents.fp32_contents.extend([fresh_value()] * 4)
    with grpc.insecure_channel(service.grpc_address) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message("inference.ModelInferResponse").FromString,
        )
        assert call(request, metadata=(("traceparent", header),)).outputs
    root = "/inference.GRPCInferenceService/ModelInfer"
    spans = receiver.trace(trace_id, root)
    assert spans.keys() == {*STAGES, root}
    assert_a_tree(spans, root)
    assert spans[root].attributes["rpc.response.status_code"] == "OK"


def test_looks_at_health_and_metrics_make_no_trace(gateway: RunningServer, receiver: TraceReceiver) -> None:
    assert gateway.http.get("/metrics").status_code == 200
    trace_id, header = parent()
    assert gateway.http.get("/v2/health/live", headers={"traceparent": header}).status_code == 200
    # The gateway has looked at the service's health and models all the time, and was looked at itself.
    spans = receiver.trace(trace_id, "GET /v2/health/live")
    assert spans.keys() == {"GET /v2/health/live"}
    names = {span.name for span in receiver.spans if span.trace_id != trace_id}
    assert not [name for name in names if "ServerReady" in name or "health" in name or "metrics" in name]
