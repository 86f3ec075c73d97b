"""The official ``openai`` client, gRPC and the Open Inference Protocol against a real server."""

from __future__ import annotations

import base64
import io
import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import openai
import pytest
import tritonclient.grpc as tritongrpc
import tritonclient.http as triton
from PIL import Image

from nonet.runtime.oip.messages import message
from nonet.services.text_to_image.answers import ImagesResponse
from tests.support import handmade_diffusion
from tests.support.running_server import RunningServer, eventually, running, running_service

PATH = "/v1/images/generations"
SERVICE = "generate.shapes_full"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members of a family: the better one takes six guided steps, the other two plain ones."""
    root = tmp_path_factory.mktemp("pictures") / "models"
    root.mkdir()
    handmade_diffusion.add_text_to_image(root, "shapes_full", quality={"retrieval": 0.9})
    quick = {"steps": 2, "guidance_scale": 1.0, "sampler": "few_step", "sizes": ["64x64"]}
    handmade_diffusion.add_text_to_image(root, "shapes_quick", quality={"retrieval": 0.8}, **quick)
    return root


@pytest.fixture(scope="module")
def pictures(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    settings = {"repository": {"poll_seconds": 0.0}, "scheduler": {"lanes": 1}}
    with running(models, tmp_path_factory.mktemp("server"), settings) as started:
        yield started


@pytest.fixture(scope="module")
def behind(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A gateway whose pictures are made by a process of its own."""
    folder = tmp_path_factory.mktemp("behind")
    with running_service("text_to_image", models, folder / "service", {}) as port:
        topology = folder / "topology.toml"
        topology.write_text(f'[[service]]\nname = "text_to_image"\naddress = "127.0.0.1:{port}"\n')
        with running(models, folder / "gateway", arguments=("--topology", str(topology))) as started:
            eventually(lambda: started.http.get("/v2/health/ready").status_code == 200, "it is found")
            yield started


@pytest.fixture(params=["pictures", "behind"])
def wherever(request: pytest.FixtureRequest) -> RunningServer:
    started: RunningServer = request.getfixturevalue(request.param)
    return started


def client(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


def opened(text: str | bytes) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text) if isinstance(text, str) else text))


def test_a_picture_whose_seed_was_drawn_is_not_kept(pictures: RunningServer) -> None:
    def outcomes(**fields: Any) -> list[str]:
        asked = {"prompt": "a green pear", "size": "64x64", **fields}
        return [pictures.http.post(PATH, json=asked).headers["X-Cache"] for _ in range(2)]

    assert outcomes() == ["bypass", "bypass"]
    assert outcomes(seed=5) == ["miss", "hit"]


def test_the_official_client_generates(wherever: RunningServer) -> None:
    with client(wherever) as api:
        answer = api.images.generate(prompt="a red apple", model="auto")
    assert answer.data is not None
    (one,) = answer.data
    assert one.b64_json is not None
    assert (opened(one.b64_json).format, opened(one.b64_json).size) == ("PNG", (64, 64))
    assert (answer.size, answer.output_format, answer.background) == ("64x64", "png", "opaque")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (5, 64, 69)
    extra = answer.model_extra or {}
    assert (extra["model"], extra["steps"], extra["guidance_scale"]) == ("shapes_full", 6, 3.5)


def test_four_pictures_are_those_of_four_seeds(wherever: RunningServer) -> None:
    with client(wherever) as api:
        four = api.images.generate(prompt="a cat", n=4, extra_body={"seed": 40})
        assert four.data is not None
        seeds = [(each.model_extra or {})["seed"] for each in four.data]
        assert seeds == [40, 41, 42, 43]
        third = api.images.generate(prompt="a cat", extra_body={"seed": 42})
    assert third.data is not None
    assert third.data[0].b64_json == four.data[2].b64_json
    assert len({each.b64_json for each in four.data}) == 4


@pytest.mark.parametrize("count", [1, 3])
def test_a_stream_shows_partial_pictures_and_then_each_whole_one(wherever: RunningServer, count: int) -> None:
    wanted = {"seed": 77 + count, "steps": 8}
    with client(wherever) as api:
        stream = api.images.generate(
            prompt="a blue car",
            n=count,
            stream=True,
            partial_images=2,
            output_format="webp",
            extra_body=wanted,
        )
        events = list(stream)
        whole = api.images.generate(prompt="a blue car", n=count, output_format="webp", extra_body=wanted)
    partial = [event for event in events if event.type == "image_generation.partial_image"]
    last = [event for event in events if event.type == "image_generation.completed"]
    assert events == partial + last
    assert [event.partial_image_index for event in partial] == [0] * count + [1] * count
    assert [(event.model_extra or {})["index"] for event in partial] == [*range(count)] * 2
    assert [(event.model_extra or {})["step"] for event in partial] == [3] * count + [5] * count
    assert all(opened(event.b64_json).size == (64, 64) for event in events)
    assert {(event.output_format, event.size, event.quality) for event in events} == {
        ("webp", "64x64", "auto")
    }
    assert whole.data is not None
    assert [event.b64_json for event in last] == [each.b64_json for each in whole.data]
    assert sum(event.usage.output_tokens for event in last) == 64 * count


@pytest.mark.parametrize(("kind", "size"), [("jpeg", "64x32"), ("webp", "64x32"), ("png", "64x32")])
def test_formats_and_sizes_are_those_that_are_asked_for(
    pictures: RunningServer, kind: Any, size: str
) -> None:
    with client(pictures) as api:
        answer = api.images.generate(prompt="a cat", output_format=kind, size=size, output_compression=80)
    assert answer.data is not None
    assert answer.data[0].b64_json is not None
    image = opened(answer.data[0].b64_json)
    assert (image.format, image.size, answer.output_format, answer.size) == (
        kind.upper(),
        (64, 32),
        kind,
        size,
    )


def test_what_the_client_sends_for_what_is_not_given_is_taken(pictures: RunningServer) -> None:
    """All of OpenAI's fields that change nothing, and null for all that may be."""
    with client(pictures) as api:
        plain = api.images.generate(prompt="a cat", extra_body={"seed": 5})
        full = api.images.generate(
            prompt="a cat",
            model=None,
            n=None,
            size=None,
            output_format=None,
            output_compression=None,
            partial_images=None,
            response_format="b64_json",
            quality="high",
            background="opaque",
            style="vivid",
            moderation="low",
            user="somebody",
            safety_identifier="hash",
            extra_body={"seed": 5, "steps": None, "guidance_scale": None},
        )
    assert plain.data is not None
    assert full.data is not None
    assert plain.data[0].b64_json == full.data[0].b64_json


REFUSED: list[tuple[dict[str, Any], str, int]] = [
    ({"prompt": ""}, "prompt", 400),
    ({"prompt": "a" * 10_000}, "prompt", 400),
    ({"prompt": "a\u0007cat"}, "prompt", 400),
    ({"size": "63x63"}, "size", 400),
    ({"size": "1024x1024"}, "size", 400),
    ({"n": 0}, "n", 400),
    ({"n": 10**9}, "n", 400),
    ({"response_format": "url"}, "response_format", 400),
    ({"background": "transparent"}, "background", 400),
    ({"style": "natural"}, "style", 400),
    ({"output_format": "gif"}, "output_format", 400),
    ({"output_compression": 101}, "output_compression", 400),
    ({"partial_images": 4, "stream": True}, "partial_images", 400),
    ({"model": "dall-e-3"}, "model", 404),
    ({"extra_body": {"seed": -1}}, "seed", 400),
    ({"extra_body": {"seed": 2**32}}, "seed", 400),
    ({"extra_body": {"seed": 2**63}}, "seed", 400),
    ({"extra_body": {"steps": 0}}, "steps", 400),
    ({"extra_body": {"steps": 10**9}}, "steps", 400),
    ({"extra_body": {"guidance_scale": "NaN"}}, "guidance_scale", 400),
    ({"extra_body": {"guidance_scale": 1e300}}, "guidance_scale", 400),
    ({"extra_body": {"negative_prompt": "a car", "guidance_scale": 1}}, "negative_prompt", 400),
    ({"extra_body": {"frame_count": 4}}, "frame_count", 422),
]


@pytest.mark.parametrize(("fields", "param", "status"), REFUSED)
def test_what_cannot_be_followed_is_refused_in_openais_words(
    pictures: RunningServer, fields: dict[str, Any], param: str, status: int
) -> None:
    with client(pictures) as api, pytest.raises(openai.APIStatusError) as refused:
        api.images.generate(**{"prompt": "a cat", **fields})
    assert (refused.value.status_code, refused.value.param) == (status, param)
    assert refused.value.type == "invalid_request_error"


def test_not_a_number_is_no_json(pictures: RunningServer) -> None:
    body = '{"prompt": "a cat", "guidance_scale": NaN}'
    reply = pictures.http.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "MALFORMED_JSON")


def test_the_answer_is_what_is_documented(pictures: RunningServer) -> None:
    reply = pictures.http.post(PATH, json={"prompt": "a red apple " * 40, "n": 2})
    answer = ImagesResponse.model_validate(reply.json())
    assert answer.prompt_cut
    assert answer.usage.input_tokens == 64


def test_without_a_seed_each_request_has_its_own(pictures: RunningServer) -> None:
    seeds = {pictures.http.post(PATH, json={"prompt": "a cat"}).json()["data"][0]["seed"] for _ in range(4)}
    assert len(seeds) == 4


def test_a_prompt_full_of_marks_is_no_structure(pictures: RunningServer) -> None:
    assert pictures.http.post(PATH, json={"prompt": 'a "cat", [{' * 150}).status_code == 200
    long = pictures.http.post(PATH, content=b'{"prompt": "' + b"a" * (1 << 17) + b'"}')
    assert long.status_code == 413


def test_auto_takes_the_member_that_is_in_time_and_makes_the_size(pictures: RunningServer) -> None:
    def asked(within: int = 500_000, **fields: Any) -> Any:
        headers = {"X-Request-Timeout-Ms": str(within)}
        return (
            pictures.http.post(PATH, json={"prompt": "a cat", **fields}, headers=headers).json().get("model")
        )

    def quick_in_some_time() -> bool:
        # Ten guided pictures of six steps are six times the work of ten plain ones of two.
        return any(asked(round(20 * 1.5**power), n=10) == "shapes_quick" for power in range(18))

    assert asked() == "shapes_full"
    eventually(quick_in_some_time, "the quick member is in time where the other is not")
    assert asked(size="64x32", model="shapes") == "shapes_full"  # the only one that makes it


def test_who_leaves_ends_the_work_within_a_step(pictures: RunningServer) -> None:
    def steps() -> float:
        return pictures.metric("nonet_steps_total", model=SERVICE)

    before = steps()
    with client(pictures) as api:
        stream = api.images.generate(
            prompt="a cat",
            n=4,
            stream=True,
            partial_images=3,
            extra_body={"steps": 150, "guidance_scale": 5},
            extra_headers={"X-Request-Timeout-Ms": "500000"},
        )
        next(iter(stream))
        stream.close()
    eventually(lambda: pictures.metric("nonet_inflight_steps", model=SERVICE) == 0, "nothing of it is left")
    assert pictures.pending(SERVICE) == 0
    assert 0 < steps() - before < 150


def grpc_call(server: RunningServer, method: str, *, stream: bool, **fields: Any) -> Any:
    answer = "GenerateEvent" if stream else "GenerateImagesResponse"
    with grpc.insecure_channel(server.grpc_address) as channel:
        make = channel.unary_stream if stream else channel.unary_unary
        rpc = make(
            f"/nonet.v1.TextToImage/{method}",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message(f"nonet.v1.{answer}").FromString,
        )
        reply = rpc(message("nonet.v1.GenerateRequest")(**fields), timeout=60)
        return list(reply) if stream else reply


def test_grpc_gives_the_same_pictures_whole_and_while_they_form(wherever: RunningServer) -> None:
    fields: dict[str, Any] = {"prompt": "a green car", "n": 2, "seed": 9, "steps": 6, "guidance_scale": 2.0}
    over_http = wherever.http.post(PATH, json=fields).json()
    expected = [base64.b64decode(each["b64_json"]) for each in over_http["data"]]
    whole = grpc_call(wherever, "GenerateImages", stream=False, **fields)
    assert [each.image for each in whole.data] == expected
    assert [each.seed for each in whole.data] == [9, 10]
    assert (whole.model, whole.version, whole.steps, whole.size) == ("shapes_full", "1", 6, "64x64")
    assert whole.usage.total_tokens == over_http["usage"]["total_tokens"]
    events = grpc_call(wherever, "Generate", stream=True, partial_images=1, **fields)
    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + [
        "image_generation.completed"
    ] * 2
    assert [event.HasField("partial_image_index") for event in events] == [True] * 2 + [False] * 2
    assert [event.image for event in events[2:]] == expected
    assert {event.size for event in events} == {"64x64"}


def test_a_grpc_call_that_is_cancelled_ends_the_work_within_a_step(pictures: RunningServer) -> None:
    before = pictures.metric("nonet_steps_total", model=SERVICE)
    fields = {"prompt": "a cat", "n": 4, "steps": 150, "guidance_scale": 5.0, "partial_images": 3}
    with grpc.insecure_channel(pictures.grpc_address) as channel:
        rpc = channel.unary_stream(
            "/nonet.v1.TextToImage/Generate",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message("nonet.v1.GenerateEvent").FromString,
        )
        call = rpc(message("nonet.v1.GenerateRequest")(**fields), timeout=500)
        first = next(iter(call))
        call.cancel()
    assert first.step < first.steps == 150
    eventually(lambda: pictures.metric("nonet_inflight_steps", model=SERVICE) == 0, "nothing of it is left")
    assert 0 < pictures.metric("nonet_steps_total", model=SERVICE) - before < 150


def test_grpc_refuses_with_its_own_statuses(pictures: RunningServer) -> None:
    for fields, status in (
        ({"prompt": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"prompt": "a", "size": "9x9"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"prompt": "a", "guidance_scale": float("nan")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"prompt": "a", "model": "none"}, grpc.StatusCode.NOT_FOUND),
    ):
        for method, stream in (("Generate", True), ("GenerateImages", False)):
            with pytest.raises(grpc.RpcError) as refused:
                grpc_call(pictures, method, stream=stream, **fields)
            assert refused.value.code() is status, fields


def test_it_is_a_model_of_the_open_inference_protocol(wherever: RunningServer) -> None:
    over_http = wherever.http.post(PATH, json={"prompt": "a cat", "seed": 3, "steps": 5}).json()
    expected = base64.b64decode(over_http["data"][0]["b64_json"])
    with triton.InferenceServerClient(wherever.url.removeprefix("http://")) as oip:
        metadata = oip.get_model_metadata(SERVICE)
        assert [each["name"] for each in metadata["inputs"]][:4] == [
            "prompt",
            "negative_prompt",
            "seed",
            "steps",
        ]
        answer = oip.infer(SERVICE, oip_inputs(triton, steps=5))
    assert answer.as_numpy("image").tolist() == [expected]
    assert answer.as_numpy("seed").tolist() == [3]
    came: queue.Queue[Any] = queue.Queue()
    with tritongrpc.InferenceServerClient(wherever.grpc_address) as oip:
        oip.start_stream(lambda result, error: came.put(error or result))
        oip.async_stream_infer(SERVICE, oip_inputs(tritongrpc, steps=5, partial_images=2))
        answers = [came.get(timeout=60) for _ in range(3)]
        oip.stop_stream()
    assert [each.as_numpy("partial_image_index").tolist() for each in answers] == [[0], [1], [-1]]
    assert answers[-1].as_numpy("image").tolist() == [expected]


def oip_inputs(library: Any, **numbers: int) -> list[Any]:
    columns = {
        "prompt": np.array([b"a cat"], object),
        "seed": np.array([3], np.int64),
        **{name: np.array([value], np.int32) for name, value in numbers.items()},
    }
    kinds = {"O": "BYTES", "i": "INT32"}
    made = []
    for name, values in columns.items():
        kind = "INT64" if name == "seed" else kinds[values.dtype.kind]
        made.append(library.InferInput(name, list(values.shape), kind))
        made[-1].set_data_from_numpy(values)
    return made


def test_its_page_and_its_cards_are_there(pictures: RunningServer) -> None:
    page = pictures.http.get("/pictures")
    assert page.status_code == 200
    assert "v1/images/generations" in page.text
    cards = {card["id"]: card for card in pictures.http.get("/v1/models").json()["data"]}
    assert cards["shapes"]["variants"] == ["shapes_full", "shapes_quick"]
    assert cards["shapes_full"]["details"]["source"]["steps"] == 6
    document = json.loads(pictures.http.get("/openapi.json").text)
    assert "text/event-stream" in document["paths"][PATH]["post"]["responses"]["200"]["content"]
