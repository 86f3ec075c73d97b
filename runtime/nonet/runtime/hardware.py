"""What this process may use: CPUs, memory, devices. Containers are told less than the host has.

The CPU budget is the smallest of the logical CPUs, the affinity mask and the cgroup quota (v1 or v2) of
this process's group and all groups above it. Counting the host's cores instead makes engines start too
many threads, which then throttle each other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

from nonet.runtime.gpus import GpuInventory, gpus

_UNLIMITED_BYTES = 1 << 60  # cgroup v1 says "no limit" with a number close to 2^63
_USEFUL_FLAGS = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8",
    "asimd", "asimddp", "i8mm", "bf16",
)  # fmt: skip
"""As Linux spells them; the last four are of Arm."""


@dataclasses.dataclass(frozen=True, slots=True)
class CpuBudget:
    """CPUs this process may use.

    ``logical``: of the host; ``affinity``: in the process's mask; ``quota``: CPUs' worth of time the cgroup
    grants (may be fractional), None without a limit.
    """

    logical: int
    affinity: int
    quota: float | None

    @property
    def usable(self) -> float:
        """CPUs' worth of time that can really be used."""
        allowed = float(min(self.logical, self.affinity))
        return allowed if self.quota is None else min(allowed, self.quota)

    @property
    def lanes(self) -> int:
        """Executions worth running side by side: the usable CPUs rounded up, at least 1."""
        return max(1, math.ceil(self.usable - 1e-9))


@dataclasses.dataclass(frozen=True, slots=True)
class Device:
    """Something that can execute networks: ``cpu`` or another engine's device, and facts for a person."""

    name: str
    kind: str
    description: str


def cpu_budget(root: Path = Path("/")) -> CpuBudget:
    """The CPU budget of this process; ``root`` is where ``proc`` and ``sys`` are found (for tests)."""
    logical = os.cpu_count() or 1
    try:
        affinity = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        affinity = logical
    return CpuBudget(logical, affinity, cpu_quota(root))


def lanes() -> int:
    """Executions worth running side by side in this process."""
    return cpu_budget().lanes


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time granted by the cgroups of this process, or None without a limit."""
    quotas = [quota for group in _groups(root, "cpu") if (quota := _quota_of(group)) is not None]
    return min(quotas, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes of memory the cgroups grant this process, or None without a limit."""
    limits = []
    for group in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(group / name)
            if text.isdecimal() and int(text) < _UNLIMITED_BYTES:
                limits.append(int(text))
    return min(limits, default=None)


def memory_available(root: Path = Path("/")) -> int:
    """Bytes of memory this process may have in all: the host's, or the cgroup's limit if that is less."""
    total = int(psutil.virtual_memory().total)
    limit = memory_limit(root)
    return total if limit is None else min(total, limit)


def cpu_name(root: Path = Path("/")) -> str:
    """The processor's model, e.g. ``AMD EPYC``."""
    return _cpuinfo(root).get("model name", "") or platform.processor() or platform.machine()


def cpu_features(root: Path = Path("/")) -> tuple[str, ...]:
    """Instruction sets that decide how fast networks run, of those this processor has."""
    info = _cpuinfo(root)
    flags = set((info.get("flags") or info.get("features") or "").split())
    return tuple(flag for flag in _USEFUL_FLAGS if flag in flags)


def machine_fingerprint() -> str:
    """16 hex digits that change when measured latencies would: processor, features, CPU budget."""
    budget = cpu_budget()
    facts = (platform.machine(), cpu_name(), *cpu_features(), str(budget.usable))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def devices(inventory: GpuInventory | None = None) -> list[Device]:
    """What could execute networks on this machine: the CPU, then its GPUs, which no engine here has been
    seen to use (``inventory``: of the GPUs, by default what the driver tells)."""
    budget = cpu_budget()
    features = ", ".join(cpu_features()) or "no vector extensions known to matter"
    cpus = f"{budget.usable:g} of {budget.logical} CPUs"
    memory = f"{memory_available() / 2**30:.1f} GiB memory"
    found = [Device("cpu", "cpu", f"{cpu_name()}, {cpus}, {memory}, {features}")]
    for gpu in (gpus() if inventory is None else inventory).found:
        capability = f", compute capability {gpu.capability}" if gpu.capability else ""
        limit = "" if gpu.watts_limit is None else f", {gpu.watts_limit:.0f} W"
        facts = f"{gpu.name}, {gpu.memory_bytes / 2**30:.0f} GiB{capability}{limit}"
        found.append(Device(f"gpu:{gpu.index}", "cuda", f"{facts}; unverified: no engine here has run on it"))
    return found


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's block of ``/proc/cpuinfo``, keys in lower case."""
    facts: dict[str, str] = {}
    for line in _read(root / "proc/cpuinfo").splitlines():
        if not line.strip():
            break
        key, _, value = line.partition(":")
        facts[key.strip().lower()] = value.strip()
    return facts


def _quota_of(group: Path) -> float | None:
    limit, _, period = _read(group / "cpu.max").partition(" ")  # v2: "max 100000" or "150000 100000"
    if not limit:
        limit, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    if limit.isdecimal() and period.isdecimal() and int(limit) > 0 and int(period) > 0:
        return int(limit) / int(period)
    return None


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's cgroups for a controller, from its own group up to the mount."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mounts = (root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified")
        elif controller in controllers.split(","):
            mounts = (root / "sys/fs/cgroup" / controller, root / "sys/fs/cgroup" / controllers)
        else:
            continue
        # In a container the path is the host's while the mount may start at the group itself, so parts of
        # the path can be missing; every folder that exists on the way up counts.
        group = PurePosixPath("/", path)
        for parent in (group, *group.parents):
            for mount in dict.fromkeys(mounts):
                folder = mount / str(parent).lstrip("/")
                if folder.is_dir():
                    yield folder


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
