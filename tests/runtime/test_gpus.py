"""What the NVIDIA driver tells of GPUs is read whole; a driver that is not there or fails is a reason."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from nonet.runtime import hardware
from nonet.runtime.gpus import Gpu, GpuInventory, gpus


class DriverError(Exception):
    """What the bindings raise for every failure of the driver."""


class Driver:
    """Stands for the driver behind the bindings, with two GPUs; ``broken`` names the calls that fail."""

    NVMLError = DriverError

    def __init__(self, *broken: str, count: int = 2) -> None:
        self._broken = broken
        self._count = count
        self.open = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in object.__getattribute__(self, "_broken"):

            def fail(*_: Any) -> Any:
                raise DriverError("Not Supported")

            return fail
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self._count

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.65"

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:  # noqa: N802
        return b"NVIDIA H200"  # older bindings give bytes

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=141 << 30, free=140 << 30)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return 9, 0

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        return 76_500  # milliwatts

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:  # noqa: N802
        return 700_000


WHOLE = Gpu(0, "NVIDIA H200", "GPU-0", "9.0", 141 << 30, 140 << 30, 76.5, 700.0)


def test_gpus_are_read_with_units_and_the_driver_is_let_go() -> None:
    driver = Driver()
    found = gpus(driver)
    assert found.found == (WHOLE, dataclasses.replace(WHOLE, index=1, uuid="GPU-1"))
    assert found.driver == "580.65"
    assert found.why_none == ""
    assert driver.open == 0


def test_what_a_gpu_does_not_tell_is_left_out() -> None:
    driver = Driver("nvmlDeviceGetPowerUsage", "nvmlDeviceGetEnforcedPowerLimit", count=1)
    assert gpus(driver).found == (dataclasses.replace(WHOLE, watts=None, watts_limit=None),)


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetName"])
def test_a_driver_that_fails_is_a_reason(call: str) -> None:
    driver = Driver(call)
    found = gpus(driver)
    assert found.found == ()
    assert "Not Supported" in found.why_none
    assert driver.open == 0


def test_a_driver_without_a_gpu_is_a_reason() -> None:
    assert gpus(Driver(count=0)) == GpuInventory((), "580.65", "the NVIDIA driver knows of no GPU")


def test_whatever_this_machine_has_is_told_or_why_not() -> None:
    """With the bindings, if they are installed, and without."""
    found = gpus()
    assert bool(found.found) != bool(found.why_none)


def test_gpus_follow_the_processor_and_are_unverified() -> None:
    cpu, gpu = hardware.devices(GpuInventory((WHOLE,)))
    assert cpu.kind == "cpu"
    assert (gpu.name, gpu.kind) == ("gpu:0", "cuda")
    assert gpu.description.startswith("NVIDIA H200, 141 GiB, compute capability 9.0, 700 W; unverified")
