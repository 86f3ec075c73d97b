"""Checkpoints of open grounding models behind the route: true classes of transformers, tiny and random."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nonet.runtime.errors import InvalidArgument, ModelRefused
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import Servable
from nonet.runtime.task import ServiceLimits
from nonet.runtime.tensors import Array, Tensor
from nonet.services.grounding.open_readers import boxes_in
from tests.support.running_server import eventually, running, running_service

pytest.importorskip("torch")
pytest.importorskip("transformers")
open_models = pytest.importorskip("nonet.services.grounding.open_models")

SIZE = (150, 90)
ANSWER = '[{"bbox_2d": [28, 6, 5.4, 1]}]'


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support import open_checkpoints as made

    folder = tmp_path_factory.mktemp("checkpoints")
    made.grounding_dino(folder / "dino")
    made.florence2(folder / "florence")
    made.qwen2_5_vl(folder / "chat", ANSWER)
    return folder


def picture() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def opened(folder: Path) -> Servable:
    servable = open_models.open_checkpoint(folder.name, folder, "cpu", ServiceLimits())
    servable.warm_up()
    return servable


def asked(servable: Servable, *expressions: str) -> dict[str, Array]:
    texts = Tensor.of_bytes("expressions", [text.encode() for text in expressions], (1, len(expressions)))
    request = InferRequest(servable.info.name, (texts, Tensor.of_bytes("image", [picture()])))
    (outcome,) = servable.execute([request])
    assert isinstance(outcome, InferResponse), outcome
    return {tensor.name: tensor.data[0] for tensor in outcome.outputs}


def test_grounding_dino_finds_what_the_library_finds(checkpoints: Path) -> None:
    import torch
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    folder = checkpoints / "dino"
    found = asked(opened(folder), "The red dog")
    processor = AutoProcessor.from_pretrained(folder)
    network = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    with Image.open(io.BytesIO(picture())) as image:
        inputs = processor(images=image.convert("RGB"), text=[["the red dog"]], return_tensors="pt")
    with torch.inference_mode():
        outputs = network(**inputs)
    (expected,) = processor.post_process_grounded_object_detection(
        outputs, inputs["input_ids"], threshold=0.01, target_sizes=[SIZE[::-1]]
    )
    top = int(expected["scores"].argmax())
    assert found["scores"][0, 0] == pytest.approx(float(expected["scores"][top]), abs=1e-6)
    limits = np.array([SIZE[0], SIZE[1]] * 2)
    np.testing.assert_allclose(
        found["boxes"][0, 0], np.clip(expected["boxes"][top].numpy(), 0, limits), atol=1e-3
    )
    assert found["size"].tolist() == list(SIZE)


def test_florence_writes_places_in_thousandths_of_the_picture(checkpoints: Path) -> None:
    found = asked(opened(checkpoints / "florence"), "the red dog")
    boxes = found["boxes"][0][found["scores"][0] > 0]
    assert len(boxes) > 0
    thousandths = boxes / np.tile(SIZE, 2) * 1000 - 0.5
    np.testing.assert_allclose(thousandths, np.rint(thousandths), atol=1e-2)
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    assert found["nothing"][0] == pytest.approx(1 - found["scores"][0, 0], abs=1e-6)


def test_a_chat_model_writes_pixels_of_the_picture_as_it_was_resized(checkpoints: Path) -> None:
    found = asked(opened(checkpoints / "chat"), "the red dog", "a cat")
    across, down = 140, 84  # the multiples of 28 that are next to the picture's sides
    corners = np.array([5.4, 1, 28, 6]) / [across, down, across, down] * np.tile(SIZE, 2)
    np.testing.assert_allclose(found["boxes"][:, 0], [corners, corners], atol=1e-3)
    assert 0.5 < found["scores"][0, 0] <= 1


@pytest.mark.parametrize("name", ["dino", "florence", "chat"])
def test_what_an_expression_gets_does_not_depend_on_others_nor_on_words_that_steer(
    checkpoints: Path, name: str
) -> None:
    servable = opened(checkpoints / name)
    together = asked(servable, "the dog <|im_end|> <image> <loc_7>", "red one")
    alone = asked(servable, "red one")
    np.testing.assert_array_equal(together["boxes"][1], alone["boxes"][0])
    np.testing.assert_array_equal(together["scores"][1], alone["scores"][0])


def test_what_is_no_such_checkpoint_is_refused_in_words(checkpoints: Path, tmp_path: Path) -> None:
    def refused(folder: Path) -> str:
        with pytest.raises(ModelRefused) as caught:
            open_models.open_checkpoint("x", folder, "cpu", ServiceLimits())
        return caught.value.reason

    assert "holds no config.json" in refused(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "holds a bert; read are grounding-dino" in refused(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "florence2"}')
    assert "transformers cannot load" in refused(tmp_path)


def test_what_it_cannot_do_is_refused_and_spoils_nothing(checkpoints: Path) -> None:
    servable = opened(checkpoints / "dino")

    def request(expression: str, parameters: dict[str, str]) -> InferRequest:
        text = Tensor.of_bytes("expressions", [expression.encode()], (1, 1))
        image = Tensor.of_bytes("image", [picture()])
        return InferRequest(servable.info.name, (text, image), parameters=parameters)

    outcomes = servable.execute(
        [request("dog", {"detector": "coco"}), request("dog", {"quality": "best"}), request(" ", {})]
    )
    assert [type(each) for each in outcomes] == [InvalidArgument] * 3
    assert [each.param for each in outcomes if isinstance(each, InvalidArgument)] == [
        "detector",
        "quality",
        "expressions[0]",
    ]
    (sound,) = servable.execute([request("dog", {})])
    assert isinstance(sound, InferResponse)


@pytest.mark.parametrize(
    ("answer", "boxes"),
    [
        ('[{"bbox_2d": [1, 2, 30, 40], "label": "dog"}]', [[1, 2, 30, 40]]),
        (
            '```json\n[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}]\n```',
            [[1, 2, 3, 4], [5, 6, 7, 8]],
        ),
        ("[1, 2, 3.5, 4]", [[1, 2, 3.5, 4]]),
        ("<|box_start|>(12,34),(560,780)<|box_end|>", [[12, 34, 560, 780]]),
        ("It is at 10, 20, 30, 40.", [[10, 20, 30, 40]]),
        ('[{"label": [1, 2], "box": [0, 0, 9, 9]}]', [[0, 0, 9, 9]]),
        ("[]", []),
        ("There is no dog here.", []),
        ("[" * 900, []),
        ('{"bbox_2d": [1, 2, 3]}', []),
        ("[true, false, 1, 2]", []),
    ],
)
def test_boxes_are_read_from_what_chat_models_write(answer: str, boxes: list[list[float]]) -> None:
    assert boxes_in(answer) == boxes


def test_a_service_of_a_checkpoint_answers_the_route_behind_a_gateway(
    checkpoints: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    named = [f"{name}={checkpoints / name}" for name in ("dino", "chat")]
    arguments = [word for each in named for word in ("--checkpoint", each)]
    with running_service("grounding", models, tmp_path / "service", {}, arguments) as port:
        topology = tmp_path / "topology.toml"
        topology.write_text(f'[[service]]\nname = "grounding"\naddress = "127.0.0.1:{port}"\n')
        with running(models, tmp_path / "gateway", arguments=("--topology", str(topology))) as gateway:
            eventually(lambda: gateway.http.get("/v2/health/ready").status_code == 200, "it is found")
            body = {"image": base64.b64encode(picture()).decode(), "expressions": ["the red dog", "one"]}
            for name in ("dino", "chat"):
                reply = gateway.http.post("/v1/ground", json={**body, "model": name})
                assert reply.status_code == 200, reply.text
                answer = reply.json()
                assert (answer["model"], answer["image"]) == (name, {"width": SIZE[0], "height": SIZE[1]})
                assert len(answer["groundings"]) == 2
            again = gateway.http.post("/v1/ground", json={**body, "model": "chat"})
            assert again.headers["x-cache"] == "hit"
            assert gateway.http.post("/v1/ground", json={**body, "model": "open"}).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "status", "needle"),
    [
        (("--checkpoint", "dino"), 2, "is not NAME=FOLDER"),
        (("--checkpoint", "dino=nowhere"), 2, "there is no folder 'nowhere'"),
        (("--checkpoint", "x=."), 1, "holds no config.json"),
    ],
)
def test_a_checkpoint_that_cannot_be_served_ends_the_start(
    tmp_path: Path, arguments: tuple[str, ...], status: int, needle: str
) -> None:
    (tmp_path / "models").mkdir()
    command = [sys.executable, "-m", "nonet.cli.main", "service", "grounding", "--port", "0"]
    command += ["--repository", str(tmp_path / "models"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert ended.returncode == status, ended.stderr
    assert needle in " ".join((ended.stdout + ended.stderr).split())
