"""What a user is notified about each kind of bad list, to the message."""

from __future__ import annotations

import gzip
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from bulkmail.model.errors import ListError
from bulkmail.model.recipient import BadRow, Place
from bulkmail.recipients.list_reading import ListOptions, Reading
from bulkmail.recipients.list_source import RecipientList, open_list
from bulkmail.recipients.streams import open_bytes

SAY_COLUMN = "say which one it is: --address-column NAME, or address_column in campaign.toml"
ARRAY = 'an array of objects such as [{"email": "ann@example.org"}], or {"recipients": […]}'
GIANT = "x" * 10_000_000

REFUSED = {
    "empty": ("list.csv", "", "list.csv: the list is empty", "its first line must name the columns"),
    "blank-lines": ("list.csv", "\n \n\r\n", "list.csv: the list is empty", "its first line must name the columns"),
    "mark-only": ("list.csv", b"\xef\xbb\xbf", "list.csv: the list is empty", "its first line must name the columns"),
    "header-only": (
        "list.csv",
        "email,name\n",
        "list.csv: the list has a header and not one row below it",
        "",
    ),
    "header-and-empty-rows": (
        "list.csv",
        "email,name\n,\n\n",
        "list.csv: the list has a header and not one row below it",
        "",
    ),
    "no-address-column": (
        "list.csv",
        "name,town\nAnn,Wien\n",
        "list.csv:1: no column is named email, mail or address; found 'name' and 'town'",
        SAY_COLUMN,
    ),
    "no-address-column-among-many": (
        "list.csv",
        ",".join(f"c{number}" for number in range(30)) + "\nx\n",
        "list.csv:1: no column is named email, mail or address; found "
        + ", ".join(f"'c{number}'" for number in range(20))
        + " and 10 more",
        SAY_COLUMN,
    ),
    "two-address-columns": (
        "list.csv",
        "Email,name,e-mail\nx,y,z\n",
        "list.csv:1: the address may be in the columns 'Email' and 'e-mail'",
        SAY_COLUMN,
    ),
    "header-missing-one-column": (
        "list.csv",
        "\n\nann@example.org\nbob@example.org\n",
        "list.csv:3: the first line must name the columns, but it holds the address 'ann@example.org'",
        "put a line above it that names the columns: email",
    ),
    "header-missing": (
        "list.csv",
        "Ann;ann@example.org;Wien\n",
        "list.csv:1: the first line must name the columns, but it holds the address 'ann@example.org'",
        "put a line above it that names the columns: column1;email;column3",
    ),
    "header-missing-between-tabs": (
        "list.tsv",
        "Ann\tann@example.org\n",
        "list.tsv:1: the first line must name the columns, but it holds the address 'ann@example.org'",
        "put a line above it that names the columns: column1<tab>email",
    ),
    "two-address-columns-of-one-name": (
        "list.csv",
        "email,name,town, email \nx,y,z,x\n",
        "list.csv:1: 2 columns are named 'email', so it is not clear which one is meant",
        "rename all but one of them in the header, or take one of the others: --address-column email_2",
    ),
    "nul-in-header": (
        "list.csv",
        "email\nann@example.org\n".encode("utf-16-le"),
        "list.csv:1: the name of column 1 has a NUL character (U+0000): 'e m a i l'",
        "this looks like UTF-16; say --encoding utf-16-le, or save the list as UTF-8",
    ),
    "giant-header-cell": (
        "list.csv",
        "email," + "x" * 1_000_001 + "\n",
        "list.csv:1: the name of column 2 is longer than 1,000,000 characters: '" + "x" * 79 + "…'",
        "this is hardly a header; its first line must name the columns",
    ),
    "endless-first-line": (
        "list.csv",
        "x" * 16_000_001,
        "list.csv:1: the first line is longer than 16,000,000 characters, expected the names of the columns",
        "",
    ),
    "too-many-columns": (
        "list.csv",
        "email" + ",x" * 10_000 + "\n",
        "list.csv:1: the header has 10,001 columns; the most is 10,000",
        "",
    ),
    "quote-open-in-header": (
        "list.csv",
        'email,"name\nann@example.org,Ann\n',
        "list.csv:1: the header has a double quote that is never closed",
        'close it, or double it ("") where it is meant',
    ),
    "gzip-cut-short": (
        "list.csv.gz",
        gzip.compress(b"email\n" + os.urandom(5000))[:-100],
        "list.csv.gz: the compressed file is damaged or cut short: "
        "Compressed file ended before the end-of-stream marker was reached",
        "fetch or compress it again",
    ),
    "old-excel": (
        "list.xls",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "list.xls is in the format of Excel 97–2003",
        "open it in Excel, save it as .xlsx or CSV",
    ),
    "json-empty": ("list.json", "", "list.json: the list is empty", f"expected {ARRAY}"),
    "json-no-rows": ("list.json", "[]", "list.json: the list has no recipients", f"expected {ARRAY}"),
    "json-no-rows-in-object": (
        "list.json",
        '{"recipients": []}',
        "list.json: the list has no recipients",
        f"expected {ARRAY}",
    ),
    "json-two-lists": (
        "list.json",
        '{"staff": [{"email": "ann@example.org"}], "old": {"members": [{"email": "bob@example.org"}]}}',
        f"list.json: found an object with the keys 'staff' and 'old', expected {ARRAY}",
        "there are lists in 'staff' and 'old.members'; save one by itself: jq '.[\"staff\"]' FILE > people.json",
    ),
    "json-list-without-addresses": (
        "list.json",
        '{"data": [{"town": "Wien"}], "meta": {}}',
        f"list.json: found an object with the keys 'data' and 'meta', expected {ARRAY}",
        "there are lists in 'data'; save one by itself: jq '.[\"data\"]' FILE > people.json",
    ),
    "json-people-by-key": (
        "list.json",
        '{\n"a1": {"email": "ann@example.org"},\n"a2": {"email": "bob@example.org"}}',
        f"list.json: found an object with the keys 'a1' and 'a2', expected {ARRAY}",
        "make a list of what the keys hold: jq '[.[]]' FILE > people.json",
    ),
    "json-nested-giant": (
        "list.json",
        '{"data": "' + "x" * 20_000_000 + '", "meta": 1}',
        f"list.json: found an object that begins with the key 'data', expected {ARRAY}",
        "",
    ),
    "json-empty-object": ("list.json", "{}", f"list.json: found an empty object, expected {ARRAY}", ""),
    "json-text": ("list.json", '"ann@example.org"', f"list.json: found a text, expected {ARRAY}", ""),
    "json-number": ("list.json", "12", f"list.json: found a number, expected {ARRAY}", ""),
    "json-recipients-no-array": (
        "list.json",
        '{"recipients": {"email": "x"}}',
        f"list.json: found an object whose recipients is an object, expected {ARRAY}",
        "",
    ),
    "json-array-of-text": (
        "list.json",
        '["ann@example.org", "bob"]',
        'list.json:1: the list holds a text, expected objects such as {"email": "ann@example.org"}',
        "",
    ),
    "json-array-of-arrays": (
        "list.json",
        '[["ann@example.org"]]',
        'list.json:1: the list holds an array, expected objects such as {"email": "ann@example.org"}',
        "",
    ),
    "json-no-address": (
        "list.json",
        '[\n{"name": "Ann"},\n{"town": "Wien"}]',
        "list.json:2: no column is named email, mail or address; found 'name' and 'town'",
        SAY_COLUMN,
    ),
    "jsonl-empty": (
        "list.jsonl",
        "\n",
        "list.jsonl: the list is empty",
        "each line is an object, with the address in it",
    ),
    "jsonl-no-address": (
        "list.jsonl",
        '{"name": "Ann"}\n{"name": "Bob"}\n',
        "list.jsonl:1: no column is named email, mail or address; found 'name'",
        SAY_COLUMN,
    ),
    "jsonl-that-is-none": (
        "list.jsonl",
        "email,name\n" * 200,
        "list.jsonl:1: the first 100 lines are not JSON",
        "name the file by what it is: .csv, .tsv, .json, .jsonl or .xlsx",
    ),
    "json-in-csv": (
        "list.csv",
        '[{"email": "ann@example.org"}]\n',
        "list.csv:1: this is JSON, expected the names of the columns",
        "name the file .json, or .jsonl if each line is an object",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "content", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_open_list_refuses(
    write: Callable[[str, str | bytes], str], name: str, content: str | bytes, message: str, hint: str
) -> None:
    with pytest.raises(ListError) as caught:
        open_list(write(name, content))
    assert str(caught.value) == message
    assert caught.value.hint == hint


BAD_ROWS = {
    "ragged-short": (
        "name,email,town\nAnn\n",
        ["list.csv:2: the row has 1 cell, expected 3 as in the header"],
    ),
    "ragged-long": (
        "email,name\na@example.org,Smith, Ann\n",
        [
            "list.csv:2: the row has 3 cells, expected 2 as in the header; "
            "a cell that holds a comma must stand in double quotes"
        ],
    ),
    "ragged-semicolon": (
        "email;name\na@example.org;a;b\n",
        [
            "list.csv:2: the row has 3 cells, expected 2 as in the header; "
            "a cell that holds a semicolon must stand in double quotes"
        ],
    ),
    "nul": (
        "email,name\na@example.org,A\0nn\n",
        ["list.csv:2: the cell in column 'name' has a NUL character (U+0000)"],
    ),
    "giant-cell": (
        f"email,note\na@example.org,{GIANT}\n",
        ["list.csv:2: the cell in column 'note' is longer than 1,000,000 characters"],
    ),
    "giant-quoted-cell": (
        f'email,note\na@example.org,"{GIANT}"\n',
        ["list.csv:2: the cell in column 'note' is longer than 1,000,000 characters"],
    ),
    "giant-cell-over-lines": (
        'email,note\na@example.org,"' + "some words of it\n" * 100_000 + '"\n',
        ["list.csv:2: the cell in column 'note' is longer than 1,000,000 characters"],
    ),
    "endless-row": (
        "email,note\na@example.org," + "x" * 17_000_000 + "\n",
        ["list.csv:2: the cell in column 'note' is longer than 1,000,000 characters"],
    ),
    "endless-row-of-short-cells": (
        "email,note\na@example.org" + ",123456789" * 1_700_000 + "\n",
        ["list.csv:2: the row is longer than 16,000,000 characters"],
    ),
    "endless-quoted-row": (
        'email,note\na@example.org,"' + "x" * 17_000_000 + '"\n',
        ["list.csv:2: the cell in column 'note' is longer than 1,000,000 characters"],
    ),
    "endless-quoted-cell-over-lines": (
        'email,note\na@example.org,"' + ("some words " * 20 + "\n") * 75_000 + '"\n',
        ["list.csv:2: the cell in column 'note' is longer than 1,000,000 characters, up to line 75,002"],
    ),
    "empty-address": (
        "email,name\n  ,Ann\n",
        ["list.csv:2: there is no address: the cell in column 'email' is empty"],
    ),
    "bad-address": ("email,name\nann.example.org,Ann\n", ["list.csv:2: the address 'ann.example.org' has no @"]),
    "two-addresses": (
        'email,name\n"a@example.org, b@example.org",Ann\n',
        ["list.csv:2: the address 'a@example.org, b@example.org' holds several addresses; one row is for one person"],
    ),
    "line-break-in-address": (
        'email,name\n"a@example.org\nBcc: b@example.org",Ann\n',
        [
            "list.csv:2: the address 'a@example.org Bcc: b@example.org' holds several addresses; "
            "one row is for one person"
        ],
    ),
    "undecodable-in-named-encoding": (
        b"email,name\na@example.org,A\x81nn\xe9\n",
        ["list.csv:2: the cell in column 'name' has a byte (0x81) that its encoding does not have"],
    ),
    "quote-never-closed": (
        'email,name\na@example.org,"Ann\n',
        ['list.csv:2: a double quote opens a cell and nothing closes it; double it ("") where it is meant'],
    ),
    "control-character-in-name": (
        "email,name\na@example.org,A\x07nn\n",
        ["list.csv:2: the name in column 'name' has a control character"],
    ),
    "giant-name": (
        f"email,name\na@example.org,{'x' * 1001}\n",
        ["list.csv:2: the name in column 'name' is longer than 1,000 characters"],
    ),
}


@pytest.mark.parametrize(
    ("content", "bad"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] if name.startswith("endless") else [])
        for name, case in BAD_ROWS.items()
    ],
)
def test_bad_row_does_not_stop_the_list(read: Callable[..., object], content: str | bytes, bad: list[str]) -> None:
    ending = ";" if isinstance(content, str) and content.startswith("email;") else ","
    content = content.encode() if isinstance(content, str) else content
    width = content.split(b"\n")[0].count(ending.encode()) + 1
    last = ending.join(["last@example.org", *["x"] * (width - 1)])
    if isinstance(content, bytes) and content.startswith(b"name,email"):
        last = "x,last@example.org,x"
    people = read(content + last.encode() + b"\n")
    assert people.bad == bad
    assert people.addresses == ["last@example.org"]


BAD_LINES = {
    "half-a-line": (
        '{"email": "bob@exam',
        "the line ends in the middle of a JSON value, at character 19",
    ),
    "half-a-line-after-a-comma": (
        '{"email": "b@example.org",',
        "the line ends in the middle of a JSON value, at character 26",
    ),
    "trailing-comma": (
        '{"email": "b@example.org"},',
        "the line is not JSON: extra data at character 27",
    ),
    "single-quotes": (
        "{'email': 'b@example.org'}",
        "the line is not JSON: expecting property name enclosed in double quotes at character 2",
    ),
    "not-utf-8": (
        b'{"email": "b@example.org", "name": "M\xfcller"}',
        "the line is not UTF-8: byte 38 of the line is 0xFC",
    ),
    "array": ("[1, 2]", "the row is an array, expected an object"),
    "null": ("null", "the row is null, expected an object"),
    "true": ("true", "the row is true, expected an object"),
    "nested-too-deeply": ('{"email": ' + "[" * 100_000, "the line is nested too deeply"),
    "nested-deeply": (
        '{"email": "b@example.org", "x": ' + "[" * 100 + "]" * 100 + "}",
        "the field 'x' is nested deeper than 64 levels",
    ),
    "no-address": ('{"name": "Bob"}', "there is no address: it has no field 'email'"),
    "null-address": ('{"email": null}', "there is no address: the field 'email' is null"),
    "empty-address": ('{"email": " "}', "there is no address: the field 'email' is empty"),
    "number-as-address": ('{"email": 7}', "the field 'email' holds a number, expected one address as text"),
    "list-as-address": (
        '{"email": ["b@example.org"]}',
        "the field 'email' holds an array, expected one address as text",
    ),
    "bad-address": ('{"email": "bob@"}', "the address 'bob@' has nothing after the @"),
    "nan-as-address": ('{"email": NaN}', "there is no address: the field 'email' is null"),
    "key-twice": ('{"email": "b@example.org", "x": 1, "x": 2}', "an object has the key 'x' twice"),
    "address-twice": (
        '{"email": "b@example.org", "note": "a:b", "email": "c@example.org"}',
        "an object has the key 'email' twice",
    ),
    "spaced-key-twice": ('{"email" : "b@example.org", "x" : 1, "x" : 2}', "an object has the key 'x' twice"),
    "nested-key-twice": (
        '{"email": "b@example.org", "x": [{"y": 1, "z": {"y": 1, "y": 1}}]}',
        "an object has the key 'y' twice",
    ),
    "escaped-key-twice": ('{"email": "b@example.org", "x": 1, "\\u0078": 2}', "an object has the key 'x' twice"),
    "infinity": (
        '{"email": "b@example.org", "x": [1e999]}',
        "the field 'x' is 1e999, which is not a number that can be written",
    ),
    "giant-number": (
        '{"email": "b@example.org", "x": ' + "1" * 5000 + "}",
        "the field 'x' is 1111111111111111111…, which is not a number that can be written",
    ),
    "nul": ('{"email": "b@example.org", "x": {"y": "\\u0000"}}', "the field 'x' has a NUL character (U+0000)"),
    "lone-surrogate": (
        '{"email": "b@example.org", "x": "\\ud800"}',
        "the field 'x' has half a character (the lone surrogate U+D800)",
    ),
    "nul-in-key": ('{"email": "b@example.org", "x\\u0000": 1}', "a field's name has a NUL character (U+0000): 'x'"),
    "giant-field": (
        '{"email": "b@example.org", "note": "' + GIANT + '"}',
        "the field 'note' is longer than 1,000,000 characters",
    ),
    "endless-line": (
        '{"email": "b@example.org", "note": "' + "x" * 16_000_000 + '"}',
        "the line is longer than 16,000,000 characters",
    ),
    "control-character-in-name": ('{"email": "b@example.org", "name": "B\\u0007"}', "the name has a control character"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_bad_json_line_does_not_stop_the_list(read: Callable[..., object], line: str | bytes, reason: str) -> None:
    line = line.encode() if isinstance(line, str) else line
    content = b'{"email": "ann@example.org"}\n' + line + b'\n{"email": "cy@example.org"}\n'
    people = read(content, "list.jsonl")
    assert people.bad == [f"list.jsonl:2: {reason}"]
    assert people.addresses == ["ann@example.org", "cy@example.org"]


BROKEN = {
    "trailing-comma": (
        '[{"email": "a@example.org"},\n {"email": "b@example.org",}]',
        "list.json:2: the JSON is broken at "
        + (
            "column 27: illegal trailing comma before end of object"
            if sys.version_info >= (3, 13)
            else "column 28: expecting property name enclosed in double quotes"
        )
        + "; 1 row before it could be read",
        ["a@example.org"],
    ),
    "cut-short": (
        '[{"email": "a@example.org"},\n{"email": "b@exam',
        "list.json:2: the JSON is broken at column 11: unterminated string; 1 row before it could be read",
        ["a@example.org"],
    ),
    "no-end": (
        '[{"email": "a@example.org"},\n{"email": "b@example.org"}\n',
        "list.json:3: the JSON is broken at column 1: the list has no end; 2 rows before it could be read",
        ["a@example.org", "b@example.org"],
    ),
    "missing-comma": (
        '[{"email": "a@example.org"}\n{"email": "b@example.org"}]',
        "list.json:2: the JSON is broken at column 1: expected a comma or ]; 1 row before it could be read",
        ["a@example.org"],
    ),
    "comma-before-the-end": (
        '[{"email": "a@example.org"},\n]',
        "list.json:2: the JSON is broken at column 1: expecting value; 1 row before it could be read",
        ["a@example.org"],
    ),
    "two-lists-of-one-name": (
        '{"recipients": [{"email": "a@example.org"}], "recipients": [{"email": "b@example.org"}]}',
        "list.json:1: the JSON is broken at column 60: the key 'recipients' is there twice; "
        "1 row before it could be read",
        ["a@example.org"],
    ),
    "something-behind": (
        '[{"email": "a@example.org"}]\n[]',
        "list.json:2: the JSON is broken at column 1: something follows the end of the list; "
        "1 row before it could be read",
        ["a@example.org"],
    ),
    "object-with-a-bad-tail": (
        '{"recipients": [{"email": "a@example.org"}], x}',
        "list.json:1: the JSON is broken at column 46: expected a key in double quotes; 1 row before it could be read",
        ["a@example.org"],
    ),
    "object-without-colon": (
        '{"recipients": [{"email": "a@example.org"}], "x" 1}',
        "list.json:1: the JSON is broken at column 50: expected a colon after the key; 1 row before it could be read",
        ["a@example.org"],
    ),
    "object-without-comma": (
        '{"recipients": [{"email": "a@example.org"}] "x": 1}',
        "list.json:1: the JSON is broken at column 45: expected a comma or }; 1 row before it could be read",
        ["a@example.org"],
    ),
    "nested-too-deeply": (
        '[{"email": "a@example.org"},\n' + "[" * 100_000,
        "list.json:2: the JSON is broken at column 1: a value is nested too deeply; 1 row before it could be read",
        ["a@example.org"],
    ),
    "value-without-end": (
        '[{"email": "a@example.org"},\n"' + "x" * 20_000_000,
        "list.json:2: the JSON is broken at column 1: a value is longer than 16,000,000 characters, or has no end; "
        "1 row before it could be read",
        ["a@example.org"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("content", "message", "before"), BROKEN.values(), ids=BROKEN)
def test_broken_json_stops_after_the_rows_before(
    write: Callable[[str, str | bytes], str], content: str, message: str, before: list[str]
) -> None:
    addresses: list[str] = []
    with open_list(write("list.json", content)) as people, pytest.raises(ListError) as caught:
        addresses.extend(row.address.wire for row in people)
    assert str(caught.value) == message
    assert caught.value.hint == "fix the file there, or make it again"
    assert addresses == before


def test_named_address_column_that_is_not_there_is_refused_with_the_nearest_name(
    write: Callable[[str, str | bytes], str],
) -> None:
    with pytest.raises(ListError) as caught:
        open_list(write("list.csv", "contact,town\nx,y\n"), ListOptions(address_column="contakt"))
    assert str(caught.value) == "list.csv:1: there is no column 'contakt'; found 'contact' and 'town'"
    assert caught.value.hint == "did you mean 'contact'?"


def test_named_name_column_that_is_not_there_is_refused(write: Callable[[str, str | bytes], str]) -> None:
    with pytest.raises(ListError) as caught:
        open_list(write("list.csv", "email,town\nx,y\n"), ListOptions(name_column="who"))
    assert str(caught.value) == "list.csv:1: there is no column 'who'; found 'email' and 'town'"
    assert caught.value.hint == "say which one it is with name_column in campaign.toml, or leave it out"


def test_missing_file_is_reported_with_near_names(write: Callable[[str, str | bytes], str]) -> None:
    write("kunden.csv", "")
    with pytest.raises(ListError) as caught:
        open_list("kundne.csv")
    assert str(caught.value) == "there is no file kundne.csv"
    assert caught.value.hint == "did you mean kunden.csv?"


def test_missing_file_is_reported_with_near_names_of_its_own_folder(folder: Path) -> None:
    (folder / "lists").mkdir()
    (folder / "lists" / "kunden.csv").touch()
    with pytest.raises(ListError) as caught:
        open_list("lists/kundn.csv")
    assert str(caught.value) == "there is no file lists/kundn.csv"
    assert caught.value.hint == "did you mean lists/kunden.csv?"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        pytest.param("list.csv", "check the name, or the folder you are in", id="nothing-near"),
        pytest.param("nowhere/list.csv", "there is no folder nowhere either", id="no-folder"),
        pytest.param("", "check the name, or the folder you are in", id="empty"),
    ],
)
def test_missing_file_without_near_names_is_reported(folder: Path, path: str, hint: str) -> None:
    with pytest.raises(ListError) as caught:
        open_list(path)
    assert str(caught.value) == "there is no file " + (path or "''")
    assert caught.value.hint == hint


def test_hostile_path_cannot_steer_the_terminal(folder: Path) -> None:
    with pytest.raises(ListError) as caught:
        open_list("a\x1b[2J\0\ud800\n.csv")
    assert str(caught.value) == "there is no file a [2J .csv"


def test_folder_is_reported(folder: Path) -> None:
    (folder / "lists").mkdir()
    with pytest.raises(ListError) as caught:
        open_list("lists")
    assert str(caught.value) == "lists is a folder, expected a file"
    assert caught.value.hint == "name the list in it: lists/list.csv"


def test_file_without_permission_is_reported(
    write: Callable[[str, str | bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write("list.csv", "email\na@example.org\n")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # the tests may run as root, whom no mode stops
    with pytest.raises(ListError) as caught:
        open_list(name)
    assert str(caught.value) == "list.csv cannot be read: permission denied"
    assert caught.value.hint == "allow it: chmod u+r list.csv"


def test_unknown_encoding_is_reported(write: Callable[[str, str | bytes], str]) -> None:
    for encoding in ("utf9", "hex", "idna", "a\0b"):
        with pytest.raises(ListError) as caught:
            open_list(write("list.csv", "email\na@example.org\n"), ListOptions(encoding=encoding))
        assert str(caught.value) == f"list.csv: there is no encoding named '{encoding}'".replace("\0", " ")
        assert caught.value.hint.startswith('common ones are "utf-8", "cp1252"')


class FailingStream:
    """Standard input from a program that died."""

    closed = False

    @property
    def buffer(self) -> FailingStream:
        return self

    def read(self, _: int) -> bytes:
        raise OSError(5, "Input/output error")


def test_standard_input_that_breaks_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", FailingStream())
    with pytest.raises(ListError) as caught:
        open_list("-")
    assert str(caught.value) == "<stdin> cannot be read: Input/output error"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and cannot be read")
def test_file_that_opens_and_cannot_be_read_is_reported() -> None:
    with pytest.raises(ListError) as caught:
        open_list("/proc/self/mem")
    assert str(caught.value) == "/proc/self/mem cannot be read: Input/output error"


class FailingReader:
    """Reads from a disk that breaks after the first row."""

    columns: ClassVar[list[str]] = ["email"]

    def rows(self) -> Iterator[BadRow]:
        yield BadRow("bad", {}, Place("list.csv", 2))
        raise OSError(5, "Input/output error")


def test_disk_error_in_the_middle_is_reported(write: Callable[[str, str | bytes], str]) -> None:
    opened = open_bytes(write("list.csv", ""))
    with RecipientList(opened, Reading("list.csv", ListOptions()), FailingReader()) as people:
        rows = iter(people)
        next(rows)
        with pytest.raises(ListError) as caught:
            next(rows)
    assert str(caught.value) == "list.csv cannot be read: Input/output error"


def test_list_is_iterated_once(write: Callable[[str, str | bytes], str]) -> None:
    with open_list(write("list.csv", "email\na@example.org\n")) as people:
        assert len(list(people)) == 1
        with pytest.raises(RuntimeError, match=re.escape("list.csv was read already; open it again")):
            iter(people)
