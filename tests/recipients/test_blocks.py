"""A list that is read by blocks has the same rows, in the same order, and says the same as one read by rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkmail.model.errors import ListError
from bulkmail.model.recipient import PlainRows
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.recipients.list_source import open_list
from tests.recipients.blocks import read_by_blocks

ADDRESSES = st.sampled_from(
    [
        *["a@x.org", "Ann.B+c@Mail.Example.ORG", "a@xn--mnchen-3ya.de", "ü@x.org", "a@ü.de", "a..b@x.org", "a@x"],
        *["", " ", "a@x.org ", "Ann <a@x.org>", "a@x.org;b@x.org", f"{'a' * 64}@x.org", f"{'a' * 65}@x.org"],
        *["'a@x.org", "a@x.org\u200b", "a@x--y.org"],
    ]
)
NAMES = st.sampled_from(
    [
        *["Ann", "Ann ", "\u00a0Ann", "Ann\u00ad", "Zoë", "#1001", "1 2", "'t Hart", "O'Brien", "A\tB", "A\x85", "a\0"],
        *["", '"Ann"', '"Ann, Jr"', '"Ann\nB"', 'A"B', "x" * 200, "x" * 201, "x" * 1_001, "\ud800", "A\x07"],
    ]
)
CELLS = st.one_of(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=6))
LINES = st.one_of(
    st.tuples(ADDRESSES, NAMES, CELLS).map(",".join),
    st.tuples(ADDRESSES, NAMES, CELLS).map(",".join),
    st.tuples(ADDRESSES, NAMES, CELLS).map(",".join),
    st.lists(CELLS, max_size=5).map(",".join),
)
HEADERS = st.sampled_from(["email,name,town", "name,email,town", "email,town,town", "email,,town", "email,name"])


@pytest.mark.slow
@given(
    header=HEADERS,
    lines=st.lists(LINES, min_size=1, max_size=12),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    keep_space=st.booleans(),
    name_column=st.sampled_from(["", None, "town"]),
)
@settings(max_examples=300, deadline=None)
def test_list_by_blocks_is_the_list_by_rows(
    header: str, lines: list[str], end: str, keep_space: bool, name_column: str | None
) -> None:
    options = ListOptions(keep_space=keep_space, name_column=name_column)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "people.csv")
        path.write_bytes(end.join([header, *lines]).encode("utf-8", "surrogatepass"))
        try:
            with open_list(path, options) as people:
                expected = list(people)
                said = people.notices
        except ListError:
            return
        assert read_by_blocks(path, options) == (expected, said)


@pytest.mark.parametrize(
    ("options", "header"),
    [
        pytest.param(ListOptions(), "email,name,delivery_status,delivery_message_id", id="report"),
        pytest.param(ListOptions(), "email,name,delivery_status,town", id="column-left-out"),
        pytest.param(ListOptions(keeps_delivery=True), "email,name,delivery_status,town", id="column-kept"),
    ],
)
def test_report_by_blocks_is_the_report_by_rows(
    options: ListOptions, header: str, write: Callable[[str, str | bytes], str]
) -> None:
    name = write("people.csv", header + "\na@x.org,Ann,'=1,x\nb@x.org,'-Bob,y,z\n" * 3)
    with open_list(name, options) as people:
        expected = list(people)
    assert read_by_blocks(name, options) == (expected, people.notices)


def test_list_by_blocks_has_plain_rows_together(write: Callable[[str, str | bytes], str]) -> None:
    lines = [f"user{number}@example.org,Ann,Graz\n" for number in range(3_000)]
    lines[1_500] = 'user1500@example.org,"Ann, Jr",Graz\n'
    with open_list(write("people.csv", "email,name,town\n" + "".join(lines)), ListOptions()) as people:
        blocks = list(people.blocks())
    sizes = [len(block.rows) if isinstance(block, PlainRows) else 1 for block in blocks]
    assert sum(sizes) == 3_000 and len(sizes) < 10


def test_list_is_read_once_by_blocks_too(write: Callable[[str, str | bytes], str]) -> None:
    with open_list(write("people.csv", "email\na@x.org\n"), ListOptions()) as people:
        list(people.blocks())
        with pytest.raises(RuntimeError, match="was read already"):
            people.blocks()
