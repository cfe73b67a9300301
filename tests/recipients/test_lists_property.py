"""Properties of every list there can be, found out with generated ones."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkmail.model.errors import ListError
from bulkmail.model.recipient import BadRow, Recipient, has_control
from bulkmail.recipients.csv_reader import CellReader, RowFault
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.recipients.list_source import open_list
from bulkmail.recipients.screening import Suppression

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
CELLS = st.text(CHARACTERS, max_size=8) | st.text('",;\t|\n\r x', max_size=8)
# A row of one blank cell is a blank line, which is no row.
ROWS = st.lists(st.lists(CELLS, min_size=2, max_size=4).filter(any), max_size=6)

TOKENS = st.sampled_from(
    [
        *[b'"', b'""', b",", b";", b"\n", b"\r\n", b"\r", b"\t", b"|", b" ", b"\0", b"\x1b[2J", b"#", b"@", b"<", b">"],
        *[b"a@x.org", b"email", b"name", b"delivery_status", b"accepted", b"sep=;", b"1", b"1e999", b"NaN", b"null"],
        *[b"{", b"}", b"[", b"]", b":", b'"email":"a@x.org"', b'{"email":"a@x.org"}', b'"recipients":[', b"\\ud800"],
        *[b"\\u0000", b"\xfc", b"\x81", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", "ü\u2028\x85".encode(), b"\x1c"],
    ]
)
BEGINNINGS = st.sampled_from(
    [
        *[b"", b"email,name\n", b"email;name\r\n", b"email\n", b'[{"email":"a@x.org"},', b'{"email":"a@x.org"}\n'],
        *[b'{"recipients":[{"email":"a@x.org"},', "email,name\n".encode("utf-16"), b"PK\x03\x04", b"\x1f\x8b"],
    ]
)
NAMES = st.sampled_from(["l.csv", "l.tsv", "l.json", "l.jsonl", "l", "l.txt.gz", "l.xlsx"])
ENCODINGS = st.sampled_from(["", "", "utf-8", "cp1252", "utf-16-le", "shift_jis", "iso2022_jp", "utf-7"])


@pytest.mark.slow
@given(rows=ROWS, delimiter=st.sampled_from(",;\t|"), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_cells_come_back_as_the_csv_module_wrote_them(
    rows: list[list[str]], delimiter: str, quoting: csv._QuotingType
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows(rows)
    text.seek(0)
    read = list(CellReader(text, delimiter).rows())
    assert [cells for _, cells, _ in read] == rows
    assert {trouble for _, _, trouble in read} <= {RowFault.NONE}


@given(text=st.text(st.sampled_from('",x\n'), max_size=60))
def test_every_line_of_text_is_in_some_row(text: str) -> None:
    """Whatever quotes do, the rows follow each other without a gap, and no line is read twice."""
    reader = CellReader(io.StringIO(text, newline=""), ",")
    spans = [(line, reader.line) for line, _, _ in reader.rows()]
    lines = len(text.splitlines())
    assert [line for first, last in spans for line in range(first, last + 1)] == list(range(1, lines + 1))


@given(text=st.text(st.sampled_from('",x\n'), max_size=60))
def test_text_without_open_quotes_is_read_as_the_csv_module_reads_it(text: str) -> None:
    rows = [(cells, trouble) for _, cells, trouble in CellReader(io.StringIO(text, newline=""), ",").rows()]
    if all(trouble is RowFault.NONE for _, trouble in rows):
        expected = [row or [""] for row in csv.reader(io.StringIO(text, newline=""))]
        assert [cells for cells, _ in rows] == expected


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    beginning=BEGINNINGS,
    tokens=st.lists(TOKENS, max_size=20),
    name=NAMES,
    encoding=ENCODINGS,
)
def test_no_list_does_worse_than_a_list_error(beginning: bytes, tokens: list[bytes], name: str, encoding: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(beginning + b"".join(tokens))
        try:
            with open_list(path, ListOptions(encoding=encoding)) as people:
                for row in people:
                    check_row(row)
                check_words(*people.notices)
        except ListError as error:
            check_words(str(error), error.hint)


@pytest.mark.slow
@settings(deadline=None)
@given(beginning=BEGINNINGS, tokens=st.lists(TOKENS, max_size=20), name=NAMES)
def test_no_suppression_file_does_worse_than_a_list_error(beginning: bytes, tokens: list[bytes], name: str) -> None:
    stop = Suppression()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(beginning + b"".join(tokens))
        try:
            stop.add_file(path)
        except ListError as error:
            check_words(str(error), error.hint)
    check_words(*stop.notices)


def check_row(row: Recipient | BadRow) -> None:
    """It can be stored and shown, and its envelope holds nothing that steers a server."""
    stored = json.dumps(dict(row.fields), ensure_ascii=False, allow_nan=False).encode()
    assert b"\\u0000" not in stored.replace(b"\\\\", b"")
    assert row.place.line >= 1
    if isinstance(row, BadRow):
        check_words(row.reason)
        assert row.reason
    else:
        assert not has_control(row.address.wire + row.name)
        assert not set(row.address.wire) & set(" <>")


def check_words(*sentences: str) -> None:
    assert not any(has_control(sentence) for sentence in sentences)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 5_000])
def test_json_is_read_whole_wherever_the_window_ends(folder: Path, count: int) -> None:
    rows = [{"email": f"user{number}@example.org", "text": 'é\\" \n' * number} for number in range(count % 200 + 1)]
    rows += [{"email": "last@example.org", "n": number} for number in range(count)]
    Path("list.json").write_text(json.dumps(rows, indent=count % 3), encoding="utf-8")
    with open_list("list.json", ListOptions(keep_space=True)) as people:
        assert [dict(row.fields) for row in people] == rows
