"""Faces over HTTP, gRPC and the Open Inference Protocol: one answer, in pixels of the upright picture, and
clear words for what is no face."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image

from nonet.runtime.oip.messages import message
from tests.support import handmade_networks
from tests.support.handmade_faces import LENGTH, THRESHOLD, add_faces
from tests.support.running_server import RunningServer, assert_refused, running

EMBED, VERIFY = "/v1/faces/embed", "/v1/faces/verify"


@pytest.fixture(scope="module")
def facing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with two face networks, one of them without a detector, and a classifier."""
    folder = tmp_path_factory.mktemp("facing")
    root = folder / "models"
    root.mkdir()
    add_faces(root, "finder", accuracy=0.9)
    add_faces(root, "blind", finds=False, accuracy=0.1)
    handmade_networks.add_classifier(root, "namer", 4, family="names", top1=0.5)
    with running(root, folder / "server", {"repository": {"poll_seconds": 0.0}}) as started:
        yield started


def picture(*quarters: int, size: int = 64, seed: int = 0) -> Image.Image:
    """A dark picture whose ``quarters`` (0 to 3, by rows) hold a bright texture."""
    pixels = np.random.default_rng(seed).integers(0, 40, (size, size, 3), dtype=np.uint8)
    half = size // 2
    for quarter in quarters:
        row, column = divmod(quarter, 2)
        pixels[row * half : (row + 1) * half, column * half : (column + 1) * half] += 180
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def embed(server: RunningServer, data: bytes, **fields: str) -> httpx.Response:
    return server.http.post(EMBED, files={"image": ("a.png", data)}, data=fields)


def verify(server: RunningServer, first: bytes, second: bytes, **fields: str) -> httpx.Response:
    files = {"image_a": ("a.png", first), "image_b": ("b.png", second)}
    return server.http.post(VERIFY, files=files, data=fields)


def test_the_largest_of_several_faces_is_described(facing: RunningServer) -> None:
    answer = embed(facing, encoded(picture(0, 3))).json()
    assert answer["model"] == "finder"
    assert len(answer["embedding"]) == LENGTH
    assert np.linalg.norm(answer["embedding"]) == pytest.approx(1, abs=1e-6)
    face = answer["face"]
    assert (face["found"], face["aligned"], face["image"]) == (2, True, {"width": 64, "height": 64})
    assert face["box"] == pytest.approx([0, 0, 32, 32])
    assert face["landmarks"][0] == pytest.approx({"x": 10, "y": 12})
    assert face["score"] > 0.9


def test_boxes_are_in_the_upright_picture(facing: RunningServer) -> None:
    turned = picture(1).transpose(Image.Transpose.ROTATE_90)  # stored lying on its side
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.new("RGB", (64, 32))
    wide.paste(picture(1).crop((0, 0, 64, 32)))
    lying = embed(facing, encoded(turned, "JPEG", exif=exif.tobytes(), quality=95))
    upright = embed(facing, encoded(picture(1), "JPEG", quality=95))
    assert lying.json()["face"]["box"] == pytest.approx(upright.json()["face"]["box"])
    face = embed(facing, encoded(wide)).json()["face"]
    assert face["image"] == {"width": 64, "height": 32}
    assert face["box"] == pytest.approx([36, 4, 60, 28])


def test_one_face_is_like_itself_and_less_like_another(facing: RunningServer) -> None:
    one, other = encoded(picture(0)), encoded(picture(0, seed=9))
    same = verify(facing, one, one).json()
    assert same["similarity"] == pytest.approx(1)
    assert (same["same"], same["threshold"], same["model"]) == (True, THRESHOLD, "finder")
    differing = verify(facing, one, other).json()
    vectors = [np.array(embed(facing, data).json()["embedding"]) for data in (one, other)]
    assert differing["similarity"] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)
    judged = verify(facing, one, other, threshold=str(differing["similarity"] + 0.001)).json()
    assert judged["same"] is False
    assert judged["threshold"] > differing["similarity"]


def test_form_json_and_grpc_agree(facing: RunningServer) -> None:
    first, second = encoded(picture(0)), encoded(picture(2, seed=5))
    form = verify(facing, first, second).json()
    texts = {
        "image_a": base64.b64encode(first).decode(),
        "image_b": "data:image/png;base64," + base64.b64encode(second).decode(),
    }
    assert facing.http.post(VERIFY, json=texts).json() == form
    plain = facing.http.post(VERIFY, files={name: (None, text) for name, text in texts.items()})
    assert plain.json() == form
    with grpc.insecure_channel(f"127.0.0.1:{facing.grpc_port}") as channel:
        reply = call(channel, "VerifyFaces", image_a=first, image_b=second)
        assert reply.similarity == pytest.approx(form["similarity"])
        assert (reply.same, reply.model) == (form["same"], form["model"])
        assert list(reply.face_b.box) == pytest.approx(form["face_b"]["box"])
        assert (reply.face_a.image.width, reply.face_a.found) == (64, 1)
        vector = call(channel, "EmbedFace", image=first)
        assert list(vector.embedding) == pytest.approx(embed(facing, first).json()["embedding"])
        with pytest.raises(grpc.RpcError) as missing:
            call(channel, "VerifyFaces", image_a=first)
        assert missing.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "image_b is empty" in missing.value.details()


def call(channel: grpc.Channel, method: str, **fields: Any) -> Any:
    request = message(f"nonet.v1.{method}Request")(**fields)
    answer = message(f"nonet.v1.{method}Response")
    stub = channel.unary_unary(
        f"/nonet.v1.Recognition/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    return stub(request, timeout=30)


def test_no_face_is_said_with_the_field(facing: RunningServer) -> None:
    face, nothing = encoded(picture(0)), encoded(picture())
    alone = embed(facing, nothing)
    assert_refused(alone, 400, "image: no face was found", "crop=true")
    assert alone.json()["error"]["code"] == "FACE_NOT_FOUND"
    pair = verify(facing, face, nothing)
    assert_refused(pair, 400, "image_b: no face was found")
    assert (pair.json()["error"]["param"], pair.json()["error"]["code"]) == ("image_b", "FACE_NOT_FOUND")
    assert_refused(verify(facing, b"not a picture", face), 415, "image_a:")
    assert_refused(verify(facing, face, face[: len(face) // 2]), 400, "image_b:", "cut off")


def test_a_crop_is_taken_as_it_is(facing: RunningServer) -> None:
    dark = encoded(picture())
    face = embed(facing, dark, crop="true").json()["face"]
    assert face["box"] == [0, 0, 64, 64]
    assert (face["aligned"], face["score"], face["landmarks"], face["found"]) == (False, None, [], 1)
    assert verify(facing, dark, dark, crop="true").json()["similarity"] == pytest.approx(1)
    assert_refused(embed(facing, dark, model="blind"), 400, "no face detector", "crop=true")
    assert embed(facing, dark, model="blind", crop="true").status_code == 200


def test_missing_repeated_and_unknown_files(facing: RunningServer) -> None:
    face = encoded(picture(0))
    only = facing.http.post(VERIFY, files={"image_a": ("a.png", face)})
    assert_refused(only, 422, "'image_b' is missing")
    twice = facing.http.post(VERIFY, files=[("image_a", ("a.png", face)), ("image_a", ("a.png", face))])
    assert_refused(twice, 422, "'image_a' is repeated")
    other = facing.http.post(VERIFY, files={"image": ("a.png", face)})
    assert_refused(other, 422, "unknown field 'image'", "image_a, image_b")
    assert_refused(verify(facing, face, b""), 400, "'image_b' is empty")
    alone = facing.http.post(VERIFY, content=face, headers={"Content-Type": "image/png"})
    assert_refused(alone, 415, "'image_a' and 'image_b'", "-F image_a=@")
    assert_refused(facing.http.post(VERIFY, json={"image_a": "AAAA"}), 422, "'image_b' must be a text")
    in_query = facing.http.post(f"{VERIFY}?image_b=x", files={"image_a": ("a.png", face)})
    assert_refused(in_query, 422, "unknown field 'image_b' in the query")
    single = facing.http.post(f"{EMBED}?crop=true", content=face, headers={"Content-Type": "image/png"})
    assert single.json()["face"]["aligned"] is False


def test_odd_pictures_and_another_task_have_clear_answers(facing: RunningServer) -> None:
    for image in (picture(0).convert("L"), picture(0).convert("RGBA"), picture(0).convert("P")):
        assert embed(facing, encoded(image)).json()["face"]["found"] == 1
    frames = [picture(0), picture(3)]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert embed(facing, moving).json()["face"]["box"][0] == 0
    for size in ((1, 1), (20_000, 1), (1, 20_000)):
        assert_refused(embed(facing, encoded(Image.new("RGB", size))), 400, "no face was found")
        assert embed(facing, encoded(Image.new("RGB", size)), crop="true").status_code == 200
    assert embed(facing, encoded(picture(0, 1, 2, 3))).json()["face"]["found"] == 4
    assert_refused(embed(facing, encoded(picture(0)), model="namer"), 404, "namer")
    assert_refused(verify(facing, encoded(picture(0)), b"x", threshold="2"), 400, "threshold")


def test_the_service_is_a_model_of_the_protocol(facing: RunningServer) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{facing.http_port}") as client:
        names = [output["name"] for output in client.get_model_metadata("faces.finder")["outputs"]]
        assert names == ["embedding", "box", "score", "landmarks", "aligned", "found", "size"]
        rows = np.array([encoded(picture(0)), encoded(picture(3))], dtype=object)
        tensor = triton.InferInput("image", [2], "BYTES")
        tensor.set_data_from_numpy(rows)
        result = client.infer("faces.finder", [tensor])
        assert result.as_numpy("embedding").shape == (2, LENGTH)
        assert result.as_numpy("box")[1] == pytest.approx([40, 40, 56, 56])
        rows[1] = encoded(picture())
        tensor.set_data_from_numpy(rows)
        with pytest.raises(triton.InferenceServerException, match="row 1 of 'image': no face was found"):
            client.infer("faces.finder", [tensor])


def test_openapi_and_the_page_know_both_files(facing: RunningServer) -> None:
    operation = facing.http.get("/openapi.json").json()["paths"][VERIFY]["post"]
    content = operation["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json"}
    for body in content.values():
        assert body["schema"]["required"] == ["image_a", "image_b"]
    page = facing.http.get("/faces")
    assert page.status_code == 200
    assert "v1/faces/verify" in page.text
    assert verify(facing, encoded(picture(0)), encoded(picture(0))).headers["X-Cache"] in ("hit", "miss")
