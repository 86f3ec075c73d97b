"""From a version's folder to a servable: verify, complete, choose the engine, load, warm up.

Nothing is loaded that was not verified: every file the manifest lists is hashed, and every file the engine
would read must be listed. A version without a manifest is loaded only where the repository is not strict and
no other version of its model has one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from nonet.runtime.backends.contract import (
    DEFAULT_ENGINE,
    DEFAULT_PRECISION,
    BackendError,
    BackendOptions,
    LoadedNetwork,
    LoadError,
    NetworkBudget,
    OutOfMemory,
)
from nonet.runtime.backends.network import NetworkServable
from nonet.runtime.backends.registry import backend
from nonet.runtime.backends.samples import SampleInputs
from nonet.runtime.errors import ModelRefused
from nonet.runtime.profile import EngineProfile, ProfileStore
from nonet.runtime.repository.checks import check_shapes
from nonet.runtime.repository.companions import Companions
from nonet.runtime.repository.config import CompletedConfig, ModelConfig, complete_config
from nonet.runtime.repository.graph import Graph, read_graph
from nonet.runtime.repository.integrity import FileHasher, verify_files
from nonet.runtime.repository.labels import LABELS_FILE, read_labels
from nonet.runtime.repository.layout import (
    MANIFEST_FILE,
    Fingerprint,
    ModelFolder,
    VersionFolder,
    file_fingerprint,
    inside,
)
from nonet.runtime.repository.manifest import Manifest, read_manifest
from nonet.runtime.servable import ModelInfo

logger = logging.getLogger(__name__)

MEMORY_OF_WEIGHTS = 3.5
"""Memory that ONNX Runtime holds of an idle network, as a multiple of its weight files: 2.9 to 3.7 for five
of 2.6 to 22 MB (resident memory before and after loading, version 1.32, 2026-12-01)."""


@dataclasses.dataclass(frozen=True, slots=True)
class PreparedVersion:
    """A version whose files were verified and whose configuration agrees with its graph; not loaded yet.

    ``content`` is a sha256 over everything that decides its answers except the engine; ``weights`` the
    fingerprint of the files that the engine reads.
    """

    name: str
    version: str
    folder: Path
    model_file: Path
    config: CompletedConfig
    manifest: Manifest | None
    labels: tuple[str, ...]
    check_set: Path | None
    content: str
    engine: str
    allow_nonfinite: bool
    companions: Companions
    weights: Fingerprint


def prepare_version(
    root: Path,
    model: ModelFolder,
    version: VersionFolder,
    config: ModelConfig,
    *,
    hasher: FileHasher,
    strict: bool = False,
) -> PreparedVersion:
    """Verify and read everything about a version but its weights. Raises ModelRefused."""
    manifest = read_manifest(version.path / MANIFEST_FILE)
    if manifest is None and strict:
        raise ModelRefused("manifest.json is missing, and this repository accepts no version without one")
    if manifest is None and any((other.path / MANIFEST_FILE).is_file() for other in model.versions):
        raise ModelRefused(
            "manifest.json is missing, and other versions of this model have one; without it the model "
            "would lose its task",
            permanent=False,
        )
    if manifest is not None:
        verify_files(root, version.path, manifest, hasher)
    model_file = inside(root, version.path, _listed(config.model_file, manifest))
    graph = read_graph(model_file)
    hashes = dict(manifest.files) if manifest else {config.model_file: _hash(hasher, model_file)}
    external = _external_files(config.model_file, graph)
    for name in external:
        path = inside(root, version.path, _listed(name, manifest))
        hashes.setdefault(name, _hash(hasher, path))
    completed = complete_config(config, graph, model.name)
    labels = _labels(root, model, config, completed, manifest)
    check_set = None
    if manifest and manifest.check_set:
        check_set = inside(root, version.path, _listed(manifest.check_set, manifest))
    allow_nonfinite = config.parameter("allow_nonfinite") == "true" or (
        manifest is not None and manifest.allow_nonfinite
    )
    return PreparedVersion(
        name=model.name,
        version=version.version,
        folder=version.path,
        model_file=model_file,
        config=completed,
        manifest=manifest,
        labels=labels,
        check_set=check_set,
        content=_content_digest(hashes, completed, labels, manifest, allow_nonfinite),
        engine=config.engine,
        allow_nonfinite=allow_nonfinite,
        companions=Companions(root, version.path, manifest),
        weights=_weights(version.path, (config.model_file, *external)),
    )


def load_version(prepared: PreparedVersion, options: BackendOptions, store: ProfileStore) -> NetworkServable:
    """Load and warm up with the engine that options, configuration and measurements call for.

    Raises ModelRefused; running out of memory is not permanent.
    """
    engine, precision, profile = choose_engine(prepared, options, store)
    if profile is not None:
        try:
            return load_with(prepared, engine, precision, options, profile)
        except ModelRefused as error:
            logger.warning(
                "model %s: the measured choice %s %s does not load (%s); using the default engine",
                prepared.name,
                engine,
                precision,
                error.reason,
            )
            engine, precision = DEFAULT_ENGINE, DEFAULT_PRECISION
    return load_with(prepared, engine, precision, options)


def choose_engine(
    prepared: PreparedVersion, options: BackendOptions, store: ProfileStore
) -> tuple[str, str, EngineProfile | None]:
    """Engine and precision for a version, and the measurement behind the choice if there is one."""
    if prepared.engine:
        return prepared.engine, options.precision, None
    if options.engine != "auto":
        return options.engine, options.precision, None
    stored = store.read(prepared.content)
    if stored is not None and stored.threads == options.threads:
        choice = stored.choice
        try:
            current = backend(choice.engine).version == choice.engine_version
        except LoadError:
            current = False
        if current:
            return choice.engine, choice.precision, choice
    return DEFAULT_ENGINE, DEFAULT_PRECISION, None


def load_with(
    prepared: PreparedVersion,
    engine: str,
    precision: str,
    options: BackendOptions,
    profile: EngineProfile | None = None,
) -> NetworkServable:
    """Load and warm up with one engine and precision. Raises ModelRefused."""
    config = prepared.config
    batches = config.max_batch_size > 0
    try:
        shapes = (
            check_shapes(prepared.check_set, config.inputs, batches=batches) if prepared.check_set else {}
        )
        samples = SampleInputs(config.inputs, batches=batches, shapes=shapes)
        chosen = backend(engine)
        options = dataclasses.replace(options, largest_batch=config.max_batch_size)

        def load() -> LoadedNetwork:
            return chosen.load(
                prepared.model_file, config.inputs, config.outputs, precision=precision, options=options
            )

        network = load() if options.budget is None else _within(options.budget, prepared, load)
        try:
            facts = network.describe()
            info = _info(prepared, chosen.platform, facts, profile)
            servable = NetworkServable(info, network, samples, prepared.companions.read)
            servable.warm_up()
        except BaseException:
            network.unload()
            raise
    except (OutOfMemory, MemoryError) as error:
        logger.warning("model %s version %s: %s", prepared.name, prepared.version, error)
        raise ModelRefused("not enough memory to load it", permanent=False) from error
    except BackendError as error:
        logger.warning("model %s version %s: %s", prepared.name, prepared.version, error)
        raise ModelRefused(f"the engine {engine} cannot load or run it") from error
    return servable


def _within(
    budget: NetworkBudget, prepared: PreparedVersion, load: Callable[[], LoadedNetwork]
) -> LoadedNetwork:
    """Load as a network of the budget, which reads the files again later: only those that were verified."""
    names = [fact[0] for fact in prepared.weights]
    folder = prepared.folder

    def load_again() -> LoadedNetwork:
        if _weights(folder, names) != prepared.weights:
            raise LoadError("its files are not those that were verified any more")
        return load()

    size = round(MEMORY_OF_WEIGHTS * sum(fact[3] for fact in prepared.weights))
    if size > budget.limit:
        logger.warning(
            "model %s version %s alone is larger than the memory budget: it is loaded for each execution",
            prepared.name,
            prepared.version,
        )
    return budget.load(size, load_again)


def _weights(folder: Path, names: Sequence[str]) -> Fingerprint:
    return tuple(fact for name in names for fact in file_fingerprint(folder, name))


def _info(
    prepared: PreparedVersion, platform: str, facts: dict[str, Any], profile: EngineProfile | None
) -> ModelInfo:
    manifest = prepared.manifest
    engine = {key: str(facts[key]) for key in ("engine", "engine_version", "precision")}
    digest = hashlib.sha256(json.dumps([prepared.content, engine], sort_keys=True).encode()).hexdigest()
    details: dict[str, Any] = {"content": prepared.content, **facts}
    if profile is not None:
        details["measured_latencies"] = dict(profile.latencies)
    quality: dict[str, float] = {}
    if manifest is not None:
        quality = {
            key: float(value)
            for key, value in manifest.quality.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        details |= manifest.model_dump(mode="json", exclude={"files", "schema_version", "task", "owner"})
    return ModelInfo(
        name=prepared.name,
        version=prepared.version,
        digest=digest,
        platform=platform,
        inputs=prepared.config.inputs,
        outputs=prepared.config.outputs,
        max_batch_size=prepared.config.max_batch_size,
        task=manifest.task if manifest else "",
        family=manifest.family if manifest else "",
        quality=quality,
        labels=prepared.labels,
        allow_nonfinite=prepared.allow_nonfinite,
        shadow_rows=manifest.shadow_rows if manifest else 0,
        decoupled=prepared.config.decoupled,
        config=prepared.config.as_json,
        details=details,
    )


def _listed(name: str, manifest: Manifest | None) -> str:
    if manifest is not None and name not in manifest.files:
        raise ModelRefused(f"file '{name}' would be read, but manifest.json does not list it")
    return name


def _external_files(model_file: str, graph: Graph) -> list[str]:
    """Names of the further weight files, relative to the version's folder (the graph's are to its own)."""
    folder = PurePosixPath(model_file).parent
    return [(folder / name).as_posix() for name in graph.external_files]


def _hash(hasher: FileHasher, path: Path) -> str:
    try:
        return hasher.sha256(path)
    except OSError as error:
        raise ModelRefused(f"file '{path.name}' cannot be read ({error.strerror})", permanent=False) from None


def _labels(
    root: Path,
    model: ModelFolder,
    config: ModelConfig,
    completed: CompletedConfig,
    manifest: Manifest | None,
) -> tuple[str, ...]:
    name = config.label_file
    if not name:
        if not (model.path / LABELS_FILE).is_file():
            return ()
        name = LABELS_FILE
    labels = read_labels(inside(root, model.path, name))
    classes = completed.outputs[0].shape[-1] if completed.outputs[0].shape else -1
    if manifest is not None and manifest.task == "classification" and classes not in (-1, len(labels)):
        raise ModelRefused(
            f"'{name}' holds {len(labels)} labels, "
            f"but output '{completed.outputs[0].name}' has {classes} classes"
        )
    return labels


def _content_digest(
    hashes: dict[str, str],
    completed: CompletedConfig,
    labels: tuple[str, ...],
    manifest: Manifest | None,
    allow_nonfinite: bool,
) -> str:
    specs = [
        [spec.name, spec.datatype.value, list(spec.shape), spec.optional]
        for spec in (*completed.inputs, *completed.outputs)
    ]
    preprocessing = manifest.preprocessing if manifest else None
    facts = {
        "files": hashes,
        "batches": completed.max_batch_size > 0,
        "specs": specs,
        "inputs": len(completed.inputs),
        "labels": labels,
        "task": manifest.task if manifest else "",
        "preprocessing": preprocessing.model_dump(mode="json") if preprocessing else None,
        "allow_nonfinite": allow_nonfinite,
        "parameters": completed.as_json.get("parameters", {}),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
