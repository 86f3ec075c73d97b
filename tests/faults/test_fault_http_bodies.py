"""Cases 31-35: bodies that are too large, too small-grained, compressed wrongly, or bombs."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brotli
import httpx
import pytest

from tests.support.bare_sockets import Reply, Wire, gzip_bomb
from tests.support.running_server import RunningServer, assert_refused, running

MIB = 1 << 20
LIMIT = 4 * MIB
INFER = "/v2/models/echo_fp32/infer"
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [2.0]}]}).encode()


@pytest.fixture(scope="module")
def tight(small_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that takes 4 MiB on the wire and 8 MiB decoded."""
    limits = {"server": {"max_body_bytes": LIMIT, "max_decoded_bytes": 2 * LIMIT}}
    with running(small_repository, tmp_path_factory.mktemp("tight"), limits) as started:
        for _ in range(3):
            started.infer("echo_fp32", json.loads(BODY)["inputs"])
        yield started


def head(extra: str, path: str = INFER, version: str = "1.1") -> bytes:
    first = f"POST {path} HTTP/{version}\r\nHost: test\r\n"
    return f"{first}Content-Type: application/json\r\n{extra}\r\n\r\n".encode()


def assert_still_serving(server: RunningServer) -> None:
    assert server.infer("echo_fp32", json.loads(BODY)["inputs"]).status_code == 200


def refusal(reply: Reply) -> tuple[int, Any]:
    return reply.status, reply.json()


@pytest.mark.parametrize("length", [LIMIT + 1, 10 << 30, 10**30])
def test_case_31_an_announced_oversize_is_413_before_a_byte_of_it_is_sent(
    tight: RunningServer, length: int
) -> None:
    with Wire(tight.http_port) as wire:
        wire.send(head(f"Content-Length: {length}"))
        reply = wire.reply()
    assert reply.status in ((413,) if length < 10**30 else (400, 413))
    assert_still_serving(tight)


@pytest.mark.parametrize("path", [INFER, "/v1/classify", "/v2/models/absent/infer"])
def test_case_31_a_chunked_body_is_cut_at_the_limit_and_memory_is_bounded(
    tight: RunningServer, path: str
) -> None:
    before, sent, piece = tight.rss(), 0, b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with Wire(tight.http_port) as wire:
        wire.send(head("Transfer-Encoding: chunked", path))
        while sent < 64 * MIB and not wire.has_answer() and wire.try_send(piece):
            sent += len(piece)
        assert sent < 32 * MIB, "the server went on reading far beyond its limit"
        assert wire.reply().status in (404, 413)
    assert tight.rss() - before < 24 * MIB
    assert_still_serving(tight)


def test_case_31_a_body_with_an_honest_length_over_the_limit_is_413(tight: RunningServer) -> None:
    before = tight.rss()
    for _ in range(5):
        with Wire(tight.http_port) as wire:
            wire.send(head(f"Content-Length: {16 * MIB}"))
            wire.try_send(bytes(16 * MIB))
            with contextlib.suppress(ConnectionError):  # a reset may overtake the answer under our sending
                assert wire.reply().status == 413
    assert tight.rss() - before < 24 * MIB
    assert_still_serving(tight)


def test_case_31_a_body_without_length_is_not_taken_for_an_endless_one(tight: RunningServer) -> None:
    """HTTP/1.0 style: no Content-Length, the body ends with the connection. RFC 9112: then there is none."""
    with Wire(tight.http_port) as wire:
        wire.send(head("X-Nothing: 1", version="1.0"))
        reply = wire.reply()
    assert reply.status in (400, 411)
    assert_still_serving(tight)


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "0x10", "5, 6", ""])
def test_case_31_a_content_length_that_is_no_number_is_400(tight: RunningServer, length: str) -> None:
    with Wire(tight.http_port) as wire:
        wire.send(head(f"Content-Length: {length}") + b"12345")
        assert wire.reply().status == 400


def test_request_smuggling_both_lengths_at_once_is_400(tight: RunningServer) -> None:
    with Wire(tight.http_port) as wire:
        wire.send(head("Content-Length: 5\r\nTransfer-Encoding: chunked") + b"0\r\n\r\n")
        reply = wire.reply()
        assert reply.status == 400


def test_case_32_a_million_tiny_chunks_are_refused_and_memory_stays_flat(tight: RunningServer) -> None:
    def feed(wire: Wire) -> None:
        piece = b"1\r\n \r\n" * 10_000
        for _ in range(100):
            if wire.has_answer() or not wire.try_send(piece):
                return
        wire.try_send(b"0\r\n\r\n")

    growth = []
    for _ in range(2):
        before = tight.rss()
        with Wire(tight.http_port) as wire:
            wire.send(head("Transfer-Encoding: chunked"))
            feed(wire)
            with contextlib.suppress(ConnectionError):  # a reset may overtake the answer under our sending
                assert wire.reply().status in (400, 413)
        growth.append(tight.rss() - before)
    assert growth[0] < 24 * MIB
    assert growth[1] < 8 * MIB, f"memory grew again: {growth}"
    assert_still_serving(tight)


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"5\r\nabcdefgh\r\n"])
def test_case_32_a_malformed_chunk_is_400_or_413(tight: RunningServer, chunk: bytes) -> None:
    with Wire(tight.http_port) as wire:
        wire.send(head("Transfer-Encoding: chunked") + chunk)
        assert wire.reply().status in (400, 413)
    assert_still_serving(tight)


def post(server: RunningServer, content: bytes, encoding: str, path: str = INFER) -> httpx.Response:
    return server.http.post(
        path, content=content, headers={"Content-Encoding": encoding, "Content-Type": "application/json"}
    )


PACK = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}


@pytest.mark.parametrize("encoding", PACK)
def test_case_33_compressed_bodies_are_served(server: RunningServer, encoding: str) -> None:
    reply = post(server, PACK[encoding](BODY), encoding)
    assert reply.status_code == 200, reply.text
    assert reply.json()["outputs"][0]["data"] == [2.0]


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("kind", ["noise", "plain", "cut", "tail", "empty"])
def test_case_33_a_body_that_is_not_what_its_encoding_says_is_400(
    server: RunningServer, encoding: str, kind: str
) -> None:
    whole = PACK[encoding](BODY)
    content = {
        "noise": random.Random(1).randbytes(500),
        "plain": BODY,
        "cut": whole[: len(whole) // 2],
        "tail": whole + b"garbage after the end",
        "empty": b"",
    }[kind]
    assert_refused(post(server, content, encoding), 400)


@pytest.mark.parametrize("path", [INFER, "/v1/classify"])
def test_case_34_a_gzip_bomb_is_413_at_the_decoded_limit(tight: RunningServer, path: str) -> None:
    pieces, decoded = gzip_bomb(MIB)
    assert decoded > 100 * 2 * LIMIT
    before = tight.rss()
    assert_refused(post(tight, b"".join(pieces), "gzip", path), 413)
    assert tight.rss() - before < 32 * MIB
    assert_still_serving(tight)


@pytest.mark.parametrize("encoding", ["deflate", "br"])
def test_case_34_other_bombs_are_413_too(tight: RunningServer, encoding: str) -> None:
    if encoding == "br":
        packer = brotli.Compressor(quality=1)
        bomb = b"".join([packer.process(bytes(MIB)) for _ in range(256)]) + packer.finish()
    else:
        bomb = zlib.compress(bytes(256 * MIB), 1)
    assert len(bomb) < LIMIT
    before = tight.rss()
    assert_refused(post(tight, bomb, encoding), 413)
    assert tight.rss() - before < 32 * MIB
    assert_still_serving(tight)


def test_case_34_a_bomb_in_many_gzip_members_is_413(tight: RunningServer) -> None:
    assert_refused(post(tight, gzip.compress(bytes(MIB)) * 200, "gzip"), 413)
    assert_still_serving(tight)


@pytest.mark.parametrize("encoding", ["zstd", "compress", "x-unknown", "gzip, zstd", "aes128gcm"])
def test_case_35_an_unknown_content_encoding_is_415(server: RunningServer, encoding: str) -> None:
    assert_refused(post(server, BODY, encoding), 415, "gzip")


def test_case_35_identity_is_no_encoding(server: RunningServer) -> None:
    assert post(server, BODY, "identity").status_code == 200


def test_compressed_answers_are_given_to_who_asks(server: RunningServer) -> None:
    """``tritonclient`` asks with ``response_compression_algorithm``; httpx decodes what it gets."""
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 4000], "data": [1.0] * 4000}]
    for encoding in ("gzip", "deflate"):
        reply = server.infer("echo_fp32", inputs, headers={"Accept-Encoding": encoding})
        assert reply.headers.get("Content-Encoding") in (encoding, None)
        assert reply.json()["outputs"][0]["data"] == [1.0] * 4000
