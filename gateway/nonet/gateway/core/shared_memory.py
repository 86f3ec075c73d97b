"""The system shared memory regions that callers have registered, and the tensors of their requests in them.

A region is a range of a POSIX shared memory object, under a name of the caller's choice. It belongs to the
tenant who registered it: others neither see nor use it, nor can they register the same object. What is
checked at registration is checked again at each use, since the object belongs to a process that may shorten
or remove it at any time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator

from nonet.gateway.core.memory_objects import MemoryObject
from nonet.gateway.core.upload_budget import Hold
from nonet.gateway.settings.shared_memory_settings import SharedMemorySettings
from nonet.runtime.errors import (
    Conflict,
    InsufficientStorage,
    InvalidArgument,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
)
from nonet.runtime.oip.shared_memory import MemoryRange

_LONGEST_NAME = 255


@dataclasses.dataclass(frozen=True, slots=True)
class RegionStatus:
    """A region as its owner sees it: ``offset`` and ``byte_size`` are the range of the object ``key``."""

    name: str
    key: str
    offset: int
    byte_size: int


class _Region:
    """A region, registered until it is told to end. Thread-safe; its object is closed by the last who uses it
    then, and not when nobody refers to it any more: errors on their way to a caller refer to much."""

    __slots__ = ("_lock", "_object", "_registered", "_users", "identity", "status")

    def __init__(self, status: RegionStatus, found: MemoryObject) -> None:
        self.status = status
        self.identity = found.identity
        self._object = found
        self._lock = threading.Lock()
        self._users = 0
        self._registered = True

    @contextlib.contextmanager
    def used_for(self, wanted: MemoryRange) -> Iterator[MemoryObject]:
        """The object, which stays open in the block. Raises NotFound if the region has ended."""
        with self._lock:
            if not self._registered:
                raise _unknown_to(wanted)
            self._users += 1
        try:
            yield self._object
        finally:
            self._leave()

    def end(self) -> None:
        """It is registered no longer. To be called once."""
        with self._lock:
            self._registered = False
            self._users += 1
        self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            over = not self._registered and self._users == 0
        if over:
            self._object.close()

    def check(self, wanted: MemoryRange) -> None:
        """Raises InvalidArgument if the range is not in the region."""
        if wanted.offset + wanted.size > self.status.byte_size:
            raise InvalidArgument(
                f"{wanted.tensor}: bytes {wanted.offset} to {wanted.offset + wanted.size} are not in the "
                f"shared memory region {wanted.region[:80]!r} of {self.status.byte_size} bytes",
                param=f"{wanted.where}.shared_memory_byte_size",
            )

    def shortened(self, wanted: MemoryRange) -> InvalidArgument:
        return InvalidArgument(
            f"{wanted.tensor}: the shared memory object of region {wanted.region[:80]!r} has become shorter "
            "than the region",
            param=f"{wanted.where}.shared_memory_region",
            code="REGION_SHORTENED",
        )


class SharedMemory:
    """The regions of all tenants. Thread-safe; regions in use may be unregistered at any time.

    Args:
        limits: what may be registered and used.
    """

    def __init__(self, limits: SharedMemorySettings) -> None:
        self._limits = limits
        self._owners = frozenset(limits.owners or [os.geteuid()])
        self._lock = threading.Lock()
        self._regions: dict[str, dict[str, _Region]] = {}

    def register(self, tenant: str, status: RegionStatus) -> None:
        """Register a region.

        Raises:
            InvalidArgument: there is no such object, or the range is empty or not in it.
            Conflict: ``REGION_EXISTS``, the name is in use.
            InsufficientStorage: the tenant has as many regions, or bytes of them, as it may.
            PermissionDenied: as :class:`MemoryObject`, and for an object of another tenant's region.
        """
        checked_region(status.name)
        if status.byte_size < 1 or status.offset < 0:
            raise InvalidArgument("byte_size must be at least 1, and offset at least 0", param="byte_size")
        found = MemoryObject(status.key, self._owners)
        try:
            self._enter(tenant, status, found)
        except BaseException:
            found.close()
            raise

    def _enter(self, tenant: str, status: RegionStatus, found: MemoryObject) -> None:
        if status.offset + status.byte_size > found.size:
            raise InvalidArgument(
                f"bytes {status.offset} to {status.offset + status.byte_size} are not in the shared memory "
                f"object {status.key[:80]!r} of {found.size} bytes",
                param="byte_size",
            )
        with self._lock:
            own = self._regions.get(tenant, {})
            if status.name in own:
                raise Conflict(
                    f"shared memory region {status.name[:80]!r} is registered already; unregister it first",
                    param="name",
                    code="REGION_EXISTS",
                )
            self._check_room(own, status.byte_size)
            for other, regions in self._regions.items():
                if other != tenant and any(each.identity == found.identity for each in regions.values()):
                    raise PermissionDenied(
                        f"shared memory object {status.key[:80]!r} cannot be registered: it is another "
                        "caller's",
                        param="key",
                    )
            self._regions.setdefault(tenant, {})[status.name] = _Region(status, found)

    def _check_room(self, own: dict[str, _Region], size: int) -> None:
        limits = self._limits
        if len(own) >= limits.max_regions:
            raise InsufficientStorage(
                f"{len(own)} shared memory regions are registered, as many as one caller may have",
                code="TOO_MANY_REGIONS",
            )
        total = sum(each.status.byte_size for each in own.values()) + size
        if total > limits.max_bytes:
            raise InsufficientStorage(
                f"the shared memory regions of one caller may have {limits.max_bytes} bytes together; with "
                f"this one they would have {total}",
                param="byte_size",
                code="REGIONS_TOO_LARGE",
            )

    def status(self, tenant: str, name: str = "") -> list[RegionStatus]:
        """The regions of a tenant by name, or the one of that name. Raises NotFound if there is no such."""
        with self._lock:
            own = self._regions.get(tenant, {})
            if not name:
                return [own[each].status for each in sorted(own)]
            if name in own:
                return [own[name].status]
        raise _unknown(name)

    def unregister(self, tenant: str, name: str = "") -> None:
        """Forget a region, or all of the tenant; those that are not there are forgotten already. A request
        that still uses one reads to the end, and writes nothing to it any more."""
        with self._lock:
            own = self._regions.get(tenant, {})
            for each in [name] if name else list(own):
                if (region := own.pop(each, None)) is not None:
                    region.end()
            if not own:
                self._regions.pop(tenant, None)

    def of(self, tenant: str, hold: Hold) -> TenantMemory:
        """What one request of the tenant may use; copies are entered in ``hold``."""
        return TenantMemory(self, tenant, hold, self._limits.max_request_bytes)

    def _find(self, tenant: str, wanted: MemoryRange) -> _Region:
        with self._lock:
            region = self._regions.get(tenant, {}).get(wanted.region)
        if region is None:
            raise _unknown_to(wanted)
        region.check(wanted)
        return region


class TenantMemory:
    """The shared memory that one request may use: see :class:`nonet.runtime.oip.shared_memory.CallerMemory`.

    Args:
        regions: all regions.
        tenant: whose request it is.
        hold: accounts for the memory that the request takes.
        limit: bytes that the request may read.
    """

    def __init__(self, regions: SharedMemory, tenant: str, hold: Hold, limit: int) -> None:
        self._regions = regions
        self._tenant = tenant
        self._hold = hold
        self._limit = self._left = limit

    def read(self, wanted: MemoryRange) -> memoryview:
        """A copy of the range.

        Raises NotFound for a region that the tenant has not registered, InvalidArgument for a range that is
        not in it or no longer in its object, PayloadTooLarge if the inputs of the request are too large
        together, Unavailable if those of all requests are.
        """
        region = self._regions._find(self._tenant, wanted)
        if wanted.size > self._left:
            raise PayloadTooLarge(
                f"the inputs of a request in shared memory may have {self._limit} bytes together",
                param=f"{wanted.where}.shared_memory_byte_size",
            )
        self._left -= wanted.size
        self._hold.take(wanted.size)
        with region.used_for(wanted) as found:
            content = found.read(region.status.offset + wanted.offset, wanted.size)
        if content is None:
            raise region.shortened(wanted)
        return content

    def output(self, wanted: MemoryRange) -> OutputRange:
        """The place of an output. Raises NotFound and InvalidArgument as :meth:`read`."""
        return OutputRange(self._regions._find(self._tenant, wanted), wanted)


class OutputRange:
    """Where one output goes: see :class:`nonet.runtime.requests.OutputMemory`."""

    __slots__ = ("_range", "_region", "offset", "region")

    def __init__(self, region: _Region, wanted: MemoryRange) -> None:
        self._region = region
        self._range = wanted
        self.region = wanted.region
        self.offset = wanted.offset

    def check(self, size: int) -> None:
        """Raises InvalidArgument if ``size`` bytes do not fit."""
        if size > self._range.size:
            raise InvalidArgument(
                f"{self._range.tensor} has {size} bytes, but shared_memory_byte_size is {self._range.size}",
                param=f"{self._range.where}.shared_memory_byte_size",
                code="OUTPUT_TOO_LARGE",
            )

    def write(self, data: bytes) -> None:
        """Write the output. Raises NotFound if the region has been unregistered since the request came,
        InvalidArgument if its object has become shorter, and as :meth:`MemoryObject.write`."""
        region = self._region
        with region.used_for(self._range) as found:
            written = found.write(region.status.offset + self.offset, data)
        if not written:
            raise region.shortened(self._range)


def checked_region(name: str) -> str:
    """The name of a region. Raises InvalidArgument for one that is empty, too long or not printable."""
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise InvalidArgument(
            f"the name of a shared memory region has 1 to {_LONGEST_NAME} printable characters, "
            f"not {name[:40]!r}",
            param="name",
        )
    return name


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no shared memory region {name[:80]!r}", code="REGION_NOT_FOUND")


def _unknown_to(wanted: MemoryRange) -> NotFound:
    return NotFound(
        f"{wanted.tensor}: there is no shared memory region {wanted.region[:80]!r}",
        param=f"{wanted.where}.shared_memory_region",
        code="REGION_NOT_FOUND",
    )
