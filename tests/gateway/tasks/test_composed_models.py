"""A model whose requests need another model's answer: each is asked on the one path of every request."""

from __future__ import annotations

from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as tritongrpc

from nonet.runtime.oip.messages import add_descriptors, message
from tests.support.running_server import RunningServer, assert_refused, running_service
from tests.support.toy_gateway import TOY

PATH = "/v1/toy/compare"


def image(number: int) -> bytes:
    """Bytes that no other test sends, the largest of them 200."""
    return bytes([number, 200, 1]) * 40


def contrast(sent: bytes) -> float:
    return 200 - float(np.frombuffer(sent, np.uint8).mean())


def post(server: RunningServer, sent: bytes, **fields: str) -> httpx.Response:
    return server.http.post(PATH, files={"image": ("a.png", sent)}, data=fields)


def asked(server: RunningServer, model: str) -> tuple[float, float, float]:
    """Requests for a model's answers so far, executions, and answers from the cache."""
    names = ("nv_inference_request_success", "nv_inference_exec_count", "nv_cache_num_hits_per_model")
    count, executions, hits = (server.metric(name, model=model) for name in names)
    return count, executions, hits


def since(server: RunningServer, model: str, before: tuple[float, float, float]) -> list[float]:
    """What has been added to ``before``."""
    return [now - then for now, then in zip(asked(server, model), before, strict=True)]


def test_the_answer_is_made_of_another_models(wherever: RunningServer) -> None:
    reply = post(wherever, image(1))
    assert reply.json() == {"model": "sharp", "contrast": pytest.approx(contrast(image(1)))}


def test_the_other_model_is_cached_and_counted_as_for_any_caller(toy: RunningServer) -> None:
    before = asked(toy, "measure.good")
    first, second = post(toy, image(2)), post(toy, image(2))
    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("miss", "hit")
    count, executions, hits = (
        now - then for now, then in zip(asked(toy, "measure.good"), before, strict=True)
    )
    assert (count, executions, hits) == (2, 1, 1)
    toy.http.post("/v1/toy/measure", files={"image": ("a.png", image(2))})  # its own task finds it, too
    assert asked(toy, "measure.good")[2] - before[2] == 2


def test_a_caller_who_keeps_nothing_has_nothing_kept(toy: RunningServer) -> None:
    sent = {"files": {"image": ("a.png", image(3))}, "headers": {"Cache-Control": "no-store"}}
    assert toy.http.post(PATH, **sent).status_code == 200
    before = asked(toy, "measure.good")
    assert toy.http.post(PATH, **sent).status_code == 200
    assert since(toy, "measure.good", before) == [1, 1, 0]


def test_the_other_model_is_chosen_and_refused_by_name(toy: RunningServer) -> None:
    before = asked(toy, "measure.poor")[0]
    assert post(toy, image(4), beside="poor").status_code == 200
    assert asked(toy, "measure.poor")[0] == before + 1
    reply = post(toy, image(4), beside="nobody")
    assert_refused(reply, 404, "unknown model 'nobody'")
    assert reply.json()["error"]["param"] == "beside"


def test_what_the_other_model_refuses_is_the_callers_refusal(toy: RunningServer) -> None:
    late = toy.http.post(PATH, files={"image": ("a.png", image(5))}, headers={"X-Request-Timeout-Ms": "0"})
    assert_refused(late, 504)


@pytest.mark.parametrize("task", ["classification", "contrast"])
def test_a_task_that_is_not_named_and_a_circle_are_defects(toy: RunningServer, task: str) -> None:
    """The composition names two tasks; one of them is its own, whose model would ask itself for ever."""
    assert_refused(post(toy, image(6), task=task), 500)


def test_grpc_and_the_protocol_give_the_same(wherever: RunningServer) -> None:
    add_descriptors((TOY / "nonet" / "services" / "toy" / "descriptors.binpb").read_bytes())
    with grpc.insecure_channel(wherever.grpc_address) as channel:
        rpc = channel.unary_unary(
            "/toy.v1.Toy/Compare",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message("toy.v1.CompareResponse").FromString,
        )
        answer = rpc(message("toy.v1.CompareRequest")(image=image(7)), timeout=30)
    assert answer.contrast == pytest.approx(contrast(image(7)))
    assert protocol(wherever.grpc_address, image(7)) == pytest.approx(contrast(image(7)))
    assert protocol(wherever.grpc_address, image(7), brightness=50.0) == 150


def protocol(address: str, sent: bytes, brightness: float | None = None) -> float:
    """The contrast by the inference protocol, with the brightness found by the server or given."""
    inputs = [tritongrpc.InferInput("image", [1], "BYTES")]
    inputs[0].set_data_from_numpy(np.array([sent], dtype=object))
    if brightness is not None:
        inputs.append(tritongrpc.InferInput("brightness", [1], "FP64"))
        inputs[1].set_data_from_numpy(np.array([brightness]))
    with tritongrpc.InferenceServerClient(address) as client:
        answer = client.infer("contrast.sharp", inputs, parameters={"beside": "good", "task": "brightness"})
        return float(answer.as_numpy("contrast")[0])


def test_a_service_alone_answers_with_the_models_it_asks(
    models: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    with running_service("toy", models, tmp_path / "service", environment) as port:
        assert protocol(f"127.0.0.1:{port}", image(8)) == pytest.approx(contrast(image(8)))
