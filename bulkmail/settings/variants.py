"""A body whose file the row chooses: `html = "message-{{ lang }}.html"`.  All such files are read beforehand."""

from __future__ import annotations

import glob

from bulkmail.model.campaign import Template
from bulkmail.model.pattern import lazy_pattern
from bulkmail.settings.files import FileReader
from bulkmail.settings.problems import Said, show
from bulkmail.settings.sources import Sources

MOST = 200  # files of one body
_VALUE = lazy_pattern(r"\{\{(.*?)\}\}")


def is_by_row(file: str) -> bool:
    """Whether the name of a file has a template in it."""
    return "{{" in file or "{%" in file


def chosen_by_row(
    said: Said[str], fallback: str | None, *, part: str, sources: Sources, reader: FileReader
) -> Template | None:
    """The template that includes the file of each row, or the `fallback` where there is none.  Faults are reported."""
    file = said.value
    if part in ("mjml", "calendar") or "{%" in file or "{{" in _VALUE.sub("", file):
        what = f"{said}: {part} cannot be chosen so by the row"
        sources.problems.add(what, 'write a value in the name of the file: html = "message-{{ lang }}.html"')
        return None
    pieces = _VALUE.split(file)  # text and expressions in turn
    outside = next((name for name in (file, fallback or "") if name.startswith(("/", "~")) or ".." in name), None)
    if outside is not None:
        sources.problems.add(f"{said}: {show(outside)} is not below the campaign's folder", "put the files there")
        return None
    pattern = "*".join(map(glob.escape, pieces[::2]))
    names = sorted(
        path.relative_to(reader.root).as_posix() for path in reader.root.glob(pattern) if reader.is_below(path)
    )
    if not names:
        sources.problems.add(f"{said}: there is no file {show(pattern)} in {reader.root}", "put the files there")
        return None
    if len(names) > MOST:
        sources.problems.add(f"{said}: {len(names):,} files are called {show(pattern)}", f"expected {MOST} at most")
        return None
    for name in names:
        reader.part(name, said)
    if fallback is not None and fallback not in names:
        if not reader.is_below(reader.root / fallback):
            sources.problems.add(f"{said}: there is no fallback {show(fallback)} in {reader.root}", "put it there")
            return None
        reader.part(fallback, said)
    chosen = " ~ ".join(
        f"({piece.strip()})" if number % 2 else _quoted(piece) for number, piece in enumerate(pieces) if piece
    )
    if fallback is not None:
        chosen = f"[{chosen}, {_quoted(fallback)}]"
    template = Template(sources.template_name(part), f"{{% include {chosen} %}}\n")
    reader.choosing.add(template.name)
    return template


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
