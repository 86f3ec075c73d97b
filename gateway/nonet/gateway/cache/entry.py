"""Cache entries as bytes: what any store keeps, and what proves that it came back whole.

Layout: 32 bytes request digest, 16 bytes BLAKE2b of the rest, 4 bytes header length (little-endian), header
as JSON (version, names, types, shapes, byte lengths), then the outputs one after the other in the raw form of
the protocol (:mod:`nonet.runtime.oip.raw`).
"""

from __future__ import annotations

import hashlib

import orjson

from nonet.runtime.oip import raw
from nonet.runtime.requests import InferResponse
from nonet.runtime.tensors import DataType, Tensor

_DIGEST, _CHECKSUM, _LENGTH = 32, 16, 4


def encode_entry(key: bytes, response: InferResponse) -> bytes:
    """``response`` as an entry for ``key``."""
    parts = [raw.encode(tensor.datatype, tensor.data) for tensor in response.outputs]
    described = [
        [tensor.name, tensor.datatype.value, list(tensor.shape), len(part)]
        for tensor, part in zip(response.outputs, parts, strict=True)
    ]
    header = orjson.dumps([response.model, response.version, dict(response.parameters), described])
    body = b"".join([len(header).to_bytes(_LENGTH, "little"), header, *parts])
    return key + _checksum(body) + body


def decode_entry(key: bytes, entry: bytes) -> InferResponse | None:
    """The response in ``entry``; None if the entry is another request's, truncated or altered."""
    if entry[:_DIGEST] != key:
        return None
    body = memoryview(entry)[_DIGEST + _CHECKSUM :]
    if _checksum(body) != entry[_DIGEST : _DIGEST + _CHECKSUM]:
        return None
    start = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
    model, version, parameters, described = orjson.loads(body[_LENGTH:start])
    outputs = []
    for name, datatype, shape, size in described:
        array = raw.decode(body, start, size, DataType(datatype), tuple(shape), name, "outputs")
        outputs.append(Tensor(name, DataType(datatype), array))
        start += size
    return InferResponse(model, version, tuple(outputs), parameters=parameters)


def _checksum(body: bytes | memoryview) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM).digest()
