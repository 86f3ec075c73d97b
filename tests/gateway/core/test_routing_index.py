"""The router finds through the catalog's index what a search through all that is ready finds."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.gateway.core.routing import Router
from nonet.runtime.catalog import Catalog, ModelState
from nonet.runtime.errors import NotFound, ServingError, Unavailable
from nonet.runtime.servable import ModelInfo
from tests.support.misbehaving_servables import DoublingServable, doubling_info

RANKS = {"restoration": "psnr"}
PREFERRED = ("f2", "absent")
TASKS = ("classification", "restoration", "absent")
NAMES = ("auto", "", "m0", "m1", "m2", "n0", "n1", "f1", "f2", "f3", "nobody")

infos = st.builds(
    lambda name, version, task, family, network, top1, psnr, shadow_rows: doubling_info(
        name,
        version,
        task=task,
        family=family,
        network=network,
        quality={"top1": top1} if psnr is None else {"top1": top1, "psnr": psnr},
        shadow_rows=shadow_rows,
    ),
    st.sampled_from(["m0", "m1", "m2", "n0"]),
    st.sampled_from(["1", "2", "9", "10"]),
    st.sampled_from(["", "classification", "restoration"]),
    st.sampled_from(["", "f1", "f2", "f3"]),
    st.sampled_from(["", "n0", "n1", "m1", "f1"]),
    st.sampled_from([-1.0, 0.0, 0.5, 0.7]),
    st.sampled_from([None, 20.0, 30.0]),
    st.sampled_from([0, 0, 0, 5]),
)
changes = st.lists(
    st.one_of(
        st.lists(infos, min_size=1, max_size=3),
        st.tuples(st.sampled_from(["m0", "m1", "m2", "n0"]), st.sampled_from(["1", "2", "9", "10"])),
        st.none(),
    ),
    max_size=14,
)


def answered_at(info: ModelInfo, priority: int, deadline: float) -> float:
    """Made-up times that depend on the name alone; m2 is never served."""
    return math.inf if info.name == "m2" else {"m0": 3.0, "m1": 1.0, "n0": 2.0}[info.name]


class Reference:
    """What is published, as a plain mapping, and the router's rules written as searches through all of it."""

    def __init__(self) -> None:
        self.groups: list[dict[tuple[str, str], ModelInfo]] = []
        self.shadows: set[tuple[str, str]] = set()

    def publish(self, members: Sequence[ModelInfo]) -> None:
        new = {(info.name, info.version): info for info in members}
        self.shadows = {key for key in self.shadows if key not in new}
        if members[0].shadow_rows:
            self.shadows |= new.keys()
        self.groups = [group for group in self.groups if not group.keys() & new.keys()] + [new]

    def retire(self, key: tuple[str, str]) -> bool:
        before = len(self.groups)
        self.groups = [group for group in self.groups if key not in group]
        return len(self.groups) < before

    def infos(self) -> list[ModelInfo]:
        found = [info for group in self.groups for info in group.values()]
        return sorted(found, key=lambda info: (info.name, int(info.version)))

    def offered(self, name: str) -> list[ModelInfo]:
        """The versions that those may get who name none: no shadows, where there is anything else."""
        versions = [info for info in self.infos() if info.name == name]
        return [info for info in versions if (name, info.version) not in self.shadows] or versions[-1:]

    def services(self, task: str) -> list[ModelInfo]:
        names = sorted({info.name for info in self.infos()})
        offered = [info for name in names for info in self.offered(name)]
        newest = {info.name: info for info in offered if info.task == task and info.network}
        return list(newest.values())

    def members(self, task: str, model: str) -> list[ModelInfo]:
        services = self.services(task)
        families = {info.family for info in services}
        if not services:
            return []
        if model in ("", "auto"):
            known = [family for family in PREFERRED if family in families]
            family = known[0] if known else min(families, key=lambda name: (name == "", name))
            found = [info for info in services if info.family == family]
        else:
            exact = [info for info in services if model in (info.network, info.name)]
            found = exact or [info for info in services if info.family == model]
        figure = RANKS.get(task, "top1")
        return sorted(found, key=lambda info: (-max(info.quality.get(figure, 0.0), 0.0), info.name))

    def choose(self, task: str, model: str, deadline: float | None) -> ModelInfo | None:
        members = self.members(task, model)
        if deadline is None or not members:
            return members[0] if members else None
        ends = [(answered_at(info, 1, deadline), info) for info in members]
        return next((info for end, info in ends if end <= deadline), min(ends, key=lambda pair: pair[0])[1])

    def known(self, task: str) -> str:
        services = self.services(task)
        families = sorted({info.family for info in services if info.family})
        return ", ".join(["auto", *families, *sorted(info.network for info in services)])


def refusal(reference: Reference, task: str, model: str) -> str:
    if not reference.services(task):
        return f"no model for {task} is loaded; train or pull one, see 'nonet models list'"
    return f"unknown model '{model}' for {task}; known: {reference.known(task)}"


def check(catalog: Catalog, router: Router, reference: Reference) -> None:
    assert catalog.infos() == reference.infos()
    for name in ("m0", "m1", "m2", "n0"):
        of_name = [info for info in reference.infos() if info.name == name]
        assert catalog.infos(name) == of_name
        assert catalog.versions(name) == [info.version for info in of_name]
        offered = reference.offered(name)
        assert catalog.newest(name) == (offered[-1] if offered else None)
        shadow = of_name and of_name[-1] not in offered
        assert catalog.shadow(name) == (of_name[-1] if shadow else None)
        assert all(catalog.has(name, info.version) for info in of_name)
        assert not catalog.has(name, "7")
        if of_name:
            assert catalog.info(name) == offered[-1]
    for task in TASKS:
        assert list(router.services(task)) == reference.services(task)
        for model, deadline in itertools.product(NAMES, (None, 0.5, 1.5, 2.5)):
            assert list(router.members(task, model)) == reference.members(task, model)
            expected = reference.choose(task, model, deadline)
            if expected is not None:
                assert router.choose(task, model, deadline=deadline) == expected
                continue
            with pytest.raises(ServingError) as refused:
                router.choose(task, model, deadline=deadline)
            assert refused.value.message == refusal(reference, task, model)


@given(changes)
def test_the_index_says_what_a_search_says(steps: list[list[ModelInfo] | tuple[str, str] | None]) -> None:
    """None looks before all has come: orders that were asked for once are kept from then on."""
    catalog, reference = Catalog(), Reference()
    router = Router(catalog, answered_at, PREFERRED, RANKS)
    for step in steps:
        if step is None:
            check(catalog, router, reference)
        elif isinstance(step, list):
            catalog.publish(*map(DoublingServable, step))
            reference.publish(step)
        elif reference.retire(step):
            assert catalog.retire(*step, timeout=5.0)
        else:
            with pytest.raises(NotFound):
                catalog.retire(*step)
    check(catalog, router, reference)
    for info in reference.infos():
        with contextlib.suppress(NotFound):  # went with its group
            catalog.retire(info.name, info.version, timeout=5.0)
    check(catalog, router, Reference())


def service(number: int, *, quality: float = 0.5, **changes: object) -> DoublingServable:
    facts = {"task": "t", "family": "f", "network": f"n{number}", "quality": {"top1": quality}} | changes
    return DoublingServable(doubling_info(f"s{number}", **facts))  # type: ignore[arg-type]


def test_a_figure_that_is_no_number_counts_as_none() -> None:
    catalog = Catalog()
    router = Router(catalog, answered_at, ())
    catalog.publish(service(0, quality=math.nan))
    assert [info.name for info in router.members("t", "f")] == ["s0"]
    for number, quality in enumerate([0.3, math.nan, 0.9, 0.1], start=1):
        catalog.publish(service(number, quality=quality))
    assert [info.name for info in router.members("t", "f")] == ["s3", "s1", "s4", "s0", "s2"]
    for number in range(5):
        catalog.retire(f"s{number}", "1")
        assert f"s{number}" not in [info.name for info in router.members("t", "f")]


def test_a_model_that_is_known_but_not_ready_is_said_to_be() -> None:
    catalog = Catalog()
    router = Router(catalog, answered_at, ())
    catalog.publish(service(0))
    catalog.mark("n7", "1", ModelState.LOADING, "warming up")
    catalog.mark("n7", "2", ModelState.UNAVAILABLE, "broken")
    with pytest.raises(Unavailable, match=r"model 'n7' is not ready \(UNAVAILABLE\): broken"):
        router.choose("t", "n7", deadline=None)
    catalog.forget("n7", "2")
    with pytest.raises(Unavailable, match=r"model 'n7' is not ready \(LOADING\): warming up"):
        router.choose("t", "n7", deadline=None)
    catalog.forget("n7", "1")
    with pytest.raises(NotFound, match="unknown model 'n7' for t; known: auto, f, n0"):
        router.choose("t", "n7", deadline=None)


def test_no_request_falls_between_two_states_of_the_catalog() -> None:
    """While a family is replaced by another and back, ``auto`` always finds one of them."""
    catalog = Catalog()
    router = Router(catalog, answered_at, ("b",))
    catalog.publish(service(0, family="a"))
    stop = threading.Event()

    def change() -> None:
        for turn in itertools.count():
            if stop.is_set():
                return
            catalog.publish(service(0, family="ba"[turn % 2]))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        found = {router.choose("t", "auto", deadline=None).family for _ in range(20_000)}
    finally:
        stop.set()
        thread.join()
    assert found <= {"a", "b"}
