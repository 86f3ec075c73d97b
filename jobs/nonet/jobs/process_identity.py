"""Naming processes so that a name never stands for another process: a pid alone is used again."""

from __future__ import annotations

import functools
import os
import platform
import time
from pathlib import Path

import psutil


@functools.cache
def boot_id() -> str:
    """Names the time since the machine was started; "" where nothing tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@functools.cache
def place() -> str:
    """Names what the names of processes are valid in: this machine since its start, or a container."""
    try:
        processes = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        processes = 0
    return f"{boot_id()}/{processes}/{platform.node()}"


def uptime() -> float:
    """Seconds on a clock that all processes of a machine share and nobody can set."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def process_name(pid: int) -> str:
    """A process's pid and start. Raises psutil.NoSuchProcess."""
    try:
        # Clock ticks since the boot: unlike a time of day they do not move when the clock is set.
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = f"{psutil.Process(pid).create_time():.2f}"
    return f"{pid}@{started}"


def is_alive(name: str) -> bool:
    """Whether the process of that name still runs on this machine; a corpse does not."""
    pid, _, _ = name.partition("@")
    try:
        return process_name(int(pid)) == name and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False
