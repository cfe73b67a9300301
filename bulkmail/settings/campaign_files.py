"""The files of a campaign, read once and whole: bodies, the parts they include, attachments."""

from __future__ import annotations

import codecs
import glob
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from bulkmail.message.attachments.file_parts import guess_type
from bulkmail.message.template.syntax import say
from bulkmail.message.template.tags import with_css_apart
from bulkmail.model.campaign import Attachment, RowAttachment, Template, composed, is_template, other_case, same_name
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.recipient import has_control
from bulkmail.settings.layers import Sources
from bulkmail.settings.problems import Problems, Said, show
from bulkmail.settings.schema import AttachmentTable
from bulkmail.text import did_you_mean, printable

if TYPE_CHECKING:
    from jinja2 import nodes


_MESSAGE_FILE_FIX_TYPED = 'write the message into a file, or "-" to read it from standard input'
_MESSAGE_FILE_FIX = (
    'if this is the message itself, write it as { inline = "…" } or put it between """ on lines of its own'
)

LONGEST_TEMPLATE = 10_000_000  # bytes; a message has thousands, a wrong file may have billions


@dataclass(slots=True)
class FileReader:
    """Reads what was named; what cannot be read becomes a fault.  `root` is where included parts are looked for.

    `found` are the files that there are.  `choosing` are the templates that choose among `parts` by the row, by name.
    `drafts` are texts by absolute path that are read in place of the files there.
    """

    problems: Problems
    root: Path
    stdin_taken_by: str = ""
    parts: dict[str, Template] = field(default_factory=dict)
    choosing: set[str] = field(default_factory=set)
    found: list[Path] = field(default_factory=list)
    drafts: Mapping[str, str] = field(default_factory=dict)

    def message(self, said: Said[str]) -> Template | None:
        """The message in a file, on standard input (`-`), or, being several lines, in `said` itself."""
        if "\n" in said.value:
            return Template(said.place, said.value)
        if said.value == "-" and said.is_typed:
            data = self._standard_input(said)
            name = "<stdin>"
        else:
            data = self.content(
                said, longest=LONGEST_TEMPLATE, fix=_MESSAGE_FILE_FIX_TYPED if said.is_typed else _MESSAGE_FILE_FIX
            )
            name = said.value
        text = None if data is None else self._text(f"{said}", data)
        return None if text is None else Template(name, text)

    def take_standard_input(self, said: Said[str]) -> bool:
        """Whether standard input was still free; it can be read only once."""
        if self.stdin_taken_by:
            self.problems.add(
                f"{said}: standard input is already taken by {self.stdin_taken_by}", "name a file for one of them"
            )
            return False
        self.stdin_taken_by = said.place
        return True

    def _standard_input(self, said: Said[str]) -> bytes | None:
        if not self.take_standard_input(said):
            return None
        if sys.stdin is None:
            self.problems.add(f"{said}: there is no standard input", "name a file")
            return None
        return sys.stdin.buffer.read(LONGEST_TEMPLATE + 1)

    def exists(self, said: Said[str], *, fix: str = "") -> Path | None:
        """The path of a file that can be opened, or None and a fault.

        A flag may also name a pipe, as the shell's `<(command)` does; a campaign's file that is one would hang.
        """
        path = resolve(said)
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError):  # ValueError: a NUL in the name
            self.problems.add(f"{said}: there is no such file{_in_folder(path)}", _similar(path) or fix)
            return None
        if not stat.S_ISREG(mode) and not (said.is_typed and stat.S_ISFIFO(mode)):
            kind = "a folder" if stat.S_ISDIR(mode) else "not an ordinary file"
            self.problems.add(f"{said}: that is {kind}", "name a file")
            return None
        if not os.access(path, os.R_OK):
            self.problems.add(f"{said}: the file may not be read", f"type: chmod u+r {path}")
            return None
        self.found.append(path)
        return path

    def content(self, said: Said[str], *, longest: int | None = None, fix: str = "") -> bytes | None:
        """The bytes of the file, or None and a fault."""
        if (draft := self.drafts.get(str(resolve(said).absolute()))) is not None:
            self.found.append(resolve(said))
            return draft.encode()
        path = self.exists(said, fix=fix)
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                return file.read() if longest is None else file.read(longest + 1)
        except OSError as error:
            self.problems.add(f"{said}: the file cannot be read: {error.strerror}")
            return None
        except MemoryError:
            self.problems.add(
                f"{said}: the file is larger than this computer has memory for",
                "make it smaller, or put it on a web site and write its address into the message",
            )
            return None

    def _text(self, place: str, data: bytes) -> str | None:
        """UTF-8 with `\\n` for every line end, so that a message is the same on every system."""
        if len(data) > LONGEST_TEMPLATE:
            self.problems.add(f"{place}: is longer than {LONGEST_TEMPLATE // 1_000_000} MB", "is it the right file?")
            return None
        if what := next((what for magic, what in _NO_TEXT if data.startswith(magic)), ""):
            self.problems.add(
                f"{place}: is {what}, not a text", "save it as plain text (.txt) or as a web page (.html)"
            )
            return None
        try:
            text = data.decode(_declared_encoding(data) or "utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            self.problems.add(f"{place}: line {line} is not UTF-8", "save the file as UTF-8")
            return None
        if "\0" in text:
            self.problems.add(f"{place}: holds a NUL character", "is it a text file?")
            return None
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def attachment(
        self, said: Said[str], *, name: str | None = None, content_type: str | None = None
    ) -> Attachment | None:
        """The file as all recipients get it."""
        content = self.content(said)
        filename = composed(Path(said.value).name) if name is None else name
        if not filename or has_control(filename) or re.search(r"[/\\]", filename):
            self.problems.add(f"{said}: its name {show(filename)} is not a file name", 'write name = "menu.pdf"')
            return None
        return None if content is None else Attachment(filename, content_type or guess_type(filename), content)

    def part(self, name: str, said: Said[str]) -> None:
        """Reads a file below `root` as the part `name`, and what it includes."""
        data = self.content(Said(str((self.root / name).absolute()), said.place, self.root), longest=LONGEST_TEMPLATE)
        text = None if data is None else self._text(str(said), data)
        if text is not None:
            self.parts[name] = Template(name, text)
            self.collect_parts(self.parts[name])

    def collect_parts(self, template: Template) -> None:
        """Reads what `template` includes, extends or imports, and what that does, into `parts`."""
        from jinja2 import Environment, TemplateSyntaxError

        if template.name in self.choosing:
            return  # what it may include is known
        waiting = [template]
        environment = Environment(autoescape=True)  # only parses
        while waiting:
            current = waiting.pop()
            try:
                tree = environment.parse(with_css_apart(current.text))
            except TemplateSyntaxError as error:
                text, fix = say(str(error.message), current.text, error.lineno)
                self.problems.add(
                    f"{current.name}:{error.lineno}: {text}", fix or "see https://jinja.palletsprojects.com"
                )
                continue
            except RecursionError:
                self.problems.add(f"{current.name}: is nested too deeply", "make it simpler")
                continue
            waiting += self._parts_of(current, tree)

    def _parts_of(self, template: Template, tree: nodes.Template) -> Iterator[Template]:
        """The parts that were not known yet."""
        for reference in _references(tree):
            place = f"{template.name}:{reference.line}"
            if reference.names is None:
                self.problems.add(
                    f"{place}: includes a file whose name is computed",
                    "write the name in quotes; it is read beforehand",
                )
                continue
            found = [part for part in map(self._part_path, reference.names) if part is not None]
            if not found and not reference.is_optional:
                self._tell_missing(place, reference.names)
            for name, path in found:
                if name in self.parts:
                    continue
                said = Said(name, f"{place}: include", self.root)
                data = self.content(Said(str(path.absolute()), said.place, self.root), longest=LONGEST_TEMPLATE)
                text = None if data is None else self._text(str(said), data)
                if text is not None:
                    self.parts[name] = Template(name, text)
                    yield self.parts[name]

    def _part_path(self, name: str) -> tuple[str, Path] | None:
        """Where a part is, only below the campaign's folder: a message from elsewhere must not read this machine."""
        if not name or has_control(name) or "\\" in name or ".." in name.split("/") or Path(name).is_absolute():
            return None
        path = self.root / name
        return (name, path) if path.is_file() and self._is_inside(path) else None

    def is_below(self, path: Path) -> bool:
        """Whether `path` is a file that is below the campaign's folder."""
        return path.is_file() and self._is_inside(path)

    def _is_inside(self, path: Path) -> bool:
        """Whether following every link ends below the campaign's folder."""
        try:
            found = path.resolve()
            # One that leads to itself stays a link from Python 3.13 on, and is an error before.
            return not found.is_symlink() and found.is_relative_to(self.root.resolve())
        except (OSError, RuntimeError):
            return False
        except ValueError:  # a NUL: nowhere at all
            return True

    def _tell_missing(self, place: str, names: list[str]) -> None:
        for name in names:
            if ".." in name.split("/") or Path(name).is_absolute() or not self._is_inside(self.root / name):
                what = f'includes {show(name)}, but only what is below {self.root} is read, by a path without ".."'
                self.problems.add(f"{place}: {what}", "copy it into the campaign's folder")
            else:
                near = _similar(self.root / name) if name else ""
                self.problems.add(f"{place}: includes {show(name)}, which is not in {self.root}", near)


_NO_TEXT = (
    (b"PK\x03\x04", "a document of Word or another office program, or an archive"),
    (b"\xd0\xcf\x11\xe0", "a document of an old office program"),
    (b"{\\rtf", "rich text (RTF)"),
    (b"%PDF-", "a PDF"),
)
_META_CHARSET = lazy_pattern(rb"<meta\b[^>]*?\bcharset\s*=\s*[\"']?\s*([A-Za-z0-9._:-]+)", re.IGNORECASE)
_BEGINNING = 4_096  # bytes in which a page says its encoding
# As browsers read them (WHATWG Encoding): the names of Latin-1 stand for what Windows writes.
_MEANT = {"iso-8859-1": "cp1252", "latin1": "cp1252", "latin-1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252"}


def _declared_encoding(data: bytes) -> str:
    """The encoding that a page says it is in, if it is not UTF-8 throughout; empty if it says none that is known."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    found = _META_CHARSET.search(data[:_BEGINNING])
    if not found or data.isascii():
        return ""
    try:
        data.decode()
        return ""  # what it says is out of date
    except UnicodeDecodeError:
        pass
    name = found[1].decode("ascii").lower()
    try:
        b"".decode(_MEANT.get(name, name))
    except LookupError:
        return ""
    return _MEANT.get(name, name)


def resolve(said: Said[str]) -> Path:
    """The path that was meant: `~` is the home folder, a relative path starts from the folder it was said in."""
    path = Path(os.path.expanduser(said.value))
    return on_disk(path if path.is_absolute() or said.folder == Path(".") else said.folder / path)


def on_disk(path: Path) -> Path:
    """The path of the file that has this name, however it writes its accents."""
    if path.name.isascii() and str(path).isascii():
        return path
    try:
        if path.exists():
            return path
        folder = on_disk(path.parent)
        same = same_name(path.name, [other.name for other in folder.iterdir()])
    except (OSError, ValueError):
        return path
    return folder / (same or path.name)


def _in_folder(path: Path) -> str:
    return f" in {printable(str(path.parent))}" if path.parent != Path(".") else ""


def _similar(path: Path) -> str:
    try:
        names = [other.name for other in path.parent.iterdir() if not other.is_dir()]
        same = other_case(path.name, names)
        return f"did you mean {show(same)}?" if same else did_you_mean(path.name, names)
    except (OSError, ValueError):
        return ""


@dataclass(frozen=True, slots=True)
class _Reference:
    """What one `include`, `extends` or `import` names; `names` is None when it is computed."""

    names: list[str] | None
    line: int
    is_optional: bool


def _references(tree: nodes.Template) -> Iterator[_Reference]:
    from jinja2 import nodes

    for node in tree.find_all(nodes.Stmt):
        if isinstance(node, nodes.Extends | nodes.FromImport | nodes.Import | nodes.Include):
            optional = isinstance(node, nodes.Include) and node.ignore_missing
            yield _Reference(_names(node.template), node.lineno, optional)


def _names(expression: nodes.Expr) -> list[str] | None:
    """Every name an expression of literals may come to, or None."""
    from jinja2 import nodes

    match expression:
        case nodes.Const(value=str() as name):
            return [name]
        case nodes.List(items=items) | nodes.Tuple(items=items):
            several = [_names(item) for item in items]
        case nodes.CondExpr(expr1=first, expr2=second):
            several = [_names(first), _names(second) if second is not None else []]
        case _:
            return None
    if any(names is None for names in several):
        return None
    return [name for names in several for name in names or ()]


MOST = 200  # files of one body
_VALUE = lazy_pattern(r"\{\{(.*?)\}\}")


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


_TAG = lazy_pattern(r"\{\{|\{%|\{#")


def attachments(sources: Sources, reader: FileReader) -> tuple[Attachment, ...]:
    """The files for all recipients."""
    found = [
        reader.attachment(said, name=table.name, content_type=table.type)
        for said, table in _settings(sources)
        if not _is_of_row(said, table)
    ]
    return sources.enclosed + tuple(attachment for attachment in found if attachment is not None)


def row_attachments(sources: Sources) -> tuple[RowAttachment, ...]:
    """The files that each row names: those whose path, or whose name, is a template."""
    found = [_row_attachment(sources, said, table) for said, table in _settings(sources) if _is_of_row(said, table)]
    return tuple(attachment for attachment in found if attachment is not None)


def _settings(sources: Sources) -> Iterator[tuple[Said[str], AttachmentTable]]:
    """The file's and the flags'."""
    for number, table in enumerate(sources.file.message.attachments):
        place = sources.place(("message", "attachments", number))
        if table.file and table.file.strip():
            yield Said(table.file.strip(), place, sources.home), table
        else:
            sources.problems.add(f"{place}: an attachment names no file", 'write { file = "menu.pdf" }')
    for name in sources.overrides.attach:
        yield sources.typed("--attach", name), AttachmentTable(file=name)


def _is_of_row(said: Said[str], table: AttachmentTable) -> bool:
    return is_template(said.value) or is_template(table.name or "")


def _row_attachment(sources: Sources, said: Said[str], table: AttachmentTable) -> RowAttachment | None:
    root, prefix = _root_of(sources, said)
    if not root.is_dir():
        sources.problems.add(
            f"{said}: there is no folder {root}", "files of rows are looked for there; make it, or set attachments_root"
        )
        return None
    return RowAttachment(
        path=Template(said.place, said.value),
        root=str(root.absolute()),
        filename=None if table.name is None else Template(said.place, table.name),
        content_type=table.type or "",
        is_optional=table.optional,
        prefix=prefix,
    )


def _root_of(sources: Sources, said: Said[str]) -> tuple[Path, int]:
    """The folder that a row's file must be below, and how much of its path stands for that.

    It is the campaign's own folder, `attachments_root`, or, where there is none, another that the path itself begins
    with: the text before the first tag comes from the campaign, and no cell changes it.
    """
    message = sources.file.message
    if message.attachments_root is not None:
        place = sources.place(("message", "attachments_root"))
        return resolve(Said(message.attachments_root, place, sources.home)), 0
    tag = _TAG.search(said.value)
    literal = said.value[: tag.start()] if tag else ""
    folder = literal[: literal.rfind("/") + 1]
    if Path(folder).is_absolute() or folder.startswith("~") or ".." in folder.split("/"):
        return resolve(Said(folder, said.place, sources.home)), len(folder)
    return Path(os.path.expanduser(sources.home)), 0
