"""Choosing the engine for a version by measurement: right first, then fast.

Every installed engine and precision runs the version's own check set. An engine is accepted only if, against
fp32 ONNX Runtime on this machine,
- every answer is finite and every top-1 class is the same,
- no answer differs by more than :data:`ANSWER_TOLERANCE` of its largest value, and
- an item's answer alone and in a batch differ by no more than :data:`BATCH_TOLERANCE` of its largest value.
The fastest accepted one is chosen, by the geometric mean over the batch sizes of its latency relative to
fp32 ONNX Runtime, which stays unless it is beaten by 5 %, and by none that is more than 3 % slower at any
size. The winner has to win once more, the two taking turns, since a machine's speed varies between one
measurement and the next. Without a check set nothing can be judged, and fp32 ONNX Runtime stays too.

For a variant (:mod:`.variants`) the first tolerance is the ``allowed_error`` of its manifest, and its
original's answers must be met within it as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nonet.runtime.backends.contract import DEFAULT_ENGINE, DEFAULT_PRECISION, BackendOptions
from nonet.runtime.backends.network import NetworkServable, doubling_sizes
from nonet.runtime.backends.registry import installed_backends
from nonet.runtime.errors import ModelRefused, ServingError
from nonet.runtime.profile import EngineProfile, ModelProfile, measure_in_turns, measure_latency
from nonet.runtime.repository.checks import CheckSet, read_check_set
from nonet.runtime.repository.loader import PreparedVersion, load_with
from nonet.runtime.repository.manifest import Manifest
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.tensors import Array, Tensor, TensorSpec

ANSWER_TOLERANCE: Mapping[str, float] = {"fp32": 1e-4, "bf16": 2e-2}
"""Largest accepted difference from fp32 ONNX Runtime, as a fraction of the answer's largest value."""

BATCH_TOLERANCE: Mapping[str, float] = {"fp32": 1e-5, "bf16": 1e-2}
"""Largest accepted difference between an item alone and in a batch, as a fraction of its largest value."""

_WORTH_CHANGING = 0.95
_SLOWER = 1.03

Answers = Mapping[str, Array]


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """Whether answers may be served, why not, and the largest relative differences found."""

    accepted: bool
    reason: str = ""
    error: float | None = None
    batch_error: float | None = None


def profile_version(
    prepared: PreparedVersion,
    options: BackendOptions,
    machine: str,
    *,
    batch_sizes: Sequence[int] | None = None,
    budget: float = 1.0,
    progress: Callable[[str], None] = lambda text: None,
    pause: Callable[[], None] = lambda: None,
) -> ModelProfile:
    """Measure every installed engine and precision on a version and choose one.

    Args:
        prepared: the verified version.
        options: threads and concurrency that serving will use.
        machine: fingerprint under which the result is kept.
        batch_sizes: sizes to measure; by default a range up to the largest the version takes.
        budget: seconds spent per engine and batch size.
        progress: told what is measured next.
        pause: called before each load and execution that is measured; it may wait, or raise to give up.

    Raises ModelRefused if the version cannot be loaded by the default engine or its check set is damaged.
    """
    config = prepared.config
    sizes = list(batch_sizes or doubling_sizes(config.max_batch_size))
    check = read_check_set(prepared.check_set, config.inputs, config.outputs) if prepared.check_set else None
    reference: list[Answers] | None = None
    profiles: list[EngineProfile] = []
    candidates = [(engine, precision) for engine in installed_backends() for precision in engine.precisions()]
    for engine, precision in candidates:
        is_default = (engine.name, precision) == (DEFAULT_ENGINE, DEFAULT_PRECISION)
        progress(f"{prepared.name} version {prepared.version}: {engine.name} {precision}")
        latencies: dict[int, float] = {}
        pause()
        try:
            servable = load_with(prepared, engine.name, precision, options)
        except ModelRefused as refused:
            if is_default:
                raise
            verdict = Verdict(False, refused.reason)
        else:
            try:
                if is_default:
                    reference = _alone(servable, check) if check else None
                    verdict = _judge_default(servable, check, reference, prepared.manifest)
                else:
                    verdict = _judge(servable, check, reference, precision, prepared.manifest)
                latencies = measure_latency(servable, sizes, budget=budget, pause=pause)
            except ServingError as error:
                if is_default:
                    raise ModelRefused(f"it fails on its own check set: {error.message}") from error
                verdict = Verdict(False, f"fails on the check set: {error.message}")
            finally:
                servable.close()
        profiles.append(
            EngineProfile(
                engine=engine.name,
                engine_version=engine.version,
                precision=precision,
                latencies=latencies,
                accepted=verdict.accepted,
                reason=verdict.reason,
                error=verdict.error,
                batch_error=verdict.batch_error,
            )
        )
    chosen = fastest(profiles)
    if chosen != 0:
        progress(f"{prepared.name} version {prepared.version}: {profiles[chosen].engine} once more, in turns")
        profiles[0], profiles[chosen] = _in_turns(
            prepared, options, (profiles[0], profiles[chosen]), sizes, budget, pause
        )
        chosen = fastest([profiles[0], profiles[chosen]]) and chosen
    return ModelProfile(
        model=prepared.name,
        version=prepared.version,
        content=prepared.content,
        machine=machine,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        threads=options.threads,
        chosen=chosen,
        engines=tuple(profiles),
    )


def _in_turns(
    prepared: PreparedVersion,
    options: BackendOptions,
    pair: tuple[EngineProfile, EngineProfile],
    sizes: Sequence[int],
    budget: float,
    pause: Callable[[], None],
) -> list[EngineProfile]:
    """Two accepted profiles with latencies measured anew, side by side."""
    with contextlib.ExitStack() as stack:
        servables = []
        for each in pair:
            pause()
            servables.append(load_with(prepared, each.engine, each.precision, options))
            stack.callback(servables[-1].close)
        latencies = measure_in_turns(servables, sizes, budget=budget, pause=pause)
    return [
        each.model_copy(update={"latencies": measured})
        for each, measured in zip(pair, latencies, strict=True)
    ]


def check_version(prepared: PreparedVersion, options: BackendOptions) -> Verdict | None:
    """Load a version with the default engine and compare its answers with those its check set expects.

    Returns None if the version has no check set. Raises ModelRefused if it cannot be loaded or fails.
    """
    config = prepared.config
    servable = load_with(prepared, DEFAULT_ENGINE, DEFAULT_PRECISION, options)
    try:
        if prepared.check_set is None:
            return None
        check = read_check_set(prepared.check_set, config.inputs, config.outputs)
        return _judge_default(servable, check, _alone(servable, check), prepared.manifest)
    except ServingError as error:
        raise ModelRefused(f"it fails on its own check set: {error.message}") from error
    finally:
        servable.close()


def relative_error(answer: Array, expected: Array) -> float:
    """Largest difference as a fraction of the largest expected magnitude; inf if shapes or types differ."""
    if answer.shape != expected.shape:
        return math.inf
    if answer.dtype == np.object_ or not np.issubdtype(np.asarray(expected).dtype, np.number):
        return 0.0 if bool((answer == expected).all()) else math.inf
    got, want = answer.astype(np.float64), expected.astype(np.float64)
    if not np.isfinite(got).all():
        return math.inf
    if got.size == 0:
        return 0.0
    scale = float(np.abs(want).max())
    return float(np.abs(got - want).max()) / (scale or 1.0)


def _judge_default(
    servable: NetworkServable, check: CheckSet | None, alone: list[Answers] | None, manifest: Manifest | None
) -> Verdict:
    """The default engine is the reference; its verdict says how it compares with the stored answers."""
    if check is None or alone is None:
        return Verdict(True)
    expected = _expected(check, check.outputs, batches=servable.info.max_batch_size > 0)
    error = _largest(alone, expected)
    tolerance = _tolerance(DEFAULT_PRECISION, manifest)
    reason = (
        "" if error <= tolerance else f"differs from its check set by {error:.1e} (up to {tolerance:.0e})"
    )
    reason = reason or _unlike_original(alone, check, manifest)
    return Verdict(not reason, reason, error, _largest(_together(servable, check), alone))


def _judge(
    servable: NetworkServable,
    check: CheckSet | None,
    reference: list[Answers] | None,
    precision: str,
    manifest: Manifest | None,
) -> Verdict:
    if check is None or reference is None:
        return Verdict(False, "the version has no check set to judge it by")
    alone = _alone(servable, check)
    error, batch_error = _largest(alone, reference), _largest(_together(servable, check), alone)
    tolerance = _tolerance(precision, manifest)
    reason = ""
    if servable.info.task == "classification" and not _same_top1(alone, reference, servable.info.outputs[0]):
        reason = "another top-1 class than fp32 on the check set"
    elif error > tolerance:
        reason = f"differs from fp32 by {error:.1e} (up to {tolerance:.0e})"
    elif batch_error > BATCH_TOLERANCE[precision]:
        reason = f"depends on the batch by {batch_error:.1e} (up to {BATCH_TOLERANCE[precision]:.0e})"
    else:
        reason = _unlike_original(alone, check, manifest)
    return Verdict(not reason, reason, error, batch_error)


def _tolerance(precision: str, manifest: Manifest | None) -> float:
    """Largest difference from the expected answers, as a fraction of their largest value."""
    variant = manifest.variant if manifest else None
    return ANSWER_TOLERANCE[precision] if variant is None else variant.allowed_error


def _unlike_original(alone: Sequence[Answers], check: CheckSet, manifest: Manifest | None) -> str:
    """Why a variant's answers are not its original's; "" if they are, or if it is no variant."""
    variant = manifest.variant if manifest else None
    if variant is None:
        return ""
    if not check.original:
        return "its check set holds no answers of the original that it is a variant of"
    error = _largest(alone, _expected(check, check.original, batches=True))
    if error <= variant.allowed_error:
        return ""
    return f"differs from its original {variant.of} by {error:.1e} (up to {variant.allowed_error:.0e})"


def _alone(servable: NetworkServable, check: CheckSet) -> list[Answers]:
    """The answers to the check set's items, each run alone."""
    return [_answers(servable, [request])[0] for request in _requests(servable, check)]


def _together(servable: NetworkServable, check: CheckSet) -> list[Answers]:
    """The answers to the check set's items, run in batches as large as the version takes."""
    return _answers(servable, _requests(servable, check))


def _answers(servable: NetworkServable, requests: Sequence[InferRequest]) -> list[Answers]:
    answers: list[Answers] = []
    for outcome in servable.execute(requests):
        if isinstance(outcome, ServingError):
            raise outcome
        assert isinstance(outcome, InferResponse)  # a network takes no steps
        answers.append({output.name: output.data for output in outcome.outputs})
    return answers


def _requests(servable: NetworkServable, check: CheckSet) -> list[InferRequest]:
    info = servable.info
    items = (
        [{name: array[row : row + 1] for name, array in check.inputs.items()} for row in range(check.rows)]
        if info.max_batch_size > 0
        else [dict(check.inputs)]
    )
    return [
        InferRequest(
            model=info.name,
            version=info.version,
            inputs=tuple(
                Tensor(spec.name, spec.datatype, item[spec.name]) for spec in info.inputs if spec.name in item
            ),
        )
        for item in items
    ]


def _expected(check: CheckSet, answers: Answers, *, batches: bool) -> list[Answers]:
    if not batches:
        return [dict(answers)]
    return [{name: array[row : row + 1] for name, array in answers.items()} for row in range(check.rows)]


def _largest(answers: Sequence[Answers], expected: Sequence[Answers]) -> float:
    return max(
        (
            relative_error(got[name], want[name])
            for got, want in zip(answers, expected, strict=True)
            for name in want
        ),
        default=0.0,
    )


def _same_top1(answers: Sequence[Answers], expected: Sequence[Answers], output: TensorSpec) -> bool:
    return all(
        bool((got[output.name].argmax(axis=-1) == want[output.name].argmax(axis=-1)).all())
        for got, want in zip(answers, expected, strict=True)
    )


def fastest(profiles: Sequence[EngineProfile]) -> int:
    """Index of the profile to serve with; 0 is the default's. See the module's text."""
    base = profiles[0].latencies

    def relative(index: int) -> float:
        latencies = profiles[index].latencies
        ratios = [latencies[rows] / base[rows] for rows in base if rows in latencies and base[rows] > 0]
        if index and max(ratios, default=0.0) > _SLOWER:
            return math.inf
        return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else 1.0

    best = min((index for index, one in enumerate(profiles) if one.accepted), key=relative, default=0)
    return best if profiles[0].accepted and relative(best) < _WORTH_CHANGING else 0
