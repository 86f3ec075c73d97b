"""``nonet models import NETWORK.onnx``: exports of several frameworks, read, tried, published and served."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from nonet.cli.main import main
from nonet.runtime.images import Preprocessing, decode_image, preprocess
from nonet.runtime.repository.manifest import read_manifest
from tests.support import exported_classifiers as exported
from tests.support import handmade_networks
from tests.support.import_runs import SAID, refused, run
from tests.support.running_server import eventually, running

READINGS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {}


def reading(**preprocessing: Any) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    """An export that is read without an option, and the preparation that it must be given."""

    def register(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        READINGS[make.__name__] = (make, preprocessing)
        return make

    return register


@reading(resize=36, crop=32, interpolation="bicubic", mean=exported.IMAGENET[0], std=exported.IMAGENET[1])
def timm(folder: Path) -> Path:
    return exported.timm(folder)


@reading(resize=32, crop=32, interpolation="bilinear", mean=exported.IMAGENET[0], resize_type="standard")
def timm_squash(folder: Path) -> Path:
    return exported.timm(folder, crop_pct=1.0, crop_mode="squash", interpolation="bilinear")


@reading(resize=32, crop=32)
def timm_in_the_size_of_its_tests(folder: Path) -> Path:
    return exported.timm(folder, input_size=[3, 24, 24], test_input_size=[3, 32, 32], test_crop_pct=1.0)


@reading(resize=32, crop=32, interpolation="bilinear", mean=exported.HALVES[0], resize_type="standard")
def transformers_vit(folder: Path) -> Path:
    return exported.transformers(folder, exported.VIT)


@reading(resize=32, crop=32, resize_type="standard")
def transformers_vit_of_old(folder: Path) -> Path:
    processor = {key: value for key, value in exported.VIT.items() if key != "image_processor_type"}
    return exported.transformers(
        folder, processor | {"feature_extractor_type": "ViTFeatureExtractor", "size": 32}
    )


@reading(resize=32, crop=32, interpolation="bilinear", resize_type="standard")
def transformers_with_nulls(folder: Path) -> Path:
    """As its fast processors write what they do not use."""
    size = {"height": 32, "width": 32, "shortest_edge": None, "longest_edge": None}
    nulls = {"crop_size": None, "do_center_crop": None, "do_rescale": None, "do_convert_rgb": None}
    fast = {"image_processor_type": "ViTImageProcessorFast", "size": size}
    return exported.transformers(folder, exported.VIT | fast | nulls)


@reading(resize=36, crop=32, resize_type="standard")
def transformers_deit(folder: Path) -> Path:
    more = {"image_processor_type": "DeiTImageProcessor", "size": {"height": 36, "width": 36}}
    return exported.transformers(folder, exported.VIT | more | {"do_center_crop": True, "crop_size": 32})


@reading(resize=37, crop=32, interpolation="bicubic", resize_type="crop")
def transformers_bit(folder: Path) -> Path:
    more = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 37}, "resample": 3}
    crop = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    return exported.transformers(folder, exported.VIT | more | crop)


@reading(resize=36, crop=32, resize_type="crop")
def transformers_convnext(folder: Path) -> Path:
    more = {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_pct": 0.875,
    }
    return exported.transformers(folder, exported.VIT | more)


@reading(resize=36, crop=32, mean=(0, 0, 0), std=(1, 1, 1))
def transformers_mobilevit_in_bgr(folder: Path) -> Path:
    processor = {
        "image_processor_type": "MobileViTImageProcessor",
        "size": {"shortest_edge": 36},
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
        "do_flip_channel_order": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "resample": 2,
    }
    return exported.transformers(folder, processor, normalisation=exported.PLAIN, bgr=True)


@reading(resize=36, crop=32, mean=exported.IMAGENET[0])
def timm_in_transformers(folder: Path) -> Path:
    path = exported.timm(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["TimmWrapperForImageClassification"], "model_type": "timm_wrapper"}
    exported.write_json(folder / "config.json", config)
    exported.write_json(
        folder / "preprocessor_config.json", {"image_processor_type": "TimmWrapperImageProcessor"}
    )
    return path


@reading(resize=32, crop=32, resize_type="standard")
def transformers_js(folder: Path) -> Path:
    """Its ONNX files lie in a folder below the configuration."""
    path = exported.transformers(folder, exported.VIT)
    (folder / "onnx").mkdir()
    return path.rename(folder / "onnx" / "model.onnx")


@reading(resize=32, crop=32, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1), resize_type="crop")
def ultralytics(folder: Path) -> Path:
    return exported.ultralytics(folder)


@reading(resize=32, crop=32)
def ultralytics_with_all_axes_open(folder: Path) -> Path:
    return exported.ultralytics(folder, shape=("batch", 3, "height", "width"))


@reading(resize=32, crop=32)
def ultralytics_in_half_precision(folder: Path) -> Path:
    return exported.ultralytics(folder, element=TensorProto.FLOAT16)


@reading(resize=36, crop=32)
def channels_last(folder: Path) -> Path:
    path = exported.timm(folder)
    exported.export(path, shape=(1, 32, 32, 3))
    return path


@reading(resize=36, crop=32)
def scores_with_axes_of_one(folder: Path) -> Path:
    path = exported.timm(folder)
    exported.export(path, trailing=2)
    return path


@reading(resize=36, crop=32)
def probabilities_of_timm(folder: Path) -> Path:
    path = exported.timm(folder)
    exported.export(path, end="Softmax")
    return path


@reading(resize=36, crop=32)
def weights_beside_it(folder: Path) -> Path:
    return exported.timm_with_weights_beside(folder)


@reading(resize=36, crop=32)
def a_batch_fixed_inside(folder: Path) -> Path:
    path = exported.timm(folder)
    exported.export(path, shape=(1, 3, 32, 32), reshape=(1, 5))
    return path


@pytest.mark.parametrize("name", READINGS)
def test_an_export_that_says_enough_needs_no_option(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, wanted = READINGS[name]
    file = make(tmp_path / "export")
    repository = tmp_path / "models"
    picture = exported.picture(tmp_path / "picture.png", "red")
    status, out, err = run(
        capsys,
        file,
        "--as",
        "net",
        "--repository",
        repository,
        "--json",
        "--picture",
        picture,
        "--expect",
        "red",
    )
    assert status == 0, err
    facts = json.loads(out)
    stated = facts["preprocessing"]
    assert stated["crop"] == 32
    for key, value in wanted.items():
        assert stated[key] == (list(value) if isinstance(value, tuple) else value), key
    assert facts["largest_batch"] == (1 if name == "a_batch_fixed_inside" else 16)
    manifest = read_manifest(repository / "net" / "1" / "manifest.json")
    assert manifest is not None
    assert manifest.task == "classification"
    assert manifest.licence.startswith(("apache-2.0", "AGPL-3.0"))
    assert (repository / "net" / "labels.txt").read_text().split() == list(exported.LABELS)
    assert main(["models", "verify", "--repository", str(repository)]) == 0
    assert "answers differ from the check set by" in capsys.readouterr().out


def test_what_was_imported_is_served_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two exports join a running server; the answers are those of the files in ONNX Runtime itself."""
    import onnxruntime

    repository = tmp_path / "models"
    repository.mkdir()
    handmade_networks.add_classifier(repository, "first", 8, family="toys", top1=0.5)
    files = {
        "timm": exported.timm(tmp_path / "timm"),
        "mobilevit": READINGS["transformers_mobilevit_in_bgr"][0](tmp_path / "mobilevit"),
        "ultralytics": exported.ultralytics(tmp_path / "ultralytics"),
    }
    with running(repository, tmp_path / "server") as server:
        for name, file in files.items():
            assert run(capsys, file, "--as", name, "--repository", repository)[0] == 0
        for name, file in files.items():
            eventually(
                lambda name=name: server.http.get(f"/v2/models/{name}/ready").status_code == 200,
                f"{name} is served",
            )
            session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
            manifest = read_manifest(repository / name / "1" / "manifest.json")
            assert manifest is not None
            assert manifest.preprocessing is not None
            spec = Preprocessing.from_manifest(manifest.preprocessing.model_dump())
            for label in exported.LABELS:
                data = exported.picture(tmp_path / "picture.png", label).read_bytes()
                reply = server.http.post(
                    "/v1/classify",
                    json={"image": base64.b64encode(data).decode(), "model": name, "top_k": 5},
                )
                assert reply.status_code == 200, reply.text
                answer = reply.json()["predictions"]
                assert answer[0]["label"] == label
                pixels = preprocess(decode_image(data), spec)[None]
                if name == "mobilevit":
                    pixels = pixels[:, ::-1].copy()
                (scores,) = session.run(None, {session.get_inputs()[0].name: pixels})[0]
                if name != "ultralytics":
                    scores = np.exp(scores - scores.max())
                    scores /= scores.sum()
                found = {each["label"]: each["score"] for each in answer}
                np.testing.assert_allclose([found[each] for each in exported.LABELS], scores, atol=1e-5)


def test_a_bare_export_is_asked_about_and_the_options_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = exported.torchvision(tmp_path / "export")
    refused(
        capsys,
        tmp_path,
        file,
        status=2,
        needles=("?", "--mean and --std", "--resize", "--interpolation"),
    )
    status, out, err = run(capsys, file, "--as", "net", "--repository", tmp_path / "models", *SAID)
    assert status == 0, err
    assert "5 classes without names" in out
    labels = tmp_path / "names"
    labels.write_text("\n".join(exported.LABELS))
    picture = exported.picture(tmp_path / "picture.png", "blue")
    more = ("--labels", labels, "--picture", picture, "--expect", "blue")
    status, out, err = run(capsys, file, "--as", "named", "--repository", tmp_path / "models", *SAID, *more)
    assert status == 0, err
    assert "the picture shows: blue" in out


def test_a_picture_decides_what_is_open_if_one_candidate_alone_sees_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = exported.timm(tmp_path / "export")
    exported.export(
        file,
        bgr=True,
        metadata={
            "model_info model_type": "Classification",
            "model_info labels": " ".join(exported.LABELS),
            "model_info resize_type": "standard",
            "model_info mean_values": "123.675 116.28 103.53",
            "model_info scale_values": "58.395 57.12 57.375",
            "model_info reverse_input_channels": "True",
        },
    )
    (tmp_path / "export" / "config.json").unlink()
    refused(capsys, tmp_path, file, status=2, needles=("--channels (rgb or bgr)", "--interpolation"))
    red = exported.picture(tmp_path / "red.png", "red")
    grey = exported.picture(tmp_path / "grey.png", "grey")
    undecided = (file, "--picture", grey, "--expect", "grey", "--interpolation", "bilinear")
    refused(capsys, tmp_path, *undecided, status=2, needles=("2 of", "--channels"))
    status, out, err = run(
        capsys,
        file,
        "--as",
        "net",
        "--repository",
        tmp_path / "models",
        "--picture",
        red,
        "--expect",
        "red",
        "--json",
    )
    assert status == 0, err
    assert json.loads(out)["channels"] == "bgr"
    assert json.loads(out)["preprocessing"]["resize_type"] == "standard"


OPEN: Mapping[str, tuple[Callable[[Path], Path], tuple[str, ...], tuple[str, ...]]] = {
    "every axis open": (
        lambda folder: exported.torchvision(folder, shape=("n", "c", "h", "w")),
        SAID,
        ("--layout", "--size"),
    ),
    "a picture of three rows or three columns": (
        lambda folder: exported.torchvision(folder, shape=(1, 3, 3, 3)),
        SAID,
        ("--layout",),
    ),
    "another size than its configuration": (
        lambda folder: exported.timm(folder, input_size=[3, 224, 224]),
        (),
        ("config.json says 224 px, the graph takes 32", "--resize"),
    ),
    "an image processor that nobody knows": (
        lambda folder: exported.transformers(
            folder, exported.VIT | {"image_processor_type": "NewImageProcessor"}
        ),
        (),
        ("--mean and --std", "--layout"),
    ),
    "a processor without a size": (
        lambda folder: exported.transformers(
            folder, {key: value for key, value in exported.VIT.items() if key != "size"}
        ),
        (),
        ("--size", "--resize"),
    ),
    "labels of other classes": (
        lambda folder: (
            exported.torchvision(folder),
            (folder / "labels.txt").write_text("one\ntwo\n"),
        )[0],
        SAID,
        ("2 names", "5 classes", "--labels"),
    ),
}


@pytest.mark.parametrize("case", OPEN)
def test_what_is_open_is_one_question(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, words, needles = OPEN[case]
    refused(capsys, tmp_path, make(tmp_path / "export"), *words, status=2, needles=("?", *needles))
