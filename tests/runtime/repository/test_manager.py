"""The life of models: what serves keeps serving, what is broken never does, what goes is freed."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from nonet.runtime.catalog import ModelState
from nonet.runtime.errors import Conflict, InvalidArgument, NotFound, Unavailable
from nonet.runtime.repository import ChangeKind
from nonet.runtime.requests import InferResponse
from tests.support import handmade_networks
from tests.support.managed_repository import ManagedRepository, policy


def test_everything_sound_is_loaded_and_the_broken_is_explained(managed: ManagedRepository) -> None:
    handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    handmade_networks.add_scaled(managed.root, "scaled", 20, 2)
    broken = handmade_networks.add_scaled(managed.root, "broken", 1, 1)
    (broken / "model.onnx").write_bytes((broken / "model.onnx").read_bytes()[:-5])
    managed.manager.load_all()
    assert (managed.ask(), managed.ask(version="1")) == (20.0, 10.0)
    entry = managed.entry("broken", "1")
    assert entry is not None
    assert entry.state is ModelState.UNAVAILABLE
    assert "does not match its hash" in entry.reason
    assert str(managed.root) not in entry.reason
    with pytest.raises(Unavailable):
        managed.catalog.lease("broken")
    assert managed.manager.refresh() == []


@pytest.mark.parametrize(
    ("text", "loaded"),
    [
        ("", ["3"]),
        ("version_policy: { latest { num_versions: 2 } }", ["2", "3"]),
        ("version_policy: { all { } }", ["1", "2", "3"]),
        ("version_policy: { specific { versions: [1, 3, 9] } }", ["1", "3"]),
    ],
)
def test_the_version_policy_decides_what_serves(
    managed: ManagedRepository, text: str, loaded: list[str]
) -> None:
    for version in (1, 2, 3):
        handmade_networks.add_scaled(managed.root, "scaled", 10.0 * version, version)
    policy(managed, text)
    managed.manager.load_all()
    assert managed.catalog.versions("scaled") == loaded


def test_what_was_wrong_is_forgotten_when_it_is_right_again(managed: ManagedRepository) -> None:
    """Also of the versions that are not wanted and so are not looked at again."""
    for version in (1, 2, 3):
        handmade_networks.add_scaled(managed.root, "scaled", 10.0 * version, version)
    policy(managed, "")
    managed.manager.load_all()
    config = managed.root / "scaled" / "config.pbtxt"
    sound = config.read_text()
    config.write_text("max_batch_size: many")
    managed.manager.refresh()
    assert [entry.version for entry in managed.catalog.index() if entry.reason] == ["1", "2", "3"]
    config.write_text(sound)
    managed.manager.refresh()
    assert [(entry.version, entry.reason) for entry in managed.catalog.index()] == [("3", "")]


def test_a_broken_latest_version_gives_way_to_the_one_before(managed: ManagedRepository) -> None:
    handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    bad = handmade_networks.add_scaled(managed.root, "scaled", 20, 2)
    whole = (bad / "model.onnx").read_bytes()
    (bad / "model.onnx").write_bytes(b"")
    policy(managed, "")
    managed.manager.load_all()
    assert managed.catalog.versions("scaled") == ["1"]
    assert managed.manager.refresh() == []
    (bad / "model.onnx").write_bytes(whole)
    assert managed.did() == [("scaled", "2", "loaded"), ("scaled", "1", "unloaded")]
    assert managed.ask() == 20.0
    assert [line.version for line in managed.catalog.index()] == ["2"]


def test_new_changed_and_removed_versions_are_noticed(managed: ManagedRepository, tmp_path: Path) -> None:
    handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    managed.manager.load_all()
    handmade_networks.add_scaled(managed.root, "scaled", 20, 2)
    assert managed.did() == [("scaled", "2", "loaded")]
    digest = managed.catalog.info("scaled").digest
    shutil.rmtree(managed.root / "scaled" / "2")
    handmade_networks.add_scaled(managed.root, "scaled", 30, 2)
    assert managed.did() == [("scaled", "2", "reloaded")]
    assert managed.ask() == 30.0
    assert managed.catalog.info("scaled").digest != digest
    shutil.rmtree(managed.root / "scaled" / "2")
    assert managed.did() == [("scaled", "2", "unloaded")]
    assert managed.ask() == 10.0
    (managed.root / "scaled").rename(tmp_path / "gone")
    assert managed.did() == [("scaled", "1", "unloaded")]
    assert managed.catalog.index() == []
    with pytest.raises(NotFound):
        managed.catalog.lease("scaled")


def test_a_version_that_goes_bad_on_disk_keeps_serving_and_says_why(managed: ManagedRepository) -> None:
    folder = handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    whole = (folder / "model.onnx").read_bytes()
    managed.manager.load_all()
    (folder / "model.onnx").write_bytes(whole[:10])
    assert managed.did() == [("scaled", "1", "failed")]
    assert managed.did() == []
    entry = managed.entry("scaled", "1")
    assert entry is not None
    assert (entry.state, "hash" in entry.reason) == (ModelState.READY, True)
    assert managed.ask() == 10.0
    (folder / "model.onnx").write_bytes(whole)
    managed.did()
    entry = managed.entry("scaled", "1")
    assert entry is not None
    assert (entry.state, entry.reason) == (ModelState.READY, "")


def test_what_serves_goes_on_without_its_files_until_a_version_can_take_its_place(
    managed: ManagedRepository,
) -> None:
    first = handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    managed.manager.load_all()
    shutil.rmtree(first)
    bad = handmade_networks.add_scaled(managed.root, "scaled", 20, 2)
    policy(managed, "")
    whole = (bad / "model.onnx").read_bytes()
    (bad / "model.onnx").write_bytes(b"")
    assert managed.did() == [("scaled", "2", "failed")]
    assert managed.did() == []
    assert (managed.ask(), managed.catalog.versions("scaled")) == (10.0, ["1"])
    entry = managed.entry("scaled", "2")
    assert entry is not None
    assert (entry.state, entry.reason != "") == (ModelState.UNAVAILABLE, True)
    # A version that is still being copied takes its place no sooner.
    (bad / "manifest.json").unlink()
    managed.did()
    assert managed.ask() == 10.0
    (bad / "model.onnx").write_bytes(whole)
    eventually = [change for _ in range(3) for change in managed.did()]
    assert eventually == [("scaled", "2", "loaded"), ("scaled", "1", "unloaded")]
    assert managed.ask() == 20.0
    # Where nothing is wanted any more, nothing serves.
    shutil.rmtree(bad)
    assert managed.did() == [("scaled", "2", "unloaded")]


def test_versions_in_use_are_those_that_serve_and_those_that_requests_hold(
    managed: ManagedRepository,
) -> None:
    handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    handmade_networks.add_scaled(managed.root, "other", 10, 7)
    managed.manager.load_all()
    closed = threading.Event()
    lease = managed.catalog.lease("scaled")
    handmade_networks.add_scaled(managed.root, "scaled", 20, 2)
    policy(managed, "")
    managed.manager.refresh()
    assert managed.catalog.versions("scaled") == ["2"]
    assert managed.catalog.in_use("scaled") == {"1", "2"}
    assert managed.catalog.in_use("other") == {"7"}
    assert managed.catalog.in_use("nobody") == set()
    seen: list[set[str]] = []

    def note(name: str, version: str) -> None:
        seen.append(managed.catalog.in_use("scaled"))
        closed.set()

    managed.catalog.on_close(note)
    lease.release()
    assert closed.wait(30)
    assert seen == [{"2"}]


def test_a_bad_configuration_stops_nothing_and_heals(managed: ManagedRepository) -> None:
    handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    managed.manager.load_all()
    path = managed.root / "scaled" / "config.pbtxt"
    good = path.read_text()
    path.write_text("max_batch_sise: 4")
    assert managed.did() == [("scaled", "1", "failed")]
    assert managed.did() == []
    assert managed.ask() == 10.0
    entry = managed.entry("scaled", "1")
    assert entry is not None
    assert "did you mean 'max_batch_size'" in entry.reason
    path.write_text(good.replace("max_batch_size: 8", "max_batch_size: 4"))
    assert managed.did() == [("scaled", "1", "reloaded")]
    assert managed.catalog.info("scaled").max_batch_size == 4


def test_a_copy_without_manifest_is_taken_when_it_stopped_changing(managed: ManagedRepository) -> None:
    managed.manager.load_all()
    folder = handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    (folder / "manifest.json").unlink()
    assert managed.did() == []
    entry = managed.entry("scaled", "1")
    assert entry is not None
    assert entry.state is ModelState.UNAVAILABLE
    (folder / "extra").write_bytes(b"still copying")
    assert managed.did() == []
    assert managed.did() == [("scaled", "1", "loaded")]
    assert managed.ask() == 10.0


def test_a_strict_repository_wants_manifests(tmp_path: Path) -> None:
    root = tmp_path / "models"
    folder = handmade_networks.add_scaled(root, "scaled", 10, 1)
    (folder / "manifest.json").unlink()
    managed = ManagedRepository(root, tmp_path / "cache", strict=True)
    (change,) = managed.manager.load_all()
    assert change.kind is ChangeKind.FAILED
    assert "manifest.json is missing" in change.reason


def test_a_file_the_manifest_does_not_list_is_not_loaded(managed: ManagedRepository) -> None:
    folder = handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    (folder / "other.onnx").write_bytes(handmade_networks.classifier(2))
    path = managed.root / "scaled" / "config.pbtxt"
    path.write_text(path.read_text() + 'default_model_filename: "other.onnx"\n')
    (change,) = managed.manager.load_all()
    assert "'other.onnx' would be read, but manifest.json does not list it" in change.reason


def test_unload_by_hand_lasts_until_load_by_hand(managed: ManagedRepository) -> None:
    handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    managed.manager.load_all()
    assert managed.manager.unload("scaled") is True
    assert managed.did() == []
    entry = managed.entry("scaled", "1")
    assert entry is not None
    assert (entry.state, entry.reason) == (ModelState.UNAVAILABLE, "unloaded")
    with pytest.raises(Unavailable):
        managed.ask()
    assert managed.manager.unload("scaled") is True
    assert [change.kind for change in managed.manager.load("scaled")] == [ChangeKind.LOADED]
    assert managed.ask() == 10.0
    assert managed.manager.load("scaled") == []


def test_unload_waits_for_requests_and_then_frees(managed: ManagedRepository) -> None:
    handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    managed.manager.load_all()
    lease = managed.catalog.lease("scaled")
    assert managed.manager.unload("scaled", timeout=0.01) is False
    with pytest.raises(Unavailable):
        managed.catalog.lease("scaled")
    (outcome,) = lease.servable.execute([lease.servable.sample_request(1)])
    assert isinstance(outcome, InferResponse), "the request in flight is still answered"
    done = threading.Event()
    assert managed.manager.load("scaled")
    second = managed.catalog.lease("scaled")
    waiter = threading.Thread(target=lambda: (managed.manager.unload("scaled", timeout=20), done.set()))
    waiter.start()
    assert not done.is_set()
    second.release()
    waiter.join()
    assert done.is_set()
    lease.release()


@pytest.mark.parametrize("name", ["nothing", "../scaled", "a/b", "..", "", "scaled\n", "%2e%2e"])
def test_unknown_and_malformed_names_are_not_found(managed: ManagedRepository, name: str) -> None:
    handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    managed.manager.load_all()
    for action in (managed.manager.load, managed.manager.unload):
        with pytest.raises(NotFound) as refused:
            action(name)
        assert "/" not in refused.value.message
    assert managed.ask() == 10.0


def test_load_says_why_it_failed_and_what_served_goes_on(managed: ManagedRepository) -> None:
    folder = handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    managed.manager.load_all()
    (folder / "model.onnx").write_bytes(b"broken")
    with pytest.raises(Conflict, match=r"cannot be loaded: file .* does not match") as refused:
        managed.manager.load("scaled")
    assert refused.value.code == "MODEL_LOAD_FAILED"
    assert managed.ask() == 10.0


def test_an_override_takes_the_place_of_the_file_until_the_next_load(managed: ManagedRepository) -> None:
    handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    handmade_networks.add_scaled(managed.root, "scaled", 20, 2)
    managed.manager.load_all()
    managed.manager.load("scaled", json.dumps({"max_batch_size": 2}))
    assert managed.catalog.info("scaled").max_batch_size == 2
    assert managed.catalog.versions("scaled") == ["2"]
    assert managed.manager.refresh() == []
    managed.manager.load("scaled")
    assert managed.catalog.info("scaled").max_batch_size == 8
    assert managed.catalog.versions("scaled") == ["1", "2"]


@pytest.mark.parametrize(
    "override",
    [
        "{",
        json.dumps({"max_batch_sise": 2}),
        json.dumps({"name": "other"}),
        json.dumps({"max_batch_size": 2, "input": [{"name": "x", "data_type": "TYPE_INT8", "dims": [-1]}]}),
        json.dumps({"backend": "python"}),
    ],
)
def test_a_bad_override_changes_nothing(managed: ManagedRepository, override: str) -> None:
    handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    managed.manager.load_all()
    digest = managed.catalog.info("scaled").digest
    with pytest.raises(InvalidArgument):
        managed.manager.load("scaled", override)
    assert managed.ask() == 10.0
    assert managed.catalog.info("scaled").digest == digest
    entry = managed.entry("scaled", "1")
    assert entry is not None
    assert (entry.state, entry.reason) == (ModelState.READY, "")
    assert managed.manager.refresh() == []


def test_the_digest_follows_files_labels_and_configuration_but_not_the_batch_size(
    managed: ManagedRepository,
) -> None:
    size = (("config.pbtxt", "max_batch_size: 8", "max_batch_size: 4"),)
    labels = (("labels.txt", "apple", "pear"),)
    digests = {}
    for name, edits in {"plain": (), "size": size, "labels": labels}.items():
        handmade_networks.add_classifier(managed.root, name, 4, family="tiny", top1=0.5)
        for file, before, after in edits:
            path = managed.root / name / file
            path.write_text(path.read_text().replace(before, after))
    handmade_networks.add_classifier(managed.root, "weights", 8, family="tiny", top1=0.5)
    managed.manager.load_all()
    digests = {info.name: info.digest for info in managed.catalog.infos()}
    assert digests["plain"] == digests["size"]
    assert len({digests["plain"], digests["labels"], digests["weights"]}) == 3
    details = managed.catalog.info("plain").details
    assert details["engine"] == "onnxruntime"
    assert details["precision"] == "fp32"
    assert details["preprocessing"]["crop"] == handmade_networks.IMAGE_SIZE
    assert managed.catalog.info("plain").labels == handmade_networks.LABELS
