"""Manifests, hashes, names and folders: what is trusted, and what never is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.runtime.errors import ModelRefused
from nonet.runtime.repository.integrity import FileHasher, verify_files
from nonet.runtime.repository.labels import read_labels, write_labels
from nonet.runtime.repository.layout import (
    files_in,
    inside,
    is_model_name,
    is_version,
    read_model,
    scan,
    version_fingerprint,
)
from nonet.runtime.repository.manifest import Manifest, parse_manifest, read_manifest
from tests.support import handmade_networks

ZEROS = "0" * 64


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"qualty": {}}, "unknown key 'qualty'; did you mean 'quality'?"),
        ({"licens": "MIT"}, "did you mean 'licence'?"),
        ({"schema": 2}, "schema"),
        ({"files": {}}, "files"),
        ({"files": {"model.onnx": "abc"}}, "64 lower-case hexadecimal digits"),
        ({"files": {"model.onnx": "A" * 64}}, "64 lower-case hexadecimal digits"),
        ({"files": None}, "files"),
        ({"preprocessing": {"resize": 128, "crop": 256}}, "crop 256 is larger than resize 128"),
        ({"preprocessing": {"resize": 256, "crop": 224, "std": [1.0, 0.0, 1.0]}}, "every std"),
        ({"preprocessing": {"resize": 256, "crp": 224}}, "did you mean 'crop'?"),
        ({"data": [{"name": "x", "licnce": "MIT"}]}, "did you mean 'licence'?"),
        ({"allow_nonfinite": "perhaps"}, "allow_nonfinite"),
    ],
)
def test_a_bad_manifest_is_refused_naming_the_key(change: dict[str, object], reason: str) -> None:
    text = json.dumps({"schema": 1, "files": {"model.onnx": ZEROS}, **change})
    with pytest.raises(ModelRefused) as refused:
        parse_manifest(text)
    assert reason in refused.value.reason
    assert refused.value.reason.startswith("manifest.json")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, "\udcff".encode(errors="surrogatepass")]
)
def test_text_that_is_no_manifest_is_refused(text: str | bytes) -> None:
    with pytest.raises(ModelRefused):
        parse_manifest(text)


def test_a_manifest_survives_writing_and_reading(tmp_path: Path) -> None:
    manifest = Manifest(
        files={"model.onnx": ZEROS}, task="classification", quality={"top1": 0.5, "dataset": "grocery"}
    )
    (tmp_path / "manifest.json").write_text(manifest.to_json())
    assert read_manifest(tmp_path / "manifest.json") == manifest
    assert json.loads(manifest.to_json())["schema"] == 1
    assert read_manifest(tmp_path / "other.json") is None


def test_a_huge_manifest_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelRefused, match="4 MiB"):
        read_manifest(tmp_path / "manifest.json")


def test_a_changed_file_fails_and_a_missing_one_too(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    hasher = FileHasher()
    manifest = Manifest(files={"model.onnx": hasher.sha256(path)})
    verify_files(tmp_path, tmp_path, manifest, hasher)
    path.write_bytes(b"weighty")
    with pytest.raises(ModelRefused, match=r"'model\.onnx' does not match its hash"):
        verify_files(tmp_path, tmp_path, manifest, hasher)
    path.unlink()
    with pytest.raises(ModelRefused, match="is missing"):
        verify_files(tmp_path, tmp_path, manifest, hasher)


@given(st.binary(max_size=200), st.integers(0, 199), st.integers(1, 255))
def test_any_changed_byte_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int, by: int
) -> None:
    folder = tmp_path_factory.mktemp("flip", numbered=True)
    path = folder / "model.onnx"
    path.write_bytes(data)
    manifest = Manifest(files={"model.onnx": FileHasher().sha256(path)})
    verify_files(folder, folder, manifest, FileHasher())
    if at < len(data):
        path.write_bytes(data[:at] + bytes([data[at] ^ by]) + data[at + 1 :])
        with pytest.raises(ModelRefused):
            verify_files(folder, folder, manifest, FileHasher())
    path.write_bytes(data + b"x")
    with pytest.raises(ModelRefused):
        verify_files(folder, folder, manifest, FileHasher())


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a/../../outside", "..", "", "a\0b", "a\\b", "."]
)
def test_a_file_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("secret")
    folder = tmp_path / "root" / "model"
    folder.mkdir(parents=True)
    with pytest.raises(ModelRefused):
        inside(tmp_path / "root", folder, name)


def test_a_link_may_stay_in_the_repository_but_not_leave_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "b").mkdir()
    (root / "b" / "weights").write_text("shared")
    (tmp_path / "secret").write_text("secret")
    (root / "a" / "good").symlink_to(root / "b" / "weights")
    (root / "a" / "bad").symlink_to(tmp_path / "secret")
    (root / "a" / "dangling").symlink_to(tmp_path / "nothing")
    (root / "a" / "folder").symlink_to(root / "b")
    assert inside(root, root / "a", "good").read_text() == "shared"
    with pytest.raises(ModelRefused, match="leads out"):
        inside(root, root / "a", "bad")
    with pytest.raises(ModelRefused, match="missing"):
        inside(root, root / "a", "dangling")
    with pytest.raises(ModelRefused, match="not a file"):
        inside(root, root / "a", "folder")


@pytest.mark.parametrize("name", ["fasternet_t0", "a", "A.b-c_9", "_x", "9lives", "x" * 128])
def test_good_model_names(name: str) -> None:
    assert is_model_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "../a", "a\\b", "a b", "a\n", "a\0", "é", "%2e%2e", "-x", "x" * 129],
)
def test_bad_model_names(name: str) -> None:
    assert not is_model_name(name)


@given(st.text(max_size=20))
def test_no_accepted_name_can_leave_a_folder(name: str) -> None:
    if is_model_name(name):
        assert "/" not in name
        assert "\\" not in name
        assert not name.startswith(".")
        assert (Path("/repository") / name).parent == Path("/repository")


def test_versions_are_positive_decimal_numbers() -> None:
    assert [
        text for text in ("1", "10", "01", "0", "-1", "1a", "", "\u0661", "1" * 19) if is_version(text)
    ] == [
        "1",
        "10",
    ]


def test_a_scan_sees_models_and_nothing_else(tmp_path: Path) -> None:
    handmade_networks.add_scaled(tmp_path, "net", 1.0, 2)
    handmade_networks.add_scaled(tmp_path, "net", 1.0, 10)
    for name in ("net/0", "net/03", "net/backup", ".publish-x/net/1", "bad name/1", "empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "plain" / "1").mkdir(parents=True)
    (tmp_path / "README.md").write_text("not a model")
    models = scan(tmp_path)
    assert sorted(models) == ["net", "plain"]
    assert [version.version for version in models["net"].versions] == ["2", "10"]
    assert read_model(tmp_path, "../net") is None
    assert read_model(tmp_path, "README.md") is None
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "nothing")


def test_a_fingerprint_follows_every_file(tmp_path: Path) -> None:
    folder = handmade_networks.add_scaled(tmp_path, "net", 1.0, 1)
    (version,) = scan(tmp_path)["net"].versions
    before = version_fingerprint(version)
    assert version_fingerprint(version) == before
    (folder / "weights").mkdir()
    (folder / "weights" / "part.bin").write_bytes(b"1")
    (folder / ".hidden").write_bytes(b"1")
    assert sorted(files_in(folder)) == ["manifest.json", "model.onnx", "weights/part.bin"]
    after = version_fingerprint(version)
    assert after != before
    os.utime(folder / "model.onnx", ns=(1, 1))
    assert version_fingerprint(version) != after


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cc", "Zs", "Zl", "Zp", "Cs"]), min_size=1), min_size=1
    )
)
def test_labels_survive_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str]
) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels.txt"
    path.write_bytes(write_labels(tuple(labels)))
    kept = tuple(label.removeprefix("\ufeff") if index == 0 else label for index, label in enumerate(labels))
    if all(label.strip() == label and label for label in kept):
        assert read_labels(path) == kept


def test_bad_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelRefused, match="UTF-8"):
        read_labels(path)
    with pytest.raises(ModelRefused, match="cannot be read"):
        read_labels(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="line break"):
        write_labels(("a\nb",))
