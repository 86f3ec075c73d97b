"""The response cache: exact keys, checked entries, one execution for equal requests in flight."""

from nonet.gateway.cache.entry import decode_entry, encode_entry
from nonet.gateway.cache.key import cache_key
from nonet.gateway.cache.memory import MemoryStore
from nonet.gateway.cache.response_cache import CacheStore, ResponseCache
from nonet.gateway.cache.single_flight import SingleFlight

__all__ = [
    "CacheStore",
    "MemoryStore",
    "ResponseCache",
    "SingleFlight",
    "cache_key",
    "decode_entry",
    "encode_entry",
]
