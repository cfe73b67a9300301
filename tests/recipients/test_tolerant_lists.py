"""What a list has and the message does not use never refuses it; a hint names what would work."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest

from bulkmail.model.errors import ListError
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.recipients.list_source import open_list

Read = Callable[..., "ReadList"]  # noqa: F821  (of conftest.py)
Write = Callable[[str, str | bytes], str]

NAMED = {
    "index-of-pandas": (",email\n0,a@x.org\n", ["column1", "email"]),
    "in-the-middle": ("email,,name\na@x.org,x,Ann\n", ["email", "column2", "name"]),
    "name-that-is-taken": (",email,column1\n0,a@x.org,x\n", ["column1_2", "email", "column1"]),
    "at-the-end-with-content": ("email,name,\na@x.org,Ann,x\nb@x.org,Bob,y\n", ["email", "name", "column3"]),
    "twice": ("email,note,note\na@x.org,1,2\n", ["email", "note", "note_2"]),
    "three-times": ("email,note,note,note\na@x.org,1,2,3\n", ["email", "note", "note_2", "note_3"]),
    "twice-but-taken": ("email,note,note_2,note\na@x.org,1,2,3\n", ["email", "note", "note_2", "note_3"]),
}


@pytest.mark.parametrize(("content", "columns"), NAMED.values(), ids=NAMED)
def test_every_column_gets_a_name_of_its_own(read: Read, content: str, columns: list[str]) -> None:
    people = read(content)
    assert people.columns == columns
    assert people.bad == []
    assert "a@x.org" in people.addresses
    assert len(people.notices) == 1


def test_columns_without_a_name_and_of_one_name_are_noticed(read: Read) -> None:
    people = read(",email,note,note,note\n0,a@x.org,1,2,3\n")
    assert people.notices == [
        "list.csv:1: 1 column without a name: read as 'column1'",
        "list.csv:1: 3 columns are named 'note': the first keeps the name, "
        "the others are read as 'note_2' and 'note_3'",
    ]
    assert people.repeated == {"note": ["note_2", "note_3"]}
    assert people.people[0].fields == {"column1": "0", "email": "a@x.org", "note": "1", "note_2": "2", "note_3": "3"}


def test_display_name_is_not_taken_from_one_of_two_columns_of_that_name(read: Read) -> None:
    assert [person.name for person in read("email,name,name\na@x.org,Ann,Li\n").people] == [""]


SHORT = "list.csv: 1 row without the last cells, the first at line 3; the missing cells count as empty"


def test_missing_cells_at_the_end_are_empty(read: Read) -> None:
    people = read("email,name,note\na@x.org,Ann,x\nb@x.org,Bob\n")
    assert people.bad == []
    assert people.people[1].fields == {"email": "b@x.org", "name": "Bob", "note": ""}
    assert people.notices == [SHORT]


def test_surplus_cells_at_the_end_are_nothing_if_they_are_empty(read: Read) -> None:
    people = read("email,name\na@x.org,Ann,\nb@x.org,Bob,, \nc@x.org,Cy,x\n")
    assert people.addresses == ["a@x.org", "b@x.org"]
    assert people.notices == []
    assert people.bad == [
        "list.csv:4: the row has 3 cells, expected 2 as in the header; a cell that holds a comma must stand in "
        "double quotes"
    ]


COLUMNS = {
    "google": (
        "Name,E-mail 1 - Type,E-mail 1 - Value\nAnn,Home,a@x.org\n",
        "'E-mail 1 - Value' holds addresses; add --address-column 'E-mail 1 - Value', "
        'or address_column = "E-mail 1 - Value" below [recipients]',
    ),
    "german": (
        "Emailadresse;Vorname\na@x.org;Ann\n",
        "'Emailadresse' holds addresses; add --address-column Emailadresse, "
        'or address_column = "Emailadresse" below [recipients]',
    ),
    "two": (
        "Home Email,Work Email\n,a@x.org\nb@x.org,b@y.org\n",
        "'Work Email' and 'Home Email' hold addresses; add --address-column 'Work Email', "
        'or address_column = "Work Email" below [recipients]',
    ),
    "street": (
        "Name,Address,Contact Email\nAnn,High Street 1,a@x.org\nBob,Low Street 2,b@x.org\n",
        "'Contact Email' holds addresses; add --address-column 'Contact Email', "
        'or address_column = "Contact Email" below [recipients]',
    ),
    "title": (
        "Members 2026,,\n,,\nName,E-Mail,Town\nAnn,a@x.org,Wien\n",
        "line 3 looks like the header; add --header-row 3, or header_row = 3 below [recipients]",
    ),
    "title-alone": (
        "Members 2026\n\nName;E-Mail;Town\nAnn;a@x.org;Wien\n",
        "line 3 looks like the header; add --header-row 3, or header_row = 3 below [recipients]",
    ),
    "title-above-unusual-names": (
        "Membres,,\nNom,Courriel,Ville\nAnn,a@x.org,Lyon\n",
        "line 2 looks like the header; add --header-row 2 --address-column Courriel, "
        'or header_row = 2 and address_column = "Courriel" below [recipients]',
    ),
}


@pytest.mark.parametrize(("content", "hint"), COLUMNS.values(), ids=COLUMNS)
def test_hint_names_what_would_work(write: Write, content: str, hint: str) -> None:
    with pytest.raises(ListError) as caught:
        open_list(write("list.csv", content))
    assert caught.value.hint == hint


def test_column_of_streets_is_reported_with_an_example(write: Write) -> None:
    with pytest.raises(ListError) as caught:
        open_list(write("list.csv", COLUMNS["street"][0]))
    assert str(caught.value) == "list.csv: the column 'Address' holds no addresses: for example 'High Street 1'"


WORKING: dict[str, tuple[str, dict[str, Any]]] = {
    "google": (COLUMNS["google"][0], {"address_column": "E-mail 1 - Value"}),
    "title": (COLUMNS["title"][0], {"header_row": 3}),
    "title-alone": (COLUMNS["title-alone"][0], {"header_row": 3}),
    "title-above-unusual-names": (
        COLUMNS["title-above-unusual-names"][0],
        {"header_row": 2, "address_column": "Courriel"},
    ),
}


@pytest.mark.parametrize(("content", "options"), WORKING.values(), ids=WORKING)
def test_what_the_hint_names_works(read: Read, content: str, options: dict[str, Any]) -> None:
    assert read(content, **options).addresses == ["a@x.org"]


@pytest.mark.parametrize(
    ("content", "row", "message"),
    [
        pytest.param("email\na@x.org\n", 5, "list.csv:5: line 5 should name the columns, but the list ends", id="end"),
        pytest.param("x\n\nemail\na@x.org\n", 2, "list.csv:2: line 2 should name the columns, but it is", id="empty"),
        pytest.param(
            '"x\ny",z\nemail,n\na@x.org,b\n', 2, "list.csv:2: line 2 should name the columns, but the", id="within"
        ),
    ],
)
def test_header_row_that_cannot_be_is_refused(write: Write, content: str, row: int, message: str) -> None:
    with pytest.raises(ListError) as caught:
        open_list(write("list.csv", content), ListOptions(header_row=row))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        pytest.param("list.csv", "email\na@x.org\n", ListOptions(sheet="People"), id="sheet-of-csv"),
        pytest.param("list.json", '[{"email": "a@x.org"}]', ListOptions(sheet=1), id="sheet-of-json"),
        pytest.param("list.json", '[{"email": "a@x.org"}]', ListOptions(header_row=2), id="header-row-of-json"),
        pytest.param("list.jsonl", '{"email": "a@x.org"}', ListOptions(header_row=2), id="header-row-of-json-lines"),
    ],
)
def test_option_that_the_format_does_not_have_is_refused(
    write: Write, name: str, content: str, options: ListOptions
) -> None:
    with pytest.raises(ListError, match=name):
        open_list(write(name, content), options)


WRAPPED = {
    "mailchimp": ('{"members": [{"id": "1", "email_address": "a@x.org", "tags": [{"id": 1}]}], "total": 1}', "members"),
    "listmonk": ('{"data": {"total": 1, "results": [{"email": "a@x.org"}]}}', "data.results"),
    "over-lines": ('{\n  "data": [\n    {"email": "a@x.org"}\n  ],\n  "meta": {"n": [1]}\n}\n', "data"),
    "addresses-alone": ('{"ok": true, "emails": ["a@x.org"]}', "emails"),
}


@pytest.mark.parametrize(("content", "path"), WRAPPED.values(), ids=WRAPPED)
def test_only_list_within_an_object_is_read(read: Read, content: str, path: str) -> None:
    people = read(content, "list.json")
    assert people.addresses == ["a@x.org"]
    assert people.notices[0] == f"list.json: the list was read from '{path}'"


def test_list_within_an_object_keeps_its_lines(read: Read) -> None:
    people = read('{\n"data": [\n{"email": "a@x.org"},\n{"email": "b@x.org"}]}', "list.json")
    assert [row.place.line for row in people.rows] == [3, 4]


@pytest.mark.parametrize(
    ("name", "content"), [("l.json", '["a@x.org", "b@x.org"]'), ("l.jsonl", '"a@x.org"\n"b@x.org"\n')]
)
def test_addresses_alone_are_a_list(read: Read, name: str, content: str) -> None:
    people = read(content, name)
    assert people.addresses == ["a@x.org", "b@x.org"]
    assert people.columns == ["email"]
    assert people.notices == [f"{name}: a list of addresses alone, read as the field 'email'"]


NESTED = '[{"contact": {"email": "a@x.org", "who": "Ann"}}, {"contact": {"email": "b@x.org"}}, {"contact": null}]'


def test_address_within_a_field_is_named_in_the_hint(write: Write) -> None:
    with pytest.raises(ListError) as caught:
        open_list(write("list.json", NESTED))
    assert caught.value.hint == (
        "'contact.email' holds addresses; add --address-column contact.email, "
        'or address_column = "contact.email" below [recipients]'
    )


def test_address_and_name_within_a_field_are_read(read: Read) -> None:
    people = read(NESTED, "list.json", address_column="contact.email", name_column="contact.who")
    assert [(person.address.wire, person.name) for person in people.people] == [("a@x.org", "Ann"), ("b@x.org", "")]
    assert people.bad == ["list.json:1: there is no address: it has no field 'contact.email'"]
    assert people.notices == []


def test_address_within_a_list_in_a_field_is_read(read: Read) -> None:
    content = '{"emails": [{"address": "a@x.org"}]}\n{"emails": []}\n'
    people = read(content, "list.jsonl", address_column="emails.0.address")
    assert people.addresses == ["a@x.org"]
    assert len(people.bad) == 1


MYSQL = {
    "quoted-name": (r'"a@x.org","Ann \"Al\" Li"', 'Ann "Al" Li'),
    "backslash": (r'"a@x.org","C:\\ \"x\""', 'C:\\ "x"'),
    "no-quote": (r'"a@x.org","a \n \"b\""', r'a \n "b"'),
    "at-the-end": (r'"a@x.org","size 5\""', 'size 5"'),
}


@pytest.mark.parametrize(("line", "name"), MYSQL.values(), ids=MYSQL)
def test_quotes_after_a_backslash_are_read_as_mysql_means_them(read: Read, line: str, name: str) -> None:
    people = read(f"email,note\n{line}\nb@x.org,x\n")
    assert [person.fields["note"] for person in people.people] == [name, "x"]
    assert people.notices == [
        'list.csv: 1 row with \\" for a quote in a cell, as MySQL writes it, the first at line 2; read so'
    ]


@pytest.mark.parametrize("line", [r'a@x.org,"C:\"', r'a@x.org,"C:\""x"', r"a@x.org,C:\""])
def test_backslash_before_a_quote_that_is_sound_stays(read: Read, line: str) -> None:
    people = read(f"email,note\n{line}\nb@x.org,x\n")
    assert people.addresses == ["a@x.org", "b@x.org"]
    assert str(people.people[0].fields["note"]).startswith("C:\\")
    assert people.notices == []


@pytest.mark.parametrize(("form", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_list_is_found_however_its_name_writes_accents(write: Write, form: str, other: str) -> None:
    write(unicodedata.normalize(form, "Gäste.csv"), "email\na@x.org\n")
    with open_list(unicodedata.normalize(other, "Gäste.csv")) as people:
        assert len(list(people)) == 1


def test_list_in_other_case_is_named_in_the_hint(write: Write) -> None:
    write("People.CSV", "email\na@x.org\n")
    with pytest.raises(ListError) as caught:
        open_list("people.csv")
    assert caught.value.hint == "did you mean People.CSV?"
