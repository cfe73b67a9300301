"""Which encoding a list is read in, and what is said about it."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from bulkmail.recipients.streams import choose, open_text

Read = Callable[..., "ReadList"]  # noqa: F821  (of conftest.py)


def chosen(raw: bytes, wanted: str = "") -> tuple[str, list[str]]:
    notices: list[str] = []
    stream = io.BytesIO(raw)
    encoding = choose(stream, name="list.csv", wanted=wanted, notices=notices)
    assert stream.tell() == 0
    return encoding, notices


@pytest.mark.parametrize(
    ("raw", "wanted", "encoding"),
    [
        pytest.param(b"", "", "utf-8", id="empty"),
        pytest.param(b"email", "", "utf-8", id="ascii"),
        pytest.param("Zoë".encode(), "", "utf-8", id="utf-8"),
        pytest.param("Zoë".encode("utf-8-sig"), "", "utf-8-sig", id="utf-8-mark"),
        pytest.param("Zoë".encode("utf-8-sig"), "UTF8", "utf-8-sig", id="utf-8-mark-and-said"),
        pytest.param("Zoë".encode("utf-16"), "", "utf-16", id="utf-16-mark"),
        pytest.param("Zoë".encode("utf-16"), "utf-16-le", "utf-16", id="utf-16-mark-and-said"),
        pytest.param("Zoë".encode("utf-32"), "", "utf-32", id="utf-32-mark"),
        pytest.param("Zoë".encode("cp1250"), "cp1250", "cp1250", id="said"),
        pytest.param("日本".encode("shift_jis"), "Shift-JIS", "shift_jis", id="said-otherwise"),
        pytest.param("日本".encode("iso2022_jp"), "iso2022_jp", "iso2022_jp", id="said-and-all-ascii"),
        pytest.param("ab".encode("utf-16-le"), "utf-16-le", "utf-16-le", id="said-utf-16-without-mark"),
        pytest.param(b"Zo\xc3", "utf-8", "utf-8", id="said-utf-8-and-is-not"),
    ],
)
def test_encoding_is_chosen_without_a_notice(raw: bytes, wanted: str, encoding: str) -> None:
    assert chosen(raw, wanted) == (encoding, [])


@pytest.mark.parametrize(
    ("raw", "encoding", "notice"),
    [
        pytest.param(
            "Zoë".encode("utf-8-sig"),
            "utf-8-sig",
            "list.csv begins with a mark that says UTF-8; cp1252 was not used",
            id="mark",
        ),
        pytest.param("Zoë".encode(), "utf-8", "list.csv is UTF-8 throughout; cp1252 was not used", id="utf-8"),
    ],
)
def test_named_encoding_that_is_wrong_is_noticed(raw: bytes, encoding: str, notice: str) -> None:
    assert chosen(raw, "cp1252") == (encoding, [notice])


@pytest.mark.parametrize("before", [0, 1, 2**20 - 30, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_affected_value_is_shown_wherever_it_is(before: int) -> None:
    lines = before // 100
    raw = (b"x" * 99 + b"\n") * lines + b"y" * (before % 100) + b";M\xfcller & S\xf6hne;z\n"
    encoding, notices = chosen(raw)
    assert encoding == "cp1252"
    assert notices == [
        f"list.csv is not UTF-8; it was read as cp1252 (Windows, Western Europe): line {lines + 1} has "
        "'Müller & Söhne'. If that looks wrong, name the encoding with --encoding"
    ]


@pytest.mark.parametrize(
    ("raw", "line", "value"),
    [
        pytest.param(b"a\rb\rM\xfc\r", 3, "Mü", id="cr-only"),
        pytest.param(b'a\r\n"x, M\xfc"\r\n', 2, "Mü", id="quoted"),
        pytest.param(b"Zo\xc3", 1, "ZoÃ", id="cut-short"),
        pytest.param(b"x" * 2**20 + b"," + b"\xfc" + b"y" * 500, 1, "ü" + "y" * 58 + "…", id="long-value"),
        pytest.param(b"\x81\xfc", 1, "�ü", id="not-even-cp1252"),
        pytest.param(b"x" * 2**20 + b",M\xc3\xa4r\xe9", 1, "MÃ¤ré", id="mixed"),
    ],
)
def test_affected_value_is_cut_out(raw: bytes, line: int, value: str) -> None:
    _, (notice,) = chosen(raw)
    said = notice.partition(f"line {line} has '")[2].partition("'. If")[0]
    assert said == value


def test_undecodable_bytes_do_not_stop_decoding() -> None:
    text = open_text(io.BytesIO(b"a\x81b\xfc"), "cp1252", newline="").read()
    assert text == "a\udc81bü"


def test_undecodable_end_of_utf_16_does_not_stop_decoding() -> None:
    text = open_text(io.BytesIO("ab".encode("utf-16-le") + b"c"), "utf-16-le", newline="").read()
    assert text == "ab\udc63"


def test_text_that_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        "é".encode("ascii", "bulkmail.mark")


def test_row_with_an_byte_that_cp1252_lacks_is_bad(read: Read) -> None:
    people = read(b"email,name\na@x.org,M\xfcller\nb@x.org,\x81\n")
    assert people.people[0].name == "Müller"
    assert people.bad == ["list.csv:3: the cell in column 'name' has a byte (0x81) that its encoding does not have"]


def test_named_encoding_is_used_for_json_lines(read: Read) -> None:
    line = '{"email": "a@x.org", "name": "Müller"}\n'
    people = read(line.encode("cp1252") * 2, "l.jsonl", encoding="cp1252")
    assert [person.name for person in people.people] == ["Müller", "Müller"]


def test_json_in_cp1252_is_read_with_a_notice(read: Read) -> None:
    people = read('[{"email": "a@x.org", "name": "Müller"}]'.encode("cp1252"), "l.json")
    assert people.people[0].name == "Müller"
    assert "line 1 has 'Müller'" in people.notices[0]


def test_odd_byte_in_json_makes_its_row_bad(read: Read) -> None:
    people = read(b'[{"email": "a@x.org", "name": "M\x81\xfc"}, {"email": "b@x.org"}]', "l.json")
    assert people.bad == ["l.json:1: the field 'name' has a byte (0x81) that its encoding does not have"]
    assert people.addresses == ["b@x.org"]
