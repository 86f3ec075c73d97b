"""`POST /v1/regress/{model}` on a real gateway, over HTTP and gRPC: rows, tables, windows, images; what is
wrong with a row is named."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from nonet.runtime.oip.messages import methods
from tests.support import handmade_regressors as handmade
from tests.support.running_server import RunningServer, assert_refused, running

METHODS = {method.name: method for method in methods("nonet.v1.Adaptation")}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("regress")
    handmade.publish_linear(folder / "models", "prices")
    handmade.publish_linear(folder / "models", "steps", outputs=2)
    handmade.publish_linear(folder / "models", "prices@coast")
    handmade.publish_windows(folder / "models", "walks")
    handmade.publish_image_regressor(folder / "models", "levels")
    settings = {"scheduler": {"lanes": 1}, "repository": {"poll_seconds": 0.0}}
    with running(folder / "models", folder / "server", settings) as started:
        yield started


def ask(gateway: RunningServer, inputs: Any, model: str = "prices") -> Any:
    return gateway.http.post(f"/v1/regress/{model}", json={"inputs": inputs})


def test_rows_by_position_and_by_name_have_the_same_answers(gateway: RunningServer) -> None:
    rows = [[100.0, 3, 0.1], [50.0, 1, -2.0]]
    answer = ask(gateway, rows).json()
    assert answer["model"] == "prices"
    assert answer["version"] == "1"
    first, second = answer["predictions"]
    assert (first["value"], second["value"]) == (130.0, 60.0)
    assert first["std"] == pytest.approx(0.1)
    assert first["error"] == pytest.approx(0.1 + 2.0 * 0.01)  # the calibration's line at the variance
    assert (first["confident"], second["confident"]) == (True, False)
    named = [dict(zip(handmade.FEATURES, row, strict=True), further="not read") for row in rows]
    assert ask(gateway, named).json()["predictions"] == answer["predictions"]
    assert ask(gateway, rows, "prices@coast").json()["model"] == "prices@coast"


def test_a_table_with_its_columns_in_any_order(gateway: RunningServer) -> None:
    def sent(text: str) -> Any:
        reply = gateway.http.post("/v1/regress/prices", files={"table": ("rows.csv", text.encode())})
        assert reply.status_code == 200, reply.text
        return [each["value"] for each in reply.json()["predictions"]]

    assert sent("id,noise,age,area\nx,0.1,3,100\ny,0,1,50\n") == [130.0, 60.0]
    assert sent("100,3,0.1\n50,1,0\n") == [130.0, 60.0]
    assert sent("area;age;noise\r\n100;3;0.1\r\n") == [130.0]
    form = gateway.http.post("/v1/regress/prices", files={"inputs": (None, "[[100, 3, 0.1]]")})
    assert form.json()["predictions"][0]["value"] == 130.0


def test_several_outputs_are_lists_and_thousands_of_rows_one_answer(gateway: RunningServer) -> None:
    rows = [[float(index), 0.0, 0.0] for index in range(4096)]
    found = ask(gateway, rows, "steps").json()["predictions"]
    assert found[7]["value"] == [7.0, 14.0]
    assert found[4095]["std"] == [0.0, 0.0]
    assert_refused(ask(gateway, [*rows, rows[0]]), 400, "at most 4096")


def test_windows_come_as_channels_or_in_one_row(gateway: RunningServer) -> None:
    window = [[1.0, 2.0, 3.0, 4.0], [9.0, 9.0, 9.0, 9.0]]
    found = ask(gateway, [window, [*window[0], *window[1]]], "walks").json()["predictions"]
    assert [each["value"] for each in found] == [10.0, 10.0]
    short = [[1.0, 2.0, 3.0, 4.0], [9.0]]
    assert_refused(ask(gateway, [window, short], "walks"), 400, "row 1, channel 'right' has 1 numbers")


def test_an_image_regressor_takes_an_image(gateway: RunningServer) -> None:
    out = io.BytesIO()
    Image.new("RGB", (20, 10), (255, 255, 255)).save(out, "PNG")
    sent = gateway.http.post("/v1/regress/levels", files={"image": ("white.png", out.getvalue())})
    assert sent.status_code == 200, sent.text
    assert sent.json()["predictions"][0]["value"] == pytest.approx(1.0)
    text = base64.b64encode(out.getvalue()).decode()
    inline = gateway.http.post("/v1/regress/levels", json={"image": text})
    assert inline.json()["predictions"] == sent.json()["predictions"]
    assert_refused(ask(gateway, [[1, 2, 3]], "levels"), 400, "takes an image")
    wrong = gateway.http.post("/v1/regress/prices", files={"image": ("white.png", out.getvalue())})
    assert_refused(wrong, 400, "takes rows of numbers")


@pytest.mark.parametrize(
    ("inputs", "status", "says"),
    [
        ([[1, 2, 3], [1, 2]], 400, "row 1 has 2 numbers, the model takes 3: area, age, noise"),
        ([[1, 2, "3"]], 400, "row 0, column 'noise' must be a number, got '3'"),
        ([[1, True, 3]], 400, "row 0, column 'age' must be a number, got true"),
        ([[1, None, 3]], 400, "row 0, column 'age' must be a number, got null"),
        ([[1, 1e39, 3]], 400, "row 0, column 'age' must be a finite 32-bit number"),
        ([[1, [2], 3]], 400, "row 0, column 'age' must be a number, got a list"),
        ([{"area": 1, "age": 2}], 400, "row 0, column 'noise' is missing"),
        ([{"area": 1, "age": 2, "noise": None}], 400, "row 0, column 'noise' is null"),
        ([[1, 2, 3], {"area": 1, "age": "x", "noise": 0}], 400, "row 1, column 'age' must be a number"),
        ([1, 2, 3], 400, "row 0 must be a list of numbers"),
        ([], 400, "at least one row"),
        ("rows", 422, "list of rows"),
        ({"area": 1}, 422, "list of rows"),
    ],
)
def test_what_is_no_row_is_named_by_row_and_column(
    gateway: RunningServer, inputs: Any, status: int, says: str
) -> None:
    reply = ask(gateway, inputs)
    assert_refused(reply, status, says)
    assert reply.json()["error"]["param"] == "inputs"


def test_nan_and_infinity_are_no_json_and_no_number_of_a_table(gateway: RunningServer) -> None:
    for text in ("NaN", "Infinity"):
        body = f'{{"inputs": [[1, {text}, 3]]}}'.encode()
        reply = gateway.http.post(
            "/v1/regress/prices", content=body, headers={"Content-Type": "application/json"}
        )
        assert_refused(reply, 400, "not valid JSON")
    table = gateway.http.post("/v1/regress/prices", files={"table": ("r.csv", b"area,age,noise\n1,nan,3\n")})
    assert_refused(table, 400, "row 0, column 'age' must be a number, got 'nan'")
    table = gateway.http.post("/v1/regress/prices", files={"table": ("r.csv", b"area,age\n1,2\n")})
    assert_refused(table, 400, "row 0, column 'noise' is missing")


def test_one_thing_at_a_time_and_known_models_only(gateway: RunningServer) -> None:
    both = gateway.http.post("/v1/regress/prices", json={"inputs": [[1, 2, 3]], "table": "MSwyLDM="})
    assert_refused(both, 400, "one of 'inputs'")
    assert_refused(gateway.http.post("/v1/regress/prices", json={}), 400, "one of 'inputs'")
    assert_refused(ask(gateway, [[1, 2, 3]], "nowhere"), 404, "unknown model 'nowhere'")
    assert_refused(ask(gateway, [[1, 2, 3]], "prices@nowhere"), 404, "prices@coast")


def test_the_same_over_grpc(gateway: RunningServer) -> None:
    method = METHODS["Regress"]
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        call = channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        answer = call(method.request(model="prices", inputs=[{"values": [100, 3, 0.1]}]), timeout=30)
        assert (answer.model, answer.version) == ("prices", "1")
        assert list(answer.predictions[0].value) == [130.0]
        assert answer.predictions[0].confident
        several = call(method.request(model="steps", table=b"1,0,0\n2,0,0\n"), timeout=30)
        assert [list(each.value) for each in several.predictions] == [[1.0, 2.0], [2.0, 4.0]]
        with pytest.raises(grpc.RpcError) as refused:
            call(method.request(model="prices", inputs=[{"values": [1, float("nan"), 2]}]), timeout=30)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "row 0, column 1" in refused.value.details()


def test_the_share_of_unsure_rows_is_a_metric(gateway: RunningServer) -> None:
    def counts() -> tuple[float, float]:
        model = "regress.steps"
        return tuple(
            gateway.metric(name, model=model)
            for name in ("nonet_judged_rows_total", "nonet_unsure_rows_total")
        )  # type: ignore[return-value]

    judged, unsure = counts()
    ask(gateway, [[1, 1, 0.0], [1, 1, 9.0], [1, 1, -9.0]], "steps")
    ask(gateway, [[1, 1, "bad"]], "steps")
    after = counts()
    assert (after[0] - judged, after[1] - unsure) == (3, 2)
    # Other models say nothing of it.
    assert gateway.metric("nonet_judged_rows_total", model="steps") == 0


def test_the_service_is_a_model_of_the_open_inference_protocol(gateway: RunningServer) -> None:
    rows = [json.dumps([100, 3, 0.1]), json.dumps({"area": 1, "age": 1, "noise": 0})]
    tensor = {"name": "inputs", "datatype": "BYTES", "shape": [2], "data": rows}
    reply = gateway.infer("regress.prices", [tensor])
    assert reply.status_code == 200, reply.text
    outputs = {each["name"]: each["data"] for each in reply.json()["outputs"]}
    assert outputs["value"] == [130.0, 11.0]
    assert outputs["confident"] == [True, True]
    network = {"name": "inputs", "datatype": "FP32", "shape": [1, 3], "data": [1, 1, 0]}
    assert gateway.infer("prices@coast", [network]).json()["outputs"][0]["data"] == [11.0]


def test_answers_do_not_depend_on_what_else_is_asked(gateway: RunningServer) -> None:
    rows = np.random.default_rng(0).uniform(0, 10, (70, 3)).astype(np.float32).astype(float).tolist()
    together = ask(gateway, rows).json()["predictions"]
    assert [ask(gateway, [row]).json()["predictions"][0] for row in rows[:5]] == together[:5]
