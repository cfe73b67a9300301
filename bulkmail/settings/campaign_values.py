"""The values of a campaign: `[data]`, the files that it names, and `--set`, as `Campaign.data`."""

from __future__ import annotations

import io
import tomllib
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import msgspec

from bulkmail.message.template.constants import LONGEST, name_fault, written_values
from bulkmail.model.errors import ConfigError
from bulkmail.model.quantities import read_number
from bulkmail.recipients.csv_reader import CellReader, RowFault
from bulkmail.settings.campaign_files import FileReader
from bulkmail.settings.layers import Sources, refuse_deep_keys
from bulkmail.settings.problems import Said, show

_DELIMITERS = ",;\t"
_DECODE = msgspec.json.Decoder(float_hook=read_number).decode


def campaign_data(sources: Sources, reader: FileReader) -> str:
    """The values as `Campaign.data` has them.  Faults are reported."""
    values: dict[str, object] = {}
    written = sources.file.data
    if isinstance(written, str):
        values |= _whole_file(Said(written, sources.place(("data",)), sources.home), sources, reader)
    elif isinstance(written, dict):
        for name, value in written.items():
            values[name] = _value(name, value, sources, reader)
    elif written is not None:
        what = f"{sources.place(('data',))} = {show(str(written))}: expected a table or the name of a file"
        sources.problems.add(what, 'write [data] and below it season = "spring", or data = "products.json"')
    values |= dict(_typed(sources))
    for name in values:
        if fault := name_fault(name):
            sources.problems.add(
                f"{_place(sources, name)}: {show(name)} {fault}", 'write season = "spring" below [data]'
            )
            return ""
    try:
        return written_values(values)
    except ConfigError as error:
        sources.problems.add(str(error), error.hint)
        return ""


def _place(sources: Sources, name: str) -> str:
    if any(typed.partition("=")[0].strip() == name for typed in sources.overrides.values):
        return "--set"
    return sources.place(("data", name))


def _typed(sources: Sources) -> Iterator[tuple[str, object]]:
    for typed in sources.overrides.values:
        name, equals, value = typed.partition("=")
        if not equals:
            sources.problems.add(f"{sources.typed('--set', typed)}: has no =", "write --set season=spring")
        else:
            yield name.strip(), value


def _value(name: str, value: Any, sources: Sources, reader: FileReader) -> object:
    """A value that was written, or `{ file = "products.csv" }`."""
    if isinstance(value, dict) and set(value) == {"file"} and isinstance(value["file"], str):
        found = _content(Said(value["file"], sources.place(("data", name)), sources.home), sources, reader)
        return "" if found is None else found
    return value


def _whole_file(said: Said[str], sources: Sources, reader: FileReader) -> dict[str, object]:
    """`data = "products.json"`: the names of an object; a list has the name of its file."""
    found = _content(said, sources, reader)
    if isinstance(found, dict):
        return found
    return {} if found is None else {Path(said.value).name.partition(".")[0]: found}


def _content(said: Said[str], sources: Sources, reader: FileReader) -> object:
    """The content of a file; None and a fault if it cannot be read."""
    data = reader.content(said, longest=LONGEST)
    if data is None:
        return None
    suffix = Path(said.value).suffix.lower()
    try:
        if len(data) > LONGEST:
            raise ValueError(f"is longer than {LONGEST // 1_000_000} MB")
        text = data.decode("utf-8-sig")
        match suffix:
            case ".json":
                return _DECODE(text)
            case ".toml":
                refuse_deep_keys(text, Path(said.value))
                return _plain(tomllib.loads(text, parse_float=read_number))
            case ".csv" | ".tsv":
                return list(_rows(text))
        raise ValueError("is none of .json, .toml and .csv")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        sources.problems.add(f"{said}: line {line} is not UTF-8", "save the file as UTF-8")
    except RecursionError:
        sources.problems.add(f"{said}: is nested too deeply", "is it the right file?")
    except ConfigError as error:
        sources.problems.add(str(error), error.hint)
    except ValueError as error:  # those of msgspec and tomllib are such
        sources.problems.add(f"{said}: {error}", "see the guide, Values of the campaign")
    return None


def _plain(value: object) -> object:
    """TOML's dates as text, as in a list."""
    match value:
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case datetime() | date() | time():
            return value.isoformat()
    return value


def _rows(text: str) -> Iterator[dict[str, str]]:
    """The rows of a CSV file by the names of its columns.  Raises `ValueError` with the line of a fault."""
    first = text.partition("\n")[0]
    rows = CellReader(io.StringIO(text, newline=""), max(_DELIMITERS, key=first.count)).rows()
    names = [name.strip() for name in next(rows, (1, list[str](), None))[1]]
    if not names or not all(names) or len(set(names)) < len(names):
        raise ValueError("line 1: a column has no name, or two have the same")
    for line, cells, trouble in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if trouble in (RowFault.TOO_LONG, RowFault.UNCLOSED):
            raise ValueError(f"line {line}: a quote is not closed, or the row is too long")
        if len(cells) != len(names):
            raise ValueError(f"line {line}: has {len(cells)} cells, expected {len(names)}")
        yield dict(zip(names, (cell.strip() for cell in cells), strict=True))
