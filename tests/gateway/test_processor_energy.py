"""Energy that the processor measures, by counters in a folder laid out as the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.gateway.core.records import BatchRecord
from nonet.gateway.metrics.counters import Metrics
from nonet.gateway.metrics.exposition import MetricsPage
from nonet.gateway.metrics.processor_energy import EnergyMeter, PackageCounters, shares
from nonet.runtime.clock import ManualClock

A, B = ("a", "1"), ("b", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two packages with a domain inside each, which is part of it, and something else."""
    for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1", "intel-rapl:1:0", "dtpm"):
        (tmp_path / name).mkdir()
        tell(tmp_path, name, 0)
        (tmp_path / name / "max_energy_range_uj").write_text("1000000000\n")
    return tmp_path


def tell(folder: Path, name: str, microjoules: int) -> None:
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")


def test_packages_are_added_up_over_their_wrap(folder: Path) -> None:
    tell(folder, "intel-rapl:1", 999_000_000)
    counters = PackageCounters(folder)
    tell(folder, "intel-rapl:0", 5_000_000)
    tell(folder, "intel-rapl:0:0", 4_000_000)
    assert counters.joules() == pytest.approx(5.0)
    tell(folder, "intel-rapl:1", 1_000_000)  # it began again
    assert counters.joules() == pytest.approx(7.0)


@pytest.mark.parametrize("broken", ["none", "unreadable", "no number"])
def test_where_it_cannot_be_read_nothing_is_measured(folder: Path, broken: str) -> None:
    if broken == "none":
        folder = folder / "absent"
    elif broken == "unreadable":
        (folder / "intel-rapl:0" / "energy_uj").unlink()
    else:
        (folder / "intel-rapl:0" / "energy_uj").write_text("many")
    with pytest.raises((OSError, ValueError)):
        PackageCounters(folder)


@given(
    st.floats(0, 1e6),
    st.floats(0, 1e4),
    st.integers(1, 64),
    st.dictionaries(st.integers(), st.floats(0, 1e4)),
)
def test_no_more_is_shared_out_than_was_measured(
    joules: float, elapsed: float, lanes: int, busy: dict[int, float]
) -> None:
    found = shares(joules, elapsed, lanes, {(str(key), "1"): value for key, value in busy.items()})
    assert sum(found.values()) <= joules * (1 + 1e-9)


def test_lanes_that_idle_leave_their_part_to_nobody(folder: Path) -> None:
    clock, metrics = ManualClock(), Metrics()
    meter = EnergyMeter(metrics, "cpu", 2, clock, folder)
    metrics.on_batch(batch(A, 3.0))
    meter.on_batch(batch(A, 3.0))
    meter.on_batch(batch(B, 1.0))
    meter.on_batch(batch(B, 50.0, device="remote:x-1"))
    clock.advance(10.0)
    tell(folder, "intel-rapl:0", 100_000_000)
    page = MetricsPage(metrics, lambda: meter.settle() or {}).render()[0].decode()
    assert 'nonet_energy_joules_total{device="cpu",model="a",version="1"} 15.0' in page
    assert 'nonet_energy_joules_total{device="cpu",model="b",version="1"} 5.0' in page


def test_without_a_meter_the_declared_watts_count() -> None:
    metrics = Metrics()
    metrics.on_batch(batch(A, 2.0))
    metrics.on_batch(batch(A, 2.0, device="remote:x-1"))
    page = MetricsPage(metrics, dict).render()[0].decode()
    for device in ("cpu", "remote:x-1"):
        assert f'nonet_energy_joules_total{{device="{device}",model="a",version="1"}} 20.0' in page
        assert f'nonet_cost_total{{device="{device}",model="a",version="1"}} 0.5' in page


def batch(key: tuple[str, str], seconds: float, device: str = "cpu") -> BatchRecord:
    return BatchRecord(*key, device, 1, 1, seconds, failed=False, joules=10.0 * seconds, cost=0.25 * seconds)
