"""Lists in workbooks: cells as the text that people see in them."""

from __future__ import annotations

import datetime
import sys
import zipfile
from collections.abc import Callable, Sequence
from io import BytesIO
from xml.sax.saxutils import escape

import pytest
import python_calamine

from bulkmail.model.errors import ListError
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.recipients.list_source import open_list
from bulkmail.recipients.xlsx import cell_text

Read = Callable[..., "ReadList"]  # noqa: F821  (of conftest.py)
Write = Callable[[str, str | bytes], str]

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
DATE, MOMENT, SPAN = 1, 2, 3  # styles


def sheet(rows: Sequence[Sequence[object]], first_row: int) -> str:
    def cell(row: int, column: int, value: object) -> str:
        place = f'r="{chr(65 + column)}{row}"'
        match value:
            case None:
                return ""
            case bool():
                return f'<c {place} t="b"><v>{int(value)}</v></c>'
            case (number, style):
                return f'<c {place} s="{style}"><v>{number}</v></c>'
            case int() | float():
                return f"<c {place}><v>{value}</v></c>"
        return f'<c {place} t="inlineStr"><is><t xml:space="preserve">{escape(str(value))}</t></is></c>'

    body = "".join(
        f'<row r="{number}">' + "".join(cell(number, at, value) for at, value in enumerate(row)) + "</row>"
        for number, row in enumerate(rows, first_row)
    )
    return f'<worksheet xmlns="{MAIN}"><sheetData>{body}</sheetData></worksheet>'


def workbook(*sheets: Sequence[Sequence[object]], hidden: int = 0, first_row: int = 1) -> bytes:
    """The bytes of an .xlsx; the first `hidden` sheets are hidden."""
    numbers = range(1, len(sheets) + 1)
    relations = "".join(
        f'<Relationship Id="r{n}" Type="{OFFICE}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n in numbers
    )
    states = ("visible", "hidden")
    names = "".join(
        f'<sheet name="Sheet {n}" sheetId="{n}" r:id="r{n}" state="{states[n <= hidden]}"/>' for n in numbers
    )
    formats = "".join(f'<xf numFmtId="{number}"/>' for number in (0, 14, 22, 46))
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">'
        '<Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships">'
        f'<Relationship Id="r1" Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{names}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">{relations}'
        f'<Relationship Id="s" Type="{OFFICE}/styles" Target="styles.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{MAIN}"><cellXfs count="4">{formats}</cellXfs></styleSheet>',
        **{f"xl/worksheets/sheet{n}.xml": sheet(rows, first_row) for n, rows in zip(numbers, sheets, strict=True)},
    }
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + content)
    return packed.getvalue()


SHEET = [
    ["email", "name", "n", "since"],
    ["ann@example.org", "Zoë", 7, (45000, DATE)],
    ["bob@example.org", "Bob", 1.5, (45000.5, MOMENT)],
]


def test_sheet_is_read(read: Read) -> None:
    people = read(workbook(SHEET), "list.xlsx")
    assert people.notices == []
    assert people.columns == ["email", "name", "n", "since"]
    assert [(str(person.place), person.name, person.fields) for person in people.people] == [
        (
            "list.xlsx:2",
            "Zoë",
            {"email": "ann@example.org", "name": "Zoë", "n": "7", "since": "2023-03-15"},
        ),
        (
            "list.xlsx:3",
            "Bob",
            {"email": "bob@example.org", "name": "Bob", "n": "1.5", "since": "2023-03-15T12:00:00"},
        ),
    ]


@pytest.mark.parametrize("name", ["list.csv", "list", "list.xlsm"])
def test_workbook_is_reported_by_its_content(read: Read, name: str) -> None:
    assert len(read(workbook(SHEET), name).people) == 2


def test_workbook_on_standard_input_is_read(standard_input: Callable[[bytes], None]) -> None:
    standard_input(workbook(SHEET))
    with open_list("-") as people:
        assert [row.place.line for row in people] == [2, 3]


def test_open_document_sheet_is_read(read: Read) -> None:
    cells = "".join(
        f'<table:table-cell office:value-type="string"><text:p>{text}</text:p></table:table-cell>'
        for text in ("email", "a@x.org")
    )
    rows = cells.replace("</table:table-cell><table", "</table:table-cell></table:table-row><table:table-row><table")
    space = "urn:oasis:names:tc:opendocument:xmlns"
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
        archive.writestr(
            "content.xml",
            f'<office:document-content xmlns:office="{space}:office:1.0" xmlns:table="{space}:table:1.0" '
            f'xmlns:text="{space}:text:1.0"><office:body><office:spreadsheet><table:table table:name="People">'
            f"<table:table-row>{rows}</table:table-row>"
            "</table:table></office:spreadsheet></office:body></office:document-content>",
        )
    people = read(packed.getvalue(), "list.ods")
    assert people.addresses == ["a@x.org"]
    assert [notice for notice in people.notices if "hidden rows of an OpenDocument sheet are not read" in notice]
    assert len(people.notices) == 1


def test_notice_about_open_document_sheets_is_for_those_alone(read: Read) -> None:
    assert read(workbook(SHEET), "list.xlsx").notices == []


def test_rows_are_counted_as_the_sheet_counts_them(read: Read) -> None:
    people = read(workbook([["email"], ["a@x.org"], [None], ["b@x.org"]], first_row=4), "list.xlsx")
    assert [person.place.line for person in people.people] == [5, 7]
    assert people.bad == []


def test_bad_rows_do_not_stop_the_sheet(read: Read) -> None:
    rows = [["email", "name"], [None, "Ann"], ["x", "Bob"], ["c@x.org", "Cy" * 600], ["d@x.org", "Di"]]
    people = read(workbook(rows), "list.xlsx")
    assert people.bad == [
        "list.xlsx:2: there is no address: the cell in column 'email' is empty",
        "list.xlsx:3: the address 'x' has no @",
        "list.xlsx:4: the name in column 'name' is longer than 1,000 characters",
    ]
    assert people.addresses == ["d@x.org"]


def test_first_visible_sheet_is_read_and_the_others_are_noticed(read: Read) -> None:
    people = read(workbook([["x"], ["y"]], SHEET, SHEET, hidden=1), "list.xlsx")
    assert len(people.people) == 2
    assert people.notices == ["list.xlsx has 2 sheets; only the first, 'Sheet 2', was read; --sheet names another"]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (7.0, "7"),
        (-7.0, "-7"),
        (0.1 + 0.2, "0.3"),
        (1e15, "1000000000000000"),
        (1e21, "1e+21"),
        (1.5, "1.5"),
        (float("inf"), "inf"),
        (True, "TRUE"),
        (False, "FALSE"),
        ("007", "007"),
        (" x ", " x "),
        (None, ""),
        (12, "12"),
        (datetime.date(2026, 11, 3), "2026-11-03"),
        (datetime.datetime(2026, 11, 3, 9, 5), "2026-11-03T09:05:00"),
        (datetime.time(9, 5), "09:05:00"),
        (datetime.timedelta(days=1, hours=12, seconds=7), "36:00:07"),
    ],
)
def test_cell_is_text_as_people_see_it(cell: object, text: str) -> None:
    assert cell_text(cell) == text


@pytest.mark.parametrize(
    ("raw", "message", "hint"),
    [
        pytest.param(workbook([]), "list.xlsx: the sheet is empty", "its first row must name the columns", id="empty"),
        pytest.param(
            workbook([["email"]]), "list.xlsx: the list has a header and not one row below it", "", id="header-only"
        ),
        pytest.param(
            workbook([["name", "town"], ["x", "y"]]),
            "list.xlsx:1: no column is named email, mail or address; found 'name' and 'town'",
            "say which one it is: --address-column NAME, or address_column in campaign.toml",
            id="no-address-column",
        ),
        pytest.param(
            workbook([["a@x.org", "Ann"]]),
            "list.xlsx:1: the first row must name the columns, but it holds the address 'a@x.org'",
            "put a row above it that names the columns: email, column2",
            id="no-header",
        ),
        pytest.param(
            workbook(SHEET, hidden=1),
            "list.xlsx: the workbook has no visible sheet",
            "name the one to read: --sheet 'Sheet 1'",
            id="nothing-visible",
        ),
        pytest.param(
            b"email\na@x.org\n",
            "list.xlsx is not a workbook that can be read: invalid Zip archive: Could not find EOCD",
            "save the sheet as CSV",
            id="no-workbook",
        ),
        pytest.param(
            workbook(SHEET)[:-400],
            "list.xlsx is not a workbook that can be read: invalid Zip archive: Could not find EOCD",
            "save the sheet as CSV",
            id="cut-short",
        ),
    ],
)
def test_workbook_is_refused(write: Write, raw: bytes, message: str, hint: str) -> None:
    with pytest.raises(ListError) as caught:
        open_list(write("list.xlsx", raw))
    assert str(caught.value) == message
    assert caught.value.hint == hint


def test_workbook_with_a_password_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    class Locked:
        @staticmethod
        def from_object(_: object) -> None:
            raise python_calamine.PasswordError("Workbook is password protected")

    monkeypatch.setattr("python_calamine.CalamineWorkbook", Locked)
    with pytest.raises(ListError) as caught:
        open_list(write("list.xlsx", workbook(SHEET)))
    assert str(caught.value) == "list.xlsx is protected by a password"
    assert caught.value.hint == "save it without one, or as CSV"


def test_workbook_without_the_extra_says_what_to_type(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(ListError) as caught:
        open_list(write("list.xlsx", workbook(SHEET)))
    assert str(caught.value) == "list.xlsx: workbooks need python-calamine, which is not installed"
    assert caught.value.hint == "type: pip install 'bulkmail[xlsx]'; or save the sheet as CSV"


PEOPLE = [["Name", "email"], ["Ann", "a@x.org"]]
INTRO = [["Read me"], ["Do not touch the second sheet."]]


@pytest.mark.parametrize("sheet", ["Sheet 2", "sheet 2", "2", 2])
def test_sheet_is_chosen_by_name_or_number(read: Read, sheet: str | int) -> None:
    people = read(workbook(INTRO, PEOPLE), "list.xlsx", sheet=sheet)
    assert [person.address.wire for person in people.people] == ["a@x.org"]
    assert people.notices == []


def test_hidden_sheet_is_read_when_it_is_named(read: Read) -> None:
    people = read(workbook(PEOPLE, INTRO, hidden=1), "list.xlsx", sheet="Sheet 1")
    assert [person.address.wire for person in people.people] == ["a@x.org"]


def test_header_row_of_a_sheet_is_chosen(read: Read) -> None:
    people = read(workbook([["Members 2026"], [None], *PEOPLE]), "list.xlsx", header_row=3)
    assert [(person.address.wire, person.place.line) for person in people.people] == [("a@x.org", 4)]


HINTS = {
    "other-sheet": (
        [INTRO, PEOPLE],
        "the sheet 'Sheet 2' has a column 'email'; add --sheet 'Sheet 2', or sheet = \"Sheet 2\" below [recipients]",
    ),
    "title": (
        [[["Members 2026"], [None], *PEOPLE]],
        "row 3 looks like the header; add --header-row 3, or header_row = 3 below [recipients]",
    ),
    "title-of-other-sheet": (
        [INTRO, [["Members 2026"], *PEOPLE]],
        "the sheet 'Sheet 2' has addresses; add --sheet 'Sheet 2', or sheet = \"Sheet 2\" below [recipients]; in it "
        "row 2 looks like the header; add --header-row 2, or header_row = 2 below [recipients]",
    ),
    "empty-first-sheet": (
        [[[None]], PEOPLE],
        "the sheet 'Sheet 2' has a column 'email'; add --sheet 'Sheet 2', or sheet = \"Sheet 2\" below [recipients]",
    ),
    "unusual-column": (
        [[["Courriel"], ["a@x.org"]]],
        "'Courriel' holds addresses; add --address-column Courriel, "
        'or address_column = "Courriel" below [recipients]',
    ),
}


@pytest.mark.parametrize(("sheets", "hint"), HINTS.values(), ids=HINTS)
def test_hint_names_the_sheet_or_row_that_works(write: Write, sheets: list[list[list[object]]], hint: str) -> None:
    with pytest.raises(ListError) as caught:
        open_list(write("list.xlsx", workbook(*sheets)))
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ListOptions(sheet="Sheet 3"), "list.xlsx: there is no sheet 'Sheet 3'; found 'Sheet 1' and 'Sheet 2'"),
        (ListOptions(sheet=3), "list.xlsx: there is no sheet '3'; found 'Sheet 1' and 'Sheet 2'"),
        (
            ListOptions(sheet=2, header_row=9),
            "list.xlsx:9: row 9 should name the columns, but the sheet ends before it",
        ),
    ],
)
def test_sheet_or_row_that_is_not_there_is_refused(write: Write, options: ListOptions, message: str) -> None:
    with pytest.raises(ListError) as caught:
        open_list(write("list.xlsx", workbook(INTRO, PEOPLE)), options)
    assert str(caught.value) == message
