"""The form parser: what it accepts, what it refuses, and that it agrees with another parser."""

from __future__ import annotations

import email.parser
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.gateway.tasks.multipart import MAX_PARTS, Part, boundary_of, parse_form
from nonet.runtime.errors import InvalidArgument, PayloadTooLarge

BOUNDARY = b"frontier"


def form(*parts: tuple[str, bytes], boundary: bytes = BOUNDARY) -> bytes:
    lines = b"".join(
        b"--" + boundary + b"\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts
    )
    return lines + b"--" + boundary + b"--\r\n"


def field(name: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"'


def test_fields_and_files_in_order() -> None:
    body = form(
        (field("model"), b"auto"),
        (
            field("image") + '; filename="a \\"b\\" c.jpg"\r\nContent-Type: image/JPEG; q=1',
            b"\xff\xd8\r\n--\r\n",
        ),
    )
    assert parse_form(body, BOUNDARY) == [
        Part("model", None, "", b"auto"),
        Part("image", 'a "b" c.jpg', "image/jpeg", b"\xff\xd8\r\n--\r\n"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"--frontier--",
        b"--frontier--\r\n",
        b"\r\n--frontier--  \r\n",
    ],
)
def test_an_empty_form_has_no_parts(body: bytes) -> None:
    assert parse_form(body, BOUNDARY) == []


def test_blanks_after_a_boundary_and_empty_data_are_fine() -> None:
    body = b"--frontier \t\r\n" + field("a").encode() + b"\r\n\r\n\r\n--frontier--"
    assert parse_form(body, BOUNDARY) == [Part("a", None, "", b"")]
    body = b"--frontier\r\n" + field("a").encode() + b"\r\n\r\n--frontier--"
    assert parse_form(body, BOUNDARY) == [Part("a", None, "", b"")]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "start"),
        (b"preamble\r\n--frontier--", "start"),
        (b"--frontier", "line of its own"),
        (b"--frontierX\r\n\r\n", "line of its own"),
        (b"--frontier" + b" " * 1000 + b"\r\n", "line of its own"),
        (b"--frontier\r\n\r\ndata\r\n--frontier--", "no Content-Disposition"),
        (b"--frontier\r\nContent-Type: a/b\r\n\r\ndata\r\n--frontier--", "no Content-Disposition"),
        (b"--frontier\r\n" + field("a").encode(), "do not end"),
        (b"--frontier\r\n" + field("a").encode() + b"\r\n\r\ndata", "closing boundary is missing"),
        (b"--frontier\r\n" + field("").encode() + b"\r\n\r\ndata\r\n--frontier--", "with a name"),
        (b"--frontier\r\nno colon\r\n\r\ndata\r\n--frontier--", "without a name"),
        (form((field("a"), b"x\r\n--frontierish")), "line of its own"),
        (form((field("a"), b"x")) + b"epilogue", "follows the closing"),
        (form((field("a") + "\r\n" + field("b"), b"x")), "repeats a header"),
        (form((field("a") + '; name="b"', b"x")), "repeats a parameter"),
        (form((field("a") + '; filename="', b"x")), "cannot be read"),
        (form((field("a") + "\r\nContent-Transfer-Encoding: base64", b"x")), "Content-Transfer-Encoding"),
    ],
)
def test_a_malformed_form_is_refused_with_the_reason(body: bytes, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        parse_form(body, BOUNDARY)


@pytest.mark.parametrize(
    "body",
    [
        form(*[(field("a"), b"")] * (MAX_PARTS + 1)),
        form((field("a") + "\r\nX-Long: " + "b" * 10_000, b"")),
        form((field("a") + "".join(f"\r\nX-{number}: b" for number in range(20)), b"")),
    ],
)
def test_a_form_over_a_limit_is_too_large(body: bytes) -> None:
    with pytest.raises(PayloadTooLarge):
        parse_form(body, BOUNDARY)


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; boundary="a b:c"', b"a b:c"),
        ("multipart/form-data; charset=utf-8; Boundary=x-1", b"x-1"),
    ],
)
def test_the_boundary_is_found(header: str, boundary: bytes) -> None:
    assert boundary_of(header) == boundary


@pytest.mark.parametrize(
    "header",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "a" * 71,
        'multipart/form-data; boundary="a\\"b"',
        "multipart/form-data; boundary=a; boundary=b",
    ],
)
def test_a_wrong_boundary_is_refused(header: str) -> None:
    with pytest.raises(InvalidArgument):
        boundary_of(header)


@given(st.lists(st.tuples(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.binary(max_size=64)), max_size=6))
def test_what_was_put_in_comes_out(fields: list[tuple[str, bytes]]) -> None:
    body = form(*[(field(name), data) for name, data in fields])
    assert [(part.name, part.data) for part in parse_form(body, BOUNDARY)] == fields


fragments = st.lists(
    st.sampled_from(
        [
            b"--frontier",
            b"--frontier--",
            b"\r\n",
            b"\n",
            b"--",
            b" ",
            b":",
            b"Content-Disposition: form-data; name=a",
            b'Content-Disposition: form-data; name="b"; filename="c"',
            b"Content-Type: image/png",
            b"data",
            b"\x00\xff",
            b";",
            b'"',
        ]
    ),
    max_size=24,
).map(b"".join)


@given(fragments)
def test_no_body_does_anything_but_parse_or_be_refused(body: bytes) -> None:
    try:
        parts = parse_form(body, BOUNDARY)
    except (InvalidArgument, PayloadTooLarge):
        return
    # Whatever is accepted, the standard library's parser of MIME reads the same.
    head = b"Content-Type: multipart/form-data; boundary=frontier\r\n\r\n"
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    assert message.is_multipart() == bool(parts)
    if parts:
        # That parser ends lines at a bare \n too, so it may find boundaries where RFC 2046 sees none.
        theirs = [part.get_param("name", header="content-disposition") for part in message.iter_parts()]
        if b"\n" not in body.replace(b"\r\n", b""):
            assert theirs == [part.name for part in parts]


@given(st.text(max_size=80))
def test_no_content_type_does_anything_but_parse_or_be_refused(header: str) -> None:
    try:
        boundary_of("multipart/form-data;" + header)
    except InvalidArgument:
        return
