"""How large a workbook may be: looked at as a stream, before a library takes it into memory as a full rectangle.

One cell far out makes that rectangle gigabytes.  Where nothing but such cells is beside the list, the library gets a
copy without them; what hides a recipient, and what is made to fill memory, is refused.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import field, replace
from html import unescape
from typing import IO

from bulkmail.model.errors import ListError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.recipients.columns import MOST_COLUMNS
from bulkmail.recipients.fields import LONGEST_CELL, LONGEST_ROW, shown
from bulkmail.recipients.list_reading import Reading
from bulkmail.recipients.streams import OpenedList
from bulkmail.text import printable

_PACKED = b"PK\x03\x04"
_CHUNK = 1 << 18
_LARGE = 64 << 20  # bytes of a part, from which on it must not be packed more tightly than text ever is
_TIGHTEST = 200  # times smaller than its content
_LARGEST = 4 << 30  # bytes of a part
_SPARE = 1_000_000  # empty cells that cost little
_WIDEST_GAP = 100  # columns between two headings
_BESIDE = 16  # columns behind the last heading whose cells are looked at as part of their row
_LONGEST_GAP = 10_000  # empty rows within a list
_MOST_STRAY = 1_000  # cells outside the list
_OFFICE_LONGEST = 32_767 * 4  # bytes of a text that spreadsheet programs can write
_MOST_REPEATED = 1 << 29  # bytes of one text in all cells that may repeat it

_ROW = lazy_pattern(rb"<(?:\w+:)?row\b([^>]*)>")
_CELL = lazy_pattern(rb"<(?:\w+:)?c\b([^>]*)>")
_REFERENCE = lazy_pattern(rb"""\br=["']([A-Za-z]{1,3})([0-9]{1,7})["']""")
_ROW_NUMBER = lazy_pattern(rb"""\br=["']([0-9]{1,7})["']""")
_TYPE = lazy_pattern(rb"""\bt=["'](\w+)["']""")
_TEXT = lazy_pattern(rb"<(?:\w+:)?(?:v|t)\b[^>]*>([^<]*)<")
_WHOLE_CELL = lazy_pattern(rb"<(?:\w+:)?c\b([^>]*?)(?:/>|>(.*?)</(?:\w+:)?c>)", re.DOTALL)
_ROW_OR_CELL = lazy_pattern(rb"(?:%s)|(?:%s)" % (_ROW.pattern, _WHOLE_CELL.pattern), re.DOTALL)
_TAG = lazy_pattern(rb"(?:%s)|(?:%s)" % (_ROW.pattern, _CELL.pattern))
_PLAIN = lazy_pattern(rb'<c r="([A-Z]{1,3})([0-9]{1,7})"')
_CELL_START = lazy_pattern(rb"<(?:\w+:)?c[ />]")
_ROW_END = lazy_pattern(rb"</(?:\w+:)?row>")
_STRING_END = lazy_pattern(rb"</(?:\w+:)?si>")
_SHEET = lazy_pattern(r"xl/worksheets/[^/]+\.xml", re.IGNORECASE)
_STRINGS = lazy_pattern(r"xl/sharedStrings\.xml", re.IGNORECASE)
_OTHERS = lazy_pattern(r"xl/(?:styles|workbook)\.xml|content\.xml", re.IGNORECASE)


def bounded(opened: OpenedList, reading: Reading) -> OpenedList:
    """The workbook to read: the same, or a copy of it without cells far outside of the list.  Other files stay.

    Raises `ListError` for one that is too large.  What is no workbook is left to those who read it.
    """
    is_packed = opened.stream.read(len(_PACKED)) == _PACKED
    opened.stream.seek(0)
    if not is_packed:
        return opened
    try:
        archive = zipfile.ZipFile(opened.stream)
    except zipfile.BadZipFile:
        opened.stream.seek(0)
        return opened
    with archive:
        try:
            lists = _look(archive, reading)
            cropped = _without(archive, lists, reading) if lists else None
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # what says the wrong size, too
            raise ListError(
                f"{reading.name} is not a workbook that can be read: {printable(str(error))}",
                hint="save the sheet as CSV",
            ) from error
    opened.stream.seek(0)
    return opened if cropped is None else replace(opened, stream=cropped, path="")


@dataclass(slots=True)
class _Cells:
    """How many cells one sheet has, and the last row and column that they reach."""

    cells: int = 0
    last_row: int = 0
    last_column: int = 0

    @property
    def is_sparse(self) -> bool:
        return self.last_row * self.last_column > 2 * self.cells + _SPARE


@dataclass(slots=True)
class _List:
    """The part of a sheet that is the list: it ends with the column `last_column` and the row `last_row`."""

    last_column: int = 0
    last_row: int = 0
    stray: list[tuple[int, int, bytes, bool]] = field(
        default_factory=list
    )  # row, column, text, is it only a number of one

    def is_plainly_inside(self, chunk: bytes, columns: frozenset[bytes]) -> bool:
        """Whether a row with content has all its cells in these columns; then it is the last one so far."""
        places = _plain_places(chunk)
        if not places or not columns.issuperset(chars for chars, _ in places) or not _TEXT.search(chunk):
            return False
        row = int(places[-1][1])
        if row - self.last_row > _LONGEST_GAP:
            return False
        self.last_row = row
        return True

    def has(self, row: int, column: int) -> bool:
        return row <= self.last_row and column <= self.last_column + _BESIDE


def _look(archive: zipfile.ZipFile, reading: Reading) -> dict[str, _List]:
    """The sheets that have cells outside of their lists.  Raises `ListError`."""
    longest = 0
    sparse: list[str] = []
    most_cells = 0
    for part in archive.infolist():
        if not any(kind.fullmatch(part.filename) for kind in (_SHEET, _STRINGS, _OTHERS)):
            continue
        if part.file_size > _LARGEST or part.file_size > max(_LARGE, part.compress_size * _TIGHTEST):
            raise ListError(
                f"{reading.name}: unpacked, the workbook's {printable(part.filename)} has {part.file_size:,} bytes, "
                f"packed {part.compress_size:,}; no list is like that",
                hint="save the sheet as CSV",
            )
        if _SHEET.fullmatch(part.filename):
            found = _measure(archive, part, reading)
            most_cells = max(most_cells, found.cells)
            if found.is_sparse:
                sparse.append(part.filename)
        elif _STRINGS.fullmatch(part.filename):
            longest = max((len(text) for text in _pieces(archive, part, reading)), default=0)
    if longest > _OFFICE_LONGEST and longest * most_cells > _MOST_REPEATED:
        raise ListError(
            f"{reading.name}: a text of {longest:,} bytes may stand in {most_cells:,} cells, which is too much",
            hint="save the sheet as CSV",
        )
    lists = {name: _find_list(archive, archive.getinfo(name), reading) for name in sparse}
    return {name: found for name, found in lists.items() if found.stray}


def _pieces(archive: zipfile.ZipFile, part: zipfile.ZipInfo, reading: Reading) -> Iterator[bytes]:
    """The content of a part, cut before tags.  Raises `ListError` where there is no tag for too long."""
    rest = b""
    with archive.open(part) as stream:
        while chunk := stream.read(_CHUNK):
            rest += chunk
            end = rest.rfind(b"<")
            if end > 0:
                yield rest[:end]
                rest = rest[end:]
            elif len(rest) > LONGEST_ROW:
                raise ListError(
                    f"{reading.name}: a cell in the workbook's {printable(part.filename)} has more than "
                    f"{LONGEST_ROW:,} bytes; a list may have {LONGEST_CELL:,} characters in a cell",
                    hint="shorten it, or save the sheet as CSV",
                )
    yield rest


def _measure(archive: zipfile.ZipFile, part: zipfile.ZipInfo, reading: Reading) -> _Cells:
    found, at = _Cells(), _Position()
    columns: set[bytes] = set()
    for piece in _pieces(archive, part, reading):
        places = _plain_places(piece)
        if places:
            found.cells += len(places)
            columns.update(chars for chars, _ in places)
            at.row = int(places[-1][1])
            found.last_row = max(found.last_row, max(int(row) for row in {row for _, row in places}))
            continue
        for tag in _TAG.finditer(piece):
            if at.moves(tag[1], tag[2]):
                found.cells += 1
                found.last_row = max(found.last_row, at.row)
                found.last_column = max(found.last_column, at.column)
    found.last_column = max([found.last_column, *map(_number, columns)])
    return found


def _plain_places(piece: bytes) -> list[tuple[bytes, bytes]]:
    """Column and row of each cell, quickly, if all are written as most programs do; otherwise none."""
    places = _PLAIN.findall(piece)
    return places if len(places) == len(_CELL_START.findall(piece)) else []


class _Position:
    """Where in a sheet a tag is."""

    def __init__(self) -> None:
        self.row = self.column = 0

    def moves(self, row: bytes | None, cell: bytes | None) -> bool:
        """Takes in the attributes of a tag, which is a row's or a cell's; True for a cell's."""
        if row is not None:
            number = _ROW_NUMBER.search(row)
            self.row, self.column = int(number[1]) if number else self.row + 1, 0
            return False
        place = _REFERENCE.search(cell or b"")
        if place:
            self.row, self.column = int(place[2]), _number(place[1])
        else:
            self.column += 1
        return True


def _number(chars: bytes) -> int:
    """The number of a column, from 1, by its letters."""
    number = 0
    for char in chars.upper():
        number = number * 26 + char - 64
    return number


def _letters(column: int) -> str:
    chars = ""
    while column:
        column, rest = divmod(column - 1, 26)
        chars = chr(65 + rest) + chars
    return chars


def _chunks(
    archive: zipfile.ZipFile, part: zipfile.ZipInfo, end: re.Pattern[bytes], reading: Reading
) -> Iterator[bytes]:
    """The content of a part, each piece but the last with a tag that `end` matches at its end."""
    rest = b""
    for piece in _pieces(archive, part, reading):
        rest += piece
        at = 0
        for found in end.finditer(rest):
            yield rest[at : found.end()]
            at = found.end()
        rest = rest[at:]
        if len(rest) > LONGEST_ROW * 4:
            raise ListError(f"{reading.name}: a row of the workbook is too long", hint="save the sheet as CSV")
    yield rest


def _find_list(archive: zipfile.ZipFile, part: zipfile.ZipInfo, reading: Reading) -> _List:
    """Which cells with content are outside of the list.  Raises `ListError` for what hides a recipient."""
    found, at = _List(), _Position()
    inside: frozenset[bytes] = frozenset()
    for chunk in _chunks(archive, part, _ROW_END, reading):
        if found.is_plainly_inside(chunk, inside):
            at.row = found.last_row
            continue
        cells: list[tuple[int, int, bytes, bool]] = []
        for tag in _ROW_OR_CELL.finditer(chunk):
            if at.moves(tag[1], tag[2]) and (text := b"".join(_TEXT.findall(tag[3] or b""))):
                kind = _TYPE.search(tag[2])
                cells.append((at.row, at.column, text, kind is not None and kind[1] == b"s"))
        if not cells:
            continue
        if not found.last_row:
            _take_header(found, [column for _, column, _, _ in cells], reading)
            inside = frozenset(_letters(column).encode() for column in range(1, found.last_column + _BESIDE + 1))
        if cells[0][0] - (found.last_row or cells[0][0]) <= _LONGEST_GAP:
            found.last_row = cells[0][0]
        found.stray += [cell for cell in cells if not found.has(cell[0], cell[1])]
        if len(found.stray) > _MOST_STRAY:
            raise ListError(
                f"{reading.name}: the cells of the sheet are spread over {at.row:,} rows and over columns up to "
                f"{_letters(max(cell[1] for cell in found.stray))}",
                hint="leave only the list in the sheet, or save it as CSV",
            )
    texts = _texts(archive, {int(text) for _, _, text, is_number in found.stray if is_number}, reading)
    for row, column, text, is_number in found.stray:
        shown_text = texts.get(int(text), "") if is_number else unescape(text.decode("utf-8", "replace"))
        if not shown_text.strip():
            continue
        where = f"{_letters(column)}{row}"
        if row > found.last_row and "@" in shown_text:
            raise ListError(
                f"{reading.name}: {shown(shown_text)} in {where} is {row - found.last_row:,} rows below the list",
                hint="delete the empty rows between, or that cell",
            )
        reading.notices.append(
            f"{reading.name}: {shown(shown_text)} in {where} is far outside of the list and left out"
        )
    return found


def _take_header(found: _List, columns: list[int], reading: Reading) -> None:
    if (widest := max(columns)) > MOST_COLUMNS:
        raise ListError(
            f"{reading.name}: the first row reaches to column {_letters(widest)}, the {widest:,}th; "
            f"a list may have {MOST_COLUMNS:,} columns",
            hint="delete what is in that column, or save only the list as CSV",
        )
    found.last_column = columns[0]
    for column in sorted(columns):
        if column - found.last_column > _WIDEST_GAP:
            break
        found.last_column = column


def _texts(archive: zipfile.ZipFile, wanted: set[int], reading: Reading) -> dict[int, str]:
    """The texts of a workbook that cells name by number."""
    names = [part for part in archive.infolist() if _STRINGS.fullmatch(part.filename)]
    if not wanted or not names:
        return {}
    last = max(wanted)
    texts = {}
    for number, chunk in enumerate(_chunks(archive, names[0], _STRING_END, reading)):
        if number in wanted:
            texts[number] = unescape(b"".join(_TEXT.findall(chunk)).decode("utf-8", "replace"))
        if number >= last:
            break
    return texts


def _without(archive: zipfile.ZipFile, lists: dict[str, _List], reading: Reading) -> IO[bytes]:
    """A copy of the workbook, in a file without a name, that has only the lists in these sheets."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115  (it goes with its last reader)
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for part in archive.infolist():
            with target.open(part.filename, "w", force_zip64=True) as stream:
                if part.filename in lists:
                    for chunk in _cropped(archive, part, lists[part.filename], reading):
                        stream.write(chunk)
                else:
                    with archive.open(part) as source:
                        shutil.copyfileobj(source, stream, _CHUNK)
    copy.seek(0)
    return copy


def _cropped(archive: zipfile.ZipFile, part: zipfile.ZipInfo, kept: _List, reading: Reading) -> Iterator[bytes]:
    at = _Position()

    def inside(tag: re.Match[bytes]) -> bytes:
        return tag[0] if not at.moves(tag[1], tag[2]) or kept.has(at.row, at.column) else b""

    rows = {row for row, _, _, _ in kept.stray}
    for chunk in _chunks(archive, part, _ROW_END, reading):
        places = _plain_places(chunk)
        if places and int(places[-1][1]) not in rows:
            at.row = int(places[-1][1])
            yield chunk
        else:
            yield _ROW_OR_CELL.sub(inside, chunk)
