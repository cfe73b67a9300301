"""Workbooks that would take all memory: cropped where only a stray cell is beside the list, else refused."""

from __future__ import annotations

import resource
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from bulkmail.model.errors import ListError
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.recipients.list_source import open_list

NAMESPACE = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
TYPES = """<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Override PartName="/xl/workbook.xml"
 ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>
<Override PartName="/xl/worksheets/sheet1.xml"
 ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>"""
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
RELATIONS = """<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="rId1" Type="{kind}" Target="{target}"/>{more}</Relationships>"""


def inline(place: str, text: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{escape(text)}</t></is></c>'


def row(number: int, *cells: str) -> str:
    return f'<row r="{number}">{"".join(cells)}</row>'


def people(number: int, *more: str) -> list[str]:
    rows = [row(n, inline(f"A{n}", f"u{n}@b.test"), inline(f"B{n}", f"N{n}")) for n in range(2, number + 2)]
    return [row(1, inline("A1", "email"), inline("B1", "name")), *rows, *more]


def workbook(path: Path, rows: list[str], *, strings: str = "") -> Path:
    sheet = '<sheet name="S" sheetId="1" r:id="rId1"/>'
    book = f'<workbook {NAMESPACE} xmlns:r="{OFFICE}"><sheets>{sheet}</sheets></workbook>'
    more = f'<Relationship Id="rId2" Type="{OFFICE}/sharedStrings" Target="sharedStrings.xml"/>' if strings else ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", TYPES)
        archive.writestr(
            "_rels/.rels", RELATIONS.format(kind=f"{OFFICE}/officeDocument", target="xl/workbook.xml", more="")
        )
        archive.writestr("xl/workbook.xml", book)
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            RELATIONS.format(kind=f"{OFFICE}/worksheet", target="worksheets/sheet1.xml", more=more),
        )
        with archive.open("xl/worksheets/sheet1.xml", "w") as part:
            part.write(f"<worksheet {NAMESPACE}><sheetData>".encode())
            for each in rows:
                part.write(each.encode())
            part.write(b"</sheetData></worksheet>")
        if strings:
            archive.writestr("xl/sharedStrings.xml", f"<sst {NAMESPACE}>{strings}</sst>")
    return path


def read(path: Path) -> tuple[list[Recipient | BadRow], list[str]]:
    with open_list(path) as people:
        return list(people), people.notices


GAP = "458 rows without any content skipped, the first at row 42"


@pytest.mark.parametrize(
    ("stray", "notices"),
    [
        (row(1048576, inline("XFD1048576", "x")), ["'x' in XFD1048576 is far outside of the list and left out"]),
        (row(1048576, inline("B1048576", "x")), ["'x' in B1048576 is far outside of the list and left out"]),
        (row(1048576, inline("A1048576", " ")), []),
        (
            row(500, inline("A500", "late@b.test"), inline("ZZZ500", "x")),
            ["'x' in ZZZ500 is far outside of the list and left out", GAP],
        ),
        (row(500, inline("A500", "late@b.test"), inline("ZZZ500", " ")), [GAP]),
        ('<row r="500"><c r="A500" t="inlineStr"><is><t>late@b.test</t></is></c><c r="ZZZ500" s="3"/></row>', [GAP]),
    ],
    ids=["corner", "far row", "far blank", "far column", "far blank column", "far style"],
)
def test_stray_cell_leaves_the_list_as_it_is(stray: str, notices: list[str], tmp_path: Path) -> None:
    path = workbook(tmp_path / "list.xlsx", people(40, stray))
    found, reported = read(path)
    assert reported == [f"{path}: {notice}" for notice in notices]
    assert [each.fields.get("email") for each in found][:40] == [f"u{n}@b.test" for n in range(2, 42)]
    late = [each for each in found[40:] if each.fields.get("email")]
    assert [(each.fields["email"], each.place.line) for each in late] == [("late@b.test", 500)] * ("late" in stray)


def test_stray_cell_may_name_its_text_by_number(tmp_path: Path) -> None:
    strings = "<si><t>one</t></si><si><r><t>tw</t></r><r><t>o &amp; more</t></r></si>"
    stray = row(1048576, '<c r="C1048576" t="s"><v>1</v></c>')
    path = workbook(tmp_path / "list.xlsx", people(3, stray), strings=strings)
    assert read(path)[1] == [f"{path}: 'two & more' in C1048576 is far outside of the list and left out"]


@pytest.mark.slow
def test_rows_that_are_far_apart_but_are_no_stray_cells_are_all_read(tmp_path: Path) -> None:
    rows = [row(1, inline("A1", "email"))] + [row(n, inline(f"A{n}", f"u{n}@b.test")) for n in range(2, 100_000, 9_000)]
    found, reported = read(workbook(tmp_path / "list.xlsx", rows))
    assert [each.place.line for each in found] == list(range(2, 100_000, 9_000))
    assert reported == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        pytest.param(
            people(3, row(1048576, inline("A1048576", "far@b.test"))),
            "'far@b.test' in A1048576 is 1,048,572 rows below the list",
            id="recipient far below",
        ),
        pytest.param(
            [row(1, inline("A1", "email"), inline("XFD1", " ")), *people(900)[1:]],
            "the first row reaches to column XFD, the 16,384th; a list may have 10,000 columns",
            id="wide header",
        ),
        pytest.param(
            [row(1, inline("A1", "email"))] + [row(n, inline(f"{chr(65 + n % 26)}AA{n}", "x")) for n in range(2, 5000)],
            "the cells of the sheet are spread over",
            id="scattered",
        ),
        pytest.param(
            ["<row><c t='inlineStr'><is><t>email</t></is></c></row><row><c t='inlineStr'><is><t>", "x" * 20_000_000],
            "has more than 16,000,000 bytes; a list may have 1,000,000 characters in a cell",
            id="long cell",
        ),
        pytest.param(
            ["<row>"] + ["<c/>" * 250_000] * 80, "unpacked, the workbook's xl/worksheets/sheet1.xml has", id="bomb"
        ),
    ],
)
def test_workbook_that_is_no_list_is_refused(rows: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ListError) as caught:
        read(workbook(tmp_path / "list.xlsx", rows))
    assert words in str(caught.value)
    assert caught.value.hint


def test_text_that_all_cells_may_repeat_is_bounded(tmp_path: Path) -> None:
    rows = [row(n, f'<c r="A{n}" t="s"><v>0</v></c>') for n in range(1, 5_000)]
    with pytest.raises(ListError, match=r"a text of .* bytes may stand in 4,999 cells, which is too much"):
        read(workbook(tmp_path / "list.xlsx", rows, strings=f"<si><t>{'x' * 200_000}</t></si>"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="counts memory as Unix does")
def test_stray_cell_takes_no_memory(tmp_path: Path) -> None:
    path = workbook(tmp_path / "list.xlsx", people(2_000, row(1048576, inline("XFC1048576", "x"))))
    program = (
        "import sys; from bulkmail.recipients.list_source import open_list; print(len(list(open_list(sys.argv[1]))))"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))

    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=50, preexec_fn=limit
    )
    assert done.stdout == "2000\n", done.stderr
