"""The least quality that a caller accepts, and why an answer came from where it did, over every face."""

from __future__ import annotations

import itertools
import json
from typing import Any

import grpc
import httpx
import pytest

from nonet.gateway.core.explaining import LONGEST, compact
from nonet.gateway.tasks.schemas import Placement
from nonet.runtime.oip.messages import add_descriptors, message
from tests.support.running_server import RunningServer, assert_refused
from tests.support.toy_gateway import TOY

PATH = "/v1/toy/measure"
_numbers = itertools.count()


def fresh() -> bytes:
    """An image that nobody has sent."""
    return b"fresh %d" % next(_numbers)


def measure(
    server: RunningServer,
    image: bytes,
    path: str = PATH,
    fields: dict[str, str] | None = None,
    **headers: str,
) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.http.post(path, files={"image": ("a.png", image)}, data=fields or {}, headers=names)


def call(server: RunningServer, *metadata: tuple[str, str]) -> tuple[Any, dict[str, str]]:
    """The answer of the typed method, and its trailing metadata."""
    add_descriptors((TOY / "nonet" / "services" / "toy" / "descriptors.binpb").read_bytes())
    with grpc.insecure_channel(server.grpc_address) as channel:
        method = channel.unary_unary(
            "/toy.v1.Toy/Measure",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message("toy.v1.MeasureResponse").FromString,
        )
        answer, rpc = method.with_call(
            message("toy.v1.MeasureRequest")(image=fresh()), metadata=metadata, timeout=30
        )
        return answer, {key: str(value) for key, value in rpc.trailing_metadata()}


@pytest.mark.parametrize(("floor", "model"), [("0.05", "good"), ("0.5", "good"), ("9e-1", "good")])
def test_a_member_above_the_floor_answers(wherever: RunningServer, floor: str, model: str) -> None:
    reply = measure(wherever, fresh(), X_Accuracy_Floor=floor)
    assert (reply.status_code, reply.json()["model"]) == (200, model)


def test_nothing_above_the_floor_is_a_conflict_that_names_the_best(wherever: RunningServer) -> None:
    reply = measure(wherever, fresh(), X_Accuracy_Floor="0.95")
    assert_refused(reply, 409, "truth", "0.95", "0.9")
    assert reply.json()["error"]["code"] == "ACCURACY_FLOOR"
    assert_refused(measure(wherever, fresh(), fields={"model": "poor"}, X_Accuracy_Floor="0.5"), 409, "0.1")
    with pytest.raises(grpc.RpcError) as refused:
        call(wherever, ("x-accuracy-floor", "0.95"))
    assert refused.value.code() is grpc.StatusCode.ABORTED


def test_what_has_no_figure_is_below_every_floor(toy: RunningServer) -> None:
    reply = toy.http.post(
        "/v1/toy/compare", files={"image": ("a.png", fresh())}, headers={"X-Accuracy-Floor": "0"}
    )
    assert_refused(reply, 409, "nothing there has been measured")


@pytest.mark.parametrize("floor", ["", "high", "nan", "inf", "1e999", "0x1"])
def test_a_floor_that_is_no_number_is_refused(toy: RunningServer, floor: str) -> None:
    assert_refused(measure(toy, fresh(), X_Accuracy_Floor=floor), 400, "X-Accuracy-Floor")


def test_the_explanation_names_candidates_devices_and_reasons(wherever: RunningServer) -> None:
    reply = measure(wherever, fresh(), X_Explain="true", X_Accuracy_Floor="0.5", X_Request_Timeout_Ms="60000")
    placement = Placement.model_validate(reply.json()["placement"])
    assert (placement.model, placement.figure, placement.floor) == ("good", "truth", 0.5)
    assert placement.device == reply.headers["X-Device"]
    assert 0 < (placement.deadline_ms or 0) <= 60000
    good, poor = placement.candidates
    assert (good.model, good.quality, good.chosen, good.excluded) == ("good", 0.9, True, "")
    assert (poor.model, poor.quality, poor.chosen, poor.excluded) == ("poor", 0.1, False, "accuracy_floor")
    assert [device.excluded for device in good.devices] == [""]
    assert good.devices[0].device == placement.device
    unbounded = measure(wherever, fresh(), X_Explain="true").json()["placement"]
    assert unbounded["deadline_ms"] is None
    assert [each["excluded"] for each in unbounded["candidates"]] == ["", "not_best"]


def test_an_explanation_is_asked_for_in_a_header_a_query_and_metadata(toy: RunningServer) -> None:
    assert "placement" in measure(toy, fresh(), f"{PATH}?explain=true&scale=2").json()
    assert "placement" not in measure(toy, fresh(), f"{PATH}?explain=false").json()
    assert "placement" not in measure(toy, fresh()).json()
    assert_refused(measure(toy, fresh(), f"{PATH}?explain=1"), 400, "explain", "true or false")
    assert_refused(measure(toy, fresh(), X_Explain="yes"), 400, "X-Explain")
    _, said = call(toy, ("x-explain", "true"))
    assert Placement.model_validate_json(said["x-placement"]).model == "good"
    assert "x-placement" not in call(toy)[1]
    with grpc.insecure_channel(toy.grpc_address) as channel:
        watching = channel.unary_stream(
            "/toy.v1.Toy/WatchMeasure", request_serializer=lambda sent: sent.SerializeToString()
        )(message("toy.v1.MeasureRequest")(image=fresh()), metadata=(("x-explain", "true"),), timeout=30)
        assert len(list(watching)) == 1
        said = {key: str(value) for key, value in watching.trailing_metadata()}
        assert Placement.model_validate_json(said["x-placement"]).model == "good"
    events = measure(toy, fresh(), fields={"stream": "true"}, X_Explain="true")
    assert Placement.model_validate_json(events.headers["X-Placement"]).model == "good"


def test_an_explanation_is_of_one_request_and_is_not_kept(toy: RunningServer) -> None:
    image = fresh()
    first = measure(toy, image, X_Explain="true")
    assert (first.headers["X-Cache"], first.json()["placement"]["device"]) == ("miss", "cpu")
    plain = measure(toy, image)
    assert plain.headers["X-Cache"] == "hit"
    assert plain.json() == {name: value for name, value in first.json().items() if name != "placement"}
    again = measure(toy, image, X_Explain="true", X_Accuracy_Floor="0.5")
    assert again.headers["X-Cache"] == "hit"
    assert (again.json()["placement"]["device"], again.json()["placement"]["floor"]) == ("cache", 0.5)


def test_every_task_documents_its_explanation(toy: RunningServer) -> None:
    document = toy.http.get("/openapi.json").json()
    schemas, tasks = document["components"]["schemas"], 0
    for path, item in document["paths"].items():
        post = item.get("post", {})
        if "X-Explain" not in {each["name"] for each in post.get("parameters", ())}:
            continue
        tasks += 1
        answer = post["responses"]["200"]
        assert "X-Placement" in answer["headers"], path
        if "application/json" in answer["content"]:
            name = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            assert schemas[name]["properties"]["placement"]["$ref"].endswith("/Placement"), path
        assert {"X-Accuracy-Floor", "explain"} <= {each["name"] for each in post["parameters"]}, path
    answered_at_once = [
        path
        for path, item in document["paths"].items()
        if path.startswith("/v1/") and "200" in item.get("post", {}).get("responses", ())
    ]
    assert tasks == len(answered_at_once) >= 9


def test_an_explanation_in_a_header_is_short_ascii_json() -> None:
    device = {"device": "fern·" * 5, "predicted_ms": 1.25, "joules": 0.0, "cost": 0.0, "excluded": ""}
    candidate: dict[str, Any] = {"model": "m", "version": "1", "quality": 0.5, "predicted_ms": 1.25}
    candidate |= {"chosen": True, "excluded": "", "devices": [device] * 4}
    whole: dict[str, Any] = {
        "model": "m",
        "version": "1",
        "figure": "top1",
        "floor": None,
        "deadline_ms": 1.0,
    }
    for members in (1, 30, 2000):
        sent = compact({**whole, "candidates": [candidate] * members})
        assert len(sent) <= LONGEST
        assert sent.isascii()
        assert b"\n" not in sent
        assert Placement.model_validate_json(sent).truncated is (members > 1)
    assert json.loads(compact({**whole, "candidates": [candidate]}))["candidates"] == [candidate]
