"""Forms: what is read of them, what is refused, in pieces of any size, and as another parser reads them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.gateway.tasks.forms import MAX_PARTS, Form, FormFile, FormReader, boundary_of
from nonet.runtime.errors import InvalidArgument, PayloadTooLarge

BOUNDARY = b"frontier"


def form(*parts: tuple[str, bytes], boundary: bytes = BOUNDARY) -> bytes:
    lines = b"".join(
        b"--" + boundary + b"\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts
    )
    return lines + b"--" + boundary + b"--\r\n"


def field(name: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"'


def parse_form(body: bytes, step: int = 1 << 20) -> tuple[Form, bytes]:
    """A form whose file is ``image``, read in pieces of ``step`` bytes."""
    data = bytearray()

    def write(piece: bytearray) -> None:
        nonlocal data
        data += piece

    reader = FormReader(
        BOUNDARY.decode(),
        files={"image": write},
        check=lambda name: None,
        longest=1000,
        too_long=lambda name: InvalidArgument(f"{name} is too long", param=name),
    )
    for start in range(0, len(body), step):
        reader.feed(body[start : start + step])
    return reader.end(), bytes(data)


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_fields_and_the_file(step: int) -> None:
    body = form(
        (field("model"), b"auto"),
        (
            field("image") + '; filename="a.jpg"\r\nContent-Type: image/JPEG; q=1',
            b"\xff\xd8\r\n--\r\n",
        ),
        (field("top_k"), b"\xe2\x82\xac"),
    )
    read, data = parse_form(body, step)
    assert read.fields == [("model", "auto"), ("top_k", "\u20ac")]
    assert data == b"\xff\xd8\r\n--\r\n"
    assert read.files == {"image": FormFile(1, "a.jpg", False, len(data))}


def test_a_file_without_a_name_or_type_is_a_plain_field() -> None:
    read, data = parse_form(form((field("image"), b"data:")))
    assert (read.files["image"].plain, data) == (True, b"data:")


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_each_of_several_files_goes_where_it_belongs(step: int) -> None:
    body = form(
        (field("second") + '; filename="b.png"', b"two\r\n"),
        (field("model"), b"auto"),
        (field("first") + '; filename="a.png"', b"one"),
    )
    found: dict[str, bytearray] = {"first": bytearray(), "second": bytearray()}
    reader = FormReader(
        BOUNDARY.decode(),
        files={name: data.extend for name, data in found.items()},
        check=lambda name: None,
        longest=1000,
        too_long=lambda name: InvalidArgument(f"{name} is too long", param=name),
    )
    for start in range(0, len(body), step):
        reader.feed(body[start : start + step])
    read = reader.end()
    assert found == {"first": b"one", "second": b"two\r\n"}
    assert read.files == {"first": FormFile(1, "a.png", False, 3), "second": FormFile(1, "b.png", False, 5)}
    assert read.fields == [("model", "auto")]


@pytest.mark.parametrize("body", [b"--frontier--", b"--frontier--\r\n", b"\r\n--frontier--  \r\n"])
def test_an_empty_form_has_no_parts(body: bytes) -> None:
    assert parse_form(body) == (Form({"image": FormFile()}), b"")


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_what_stands_before_and_after_a_form_is_passed_over(step: int) -> None:
    """RFC 2046: a preamble and an epilogue mean nothing."""
    body = b"a preamble\r\n" + form((field("a"), b"x")) + b"an epilogue"
    assert parse_form(body, step)[0].fields == [("a", "x")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        b"--frontier",
        b"--frontierX\r\n\r\n",
        b"--frontier\r\n\r\ndata\r\n--frontier--",
        b"--frontier\r\nContent-Type: a/b\r\n\r\ndata\r\n--frontier--",
        b"--frontier\r\n" + field("a").encode(),
        b"--frontier\r\n" + field("a").encode() + b"\r\n\r\ndata",
        b"--frontier\r\n" + field("").encode() + b"\r\n\r\ndata\r\n--frontier--",
        b"--frontier\r\nno colon\r\n\r\ndata\r\n--frontier--",
    ],
)
def test_a_malformed_form_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidArgument, match="malformed") as refused:
        parse_form(body)
    assert refused.value.code == "MALFORMED_FORM"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (form((field("a") + "\r\nContent-Transfer-Encoding: base64", b"x")), "Content-Transfer-Encoding"),
        (form((field("a"), b"\xff")), "UTF-8"),
        (form((field("a"), b"x" * 1001)), "too long"),
    ],
)
def test_a_field_that_cannot_be_one_is_refused_by_name(body: bytes, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why) as refused:
        parse_form(body)
    assert refused.value.param == "a"


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
        parse_form(body)


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/form-data; boundary=abc", "abc"),
        ('multipart/form-data; boundary="a b:c"', "a b:c"),
        ("multipart/form-data; charset=utf-8; Boundary=x-1", "x-1"),
    ],
)
def test_the_boundary_is_found(header: str, boundary: str) -> None:
    assert boundary_of(header) == boundary


@pytest.mark.parametrize(
    "header",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "a" * 71,
    ],
)
def test_a_wrong_boundary_is_refused(header: str) -> None:
    with pytest.raises(InvalidArgument):
        boundary_of(header)


@given(
    st.lists(st.tuples(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(max_size=64)), max_size=6),
    st.binary(max_size=300).filter(lambda data: b"frontier" not in data),
    st.integers(1, 64),
)
def test_what_was_put_in_comes_out(fields: list[tuple[str, str]], data: bytes, step: int) -> None:
    fields = [(name, text) for name, text in fields if name != "image" and "frontier" not in text]
    parts = [(field(name), text.encode()) for name, text in fields]
    body = form(*parts, (field("image") + '; filename="f"', data))
    read, found = parse_form(body, step)
    assert (read.fields, found, read.files["image"].count) == (fields, data, 1)


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
        whole = parse_form(body)
    except (InvalidArgument, PayloadTooLarge):
        return
    assert parse_form(body, 1)[0].files == whole[0].files


@given(st.text(max_size=80))
def test_no_content_type_does_anything_but_parse_or_be_refused(header: str) -> None:
    try:
        boundary_of("multipart/form-data;" + header)
    except InvalidArgument:
        return


@pytest.mark.parametrize("step", [1, 2, 3, 11, 1 << 20])
def test_delimiter_lines_as_rfc_2046_allows_them(step: int) -> None:
    """Text before and after, blanks behind the boundary, content with lines that only begin like one."""
    data = b"\r\n--frontier-\r\n--frontierX\r\n--frontier \t x\r\n--frontier\r--front"
    plain = form(
        (field("a"), data), (field("image"), data), (field("b"), b"\r\n--frontier\r"), (field("c"), b"x")
    )
    around = b"This is a multi-part message.\r\n--frontier?\r\n\r\n"
    body = around + plain.replace(b"--frontier\r\n", b"--frontier \t \r\n").replace(
        b"r--\r\n", b"r-- \r\nbye\r\n--frontier\r\n"
    )
    read, file = parse_form(body, step)
    assert read.fields == [("a", data.decode()), ("b", "\r\n--frontier\r"), ("c", "x")]
    assert file == data


@given(
    contents=st.lists(
        st.lists(
            st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--frontier", b"x", b" "]), max_size=12
        ).map(b"".join),
        min_size=1,
        max_size=4,
    ),
    blanks=st.sampled_from([b"", b" ", b"\t  \t"]),
    preamble=st.sampled_from([b"", b"\r\n", b"--\r\n", b"--frontierx\r\n", b"\r\r\n"]),
    step=st.integers(1, 60),
)
def test_any_content_comes_through_between_any_delimiters(
    contents: list[bytes], blanks: bytes, preamble: bytes, step: int
) -> None:
    contents = [each for each in contents if not _ends_a_part(each)]
    parts = [
        b"--frontier" + blanks + b"\r\n" + field("a").encode() + b"\r\n\r\n" + each + b"\r\n"
        for each in contents
    ]
    body = preamble + b"".join(parts) + b"--frontier--" + blanks + b"\r\n and more"
    assert [text.encode() for _, text in parse_form(body, step)[0].fields] == contents


def _ends_a_part(content: bytes) -> bool:
    """Whether a delimiter line is in it, or would be with the line end behind it."""
    return re.search(rb"\r\n--frontier(--|[ \t]*\r\n)", b"\r\n" + content + b"\r\n") is not None


@pytest.mark.parametrize(
    ("parameters", "boundary"),
    [
        ("boundary=*****", "*****"),
        ("boundary=----=_Part_7_1.2", "----=_Part_7_1.2"),
        ('boundary="----=_Part_7_1.2"', "----=_Part_7_1.2"),
        ("boundary=(x)/y:z?q=,+_'", "(x)/y:z?q=,+_'"),
        ('Boundary = "a b;c"; charset=utf-8', "a b;c"),
        ('charset="x; boundary=no"; boundary=yes', "yes"),
        ('boundary="a\\"b"', 'a"b'),
        ("boundary=same; boundary=same", "same"),
        ("boundary=<>@[]~^", "<>@[]~^"),
    ],
)
def test_boundaries_as_senders_write_them(parameters: str, boundary: str) -> None:
    assert boundary_of(f"multipart/form-data; {parameters}") == boundary


@pytest.mark.parametrize(
    "parameters",
    [
        "",
        "boundary=",
        'boundary=""',
        "boundary=a; boundary=b",
        "boundary=" + "x" * 71,
        "boundary=\xe4",
        'boundary="a "',
    ],
)
def test_boundaries_that_are_none_are_refused(parameters: str) -> None:
    with pytest.raises(InvalidArgument, match="boundary"):
        boundary_of(f"multipart/form-data; {parameters}")
