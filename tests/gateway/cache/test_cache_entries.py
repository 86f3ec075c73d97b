"""Entries prove that they are whole and whose they are; the memory store keeps its bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.gateway.cache import MemoryStore, ResponseCache, decode_entry, encode_entry
from nonet.gateway.settings.schema import CacheSettings
from nonet.runtime.clock import ManualClock
from nonet.runtime.requests import InferResponse
from nonet.runtime.tensors import Tensor

KEY = bytes(range(32))
RESPONSE = InferResponse(
    "m",
    "3",
    (
        Tensor.of("scores", np.arange(6, dtype=np.float32).reshape(2, 3)),
        Tensor.of_bytes("labels", [b"", b"apple", b"\x00\xff"], (3, 1)),
        Tensor.of("flags", np.array([True, False])),
    ),
    parameters={"a": 1, "b": "x"},
)


def test_an_entry_comes_back_as_it_went_in() -> None:
    back = decode_entry(KEY, encode_entry(KEY, RESPONSE))
    assert back is not None
    assert (back.model, back.version, dict(back.parameters)) == ("m", "3", {"a": 1, "b": "x"})
    for got, want in zip(back.outputs, RESPONSE.outputs, strict=True):
        assert (got.name, got.datatype, got.shape) == (want.name, want.datatype, want.shape)
        assert got.data.tolist() == want.data.tolist()


@given(st.data())
def test_a_damaged_or_truncated_entry_is_nobodys_answer(data: st.DataObject) -> None:
    entry = encode_entry(KEY, RESPONSE)
    if data.draw(st.booleans()):
        damaged = entry[: data.draw(st.integers(0, len(entry) - 1))]
    else:
        place = data.draw(st.integers(0, len(entry) - 1))
        flip = data.draw(st.integers(1, 255))
        damaged = entry[:place] + bytes([entry[place] ^ flip]) + entry[place + 1 :]
    assert decode_entry(KEY, damaged) is None


async def test_two_requests_that_share_a_slot_never_share_an_answer() -> None:
    cache = ResponseCache(MemoryStore(CacheSettings(), ManualClock()))
    other = KEY[:16] + bytes(16)
    await cache.put(KEY, RESPONSE)
    assert await cache.get(other) is None
    await cache.put(other, RESPONSE)
    assert (await cache.get(other)) is not None


async def test_a_poisoned_entry_is_removed() -> None:
    store = MemoryStore(CacheSettings(), ManualClock())
    cache = ResponseCache(store)
    await store.set(KEY[:16], b"poison" * 20)
    assert await cache.get(KEY) is None
    assert await store.get(KEY[:16]) is None


async def test_entries_end_with_their_time_to_live() -> None:
    clock = ManualClock()
    store = MemoryStore(CacheSettings(ttl=10.0), clock)
    await store.set(b"k", b"v")
    clock.advance(9.9)
    assert await store.get(b"k") == b"v"
    clock.advance(0.1)
    assert await store.get(b"k") is None
    assert store.used_bytes == 0


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["get", "set", "delete"]), st.integers(0, 9), st.integers(0, 900)),
        max_size=60,
    )
)
async def test_the_store_is_a_bounded_lru(steps: list[tuple[str, int, int]]) -> None:
    limits = CacheSettings(max_bytes=3000, max_entry_bytes=1000, ttl=1e9)
    store = MemoryStore(limits, ManualClock())
    model: dict[bytes, bytes] = {}  # in order of use
    for action, slot_number, size in steps:
        slot = bytes([slot_number])
        if action == "get":
            assert await store.get(slot) == model.get(slot)
            if slot in model:
                model[slot] = model.pop(slot)
        elif action == "delete":
            await store.delete(slot)
            model.pop(slot, None)
        else:
            await store.set(slot, bytes(size))
            model.pop(slot, None)
            if size + 200 <= limits.max_entry_bytes:
                model[slot] = bytes(size)
            while sum(len(value) + 200 for value in model.values()) > limits.max_bytes:
                del model[next(iter(model))]
        assert store.used_bytes == sum(len(value) + 200 for value in model.values())
        assert len(store) == len(model)


def test_limits_are_checked_where_they_are_made() -> None:
    with pytest.raises(ValueError, match="ttl"):
        CacheSettings(ttl=0)
