"""The composition root: builds all parts of a gateway from the settings, wired and not yet started.

The services are part of this process (embedded mode), or devices point at the processes that run them (a
topology file).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nonet.gateway.cache import MemoryStore, ResponseCache
from nonet.gateway.core import memory_objects
from nonet.gateway.core.call_headers import CallReader
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.gatekeeper import Gatekeeper
from nonet.gateway.core.repository_control import RepositoryControl
from nonet.gateway.core.routing import no_more_than_a_model
from nonet.gateway.core.shadow_runs import ShadowRuns
from nonet.gateway.core.shared_memory import SharedMemory
from nonet.gateway.core.upload_budget import UploadBudget, disk_budget
from nonet.gateway.core.version_pruning import VersionPruner
from nonet.gateway.core.version_watch import VersionWatch
from nonet.gateway.executor import Device, EmbeddedDevice, RayServeDevice, RemoteDevice, TritonDevice
from nonet.gateway.grpc import GrpcServer
from nonet.gateway.http import HttpSettings
from nonet.gateway.metrics.counters import Metrics
from nonet.gateway.metrics.exposition import MetricsPage
from nonet.gateway.metrics.processor_energy import EnergyMeter
from nonet.gateway.metrics.siblings import Siblings
from nonet.gateway.process.compose_jobs import compose_jobs
from nonet.gateway.process.compose_peers import compose_peers
from nonet.gateway.process.compose_tracing import compose_tracing
from nonet.gateway.process.engine_measuring import EngineMeasuring
from nonet.gateway.process.http_app import HttpApp, create_app
from nonet.gateway.process.service_absence import service_absence
from nonet.gateway.process.services import installed_services, works
from nonet.gateway.process.worker import Worker
from nonet.gateway.scheduler import Rates
from nonet.gateway.settings.schema import Settings, SettingsError
from nonet.gateway.settings.topology import RemoteService
from nonet.gateway.tasks.face_parts import FaceParts
from nonet.gateway.tasks.host import GatewayHost
from nonet.gateway.tasks.submits import Submits
from nonet.runtime import hardware
from nonet.runtime.backends.contract import BackendOptions
from nonet.runtime.backends.residency import MemoryBudget
from nonet.runtime.catalog import Catalog
from nonet.runtime.clock import Clock, MonotonicClock
from nonet.runtime.release import VERSION
from nonet.runtime.repository import RepositoryManager
from nonet.runtime.task import Service, ServiceLimits

if TYPE_CHECKING:
    from nonet.gateway.peers import GatewayPeers
    from nonet.gateway.process.compose_tracing import Tracing

logger = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True)
class Gateway:
    """The parts of one gateway process; ``repository`` is None when every service runs elsewhere, ``peers``
    when nothing is shared with other gateways, ``alone`` says that this process is one service, ``worker``
    that it is one of several on the same ports, ``measuring`` is None unless engines are measured,
    ``tracing`` is None when requests are not traced."""

    settings: Settings
    catalog: Catalog
    plane: DataPlane
    repository: RepositoryManager | None
    metrics: Metrics
    page: MetricsPage
    parts: FaceParts
    peers: GatewayPeers | None = None
    alone: bool = False
    worker: Worker | None = None
    measuring: EngineMeasuring | None = None
    tracing: Tracing | None = None

    def http_settings(self) -> HttpSettings:
        """The limits of the HTTP face."""
        return HttpSettings(
            **self.settings.server.model_dump(),
            max_timeout=self.settings.scheduler.max_timeout,
            repository_control=self.settings.repository.control,
            access_log=self.settings.logging.access,
        )

    def http_app(self) -> HttpApp:
        """The ASGI application."""
        return create_app(
            self.parts,
            self.http_settings(),
            metrics_endpoint=self.page.answer,
            observe=self.metrics.observe_route,
            tracer=None if self.tracing is None else self.tracing.tracer,
            authenticated=bool(self.settings.auth.keys),
        )

    def grpc_server(self) -> GrpcServer:
        """The gRPC server; call it inside the event loop, which it belongs to."""
        return GrpcServer(
            self.parts,
            self.settings.grpc,
            message_timeout=self.settings.server.body_timeout,
            repository_control=self.settings.repository.control,
            observe=self.metrics.observe_route,
            tracer=None if self.tracing is None else self.tracing.tracer,
            describe_models=self.alone,
            beside_others=self.worker is not None,
        )


def compose(
    settings: Settings,
    remote: Sequence[RemoteService] = (),
    *,
    only: str = "",
    clock: Clock | None = None,
    worker: Worker | None = None,
) -> Gateway:
    """Wire a gateway; nothing is loaded or listened on yet.

    Args:
        settings: all settings.
        remote: services that run elsewhere; with them nothing runs in this process.
        only: name of the one service that this process is, "" for a gateway.
        worker: which of several processes on the same ports this is, None for the only one.
        clock: the clock of deadlines; the process's monotonic clock by default.

    Raises SettingsError for a service nobody knows, for jobs or a Redis that cannot be as they are set, and
    for shared memory on a machine that has none.
    """
    services = installed_services()
    tasks = [task for service in services.values() for task in service.tasks]
    unknown = next(
        (each.name for each in remote if each.kind != "triton" and each.name not in services), None
    )
    if unknown is not None:
        raise SettingsError(f"unknown service '{unknown}' in the topology; known: {', '.join(services)}")
    absent = services.keys() - {each.name for each in remote}
    if remote and absent and all(each.kind != "triton" for each in remote):
        logger.warning("the topology does not name %s: not served here", ", ".join(sorted(absent)))
    clock = clock or MonotonicClock()
    catalog = Catalog()
    lanes = settings.scheduler.lanes or hardware.lanes()
    devices: list[Device] = _remote_devices(remote, catalog, settings)
    if not devices:
        wanted = settings.scheduler
        rates = Rates(wanted.watts, wanted.price)
        devices = [EmbeddedDevice(lanes, max_lost=wanted.max_lost_lanes, rates=rates)]
    # A service asked by a gateway would wait for the very answer that the gateway waits for.
    peers = None if only else compose_peers(settings, clock)
    plane = DataPlane(
        catalog,
        devices,
        clock=clock,
        limits=settings.scheduler,
        preferred_families=settings.repository.preferred_families,
        cache=_cache(settings, clock, peers),
        costs={task.name: task.cost for task in tasks if task.cost is not None},
        ranks={task.name: task.rank for task in tasks},
        absence=functools.partial(service_absence, services, devices) if remote else no_more_than_a_model,
        compositions={task.name: task.composition for task in tasks if task.composition is not None},
    )
    metrics = Metrics()
    plane.add_observer(metrics)
    tracing = compose_tracing(settings.tracing)
    if tracing is not None:
        plane.add_observer(tracing.tracer)
    budget = MemoryBudget(limit) if (limit := settings.repository.max_resident_bytes) else None
    options = BackendOptions(engine=settings.repository.engine, concurrency=lanes, budget=budget)
    repository = None if remote else _repository(settings, catalog, services, only, options)
    control = None if repository is None else RepositoryControl(repository, repository.root)
    jobs = (
        None
        if only
        else compose_jobs(settings, serves=repository is not None, beside_others=worker is not None)
    )
    host = GatewayHost(
        catalog,
        settings.repository.path,
        repository,
        control,
        may_remove=settings.repository.control,
        works={kind: work for kind, (_, work) in works().items()},
        jobs=jobs,
    )
    if jobs is not None and settings.repository.keep_versions:
        publishing = {task.name for task, work in works().values() if work.publishes is not None}
        VersionPruner(catalog, settings.repository.path, settings.repository.keep_versions, publishing)
    measuring = None
    seconds = settings.repository.measure_seconds if options.engine == "auto" else 0.0
    # Of several processes on the same ports one measures; the others find what it stored.
    if repository is not None and seconds and (worker is None or worker.index == 0):
        measuring = EngineMeasuring(
            catalog, repository, options, seconds, busy=lambda: any(plane.utilisation().values())
        )
        plane.add_observer(measuring)
    watch = _watch(settings, catalog, repository, jobs is not None)
    if watch is not None:
        plane.add_observer(watch)
    if repository is not None:
        plane.shadows = ShadowRuns(catalog, repository.root, plane.infer, repository.refresh)
    parts = FaceParts(
        plane,
        CallReader(_gatekeeper(settings, clock, peers), clock, settings.scheduler.max_timeout),
        uploads=UploadBudget(settings.server.max_bodies_bytes),
        disk=disk_budget(settings.jobs.max_upload_bytes),
        host=host,
        services=() if only else tuple(services.values()),
        repository=control,
        jobs=jobs,
        submits=None if jobs is None else Submits(plane, jobs, host, service_limits(settings)),
        memory=_memory(settings),
        root_path=settings.server.root_path,
    )

    meter = None
    if not remote:
        with contextlib.suppress(OSError, ValueError):  # most machines, and all containers, tell no energy
            meter = EnergyMeter(metrics, devices[0].name, lanes, clock)
            plane.add_observer(meter)

    def state() -> dict[str, Any]:
        if meter is not None:
            meter.settle()
        facts: dict[str, Any] = {
            "nonet_device_utilisation_ratio": plane.utilisation(),
            "nonet_lost_lanes": plane.lost_lanes(),
            **plane.placement_facts(),
            "nonet_ready": int(plane.ready()),
            "nonet_models_loaded": len(catalog.infos()),
            "nonet_models_failed": repository.failed if repository is not None else 0,
            "nonet_build_info": {VERSION: 1},
        }
        if budget is not None:
            facts["nonet_resident_bytes"] = budget.held
            facts["nonet_network_loads"] = budget.loads
            facts["nonet_network_evictions"] = budget.evictions
        if watch is not None:
            facts["nonet_versions_put_back"] = watch.put_back
        if plane.shadows is not None:
            facts["nonet_shadow_rows"] = plane.shadows.rows
            facts["nonet_shadow_runs_ended"] = plane.shadows.ended
        if jobs is not None:
            facts["nonet_jobs"] = jobs.by_state()
            facts["nonet_job_workers"] = jobs.supervisor.workers
            facts["nonet_webhooks"] = jobs.webhooks.by_state()
            facts["nonet_jobs_unserved"] = jobs.stuck.counts()
        if peers is not None:
            facts.update(peers.facts())
        if tracing is not None:
            facts.update(tracing.exporter.facts())
        return facts

    siblings = None if worker is None else Siblings(worker.folder, os.getpid())
    page = MetricsPage(metrics, state, siblings)
    return Gateway(
        settings,
        catalog,
        plane,
        repository,
        metrics,
        page,
        parts,
        peers,
        bool(only),
        worker,
        measuring,
        tracing,
    )


def _repository(
    settings: Settings,
    catalog: Catalog,
    services: Mapping[str, Service],
    only: str,
    options: BackendOptions,
) -> RepositoryManager:
    """The models of all services; or of one, those of the tasks it asks, and those that are no service's."""
    served = [services[only]] if only else list(services.values())
    own = [task for service in served for task in service.tasks]
    tasks = {task.name for task in own}
    tasks.update(name for task in own if task.composition is not None for name in task.composition.asks)
    here = [service for service in services.values() if any(task.name in tasks for task in service.tasks)]
    return RepositoryManager(
        settings.repository.path,
        catalog,
        options=options,
        derivations=[service.derive(service_limits(settings)) for service in here],
        strict=settings.repository.strict,
        foreign_tasks={task.name for each in services.values() for task in each.tasks} - tasks,
    )


def _watch(
    settings: Settings, catalog: Catalog, repository: RepositoryManager | None, jobs: bool
) -> VersionWatch | None:
    """Of the versions that jobs publish into this process's repository."""
    if not jobs or repository is None or not settings.repository.watch_rows:
        return None
    return VersionWatch(catalog, repository.root, settings.repository.watch_rows, repository.refresh)


def service_limits(settings: Settings) -> ServiceLimits:
    """What the settings allow one request of any service."""
    images, uploads = settings.images, settings.jobs.max_upload_bytes
    return ServiceLimits(
        image_bytes=images.max_bytes,
        image_pixels=images.max_pixels,
        upload_bytes=uploads,
        unsafe_score=images.unsafe_score,
    )


def _cache(settings: Settings, clock: Clock, peers: GatewayPeers | None) -> ResponseCache:
    """With the cache off nothing is kept, but equal requests in flight still share one execution."""
    if not settings.cache.enabled:
        return ResponseCache(None)
    return ResponseCache(MemoryStore(settings.cache, clock), None if peers is None else peers.answers)


def _gatekeeper(settings: Settings, clock: Clock, peers: GatewayPeers | None) -> Gatekeeper:
    quotas = None if peers is None else peers.quotas
    if quotas is None:
        return Gatekeeper(settings.auth, clock)
    gatekeeper = Gatekeeper(settings.auth, clock, quotas.took)
    quotas.correct = gatekeeper.correct
    return gatekeeper


def _memory(settings: Settings) -> SharedMemory | None:
    wanted = settings.shared_memory
    if not wanted.enabled:
        return None
    if not memory_objects.FOLDER.is_dir():
        raise SettingsError(f"shared_memory.enabled: this machine has no {memory_objects.FOLDER}")
    return SharedMemory(wanted)


_DEVICES = {"nonet": RemoteDevice, "ray": RayServeDevice, "triton": TritonDevice}


def _remote_devices(remote: Sequence[RemoteService], catalog: Catalog, settings: Settings) -> list[Device]:
    limit = max(settings.server.max_decoded_bytes, settings.grpc.max_message_bytes)
    replicas: Counter[str] = Counter()
    devices: list[Device] = []
    for service in remote:
        replicas[service.name] += 1
        make = _DEVICES[service.kind]
        devices.append(make(service, catalog, replicas[service.name], limit))
    return devices
