"""Publishing: whole or not at all, also when the publisher is killed, when two publish, when it is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.runtime.errors import Conflict, InvalidArgument, PermissionDenied, ServingError
from nonet.runtime.repository import Manifest, build_config, publish_version
from nonet.runtime.repository.config import read_config
from nonet.runtime.repository.integrity import FileHasher
from nonet.runtime.repository.layout import CONFIG_FILE, VersionFolder, scan
from nonet.runtime.repository.loader import prepare_version
from nonet.runtime.repository.ownership import owner_of
from nonet.runtime.repository.publish import STAGE_PREFIX, prune_versions, remove_leftovers
from nonet.runtime.tensors import DataType, TensorSpec
from tests.support import handmade_networks

MANIFEST = Manifest(files={"model.onnx": "0" * 64}, task="classification", licence="MIT")
LABELS = handmade_networks.LABELS


def config(name: str = "net", batch: int = 8) -> str:
    size = handmade_networks.IMAGE_SIZE
    return build_config(
        name,
        max_batch_size=batch,
        inputs=[TensorSpec("image", DataType.FP32, (-1, 3, size, size))],
        outputs=[TensorSpec("logits", DataType.FP32, (-1, 5))],
        label_file="labels.txt",
    )


def publish(root: Path, name: str = "net", **changes: object) -> VersionFolder:
    options: dict[str, object] = {
        "files": {"model.onnx": handmade_networks.classifier(4)},
        "config": config(name),
        "manifest": MANIFEST,
        "labels": LABELS,
        **changes,
    }
    return publish_version(root, name, **options)  # type: ignore[arg-type]


def sound_versions(root: Path) -> list[tuple[str, str]]:
    """Every version a server would see, each checked as a server would."""
    seen = []
    for model in scan(root).values():
        for version in model.versions:
            prepare_version(
                root,
                model,
                version,
                read_config(model.path / CONFIG_FILE),
                hasher=FileHasher(),
                strict=True,
            )
            seen.append((model.name, version.version))
    return seen


def hidden(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.name.startswith(".")]


def test_versions_are_numbered_and_carry_their_hashes(tmp_path: Path) -> None:
    root = tmp_path / "new" / "repository"
    first, second = publish(root), publish(root)
    assert (first.version, second.version) == ("1", "2")
    assert publish(root, version=7).version == "7"
    assert publish(root).version == "8"
    assert sound_versions(root) == [("net", version) for version in ("1", "2", "7", "8")]
    assert hidden(root) == []
    assert (root / "net" / "labels.txt").read_text().split() == list(LABELS)


def test_a_file_can_be_copied_from_disk_and_may_lie_in_a_folder(tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    source.write_bytes(handmade_networks.classifier(4))
    root = tmp_path / "repository"
    published = publish(root, files={"model.onnx": source, "notes/readme.txt": b"hello"})
    assert (published.path / "notes" / "readme.txt").read_bytes() == b"hello"
    assert sound_versions(root) == [("net", "1")]
    assert source.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../evil"}, "cannot be a model's name"),
        ({"name": ".hidden"}, "cannot be a model's name"),
        ({"version": 0}, "version must be a number from 1"),
        ({"files": {"model.onnx": b"not a network"}}, "not a valid ONNX file"),
        ({"files": {"weights.bin": b"1"}}, "model.onnx"),
        ({"files": {"model.onnx": handmade_networks.classifier(4), "../../evil": b"1"}}, "cannot be a file"),
        ({"files": {"model.onnx": handmade_networks.classifier(4), "/tmp/evil": b"1"}}, "cannot be a file"),
        (
            {"files": {"model.onnx": handmade_networks.classifier(4), "manifest.json": b"{}"}},
            "cannot be a file",
        ),
        ({"config": config("other")}, "names the model 'other'"),
        ({"config": "max_batch_sise: 4"}, "did you mean 'max_batch_size'"),
        ({"labels": ("only", "two")}, "holds 2 labels"),
        ({"labels": ("a\nb",) * 5}, "line break"),
        (
            {"manifest": MANIFEST.model_copy(update={"check_set": "check.safetensors"})},
            "manifest.json does not list it",
        ),
    ],
)
def test_what_a_server_would_refuse_is_not_published(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    root = tmp_path / "repository"
    with pytest.raises((InvalidArgument, ValueError), match=message):
        publish(root, **change)
    assert not root.exists() or list(root.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) in ([], ["repository"])


def test_an_existing_version_is_not_overwritten(tmp_path: Path) -> None:
    publish(tmp_path, version=3)
    before = (tmp_path / "net" / "3" / "manifest.json").read_bytes()
    with pytest.raises(Conflict, match="already has a version 3"):
        publish(tmp_path, version=3, files={"model.onnx": handmade_networks.classifier(8)})
    assert (tmp_path / "net" / "3" / "manifest.json").read_bytes() == before


def test_another_configuration_needs_a_replacement_of_the_whole_model(tmp_path: Path) -> None:
    publish(tmp_path)
    changed = {"config": config(batch=16), "labels": tuple(reversed(LABELS))}
    for change in changed.items():
        with pytest.raises(Conflict, match="another configuration or other labels"):
            publish(tmp_path, **dict([change]))
    same_meaning = config().replace("\n", "\n\n") + "# a comment\n"
    assert publish(tmp_path, config=same_meaning).version == "2"
    assert publish(tmp_path, **changed, replace=True).version == "3"
    assert sound_versions(tmp_path) == [("net", "3")]
    assert "max_batch_size: 16" in (tmp_path / "net" / CONFIG_FILE).read_text()
    assert hidden(tmp_path) == []


def test_a_model_belongs_to_whom_published_it_first(tmp_path: Path) -> None:
    def by(owner: str, **changes: object) -> str:
        return publish(tmp_path, manifest=MANIFEST.model_copy(update={"owner": owner}), **changes).version

    assert owner_of(tmp_path, "net") is None
    assert by("ann") == "1"
    for changes in ({}, {"version": 9}, {"config": config(batch=16), "replace": True}):
        with pytest.raises(PermissionDenied, match="another tenant"):
            by("ben", **changes)
    assert (by(""), by("ann")) == ("2", "3")
    assert owner_of(tmp_path, "net") == "ann"
    # It stays theirs when the model is replaced as a whole, and when the newest manifest is damaged.
    assert by("", config=config(batch=16), replace=True) == "4"
    assert by("ann", config=config(batch=16)) == "5"
    (tmp_path / "net" / "5" / "manifest.json").write_text("{")
    assert owner_of(tmp_path, "net") == "ann"
    assert hidden(tmp_path) == []
    # What belongs to nobody is everybody's, and nobody can take it for themselves.
    assert publish(tmp_path, "open").version == "1"
    assert (
        publish_version(
            tmp_path,
            "open",
            {"model.onnx": handmade_networks.classifier(4)},
            config("open"),
            MANIFEST.model_copy(update={"owner": "ben"}),
            labels=LABELS,
        ).version
        == "2"
    )
    assert owner_of(tmp_path, "open") == ""


@given(
    there=st.sets(st.integers(1, 12), max_size=8),
    keep=st.integers(1, 4),
    in_use=st.sets(st.integers(1, 12), max_size=3),
)
def test_pruning_takes_the_oldest_and_never_what_is_in_use_or_newer(
    there: set[int], keep: int, in_use: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("net", "neighbour"):
            (root / name).mkdir()
            (root / name / CONFIG_FILE).touch()
            for version in there:
                (root / name / str(version)).mkdir()
        removed = [int(version) for version in prune_versions(root, "net", keep, set(map(str, in_use)))]
        left = {int(version.version) for version in scan(root)["net"].versions}
        assert len(removed) == len(set(removed))
        assert left | set(removed) == there
        assert not left & set(removed)
        assert not set(removed) & in_use
        assert not set(removed) & set(sorted(there)[-keep:])
        for version in removed:
            assert version < max(in_use)
        for version in sorted(there)[:-keep]:
            if in_use and version not in in_use and version < max(in_use):
                assert version in removed
        assert {int(version.version) for version in scan(root)["neighbour"].versions} == there
        assert hidden(root) == []


def test_a_folder_that_is_no_model_gives_way(tmp_path: Path) -> None:
    (tmp_path / "net" / "junk").mkdir(parents=True)
    publish(tmp_path)
    assert sound_versions(tmp_path) == [("net", "1")]


def test_publishers_take_turns(tmp_path: Path) -> None:
    published: list[str] = []
    failures: list[Exception] = []

    def run() -> None:
        try:
            published.append(publish(tmp_path).version)
        except ServingError as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(published) == ["1", "2", "3", "4", "5", "6"]
    assert len(sound_versions(tmp_path)) == 6


KILLER = """
import os, signal, sys, time
from pathlib import Path
from tests.support import handmade_networks
from test_publish import config, hidden, publish, sound_versions

root = Path(sys.argv[1])
leftovers = 0
for attempt in range(24):
    child = os.fork()
    if child == 0:
        for number in range(1_000_000):
            batch = 8 + number % 5 if number % 3 == 0 else 8
            files = {"model.onnx": handmade_networks.classifier(4), "ballast": bytes(2_000_000)}
            publish(root, files=files, config=config(batch=batch), replace=True)
    time.sleep(0.03 + 0.007 * attempt)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    leftovers += len(hidden(root)) if root.exists() else 0
    sound_versions(root)
print(leftovers)
"""


def in_another_process(program: str, root: Path) -> str:
    """Run ``program`` with this module importable and ``root`` as its argument; returns what it printed."""
    paths = os.pathsep.join([str(Path(__file__).parents[3]), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_killed_publisher_leaves_nothing_that_can_be_loaded_half(tmp_path: Path) -> None:
    """SIGKILL at many moments of publishers that never stop: what is visible is always whole."""
    leftovers = in_another_process(KILLER, tmp_path)
    assert int(leftovers) > 0, "no kill hit the middle of a publish"
    remove_leftovers(tmp_path)
    assert hidden(tmp_path) == []
    publish(tmp_path, replace=True)
    assert len(sound_versions(tmp_path)) >= 1


def test_leftovers_of_a_publisher_at_work_are_left_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    os.mkfifo(source)
    root = tmp_path / "repository"

    def run() -> None:
        publish(root, files={"model.onnx": source})

    publisher = threading.Thread(target=run)
    publisher.start()
    with source.open("wb") as pipe:  # opens once the publisher reads
        (stage,) = root.glob(f"{STAGE_PREFIX}*")
        remove_leftovers(root)
        assert stage.is_dir()
        assert scan(root) == {}
        pipe.write(handmade_networks.classifier(4))
    publisher.join()
    assert sound_versions(root) == [("net", "1")]


FULL = """
import resource, signal, sys
from pathlib import Path
from tests.support import handmade_networks
from test_publish import publish

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    publish(Path(sys.argv[1]), files={"model.onnx": handmade_networks.classifier(4), "big": bytes(4 << 20)})
except OSError as error:
    print("refused")
"""


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The system refuses to write the file to its end, as a full disk does."""
    root = tmp_path / "repository"
    assert in_another_process(FULL, root) == "refused"
    assert list(root.iterdir()) == []
