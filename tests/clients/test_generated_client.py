"""The OpenAPI description is used: a client that openapi-python-client makes of it imports, and calls every
operation."""

from __future__ import annotations

import base64
import importlib
import inspect
import io
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import (
    handmade_detectors,
    handmade_diffusion,
    handmade_faces,
    handmade_matchers,
    handmade_networks,
    handmade_segmenters,
)
from tests.support.building_gateway import wait_for
from tests.support.capture_gateway import CAPTURE, QUICK, fill_repository, settings
from tests.support.running_server import RunningServer, running

pytestmark = pytest.mark.timeout(300)

MODEL_IN_BODY = {
    "post_v1_classify",
    "post_v1_detect",
    "post_v1_faces_embed",
    "post_v1_faces_verify",
    "post_v1_ground",
    "post_v1_raw_develop",
    "post_v1_segment",
}
PICTURES = {"post_v1_raw_develop", "get_v1_jobs_job_result", "get_v1_floors_buildings_building_picture"}
"""What these answer the generator keeps as bytes: it knows no type of pictures."""

WARNING = re.compile(r"Unsupported content.type ([\w./, +-]+)")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root: Path = tmp_path_factory.mktemp("generated") / "models"
    root.mkdir()
    fill_repository(root)
    handmade_networks.add_identity(root, "echo", "FP32", (-1,))
    handmade_networks.add_classifier(root, "shop_small", 4, family="shop", top1=0.6)
    handmade_faces.add_faces(root, "faces")
    handmade_detectors.add_colour_detector(root, "colours")
    handmade_matchers.add_matcher(root, detector={"model": "colours", "score_threshold": 0.1})
    handmade_segmenters.add_segmenter(root, "halves")
    handmade_diffusion.add_text_to_image(root, "shapes")
    with running(root, tmp_path_factory.mktemp("generated_server"), settings()) as started:
        yield started


@pytest.fixture(scope="module")
def generated(served: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The package that is generated of the server's own description."""
    beside = Path(sys.prefix) / "generator" / "bin"
    places = f"{beside}{os.pathsep}{os.environ.get('PATH', '')}"
    program = shutil.which("openapi-python-client", path=places)
    if program is None:
        pytest.skip("openapi-python-client is not installed")
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_bytes(served.http.get("/openapi.json").content)
    command = [
        program,
        "generate",
        "--path",
        "openapi.json",
        "--output-path",
        "nonet_generated",
        "--meta",
        "none",
    ]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    said = made.stdout + made.stderr
    assert made.returncode == 0, said[-4000:]
    assert "Unable to" not in said, said[-4000:]
    assert said.count("WARNING") == len(WARNING.findall(said)), said[-4000:]  # of nothing but media types
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("nonet_generated")
    finally:
        sys.path.remove(str(folder))


def operations(package: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions of all operations, by the names of their modules."""
    found = {}
    for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(each.name)
        if hasattr(module, "sync_detailed"):
            found[each.name.rpartition(".")[2]] = module.sync_detailed
    return found


def photo() -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(buffer, "PNG")
    return io.BytesIO(buffer.getvalue())


def bodies(package: ModuleType, name: str) -> list[Any]:
    """The bodies with which an operation is called: one of each kind that the generator knows."""
    models, file = (
        importlib.import_module(f"{package.__name__}.models"),
        importlib.import_module(f"{package.__name__}.types").File,
    )
    of = {
        "post_v1_classify": [
            models.PostV1ClassifyFilesBody(image=file(photo(), "a.png")),
            models.PostV1ClassifyJsonBody(image="data:image/png;base64," + _base64(photo())),
            file(photo()),
        ],
        "post_v1_detect": [
            models.PostV1DetectFilesBody(image=file(photo(), "a.png"), score_threshold=0.1),
            models.PostV1DetectJsonBody(image=_base64(photo()), max_detections=3),
            file(photo()),
        ],
        "post_v1_ground": [
            models.PostV1GroundFilesBody(image=file(photo(), "a.png"), expressions='["it", "all of it"]'),
            models.PostV1GroundJsonBody(image=_base64(photo()), expressions=["the grey one"], instances=2),
        ],
        "post_v1_segment": [
            models.PostV1SegmentFilesBody(image=file(photo(), "a.png")),
            models.PostV1SegmentJsonBody(image=_base64(photo())),
            file(photo()),
        ],
        "post_v1_faces_embed": [
            models.PostV1FacesEmbedFilesBody(image=file(photo(), "a.png"), crop=True),
            models.PostV1FacesEmbedJsonBody(image=_base64(photo()), crop=True),
        ],
        "post_v1_faces_verify": [
            models.PostV1FacesVerifyFilesBody(
                image_a=file(photo(), "a.png"), image_b=file(photo(), "b.png"), crop=True
            ),
            models.PostV1FacesVerifyJsonBody(image_a=_base64(photo()), image_b=_base64(photo()), crop=True),
        ],
        "post_v1_raw_develop": [
            models.PostV1RawDevelopFilesBody(
                raw=file(io.BytesIO(CAPTURE), "a.npy"),
                cfa=models.PostV1RawDevelopFilesBodyCfa.RGGB,
                model=QUICK,
                noise="2.5",
                uncertainty=True,
            ),
            models.PostV1RawDevelopJsonBody(
                raw=_base64(io.BytesIO(CAPTURE)),
                cfa=models.PostV1RawDevelopJsonBodyCfa.RGGB,
                model=QUICK,
                noise=2.5,
                white_balance=[2.0, 1.0, 1.5],
                black_level=10,
                render=models.PostV1RawDevelopJsonBodyRender.SRGB,
            ),
        ],
        "post_v1_floors_buildings": [
            models.PostV1FloorsBuildingsFilesBody(
                scans=file(io.BytesIO(b"scan,bssid,rssi\na,m1,-40\na,m2,-60\nb,m2,-50\n"), "s.csv"),
                building="generated",
                labelled='{"scan": "a", "floor": "B1"}',
            )
        ],
        "post_v1_floors_buildings_building_identify": [
            models.PostV1FloorsBuildingsBuildingIdentifyBody.from_dict({"scans": [{"rssi": {"m1": -40}}]})
        ],
    }
    of["post_v1_images_generations"] = [
        models.PostV1ImagesGenerationsBody(prompt="a cat"),
        models.PostV1ImagesGenerationsBody(
            prompt="a red apple",
            n=2,
            seed=4,
            steps=2,
            guidance_scale=2.0,
            output_format=models.PostV1ImagesGenerationsBodyOutputFormat.WEBP,
        ),
    ]
    infer = models.OipInferRequest.from_dict(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1.0, 2.0]]}]}
    )
    of |= {"post_v2_models_model_infer": [infer], "post_v2_models_model_versions_version_infer": [infer]}
    return of.get(name, [])


def _base64(content: io.BytesIO) -> str:
    return base64.b64encode(content.getvalue()).decode()


def test_every_operation_is_called_and_its_answer_read(served: RunningServer, generated: ModuleType) -> None:
    with importlib.import_module("nonet_generated.client").Client(
        base_url=served.url, timeout=60.0
    ) as client:
        called = operations(generated)
        described = served.http.get("/openapi.json").json()["paths"]
        assert len(called) == sum(map(len, described.values()))
        queued = served.http.post(
            "/v1/raw/develop",
            files={"raw": CAPTURE},
            data={"cfa": "RGGB", "model": QUICK},
            headers={"Prefer": "respond-async"},
        )
        job = queued.json()["job"]["id"]
        wait_for(served, job, "succeeded")
        names = {"model": "echo", "version": "1", "name": "none", "job": job}
        names |= {"building": "none", "site": "none"}
        for name, call in sorted(called.items()):
            wanted = {key: value for key, value in names.items() if key in inspect.signature(call).parameters}
            if name == "get_v1_models_model":
                wanted["model"] = "shop_small"
            if "_adapt_model" in name or "_regress_model" in name:
                wanted["model"] = "none"  # no regressor is served here
            if name in MODEL_IN_BODY:
                del wanted["model"]  # of the body
            for body in bodies(generated, name) or [None]:
                more = {} if body is None else {"body": body}
                reply = call(client=client, **wanted, **more)
                status = int(reply.status_code)
                assert status < 500 or status == 501, (name, status, reply.content)
                if name in MODEL_IN_BODY:
                    assert status == 200, (name, type(body), reply.content)
                if "none" not in wanted.values() and not name.startswith(
                    ("delete", "post_v2_system", "post_v2_cuda")
                ):
                    assert status in (200, 202), (name, reply.content)
                if status != 204 and not (name in PICTURES and status == 200) and reply.content != b"":
                    assert reply.parsed is not None, (name, status, reply.content[:200])


def test_every_array_says_what_its_items_are(served: RunningServer) -> None:
    """Generators refuse, or leave out, an array without ``items``, as pydantic describes a tuple."""

    def without(value: Any, place: str) -> Iterator[str]:
        if isinstance(value, dict):
            if value.get("type") == "array" and "items" not in value:
                yield place
            for key, inside in value.items():
                yield from without(inside, f"{place}/{key}")
        elif isinstance(value, list):
            for number, inside in enumerate(value):
                yield from without(inside, f"{place}/{number}")

    assert list(without(served.http.get("/openapi.json").json(), "")) == []
