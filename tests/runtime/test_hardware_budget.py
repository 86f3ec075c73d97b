"""The CPU and memory budget, read from made-up trees of /proc and /sys in the shapes containers have."""

from __future__ import annotations

from pathlib import Path

import pytest

from nonet.runtime import hardware
from nonet.runtime.hardware import CpuBudget, cpu_quota, memory_limit

V2 = "0::/kubepods/pod1/app\n"
V1 = "9:name=systemd:/\n4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n"


def tree(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        (V2, {"sys/fs/cgroup/kubepods/pod1/app/cpu.max": "150000 100000\n"}, 1.5),
        (V2, {"sys/fs/cgroup/kubepods/pod1/app/cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
        # the tightest group on the way up counts
        (
            V2,
            {
                "sys/fs/cgroup/kubepods/pod1/app/cpu.max": "max 100000",
                "sys/fs/cgroup/kubepods/pod1/cpu.max": "400000 100000",
                "sys/fs/cgroup/kubepods/cpu.max": "800000 100000",
            },
            4.0,
        ),
        # the path is the host's, the mount begins at the container's own group
        (V2, {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        (
            V1,
            {
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            V1,
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        (V2, {"sys/fs/cgroup/kubepods/pod1/app/cpu.max": "garbage\n"}, None),
        ("", {}, None),
        ("no colons at all\n", {}, None),
    ],
)
def test_the_cpu_quota_of_cgroups(
    tmp_path: Path, cgroup: str, files: dict[str, str], quota: float | None
) -> None:
    assert cpu_quota(tree(tmp_path, cgroup, files)) == quota


@pytest.mark.parametrize(
    ("cgroup", "files", "limit"),
    [
        (V2, {"sys/fs/cgroup/kubepods/pod1/app/memory.max": "1073741824\n"}, 1 << 30),
        (V2, {"sys/fs/cgroup/kubepods/pod1/app/memory.max": "max\n"}, None),
        (V1, {"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "536870912\n"}, 1 << 29),
        (V1, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
    ],
)
def test_the_memory_limit_of_cgroups(
    tmp_path: Path, cgroup: str, files: dict[str, str], limit: int | None
) -> None:
    assert memory_limit(tree(tmp_path, cgroup, files)) == limit


@pytest.mark.parametrize(
    ("budget", "usable", "lanes"),
    [
        (CpuBudget(64, 64, None), 64.0, 64),
        (CpuBudget(64, 4, None), 4.0, 4),
        (CpuBudget(64, 64, 1.5), 1.5, 2),
        (CpuBudget(64, 64, 2.0), 2.0, 2),
        (CpuBudget(2, 2, 8.0), 2.0, 2),
        (CpuBudget(64, 64, 0.1), 0.1, 1),
    ],
)
def test_the_smallest_limit_decides(budget: CpuBudget, usable: float, lanes: int) -> None:
    assert budget.usable == usable
    assert budget.lanes == lanes


def test_the_processor_is_described(tmp_path: Path) -> None:
    cpuinfo = (
        "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: sse avx2 avx512f other\n\nmodel name\t: Another\n"
    )
    root = tree(tmp_path, "", {"proc/cpuinfo": cpuinfo})
    assert hardware.cpu_name(root) == "Some CPU"
    assert hardware.cpu_features(root) == ("avx2", "avx512f")


def test_this_machine_has_a_budget_and_one_fingerprint() -> None:
    assert hardware.lanes() >= 1
    assert hardware.memory_available() > 1 << 20
    assert hardware.machine_fingerprint() == hardware.machine_fingerprint()
    assert len(hardware.machine_fingerprint()) == 16
    cpu, *_ = hardware.devices()
    assert cpu.kind == "cpu"
    assert "CPUs" in cpu.description
