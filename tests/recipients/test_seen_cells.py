"""Workbooks as people see them: number formats, booleans, hidden rows, errors."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

from bulkmail.model.recipient import Recipient
from bulkmail.recipients.list_source import open_list
from bulkmail.recipients.number_format import NotShown, shown_moment, shown_number, shown_text
from bulkmail.recipients.remarks import Remarks

Write = Callable[[str, str | bytes], str]

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"


def workbook(rows: str, *codes: str | int, styles: str = "", prolog: str = "") -> bytes:
    """An .xlsx with these rows in XML; style n is the n-th code, or the built-in format of that number."""
    numbered = list(enumerate(codes, 1))
    own = "".join(
        f'<numFmt numFmtId="{200 + n}" formatCode={quoteattr(code)}/>' for n, code in numbered if isinstance(code, str)
    )
    cell_formats = "".join(f'<xf numFmtId="{200 + n if isinstance(code, str) else code}"/>' for n, code in numbered)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">'
        '<Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships">'
        f'<Relationship Id="r1" Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>'
        '<sheet name="People" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">'
        f'<Relationship Id="r1" Type="{OFFICE}/worksheet" Target="worksheets/sheet1.xml"/>'
        f'<Relationship Id="s" Type="{OFFICE}/styles" Target="styles.xml"/></Relationships>',
        "xl/styles.xml": styles
        or f'<styleSheet xmlns="{MAIN}"><numFmts>{own}</numFmts><cellStyleXfs><xf numFmtId="9"/></cellStyleXfs>'
        f'<cellXfs><xf numFmtId="0"/>{cell_formats}</cellXfs></styleSheet>',
        "xl/worksheets/sheet1.xml": f'{prolog}<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData></worksheet>',
    }
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return packed.getvalue()


def text(place: str, value: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>{value}</t></is></c>'


HEADER = f'<row r="1">{text("A1", "email")}{text("B1", "x")}{text("C1", "y")}</row>'


def one_row(cells: str, attributes: str = "") -> str:
    return f'{HEADER}<row r="2" {attributes}>{text("A2", "ann@example.org")}{cells}</row>'


def read(write: Write, content: bytes) -> tuple[list[Recipient], Remarks]:
    with open_list(write("list.xlsx", content)) as people:
        rows = list(people)
        assert all(isinstance(row, Recipient) for row in rows)
        return [row for row in rows if isinstance(row, Recipient)], people.remarks


@pytest.mark.parametrize(
    ("value", "code", "expected"),
    [
        ("1067", "00000", "01067"),
        ("46380", "dd.mm.yyyy", "24.12.2026"),
        ("46380.770833333", "dd.mm.yyyy hh:mm", "24.12.2026 18:30"),
        ("1234.5", '#,##0.00 "€"', "1,234.50 €"),
        ("0.19", 9, "19%"),
        ("0.195", 10, "19.50%"),
        ("-1234.5", 4, "-1,234.50"),
        ("1234.5", "General", "1234.5"),
        ("0.77083333333", 20, "18:30"),
        ("1.25", 46, "30:00:00"),
    ],
)
def test_cell_is_read_as_it_is_seen(write: Write, value: str, code: str | int, expected: str) -> None:
    rows, remarks = read(write, workbook(one_row(f'<c r="C2" s="1"><v>{value}</v></c>'), code))
    assert rows[0].fields["y"] == expected
    assert remarks.formats == {}


@pytest.mark.parametrize("code", [14, 22, 5, 44, "# ?/?", "[<10]0;0.0", "[$-F800]dddd", "d mmm yyyy"])
def test_format_that_cannot_be_followed_is_remarked(write: Write, code: str | int) -> None:
    _, remarks = read(write, workbook(one_row('<c r="C2" s="1"><v>46380.5</v></c>'), code))
    ((column, lines),) = remarks.formats.items()
    assert remarks.name(column) == "y"
    assert (lines.count, lines.first) == (1, [2])


def test_sheet_that_begins_in_another_column_keeps_its_formats(write: Write) -> None:
    rows = (
        f'<row r="3">{text("C3", "email")}{text("D3", "x")}</row>'
        f'<row r="4">{text("C4", "ann@example.org")}<c r="D4" s="1"><v>7</v></c></row>'
    )
    (row,), _ = read(write, workbook(rows, "000"))
    assert row.fields["x"] == "007"


def test_prefixed_names_and_cells_without_places_are_understood(write: Write) -> None:
    cells = '<c s="1"><v>7</v></c>'
    rows = f"<row>{text('A1', 'email')}{text('B1', 'x')}</row><row>{text('A2', 'ann@example.org')}{cells}</row>"
    content = workbook(rows.replace(' r="', ' data-r="'), "000")
    (row,), _ = read(write, content)
    assert row.fields["x"] == "007"


def test_booleans_are_true_and_false(write: Write) -> None:
    rows, _ = read(write, workbook(one_row('<c r="B2" t="b"><v>1</v></c><c r="C2" t="b"><v>0</v></c>')))
    assert (rows[0].fields["x"], rows[0].fields["y"]) == (True, False)


@pytest.mark.parametrize("hidden", ['hidden="1"', 'hidden="true"', 'ht="0" customHeight="1"'])
def test_hidden_rows_are_remarked(write: Write, hidden: str) -> None:
    rows, remarks = read(write, workbook(one_row("", hidden)))
    assert len(rows) == 1
    assert remarks.hidden == {2}


def test_error_is_read_as_it_is_seen(write: Write) -> None:
    rows, _ = read(write, workbook(one_row('<c r="C2" t="e"><f>1/0</f><v>#DIV/0!</v></c>')))
    assert rows[0].fields["y"] == "#DIV/0!"


def test_formula_without_result_is_remarked(write: Write) -> None:
    _, remarks = read(write, workbook(one_row('<c r="C2"><f>A1+1</f></c>')))
    assert [remarks.name(column) for column in remarks.blank] == ["y"]


def test_number_of_more_digits_than_a_sheet_keeps_is_remarked(write: Write) -> None:
    _, remarks = read(write, workbook(one_row('<c r="C2"><v>1.234567890123457e+17</v></c>')))
    assert [remarks.name(column) for column in remarks.inexact] == ["y"]


def test_plain_sheet_has_no_remarks(write: Write) -> None:
    _, remarks = read(write, workbook(one_row('<c r="C2"><v>7</v></c>')))
    assert remarks == Remarks(names=["email", "x", "y"])


BOMB = '<!DOCTYPE s [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize("where", ["styles", "prolog"])
def test_entities_are_never_expanded(write: Write, where: str) -> None:
    declared = {"styles": f"{BOMB}<styleSheet>&b;</styleSheet>", "prolog": BOMB}
    rows, _ = read(write, workbook(one_row('<c r="C2" s="1"><v>7</v></c>'), "000", **{where: declared[where]}))
    assert rows[0].fields["y"] == "7"


def test_path_of_a_sheet_does_not_leave_the_workbook(write: Write, tmp_path: Path) -> None:
    content = workbook(one_row('<c r="C2"><v>7</v></c>'), "000").replace(
        b"worksheets/sheet1.xml", b"../../../../../../a.xml"
    )
    with pytest.raises(Exception, match=r"list\.xlsx"):
        read(write, content)


@pytest.mark.parametrize(
    ("value", "code", "expected"),
    [
        (-5.0, "#,##0.00;[Red](#,##0.00)", "(5.00)"),
        (0.0, '0;-0;"none"', "none"),
        (5551234567.0, "(000) 000-0000", "(555) 123-4567"),
        (1234567.0, '#,##0,"k"', "1,235k"),
        (12345.678, "0.00E+00", "1.23E+04"),
        (1234.5, '_-* #,##0.00 "€"_-;-* #,##0.00 "€"_-', "1,234.50 €"),
        (1234.5, "[$€-407] #,##0.00", "€ 1,234.50"),
        (43664123.0, "+## ### ###", "+43 664 123"),
        (2.675, "0.00", "2.68"),
        (1234567.891, "#,##0.###", "1,234,567.891"),
        (0.5, "#.##", ".5"),
        (7.0, '"yes";"no"', "yes"),
        (7.0, 'General" kg"', "7 kg"),
    ],
)
def test_number_is_shown(value: float, code: str, expected: str) -> None:
    assert shown_number(value, code) == expected


MOMENT = datetime.datetime(2026, 12, 4, 18, 5, 9)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("d/m/yy", "4/12/26"),
        ("yyyy\\-mm\\-dd", "2026-12-04"),
        ("h:mm AM/PM", "6:05 PM"),
        ("mm:ss", "05:09"),
        ("[$-409]dddd, mmmm d, yyyy", "Friday, December 4, 2026"),
        ('yyyy"年"m"月"d"日"', "2026年12月4日"),
    ],
)
def test_moment_is_shown(code: str, expected: str) -> None:
    assert shown_moment(MOMENT, code) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('"Dr. "@', "Dr. Who"),
        ('0;-0;;@" *"', "Who *"),
        ("#,##0;;", "Who"),
        ("0.00", "Who"),
        ("[<9]0;0", "Who"),
        ("[Red]@", "Who"),
    ],
)
def test_text_is_shown(code: str, expected: str) -> None:
    assert shown_text("Who", code) == expected


@pytest.mark.parametrize("code", [";;;", "0;-0;0;", '[<9]"a"@', "@0"])
def test_text_that_a_format_hides_or_changes_otherwise_says_so(code: str) -> None:
    with pytest.raises(NotShown):
        shown_text("Who", code)


def test_text_cell_is_read_as_it_is_seen(write: Write) -> None:
    cell = text("C2", "Who").replace("<c ", '<c s="1" ')
    rows, remarks = read(write, workbook(one_row(cell), '"Dr. "@'))
    assert rows[0].fields["y"] == "Dr. Who"
    assert remarks.formats == {}


@pytest.mark.parametrize("code", ["0.00", "General", "[h]:mm", "dddd", "x" * 300, '"open', "0" * 100 + "." + "0" * 100])
def test_what_cannot_be_shown_says_so(code: str) -> None:
    with pytest.raises(NotShown):
        shown_moment(MOMENT, code)
