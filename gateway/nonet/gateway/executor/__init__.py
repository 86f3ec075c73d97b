"""Executors of batches: threads of this process, or another Open Inference Protocol server."""

from nonet.gateway.executor.contract import BackendCrashed, BatchJob, Device
from nonet.gateway.executor.embedded import EmbeddedDevice
from nonet.gateway.executor.ray_serve import RayServeDevice
from nonet.gateway.executor.remote import RemoteDevice
from nonet.gateway.executor.triton import TritonDevice

__all__ = [
    "BackendCrashed",
    "BatchJob",
    "Device",
    "EmbeddedDevice",
    "RayServeDevice",
    "RemoteDevice",
    "TritonDevice",
]
