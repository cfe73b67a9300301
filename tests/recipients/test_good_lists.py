"""Lists as real programs write them, each read as it was meant."""

from __future__ import annotations

import csv
import gzip
import json
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bulkmail.model.recipient import Place
from bulkmail.recipients import csv_reader
from bulkmail.recipients.columns import DELIVERY_COLUMNS
from bulkmail.recipients.delimiter import guess_delimiter
from bulkmail.recipients.fields import LONGEST_CELL, LONGEST_ROW
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.recipients.list_source import open_list

Read = Callable[..., "ReadList"]  # noqa: F821  (of conftest.py)
Write = Callable[[str, str | bytes], str]

AS_TEXT = "email,name\nann@example.org,Zoë\nbob@example.org,Bob\n"
AS_JSON = json.dumps([{"email": "ann@example.org", "name": "Zoë"}, {"email": "bob@example.org", "name": "Bob"}])
AS_LINES = '{"email": "ann@example.org", "name": "Zoë"}\n{"email": "bob@example.org", "name": "Bob"}\n'

FORMS = {
    "csv": ("list.csv", AS_TEXT),
    "csv-crlf": ("list.csv", AS_TEXT.replace("\n", "\r\n")),
    "csv-cr": ("list.csv", AS_TEXT.replace("\n", "\r")),
    "csv-without-last-line-end": ("list.csv", AS_TEXT.rstrip()),
    "csv-quoted": ("list.csv", '"email","name"\n"ann@example.org","Zoë"\n"bob@example.org","Bob"\n'),
    "csv-blank-lines": ("list.csv", AS_TEXT.replace("\n", "\n \n\n")),
    "csv-utf-8-mark": ("list.csv", AS_TEXT.encode("utf-8-sig")),
    "csv-utf-16": ("list.csv", AS_TEXT.encode("utf-16")),
    "csv-utf-16-be": ("list.csv", b"\xfe\xff" + AS_TEXT.encode("utf-16-be")),
    "csv-utf-32": ("list.csv", AS_TEXT.encode("utf-32")),
    "csv-upper-case-suffix": ("LIST.CSV", AS_TEXT),
    "csv-named-txt": ("list.txt", AS_TEXT),
    "csv-without-suffix": ("list", AS_TEXT),
    "csv-gz": ("list.csv.gz", gzip.compress(AS_TEXT.encode())),
    "csv-gz-by-content": ("list.csv", gzip.compress(AS_TEXT.encode())),
    "csv-unpacked-with-gz-name": ("list.csv.gz", AS_TEXT),
    "semicolons": ("list.csv", AS_TEXT.replace(",", ";")),
    "semicolons-declared": ("list.csv", "sep=;\r\n" + AS_TEXT.replace(",", ";")),
    "tabs": ("list.tsv", AS_TEXT.replace(",", "\t")),
    "tabs-in-csv": ("list.csv", AS_TEXT.replace(",", "\t")),
    "commas-in-tsv": ("list.tsv", AS_TEXT),
    "vertical-bars": ("list.csv", AS_TEXT.replace(",", "|")),
    "json": ("list.json", AS_JSON),
    "json-utf-16": ("list.json", AS_JSON.encode("utf-16")),
    "json-pretty": ("list.json", json.dumps(json.loads(AS_JSON), indent=4, ensure_ascii=False)),
    "json-in-object": ("list.json", '{"recipients": ' + AS_JSON + "}"),
    "json-in-object-pretty": ("list.json", json.dumps({"recipients": json.loads(AS_JSON)}, indent=2)),
    "json-in-object-among-others": ("list.json", '{"x": [1, {}], "recipients": ' + AS_JSON + ', "y": null}'),
    "json-gz": ("list.json.gz", gzip.compress(AS_JSON.encode())),
    "json-without-suffix": ("list", AS_JSON),
    "json-object-without-suffix": ("list", ' \n{"recipients": ' + AS_JSON + "}"),
    "json-named-jsonl": ("list.jsonl", AS_JSON),
    "lines": ("list.jsonl", AS_LINES),
    "lines-crlf-and-blank": ("list.jsonl", AS_LINES.replace("\n", "\r\n\r\n")),
    "lines-without-last-line-end": ("list.jsonl", AS_LINES.rstrip()),
    "lines-utf-8-mark": ("list.jsonl", AS_LINES.encode("utf-8-sig")),
    "lines-utf-16": ("list.jsonl", AS_LINES.encode("utf-16")),
    "lines-ndjson": ("list.ndjson", AS_LINES),
    "lines-named-json": ("list.json", AS_LINES),
    "lines-without-suffix": ("list", AS_LINES),
    "lines-gz": ("list.jsonl.gz", gzip.compress(AS_LINES.encode())),
}


@pytest.mark.parametrize(("name", "content"), FORMS.values(), ids=FORMS)
def test_list_is_read_in_any_form(read: Read, name: str, content: str | bytes) -> None:
    people = read(content, name)
    assert people.bad == []
    assert people.columns == ["email", "name"]
    assert [(person.address.wire, person.name, person.fields) for person in people.people] == [
        ("ann@example.org", "Zoë", {"email": "ann@example.org", "name": "Zoë"}),
        ("bob@example.org", "Bob", {"email": "bob@example.org", "name": "Bob"}),
    ]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(AS_TEXT, id="csv"),
        pytest.param("\n" + AS_JSON, id="json"),
        pytest.param('{"recipients":' + AS_JSON + "}", id="json-object"),
        pytest.param(AS_LINES, id="json-lines"),
    ],
)
@pytest.mark.parametrize("pack", [pytest.param(bytes, id="plain"), pytest.param(gzip.compress, id="gz")])
def test_standard_input_is_reported_by_its_first_character(
    standard_input: Callable[[bytes], None], content: str, pack: Callable[[bytes], bytes]
) -> None:
    standard_input(pack(content.encode()))
    with open_list("-") as people:
        rows = list(people)
        assert people.name == "<stdin>"
    assert [row.address.wire for row in rows] == ["ann@example.org", "bob@example.org"]
    assert rows[0].place.file == "<stdin>"


def test_closed_standard_input_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from bulkmail.model.errors import ListError

    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ListError, match="standard input is closed"):
        open_list("-")


def test_pipe_is_read_like_a_file(folder: Path) -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_text(AS_TEXT, encoding="utf-8"))
    writer.start()
    with open_list(Path("pipe")) as people:
        addresses = [row.address.wire for row in people]
    writer.join()
    assert addresses == ["ann@example.org", "bob@example.org"]


def test_half_a_first_json_line_on_standard_input_is_a_bad_row(standard_input: Callable[[bytes], None]) -> None:
    standard_input(b'{"email": "ann@exam\n{"email": "bob@example.org"}\n')
    with open_list("-") as people:
        bad, bob = people
    assert bad.reason == "the line ends in the middle of a JSON value, at character 19"
    assert bob.address.wire == "bob@example.org"


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        pytest.param("email,note\na@x.org,\n\n\nb@x.org,\n", [2, 5], id="after-blank-lines"),
        pytest.param('email,note\na@x.org,"1\n2\n3"\nb@x.org,\n', [2, 5], id="over-several-lines"),
        pytest.param('email,note\r\na@x.org,"1\r\n2"\r\nb@x.org,\r\n', [2, 4], id="crlf"),
        pytest.param('"email","the\nnote"\na@x.org,\nb@x.org,\n', [3, 4], id="header-over-two-lines"),
        pytest.param("\n\nemail,note\na@x.org,\nb@x.org,\n", [4, 5], id="blank-lines-first"),
        pytest.param("sep=,\nemail,note\na@x.org,\nb@x.org,\n", [3, 4], id="declared-delimiter"),
    ],
)
def test_line_of_a_row_is_the_one_it_begins_at(read: Read, content: str, lines: list[int]) -> None:
    assert [person.place for person in read(content).people] == [Place("list.csv", line) for line in lines]


def test_line_of_a_json_element_is_the_one_it_begins_at(read: Read) -> None:
    people = read('{"recipients":\n[\n{"email":\n"a@x.org"},{"email": "b@x.org"},\n\n{"email": "c@x.org"}]}', "l.json")
    assert [person.place.line for person in people.people] == [3, 4, 6]


@pytest.mark.slow
def test_line_of_a_json_element_is_right_far_behind_the_window(read: Read) -> None:
    rows = [{"email": f"user{number}@example.org", "x": ["\n", 1.5, None]} for number in range(5000)]
    people = read("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", "list.json")
    assert [person.place.line for person in people.people] == list(range(2, 5002))
    assert [person.fields for person in people.people] == rows


def test_values_stay_as_they_are_written(read: Read) -> None:
    people = read("email,zip,amount,flag,blank\na@x.org,00123,1.50, TRUE ,\n")
    fields = {"email": "a@x.org", "zip": "00123", "amount": "1.50", "flag": "TRUE", "blank": ""}
    assert people.people[0].fields == fields
    assert people.notices == ["list.csv:2: spaces around 1 cell taken off ('flag')"]


def test_json_values_stay_as_they_are(read: Read) -> None:
    fields = {"email": "a@x.org", "n": 7, "big": 10**40, "x": 1.5, "no": None, "lines": [{"item": "tea", "n": 2}, []]}
    assert read(json.dumps([fields]), "l.json").people[0].fields == fields
    assert read(json.dumps(fields), "l.jsonl").people[0].fields == fields


def test_json_values_that_only_look_odd_stay_as_they_are(read: Read) -> None:
    fields = {"email": "a@x.org", "path": "C:\\u0000", "many": [[n] for n in range(100)], "long": ["x" * 600_000] * 2}
    assert read(json.dumps(fields), "l.jsonl").people[0].fields == fields


def test_json_columns_grow_in_order_of_appearance(read: Read) -> None:
    people = read(
        '{"email": "a@x.org"}\n{"town": "Wien", "email": "b@x.org"}\n{"email": "c@x.org", "n": 1}\n', "l.jsonl"
    )
    assert people.columns == ["email", "town", "n"]


@pytest.mark.slow
def test_json_columns_are_bounded(read: Read) -> None:
    many = {f"c{number}": 1 for number in range(9_999)}
    lines = [{"email": "a@x.org", **many}, {"email": "b@x.org", "more": 1}, {"email": "c@x.org"}]
    people = read("\n".join(map(json.dumps, lines)), "l.jsonl")
    assert people.bad == ["l.jsonl:2: the row has the field 'more', but the list has 10,000 different ones already"]
    assert people.addresses == ["a@x.org", "c@x.org"]


def test_csv_columns_are_known_before_the_rows(write: Write) -> None:
    with open_list(write("list.csv", AS_TEXT)) as people:
        assert people.columns == ["email", "name"]


def test_address_column_is_found_in_a_later_object(read: Read) -> None:
    people = read('{"name": "Ann"}\n{"name": "Bob", "E-Mail": "b@x.org"}\n', "l.jsonl")
    assert people.bad == ["l.jsonl:1: there is no address: it has no field 'E-Mail'"]
    assert people.addresses == ["b@x.org"]


def test_list_of_nothing_but_broken_json_lines_is_read(read: Read) -> None:
    people = read('{"email": "a@x\n', "l.jsonl")
    assert people.bad == ["l.jsonl:1: the line ends in the middle of a JSON value, at character 14"]


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("email", "email"),
        ("E-MAIL", "E-MAIL"),
        ("Email Address", "Email Address"),
        ("e-mail-address", "e-mail-address"),
        ("EmailAddress", "EmailAddress"),
        ("email_address", "email_address"),
        ("Mail", "Mail"),
        ("address", "address"),
        ("address,mail,email", "email"),
        ("address,mail", "mail"),
        (" email ", "email"),
    ],
)
def test_address_column_is_found_by_its_usual_names(read: Read, header: str, taken: str) -> None:
    others = header.count(",")
    row = ["x"] * others + ["a@x.org"] if not header.startswith("address,mail") else ["x"] * (others + 1)
    columns = [column.strip() for column in header.split(",")]
    row[columns.index(taken)] = "a@x.org"
    people = read(f"{header}\n{','.join(row)}\n")
    assert people.addresses == ["a@x.org"]


@pytest.mark.parametrize("said", ["contact", "Contact", " CONTACT "])
def test_named_address_column_is_taken_in_any_case(read: Read, said: str) -> None:
    assert read("email,contact\nx,a@x.org\n", address_column=said).addresses == ["a@x.org"]


def test_named_address_column_is_taken_from_json(read: Read) -> None:
    assert read('[{"email": "x", "contact": "a@x.org"}]', "l.json", address_column="contact").addresses == ["a@x.org"]


NAMES = {
    "name-column": ("email,name\na@x.org,Ann\n", {}, "Ann"),
    "full-name-column": ("email,Full Name\na@x.org,Ann\n", {}, "Ann"),
    "display-name-column": ("email,display_name\na@x.org,Ann\n", {}, "Ann"),
    "named-column": ("email,name,who\na@x.org,Ann,Dr Ann\n", {"name_column": "who"}, "Dr Ann"),
    "no-column": ("email,town\na@x.org,Wien\n", {}, ""),
    "in-the-cell": ("email\nAnn <a@x.org>\n", {}, "Ann"),
    "in-the-quoted-cell": ('email\n"""Smith, Ann"" <a@x.org>"\n', {}, "Smith, Ann"),
    "column-before-cell": ("email,name\nA <a@x.org>,Ann\n", {}, "Ann"),
    "cell-when-column-is-empty": ("email,name\nA <a@x.org>, \n", {}, "A"),
    "cell-when-column-is-odd-space": ("email,name\nA <a@x.org>,\xa0\n", {}, "A"),
    "over-two-lines": ('email,name\na@x.org,"Ann\nSmith"\n', {}, "Ann Smith"),
    "any-script": ("email,name\na@x.org,山田 太郎\n", {}, "山田 太郎"),
    "joined-emoji": ("email,name\na@x.org,👩‍👧 Ann\n", {}, "👩‍👧 Ann"),
}


@pytest.mark.parametrize(("content", "options", "name"), NAMES.values(), ids=NAMES)
def test_display_name_comes_from(read: Read, content: str, options: dict[str, str], name: str) -> None:
    people = read(content, **options)
    assert people.bad == []
    assert people.people[0].name == name


@pytest.mark.parametrize(
    ("record", "options", "name"),
    [
        pytest.param('{"email": "a@x.org", "name": "Ann"}', {}, "Ann", id="found"),
        pytest.param('{"email": "a@x.org", "name": {"first": "Ann"}}', {}, "", id="found-but-no-text"),
        pytest.param('{"email": "a@x.org", "who": "Ann"}', {"name_column": "who"}, "Ann", id="named"),
        pytest.param('{"email": "A <a@x.org>", "who": null}', {"name_column": "who"}, "A", id="named-null"),
    ],
)
def test_display_name_comes_from_json(read: Read, record: str, options: dict[str, str], name: str) -> None:
    assert read(record, "l.jsonl", **options).people[0].name == name


def test_named_name_field_must_be_text(read: Read) -> None:
    people = read('{"email": "a@x.org", "who": {"first": "Ann"}}', "l.jsonl", name_column="who")
    assert people.bad == ["l.jsonl:1: the name in the field 'who' is an object, expected text"]


def test_named_name_field_that_no_object_has_is_noticed(read: Read) -> None:
    people = read('{"email": "a@x.org"}', "l.jsonl", name_column="who")
    assert people.notices == ["l.jsonl: no object has the field 'who' for the name"]


NOTICES = {
    "nothing": (AS_TEXT, "list.csv", []),
    "semicolons": (AS_TEXT.replace(",", ";"), "list.csv", ["list.csv was read with a semicolon between its cells"]),
    "declared-semicolons": ("sep=;\n" + AS_TEXT.replace(",", ";"), "list.csv", []),
    "tabs-in-tsv": (AS_TEXT.replace(",", "\t"), "list.tsv", []),
    "padded-header": (
        " email ,name\xa0,town\na@x.org,Ann,Wien\n",
        "list.csv",
        ["list.csv:1: spaces around the column names 'email' and 'name' were taken off"],
    ),
    "empty-rows": (
        AS_TEXT + ",\n , \n",
        "list.csv",
        ["list.csv: 2 rows without any content skipped, the first at line 4"],
    ),
    "cp1252": (
        "email;town;n\na@x.org;Wien;1\nb@x.org;Köln/Düren;2\n".encode("cp1252"),
        "list.csv",
        [
            "list.csv is not UTF-8; it was read as cp1252 (Windows, Western Europe): line 3 has 'Köln/Düren'. "
            "If that looks wrong, name the encoding with --encoding",
            "list.csv was read with a semicolon between its cells",
        ],
    ),
}


@pytest.mark.parametrize(("content", "name", "notices"), NOTICES.values(), ids=NOTICES)
def test_guesses_are_noticed(read: Read, content: str | bytes, name: str, notices: list[str]) -> None:
    people = read(content, name)
    assert people.notices == notices
    assert people.bad == []


TRAILING = {
    "empty-in-every-row": ("email,name,,\na@x.org,Ann,,\n", [], ["a@x.org"]),
    "shorter-rows": ("email,name,,\na@x.org,Ann\nb@x.org,Bob,\n", [], ["a@x.org", "b@x.org"]),
    "not-empty-in-one": (
        "email,name,\na@x.org,Ann,\nb@x.org,Bob,x\n",
        ["list.csv:3: the row has 'x' in column 3, which has no name in the header"],
        ["a@x.org"],
    ),
}


@pytest.mark.parametrize(("content", "bad", "addresses"), TRAILING.values(), ids=TRAILING)
def test_unnamed_columns_at_the_end_must_be_empty(
    read: Read, content: str, bad: list[str], addresses: list[str]
) -> None:
    people = read(content)
    assert people.columns == ["email", "name"]
    assert people.bad == bad
    assert people.addresses == addresses
    assert all(list(person.fields) == ["email", "name"] for person in people.people)


DELIMITERS = {
    "comma-in-header-cell": ("Name, first;email\nBond, James;a@x.org\nM, Q;b@x.org\n", {}, ["a@x.org", "b@x.org"]),
    "commas-in-every-cell": ("email;price\na@x.org;1,50\nb@x.org;2,50\n", {}, ["a@x.org", "b@x.org"]),
    "ragged-rows": ("email;note\na@x.org;1,2\nx\ny;z;1\nb@x.org;1,2\n", {}, ["a@x.org", "b@x.org"]),
    "delimiter-in-quotes": ('email;note\na@x.org;"x;y,z"\n', {}, ["a@x.org"]),
    "one-column": ("email\na@x.org\nb@x.org\n", {}, ["a@x.org", "b@x.org"]),
    "one-column-quoted-name": ('email\n"Smith; Ann <a@x.org>"\n', {}, ["a@x.org"]),
    "named-column": ("contact|x,y\na@x.org|1,2\n", {"address_column": "contact"}, ["a@x.org"]),
    "no-rows-agree": ("a,email;b\nx,y@x.org;z\n", {"address_column": "email;b"}, []),
}


@pytest.mark.parametrize(("content", "options", "addresses"), DELIMITERS.values(), ids=DELIMITERS)
def test_delimiter_is_found(read: Read, content: str, options: dict[str, str], addresses: list[str]) -> None:
    assert read(content, **options).addresses == addresses


def test_delimiter_is_found_from_whole_rows_of_a_long_list(read: Read) -> None:
    rows = "".join(f"user{number}@example.org;{'1,2,3,' * 20}\n" for number in range(2000))
    assert len(read("email;note\n" + rows).people) == 2000


STRAY = {
    "before-a-quoted-cell": (
        'email,name\na@x.org,"Ann\nb@x.org,Bob\nc@x.org,"Cy, jr"\nd@x.org,Di\n',
        2,
        ["b@x.org", "c@x.org", "d@x.org"],
    ),
    "before-the-end": ('email,name\na@x.org,"Ann\nb@x.org,Bob\nc@x.org,Cy\n', 2, ["b@x.org", "c@x.org"]),
    "in-one-column": ('email\n"a@x.org\nb@x.org\nc@x.org\n', 2, ["b@x.org", "c@x.org"]),
}


@pytest.mark.parametrize(("content", "line", "addresses"), STRAY.values(), ids=STRAY)
def test_stray_quote_swallows_no_one(read: Read, content: str, line: int, addresses: list[str]) -> None:
    people = read(content)
    assert people.bad == [
        f'list.csv:{line}: a double quote opens a cell and nothing closes it; double it ("") where it is meant'
    ]
    assert people.addresses == addresses


@pytest.fixture
def short_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the longest row and cell, so that a tenth of a list is too long for one."""
    monkeypatch.setattr(csv_reader, "LONGEST_ROW", LONGEST_ROW // 10)
    monkeypatch.setattr(csv_reader, "LONGEST_CELL", LONGEST_CELL // 10)
    monkeypatch.setattr(csv_reader, "_MOST_READ_AGAIN", LONGEST_ROW // 10)


@pytest.mark.usefixtures("short_rows")
def test_stray_quote_before_very_many_rows_swallows_no_one(read: Read) -> None:
    rows = "".join(f"user{number}@example.org,{'x' * 4000}\n" for number in range(500))
    people = read('email,note\na@x.org,"Ann\n' + rows)
    assert len(people.bad) == 1
    assert [person.place.line for person in people.people] == list(range(3, 503))


@pytest.mark.slow
@pytest.mark.usefixtures("short_rows")
def test_stray_quote_before_very_many_addresses_swallows_no_one(read: Read) -> None:
    rows = "".join(f"{'x' * 60}.{number} <user{number}@example.org>\n" for number in range(20_000))
    people = read('email\n"a@x.org\n' + rows)
    assert len(people.bad) == 1
    assert [person.place.line for person in people.people] == list(range(3, 20_003))


@pytest.mark.slow
def test_giant_cell_that_is_never_closed_ends_the_list(read: Read) -> None:
    people = read('email,note\na@x.org,x\nb@x.org,"' + ("some words " * 20 + "\n") * 75_000)
    assert people.bad == [
        "list.csv:3: the cell in column 'note' is longer than 1,000,000 characters, up to line 75,002"
    ]
    assert people.addresses == ["a@x.org"]


def test_stray_quote_in_the_middle_of_a_cell_is_a_character(read: Read) -> None:
    assert read('email,size\na@x.org,5" pipe\nb@x.org,x\n').people[0].fields["size"] == '5" pipe'


@pytest.mark.slow
def test_hostile_quotes_do_not_make_reading_quadratic(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkmail.recipients.csv_reader._MOST_READ_AGAIN", 200_000)
    # Each line closes the quote of the one before and opens another: taken at its word, the file is one row.
    people = read("email,note\n" + 'a"b,"c\n' * 20_000 + "a@x.org,\n")
    assert people.addresses == ["a@x.org"]


def test_report_fed_back_loses_its_delivery_columns(read: Read) -> None:
    header = ",".join(["email", "name", *DELIVERY_COLUMNS])
    outcome = ["rejected", "550", "5.1.1", "no such user", "1", "relay", "<1@x>", "", "", "", "", "no"]
    row = ",".join(["a@x.org", "Ann", *outcome, "hard", "2026-03-01T09:00:00.000Z", "unknown-user", "1"])
    people = read(f"{header}\n{row}\nbad,Bob{',' * len(DELIVERY_COLUMNS)}\n")
    assert people.columns == ["email", "name"]
    assert people.people[0].fields == {"email": "a@x.org", "name": "Ann"}
    assert people.rows[1].fields == {"email": "bad", "name": "Bob"}
    assert people.notices == ["list.csv: left out the 16 delivery_… columns of an earlier report"]


def test_report_fed_back_keeps_its_delivery_columns_when_a_condition_needs_them(write: Write) -> None:
    content = "email,delivery_status,delivery_message_id\na@x.org,rejected,<1@x>\n"
    with open_list(write("list.csv", content), ListOptions(keeps_delivery=True)) as people:
        (row,) = people
        assert people.columns == ["email", "delivery_status", "delivery_message_id"]
    assert row.fields["delivery_status"] == "rejected"
    assert people.notices == []


def test_report_fed_back_loses_the_guards_against_formulas(read: Read) -> None:
    content = (
        "email,'=town,delivery_status,delivery_message_id\n"
        "a@x.org,'=1+1,accepted,<1@x>\n"
        "b@x.org,'t Harde,accepted,<2@x>\n"
        "c@x.org,-3.5,accepted,<3@x>\n"
        "d,'@home,invalid,\n"
    )
    people = read(content)
    assert people.columns == ["email", "=town"]
    assert [row.fields["=town"] for row in people.rows] == ["=1+1", "'t Harde", "-3.5", "@home"]


def test_list_that_is_no_report_keeps_its_apostrophes(read: Read) -> None:
    people = read("email,note,delivery_status\na@x.org,'=1+1,shipped\n")
    assert people.people[0].fields == {"email": "a@x.org", "note": "'=1+1"}


def test_giant_cells_are_read_when_someone_lowers_the_limit_of_the_csv_module(write: Write) -> None:
    rows = "".join(f'{who}@x.org,"{"x" * 500_000}"\n' for who in "abc")
    before = csv.field_size_limit()
    try:
        with open_list(write("list.csv", "email,note\n" + rows)) as people:
            lines = []
            for row in people:
                lines.append((row.place.line, len(str(row.fields["note"]))))
                csv.field_size_limit(10)
    finally:
        csv.field_size_limit(before)
    assert lines == [(2, 500_000), (3, 500_000), (4, 500_000)]


def test_report_in_json_lines_fed_back_loses_its_delivery_fields(read: Read) -> None:
    line = '{"email": "a@x.org", "delivery_status": "accepted", "delivery_date": "x"}\n'
    people = read(line * 2, "l.jsonl")
    assert people.columns == ["email", "delivery_date"]
    assert [person.fields for person in people.people] == [{"email": "a@x.org", "delivery_date": "x"}] * 2
    assert people.notices == ["l.jsonl: left out 1 column named as in bulkmail's reports: 'delivery_status'"]


def test_bad_row_keeps_only_what_can_be_stored(read: Read) -> None:
    people = read(b"email,name,note\na@x.org,A\0,\xfc\x81" + b"y" * 1_000_001 + b"\n", encoding="utf-8")
    assert people.rows[0].fields == {
        "email": "a@x.org",
        "name": "A\ufffd",
        "note": "\ufffd\ufffd" + "y" * 98 + "…",
    }


def test_bad_json_row_keeps_only_what_can_be_stored(read: Read) -> None:
    people = read('{"email": "x", "ok": [1], "bad": ["\\u0000"], "n": NaN, "k\\ud800": 1}', "l.jsonl")
    assert people.rows[0].fields == {"email": "x", "ok": [1], "bad": "(an array)", "n": "(a number)", "k\ufffd": 1}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.jsonl", '{"email": "a@x.org", "n": NaN}\n{"email": "b@x.org", "n": 1, "m": {"k": [-Infinity, 2]}}\n'),
        ("l.json", '[{"email": "a@x.org", "n": NaN},\n{"email": "b@x.org", "n": 1, "m": {"k": [-Infinity, 2]}}]'),
    ],
)
def test_nan_and_infinity_in_json_are_null_and_that_is_said(read: Read, name: str, content: str) -> None:
    people = read(content, name)
    assert [row.fields for row in people.rows] == [
        {"email": "a@x.org", "n": None},
        {"email": "b@x.org", "n": 1, "m": {"k": [None, 2]}},
    ]
    assert people.notices == [f"{name}:1: NaN or Infinity in 2 fields read as null ('n' and 'm')"]


@pytest.mark.parametrize(
    "note", ['"a \\": b"', '"http://x/"', '{"x": {"x": 1}}', '[{"x": 1}, {"x": 2}]', '"a : b"', '":"']
)
@pytest.mark.parametrize("name", ["l.jsonl", "l.json"])
def test_keys_that_only_look_repeated_are_fine(read: Read, note: str, name: str) -> None:
    row = f'{{"email": "a@x.org", "note": {note}}}'
    assert read(row if name == "l.jsonl" else f"[{row}]", name).people[0].fields["note"] == json.loads(note)


def test_surrogate_pairs_in_json_escapes_are_one_character(read: Read) -> None:
    assert read('{"email": "a@x.org", "name": "\\ud83d\\ude00"}', "l.jsonl").people[0].name == "😀"


def test_delimiter_of_a_giant_cell_falls_back_when_the_csv_module_refuses_it() -> None:
    before = csv.field_size_limit(10)
    try:
        assert guess_delimiter("email;" + "x" * 20, wanted="", default=",") == ","
    finally:
        csv.field_size_limit(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "begin", "row", "end"),
    [
        pytest.param("list.csv", "email,note\n", "user{n}@example.org,{note}\n", "", id="csv"),
        pytest.param("list.jsonl", "", '{{"email": "user{n}@example.org", "note": "{note}"}}\n', "", id="json-lines"),
        pytest.param("list.json", "[", '{{"email": "user{n}@example.org", "note": "{note}"}},\n', "{{}}]", id="json"),
    ],
)
def test_memory_is_flat(write: Write, name: str, begin: str, row: str, end: str) -> None:
    """A list of 16 MB: the pieces it is read in are of 1 MB at most."""
    note = "x" * 4_000
    write(name, begin + "".join(row.format(n=n, note=note) for n in range(4_000)) + end.format())
    tracemalloc.start()
    try:
        with open_list(name) as people:
            assert sum(1 for _ in people) >= 4_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000


def test_list_is_streamed(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row is there long before the last was read."""
    name = write("list.csv", "email\n" + "a@example.org\n" * 200_000)
    with open_list(name, ListOptions()) as people:
        rows: Iterator[object] = iter(people)
        next(rows)
        assert people._opened.stream.tell() < 200_000
