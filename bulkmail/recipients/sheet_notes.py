"""What the XML of a sheet says beside its values: number formats, hidden rows, errors, formulas without a result.

Read as a stream, part by part, with no document type and so no entities: a workbook comes from strangers.
"""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import field
from typing import IO
from xml.parsers import expat

from bulkmail.model.lazy import dataclass
from bulkmail.recipients.number_format import BUILT_IN, is_plain

_CHUNK = 1 << 16
_LARGEST_PART = 64 << 20  # bytes, unpacked, of all parts but the sheets
_MOST_FORMATS = 70_000  # of cells; Excel has room for 65,490
_WORTH_A_LOOK = (b"hidden=", b't="e"', b"<f", b":f", b'ht="0"')
_YES = ("1", "true", "on")
_OPEN_WITHOUT_PARSING = ("xl/workbook.xml", "xl/_rels/workbook.xml.rels")


@dataclass(slots=True)
class RowNotes:
    """One row, by its number from 1.  Columns are counted from 0.

    `formats` are the codes of cells in a format that matters; `errors` are what cells say that have an error; `blank`
    are formulas that were never calculated.
    """

    number: int
    is_hidden: bool = False
    formats: dict[int, str] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    blank: list[int] = field(default_factory=list)


def read_notes(file: str | IO[bytes], sheet: str) -> Iterator[RowNotes]:
    """The rows of the sheet with that name that there is something to say about, in order.

    Says nothing of what is damaged or in another format: the reader of the values handles that.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            part = _part_of(archive, sheet)
            if not part:
                return
            formats = _cell_formats(archive)
            if not any(formats) and not _is_worth_a_look(archive, part):
                return
            yield from _rows(archive, part, formats)
    except (zipfile.BadZipFile, zlib.error, expat.ExpatError, KeyError, EOFError, _Unreadable, RuntimeError):
        return  # an OpenDocument sheet, for one


def is_open_document(file: str | IO[bytes]) -> bool:
    """Whether a workbook is an OpenDocument one, whose notes `read_notes` cannot read."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open("mimetype") as part:
            return part.read(len(_OPEN_DOCUMENT)) == _OPEN_DOCUMENT
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError):
        return False


_OPEN_DOCUMENT = b"application/vnd.oasis.opendocument"


class _Unreadable(Exception):
    """A part that no workbook has."""


def _part_of(archive: zipfile.ZipFile, sheet: str) -> str:
    """The part that holds a sheet; empty if it is not found."""
    wanted = ""

    def sheets(name: str, attributes: dict[str, str]) -> None:
        nonlocal wanted
        if name == "sheet" and attributes.get("name") == sheet and not wanted:
            wanted = next((value for key, value in attributes.items() if key.endswith(":id")), "")

    target = ""

    def relations(name: str, attributes: dict[str, str]) -> None:
        nonlocal target
        if name == "Relationship" and attributes.get("Id") == wanted:
            target = attributes.get("Target", "")

    for part, start in zip(_OPEN_WITHOUT_PARSING, (sheets, relations), strict=True):
        parser = _parser()
        parser.StartElementHandler = lambda name, attributes, start=start: start(_local(name), attributes)
        for chunk in _chunks(archive, part, _LARGEST_PART):
            parser.Parse(chunk)
    return posixpath.normpath(posixpath.join("/xl", target)).lstrip("/") if wanted and target else ""


def _cell_formats(archive: zipfile.ZipFile) -> list[str]:
    """The code for each number that a cell's `s` may be; empty for one that changes nothing."""
    codes: dict[str, str] = {}
    formats: list[str] = []
    is_inside = False

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal is_inside
        name = _local(name)
        if name == "numFmt":
            codes[attributes.get("numFmtId", "")] = attributes.get("formatCode", "")
        elif name == "cellXfs":
            is_inside = True
        elif name == "xf" and is_inside:
            formats.append(attributes.get("numFmtId", "0"))
        if len(formats) + len(codes) > _MOST_FORMATS:
            raise _Unreadable

    def end(name: str) -> None:
        nonlocal is_inside
        is_inside = is_inside and _local(name) != "cellXfs"

    if "xl/styles.xml" not in archive.namelist():
        return []
    parser = _parser()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    for chunk in _chunks(archive, "xl/styles.xml", _LARGEST_PART):
        parser.Parse(chunk)
    return [_code(number, codes) for number in formats]


def _code(number: str, codes: dict[str, str]) -> str:
    """The code of a format by its number; `?14` for one that each computer has its own for."""
    code = codes.get(number) or (
        BUILT_IN.get(int(number), f"?{number}") if number.isascii() and number.isdigit() else ""
    )
    return "" if is_plain(code) else code


def _is_worth_a_look(archive: zipfile.ZipFile, part: str) -> bool:
    """Whether the sheet may have hidden rows, errors or formulas: ten times as fast as finding them."""
    tail = b""
    with archive.open(part) as stream:
        while chunk := stream.read(_CHUNK):
            text = tail + chunk
            if any(sign in text for sign in _WORTH_A_LOOK):
                return True
            tail = chunk[-8:]
    return False


def _rows(archive: zipfile.ZipFile, part: str, formats: list[str]) -> Iterator[RowNotes]:
    sheet = _Sheet(formats)
    with archive.open(part) as stream:
        while chunk := stream.read(_CHUNK):
            sheet.parser.Parse(chunk)
            while sheet.done:
                yield sheet.done.popleft()
    sheet.finish()
    yield from sheet.done


class _Sheet:
    """A handler for the elements of one sheet; `done` are the rows that are complete.

    Each element ends what was open, so that no handler for ends is needed: that would take as long again.
    """

    def __init__(self, formats: list[str]) -> None:
        self.done: deque[RowNotes] = deque()
        self.parser = _parser()
        self.parser.StartElementHandler = self._start
        self._formats = formats
        self._row = RowNotes(0)
        self._column = -1
        self._columns: dict[str, int] = {}
        self._is_error = False
        self._is_formula = False
        self._text = ""

    def finish(self) -> None:
        """Ends the last row."""
        self._end_cell()
        row = self._row
        if row.is_hidden or row.formats or row.errors or row.blank:
            self.done.append(row)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "c" or name.endswith(":c"):
            self._end_cell()
            self._start_cell(attributes)
        elif name == "v" or name.endswith(":v"):
            self._is_formula = False
            if self._is_error:
                self._text = ""
                self.parser.CharacterDataHandler = self._characters
        elif name == "row" or name.endswith(":row"):
            self.finish()
            number = attributes.get("r", "")
            is_hidden = attributes.get("hidden") in _YES or attributes.get("ht") in ("0", "0.0")
            self._row = RowNotes(int(number) if number.isdigit() else self._row.number + 1, is_hidden)
            self._column = -1
        elif name == "f" or name.endswith(":f"):
            self._is_formula = True

    def _start_cell(self, attributes: dict[str, str]) -> None:
        place = attributes.get("r")
        self._column = self._column + 1 if place is None else self._column_of(place)
        self._is_error = attributes.get("t") == "e"
        style = attributes.get("s")
        if style is not None and style.isdigit() and int(style) < len(self._formats):
            code = self._formats[int(style)]
            if code:
                self._row.formats[self._column] = code

    def _end_cell(self) -> None:
        if self._is_formula:  # and no value followed it
            self._row.blank.append(self._column)
            self._is_formula = False
        if self._is_error:
            self.parser.CharacterDataHandler = None
            self._row.errors[self._column] = self._text.strip()[:20]
            self._is_error = False

    def _characters(self, text: str) -> None:
        self._text += text[:20]

    def _column_of(self, place: str) -> int:
        chars = place.rstrip("0123456789")
        column = self._columns.get(chars)
        if column is None:
            column = 0
            for char in chars[:3].upper():
                column = column * 26 + ord(char) - 64
            self._columns[chars] = column = column - 1
        return column


def _parser() -> expat.XMLParserType:
    """A parser that knows no document type: those declare entities, and nothing else in a workbook needs one."""

    def refuse(*_: object) -> None:
        raise _Unreadable

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.buffer_text = True
    return parser


def _chunks(archive: zipfile.ZipFile, part: str, most: int) -> Iterator[bytes]:
    size = 0
    with archive.open(part) as stream:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            if size > most:
                raise _Unreadable
            yield chunk


def _local(name: str) -> str:
    return name.rpartition(":")[2]
