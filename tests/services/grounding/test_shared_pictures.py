"""Many expressions share what is computed of a picture, within a request and from one to the next."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as tritongrpc
from PIL import Image

from nonet.runtime.oip.messages import message
from tests.services.grounding.conftest import BOTH, CAT, DOG, picture
from tests.support.running_server import RunningServer, eventually, running, running_service

MADE = ("detect.animals", "looks.matcher", "views.matcher", "texts.matcher", "ground.matcher")


def post(server: RunningServer, image: bytes, *expressions: str, **fields: str) -> httpx.Response:
    body = {"image": base64.b64encode(image).decode(), "expressions": expressions, **fields}
    reply = server.http.post("/v1/ground", json=body)
    assert reply.status_code == 200, reply.text
    return reply


def executed(server: RunningServer) -> dict[str, float]:
    """Rows that each of the models has executed."""
    return {name: server.metric("nv_inference_count", model=name) for name in MADE}


def spent(server: RunningServer, before: dict[str, float]) -> list[float]:
    return [now - before[name] for name, now in executed(server).items()]


def test_a_picture_is_searched_once_for_all_its_expressions(grounding: RunningServer) -> None:
    seen = picture(("cat", (0, 32, 32, 64)))
    before = executed(grounding)
    post(grounding, seen, *(f"a cat of number {number}" for number in range(10)))
    assert spent(grounding, before) == [1, 1, 0, 10, 1]
    reply = post(grounding, seen, "another expression about it")
    assert reply.headers["X-Cache"] == "miss"
    assert spent(grounding, before) == [1, 1, 0, 11, 2]
    assert post(grounding, seen, "another expression about it").headers["X-Cache"] == "hit"
    assert spent(grounding, before) == [1, 1, 0, 11, 2]
    post(grounding, picture(("cat", (32, 32, 64, 64))), "another expression about it")
    assert spent(grounding, before) == [2, 2, 0, 11, 3]


def test_the_better_quality_shares_its_views_too(grounding: RunningServer) -> None:
    seen = picture(("cat", (0, 64, 32, 96)), ("dog", (64, 0, 96, 32)), ("horse", (96, 96, 128, 120)))
    before = executed(grounding)
    post(grounding, seen, "a cat that was not there before", quality="best")
    assert spent(grounding, before) == [6, 1, 1, 1, 1]
    post(grounding, seen, "a cat that was there before", quality="best")
    assert spent(grounding, before) == [6, 1, 1, 2, 2]


def test_an_answer_is_the_same_in_any_company(grounding: RunningServer) -> None:
    texts = [f"the {kind} {where}" for kind in ("cat", "dog", "small horse") for where in ("", "over there")]
    together = post(grounding, BOTH, *texts).json()["groundings"]
    alone = [post(grounding, BOTH, text).json()["groundings"][0] for text in texts]
    assert together == alone


def test_grpc_gives_the_same_answer(grounding: RunningServer) -> None:
    with grpc.insecure_channel(grounding.grpc_address) as channel:
        rpc = channel.unary_unary(
            "/nonet.v1.Grounding/Ground",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message("nonet.v1.GroundResponse").FromString,
        )
        request = message("nonet.v1.GroundRequest")
        answer = rpc(request(image=BOTH, expressions=["the dog", "tax return"], instances=2), timeout=30)
        assert (answer.model, answer.version, answer.image.width) == ("matcher", "1", 128)
        assert list(answer.groundings[0].box) == list(DOG)
        assert [each.label for each in answer.groundings[0].instances] == ["dog", "cat"]
        assert (list(answer.groundings[1].box), answer.groundings[1].label) == ([], "")
        with pytest.raises(grpc.RpcError) as refused:
            rpc(request(image=BOTH, expressions=["the dog", ""]), timeout=30)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def by_protocol(address: str, image: bytes | None, **given: np.ndarray) -> np.ndarray:
    """The best box of each of two expressions by the inference protocol."""
    values = {"expressions": np.array([[b"the dog", b"the cat"]], dtype=object), **given}
    if image is not None:
        values["image"] = np.array([image], dtype=object)
    inputs = []
    for name, value in values.items():
        kind = {"O": "BYTES", "f": "FP32", "i": "INT64"}[value.dtype.kind]
        inputs.append(tritongrpc.InferInput(name, list(value.shape), kind))
        inputs[-1].set_data_from_numpy(value)
    with tritongrpc.InferenceServerClient(address) as client:
        answer = client.infer("ground.matcher", inputs)
        assert answer.as_numpy("scores").shape == (1, 2, 16)
        return np.asarray(answer.as_numpy("boxes")[0, :, 0])


def test_the_protocol_serves_it_as_a_model_and_takes_regions_of_the_callers(grounding: RunningServer) -> None:
    assert by_protocol(grounding.grpc_address, BOTH).tolist() == [list(DOG), list(CAT)]
    boxes = np.zeros((1, 64, 4), np.float32)
    boxes[0, :2] = [[1, 2, 30, 40], [50, 60, 300, 90]]
    scores = np.zeros((1, 64), np.float32)
    scores[0, :2] = 0.9
    labels = np.full((1, 64), b"", dtype=object)
    labels[0, :2] = [b"cat", b"dog"]
    found = by_protocol(grounding.grpc_address, BOTH, boxes=boxes, box_scores=scores, box_labels=labels)
    assert found.tolist() == [[50, 60, 128, 90], [1, 2, 30, 40]]
    with pytest.raises(tritongrpc.InferenceServerException, match="send image to have it made"):
        by_protocol(grounding.grpc_address, None)


def test_the_service_alone_finds_regions_itself_and_behind_a_gateway_by_it(
    models: Path, tmp_path: Path
) -> None:
    with running_service("grounding", models, tmp_path / "service", {}) as port:
        assert by_protocol(f"127.0.0.1:{port}", BOTH).tolist() == [list(DOG), list(CAT)]
        topology = tmp_path / "topology.toml"
        topology.write_text(f'[[service]]\nname = "grounding"\naddress = "127.0.0.1:{port}"\n')
        with running(models, tmp_path / "gateway", arguments=("--topology", str(topology))) as gateway:
            eventually(lambda: gateway.http.get("/v2/health/ready").status_code == 200, "it is found")
            assert post(gateway, BOTH, "the dog").json()["groundings"][0]["box"] == list(DOG)
            post(gateway, BOTH, "the dog", quality="best")
            before = executed(gateway)
            post(gateway, BOTH, "the cat", quality="best")
            assert spent(gateway, before) == [0, 0, 0, 1, 1]


def test_without_its_detector_it_says_which_one_is_missing(models: Path, tmp_path: Path) -> None:
    alone = tmp_path / "models"
    for name in ("matcher", "colours"):
        shutil.copytree(models / name, alone / name)
    with running(alone, tmp_path / "server") as server:
        body = {"image": base64.b64encode(BOTH).decode(), "expressions": ["the dog"]}
        reply = server.http.post("/v1/ground", json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "DETECTOR_NOT_READY")
        assert "'animals'" in reply.json()["error"]["message"]
        assert server.http.post("/v1/ground", json={**body, "detector": "colours"}).status_code == 200


def test_exif_turned_pictures_answer_in_the_picture_as_it_is_shown(
    grounding: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "turned.jpg"
    (tmp_path / "upright.png").write_bytes(picture(("cat", (0, 0, 64, 64)), size=(256, 128)))
    with Image.open(tmp_path / "upright.png") as upright:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned a quarter clockwise
        upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=100, subsampling=0)
    answer = post(grounding, path.read_bytes(), "the cat").json()
    assert answer["image"] == {"width": 256, "height": 128}
    assert answer["groundings"][0]["box"] == pytest.approx([0, 0, 64, 64], abs=1)
