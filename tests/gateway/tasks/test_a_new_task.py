"""A task that lives under the tests is served over every face, with nothing edited outside its folder.

The toy service is found like any other: its folder is on the path of a real server and of its workers.
"""

from __future__ import annotations

import base64
import json
import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as tritongrpc
import tritonclient.http as triton

from nonet.runtime.oip.messages import add_descriptors, message
from tests.support.running_server import RunningServer, assert_refused, eventually
from tests.support.toy_gateway import TOY

ROOT = Path(__file__).parents[3]
FOLDER = TOY / "nonet" / "services" / "toy"
PATH = "/v1/toy/measure"
IMAGE = bytes(range(250)) * 40
BRIGHT = float(np.frombuffer(IMAGE, np.uint8).mean())


@pytest.fixture(scope="module")
def channel(toy: RunningServer) -> Iterator[grpc.Channel]:
    add_descriptors((FOLDER / "descriptors.binpb").read_bytes())
    with grpc.insecure_channel(toy.grpc_address) as opened:
        yield opened


def call(channel: grpc.Channel, method: str, *, stream: bool = False, **fields: Any) -> Any:
    make = channel.unary_stream if stream else channel.unary_unary
    answer = "SubmitMeasureResponse" if method.startswith("Submit") else "MeasureResponse"
    rpc = make(
        f"/toy.v1.Toy/{method}",
        request_serializer=lambda sent: sent.SerializeToString(),
        response_deserializer=message(f"toy.v1.{answer}").FromString,
    )
    return rpc(message("toy.v1.MeasureRequest")(**fields), timeout=30)


def test_its_descriptors_are_those_of_its_proto(tmp_path: Path) -> None:
    fresh = tmp_path / "descriptors.binpb"
    (tmp_path / "toy" / "v1").mkdir(parents=True)
    (tmp_path / "toy" / "v1" / "toy.proto").write_bytes((FOLDER / "toy.proto").read_bytes())
    paths = [f"--proto_path={ROOT / 'proto'}", f"--proto_path={tmp_path}"]
    out = ["--include_imports", f"--descriptor_set_out={fresh}", "toy/v1/toy.proto"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *paths, *out], check=True)
    assert fresh.read_bytes() == (FOLDER / "descriptors.binpb").read_bytes()


def test_a_form_json_and_the_bytes_alone_give_one_answer(toy: RunningServer) -> None:
    form = toy.http.post(PATH, files={"image": ("a.png", IMAGE)}, data={"scale": "2"})
    text = base64.b64encode(IMAGE).decode()
    as_json = toy.http.post(PATH, json={"image": text, "scale": 2})
    alone = toy.http.post(f"{PATH}?scale=2", content=IMAGE, headers={"Content-Type": "image/png"})
    assert (
        form.json()
        == as_json.json()
        == alone.json()
        == {
            "model": "good",
            "brightness": pytest.approx(2 * BRIGHT),
            "step": 1,
        }
    )
    assert form.headers["X-Model-Version"] == "1"


def test_the_family_is_ordered_by_the_tasks_own_figure(toy: RunningServer) -> None:
    assert toy.http.post(PATH, content=IMAGE, headers={"Content-Type": "image/png"}).json()["model"] == "good"
    cards = {card["id"]: card for card in toy.http.get("/v1/models").json()["data"]}
    assert cards["eyes"]["variants"] == ["good", "poor"]


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"scale": "11"}, 400, "from 0 to 10"),
        ({"steps": "x"}, 422, "an integer"),
        ({"colour": "red"}, 422, "unknown field 'colour'"),
        ({"model": "nobody"}, 404, "unknown model"),
    ],
)
def test_faults_are_those_of_every_task(
    toy: RunningServer, fields: dict[str, str], status: int, words: str
) -> None:
    assert_refused(toy.http.post(PATH, files={"image": ("a.png", IMAGE)}, data=fields), status, words)
    assert_refused(toy.http.post(PATH, data=fields, files={"other": b""}), 422)
    assert toy.http.get(PATH).status_code == 405


def test_equal_requests_are_answered_from_the_cache(toy: RunningServer) -> None:
    asked = {"Content-Type": "image/png"}
    replies = [toy.http.post(f"{PATH}?scale=3", content=IMAGE, headers=asked) for _ in range(2)]
    assert [reply.headers["X-Cache"] for reply in replies] == ["miss", "hit"]
    refused = toy.http.post(PATH, content=IMAGE, headers={**asked, "X-Request-Timeout-Ms": "0"})
    assert_refused(refused, 504)


def test_three_answers_come_as_events(wherever: RunningServer) -> None:
    fields = {"steps": "3", "stream": "true", "scale": "4"}
    with wherever.http.stream("POST", PATH, files={"image": ("a.png", IMAGE)}, data=fields) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        text = reply.read().decode()
    events = [event.split("\n") for event in text.strip().split("\n\n")]
    assert [event[0] for event in events] == ["event: measuring", "event: measuring", "event: measured"]
    data = [json.loads(event[1].removeprefix("data: ")) for event in events]
    assert [each["step"] for each in data] == [1, 2, 3]
    assert data[-1]["brightness"] == pytest.approx(4 * BRIGHT)


def test_grpc_gives_the_same_answers(channel: grpc.Channel) -> None:
    answer = call(channel, "Measure", image=IMAGE, scale=2.0)
    assert (answer.model, answer.version, answer.step) == ("good", "1", 1)
    assert answer.brightness == pytest.approx(2 * BRIGHT)
    steps = [each.step for each in call(channel, "WatchMeasure", stream=True, image=IMAGE, steps=3, scale=5)]
    assert steps == [1, 2, 3]
    with pytest.raises(grpc.RpcError) as refused:
        call(channel, "Measure", image=IMAGE, scale=11)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_protocol_serves_it_as_a_model(toy: RunningServer) -> None:
    client = triton.InferenceServerClient(toy.url.removeprefix("http://"))
    image = triton.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([IMAGE], dtype=object))
    answer = client.infer("measure.good", [image], parameters={"scale": 2.0})
    assert answer.as_numpy("brightness")[0] == pytest.approx(2 * BRIGHT)
    client.close()


@pytest.mark.parametrize("end", [False, True])
def test_three_answers_come_on_a_stream_of_the_protocol(wherever: RunningServer, end: bool) -> None:
    image = tritongrpc.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([IMAGE], dtype=object))
    answers: queue.Queue[Any] = queue.Queue()
    with tritongrpc.InferenceServerClient(wherever.grpc_address) as client:
        policy = client.get_model_config("measure.good").config.model_transaction_policy
        assert policy.decoupled
        client.start_stream(lambda result, error: answers.put(error or result))
        client.async_stream_infer(
            "measure.good",
            [image],
            request_id="mine",
            parameters={"steps": 3, "scale": 6.0 + end},
            enable_empty_final_response=end,
        )
        replies = [answers.get(timeout=60) for _ in range(3)]
        client.stop_stream()
    assert answers.empty()
    told = [reply.get_response() for reply in replies]
    assert [reply.parameters["step"].int64_param for reply in told] == [1, 2, 3]
    assert [reply.parameters["triton_final_response"].bool_param for reply in told] == [False, False, True]
    assert {reply.id for reply in told} == {"mine"}
    assert replies[-1].as_numpy("brightness")[0] == pytest.approx((6 + end) * BRIGHT)


def test_events_come_over_grpc_from_a_service_of_its_own(behind: RunningServer) -> None:
    add_descriptors((FOLDER / "descriptors.binpb").read_bytes())
    with grpc.insecure_channel(behind.grpc_address) as opened:
        steps = [each.step for each in call(opened, "WatchMeasure", stream=True, image=IMAGE, steps=3)]
        assert steps == [1, 2, 3]
        assert call(opened, "Measure", image=IMAGE, steps=3).step == 3


def test_the_same_as_a_job_over_both_faces(toy: RunningServer, channel: grpc.Channel) -> None:
    reply = toy.http.post(
        PATH, files={"image": ("a.png", IMAGE)}, data={"scale": "2"}, headers={"Prefer": "respond-async"}
    )
    assert (reply.status_code, reply.headers["Preference-Applied"]) == (202, "respond-async")
    submitted = [reply.json()["job"]["id"], call(channel, "SubmitMeasure", image=IMAGE, scale=2).job.id]
    for job in submitted:
        eventually(lambda job=job: toy.http.get(f"/v1/jobs/{job}").json()["state"] == "succeeded", "it ends")
        assert toy.http.get(f"/v1/jobs/{job}").json()["result"]["brightness"] == pytest.approx(2 * BRIGHT)
        assert toy.http.get(f"/v1/jobs/{job}/result").json() == pytest.approx(2 * BRIGHT)


def test_description_page_and_metrics_know_it(toy: RunningServer) -> None:
    document = toy.http.get("/openapi.json").json()
    operation = document["paths"][PATH]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(form) == {"image", "model", "scale", "steps", "stream", "webhook"}
    assert form["scale"]["maximum"] == 10
    assert "text/event-stream" in operation["responses"]["200"]["content"]
    assert 'href="toy"' in toy.http.get("/").text
    assert "<h1>Toy</h1>" in toy.http.get("/toy").text
    assert toy.metric("nv_inference_request_success", model="measure.good") > 0
    assert toy.metric("nonet_steps_total", model="measure.good") >= 2
