"""Cache entries as bytes: what any store keeps, and what proves that it came back whole.

Layout: 32 bytes request digest, 16 bytes BLAKE2b of the rest, 4 bytes header length (little-endian), header
as JSON (version, names, types, shapes, byte lengths), then the outputs' bytes one after the other. BYTES
outputs are elements each preceded by a 4-byte length, as on the protocol's wire.
"""

from __future__ import annotations

import hashlib

import numpy as np
import orjson

from nonet.gateway.cache.key import CacheKey
from nonet.runtime.requests import InferResponse
from nonet.runtime.tensors import DataType, Tensor

_DIGEST, _CHECKSUM, _LENGTH = 32, 16, 4


def encode_entry(key: CacheKey, response: InferResponse) -> bytes:
    """``response`` as an entry for ``key``."""
    described, parts = [], []
    for tensor in response.outputs:
        if tensor.datatype is DataType.BYTES:
            part = b"".join(
                len(element).to_bytes(4, "little") + element for element in tensor.data.reshape(-1).tolist()
            )
        else:
            part = tensor.data.tobytes()
        described.append([tensor.name, tensor.datatype.value, list(tensor.shape), len(part)])
        parts.append(part)
    header = orjson.dumps([response.model, response.version, dict(response.parameters), described])
    body = b"".join([len(header).to_bytes(_LENGTH, "little"), header, *parts])
    return key.digest + _checksum(body) + body


def decode_entry(key: CacheKey, entry: bytes) -> InferResponse | None:
    """The response in ``entry``; None if the entry is another request's, truncated or altered."""
    if entry[:_DIGEST] != key.digest:
        return None
    body = memoryview(entry)[_DIGEST + _CHECKSUM :]
    if _checksum(body) != entry[_DIGEST : _DIGEST + _CHECKSUM]:
        return None
    start = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
    model, version, parameters, described = orjson.loads(body[_LENGTH:start])
    outputs = []
    for name, datatype_name, shape, size in described:
        datatype = DataType(datatype_name)
        part = body[start : start + size]
        start += size
        if datatype is DataType.BYTES:
            outputs.append(Tensor.of_bytes(name, _elements(part), tuple(shape)))
        else:
            array = np.frombuffer(part, dtype=datatype.numpy).reshape(shape)
            outputs.append(Tensor(name, datatype, array))
    return InferResponse(model, version, tuple(outputs), parameters=parameters)


def _elements(part: memoryview) -> list[bytes]:
    elements, place = [], 0
    while place < len(part):
        size = int.from_bytes(part[place : place + 4], "little")
        elements.append(bytes(part[place + 4 : place + 4 + size]))
        place += 4 + size
    return elements


def _checksum(body: bytes | memoryview) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM).digest()
