"""Where batches run: lanes of this process, or a service behind the Open Inference Protocol."""

from nonet.gateway.executor.contract import BackendCrashed, BatchJob, Device
from nonet.gateway.executor.embedded import EmbeddedDevice
from nonet.gateway.executor.remote import RemoteDevice

__all__ = ["BackendCrashed", "BatchJob", "Device", "EmbeddedDevice", "RemoteDevice"]
