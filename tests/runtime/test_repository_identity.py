"""A repository has one name, whoever asks first, and a copy of it has another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nonet.runtime import repository_identity as identity
from nonet.runtime.repository.layout import scan
from nonet.runtime.repository_identity import IDENTITY_FILE, name_repository, repository_identity

ASK = "import sys, pathlib; from nonet.runtime.repository_identity import name_repository as name\n"


def numbered(folder: Path) -> bool:
    return identity._are_numbered(folder.stat().st_dev)


def test_a_name_is_made_when_it_is_asked_for_and_stays(tmp_path: Path) -> None:
    assert repository_identity(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
    name = name_repository(tmp_path)
    assert len(name) == 16
    assert name_repository(tmp_path) == repository_identity(tmp_path) == name
    assert [path.name for path in tmp_path.iterdir()] == [IDENTITY_FILE]
    assert (tmp_path / IDENTITY_FILE).stat().st_mode & 0o777 == 0o644
    assert scan(tmp_path) == {}
    (tmp_path / "other").mkdir()
    assert name_repository(tmp_path / "other") != name


def test_processes_that_ask_at_once_get_the_same_name(tmp_path: Path) -> None:
    code = f"{ASK}sys.stdin.read()\nprint(name(pathlib.Path({str(tmp_path)!r})))"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    children = [subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) for _ in range(6)]
    for child in children:
        assert child.stdin is not None
        child.stdin.close()  # all of them wait for that
        child.stdin = None
    names = [child.communicate()[0].strip() for child in children]
    assert len(set(names)) == 1
    assert names[0]
    assert [path.name for path in tmp_path.iterdir()] == [IDENTITY_FILE]


def test_a_place_that_is_taken_meanwhile_is_left(tmp_path: Path) -> None:
    name = name_repository(tmp_path)
    draft = tmp_path / "draft"
    draft.write_text("0123456789abcdef 0\n")
    identity._put(draft, tmp_path / IDENTITY_FILE)
    assert repository_identity(tmp_path) == name


def test_a_copy_is_another_repository_wherever_it_is_read(tmp_path: Path) -> None:
    if not numbered(tmp_path):
        pytest.skip("files have no lasting numbers here")
    original = tmp_path / "original"
    original.mkdir()
    name = name_repository(original)
    copies = [tmp_path / "copy", tmp_path / "another"]
    for copy in copies:
        shutil.copytree(original, copy)
    names = {repository_identity(folder) for folder in (original, *copies)}
    assert len(names) == 3
    assert all(each.startswith(name) for each in names)
    moved = tmp_path / "moved"
    original.rename(moved)
    link = tmp_path / "link"
    link.symlink_to(moved)
    assert repository_identity(moved) == repository_identity(link) == name
    # A copy that is asked for a name has one.
    assert name_repository(copies[0]) == repository_identity(copies[0])


def test_where_numbers_mean_nothing_the_name_alone_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = name_repository(tmp_path)
    path = tmp_path / IDENTITY_FILE
    path.write_text(f"{name} 1\n")
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(identity, "_MOUNTS", mounts)
    device = tmp_path.stat().st_dev
    line = f"36 35 {os.major(device)}:{os.minor(device)} / /models rw shared:1 - %s server:/models rw\n"
    for kind, copied in (("ext4", True), ("nfs4", True), ("fuse.sshfs", False), ("cifs", False)):
        mounts.write_text("not a mount\n" + line % kind)
        assert (repository_identity(tmp_path) != name) == copied
    mounts.unlink()
    assert repository_identity(tmp_path) == name
    path.unlink()
    assert name_repository(tmp_path)
    assert path.read_text().split()[1] == "0"


@pytest.mark.parametrize("content", ["", "x", "0123456789abcdef", "0123456789ABCDEF 1", "../../etc/passwd 1"])
def test_a_damaged_name_is_none_and_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / IDENTITY_FILE).write_text(content)
    assert name_repository(tmp_path) == repository_identity(tmp_path) == ""
    assert (tmp_path / IDENTITY_FILE).read_text() == content


@pytest.mark.parametrize("folder", ["/proc/self", "/no/such/folder", __file__])
def test_where_nothing_can_be_written_there_is_no_name(folder: str) -> None:
    assert name_repository(Path(folder)) == repository_identity(Path(folder)) == ""
