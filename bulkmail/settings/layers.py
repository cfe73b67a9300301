"""Who said what: each value of a campaign with its place, whether a flag, the file or the environment said it."""

from __future__ import annotations

import os
import re
import tomllib
from bisect import bisect_left
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bulkmail.model.campaign import Attachment, Template
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.quantities import read_number
from bulkmail.settings.overrides import FLAGS, Overrides
from bulkmail.settings.problems import Problems, Said, show
from bulkmail.text import did_you_mean

if TYPE_CHECKING:
    from bulkmail.settings.key_types import Table
    from bulkmail.settings.schema import CampaignFile, Mistake


T = TypeVar("T")
M = TypeVar("M", bound="Table")

_LISTS = frozenset({".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".gz"})
_BODIES = frozenset({"text", "html", "markdown", "mjml", "calendar"})

FILE_NAME = "campaign.toml"
SUFFIX = ".toml"
LONGEST_FILE = 1_000_000  # bytes


@dataclass(slots=True)
class Sources:
    """What flags, file and environment say.  `path` is None for a campaign given by flags alone.

    `flags` name the flag that takes the place of a key.
    `is_message_file`: headers and a body, perhaps with files `enclosed` in it.  `notices` are about it.
    """

    overrides: Overrides
    environ: Mapping[str, str]
    problems: Problems
    path: Path | None
    file: CampaignFile
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    broken: frozenset[KeyPath] = frozenset()
    is_message_file: bool = False
    enclosed: tuple[Attachment, ...] = ()
    notices: tuple[str, ...] = ()
    flags: Mapping[KeyPath, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The folder that paths in the file start from; the current one without a file."""
        return self.path.parent if self.path else Path(".")

    def pick(
        self, key: KeyPath, written: T | None, *, flag: str = "", typed: T | None = None, is_secret: bool = False
    ) -> Said[T] | None:
        """What the flag says, else what the file says at `key`, else None."""
        if typed is not None:
            return Said(typed, flag, Path("."), is_secret)
        folder = Path(".") if key in self.flags else self.home
        return None if written is None else Said(written, self.place(key), folder, is_secret)

    def typed(self, flag: str, value: T) -> Said[T]:
        """What a flag says."""
        return Said(value, flag, Path("."))

    def place(self, key: KeyPath) -> str:
        """`shop/campaign.toml:9: rate`, or the flag that says it."""
        if key in self.flags:
            return self.flags[key]
        key = self._located(key)
        name = next((step for step in reversed(key) if isinstance(step, str)), "")
        return f"{self.path}:{self.line(key)}: {name}"

    def template_name(self, key: str) -> str:
        """What errors call a template by that stands in the file itself."""
        if self.path and self.is_message_file and key in _BODIES:
            return self.path.name
        return f"{self.path.name}: {key}" if self.path else f"--{key}"

    def template(self, key: str, written: str | None) -> Template | None:
        """What is said at `key` of `[message]` as a template, by the name that errors call it by."""
        if written is None:
            return None
        return Template(self.flags.get(("message", key)) or self.template_name(key), written)

    def line(self, key: KeyPath) -> int:
        """The line of `key`, or of what stands for it."""
        return self.lines.get(self._located(key), 1)

    def _located(self, key: KeyPath) -> KeyPath:
        """`recipients = "people.csv"` stands for `recipients.file`."""
        return next((key[:n] for n in range(len(key), 0, -1) if key[:n] in self.lines), key)

    def tell_missing(self, key: KeyPath, *, flag: str, what: str, example: str) -> None:
        """A fault that `what` is missing, unless it is given wrongly and reported already."""
        if any(key[: len(path)] == path or path[: len(key)] == key for path in self.broken):
            return
        near = [path for path in self.broken if path[:-1] == key[:-1] and did_you_mean(str(path[-1]), [str(key[-1])])]
        if near:
            return
        if self.path and self.is_message_file:
            name = str(key[-1]).upper()
            self.problems.add(f"{self.path}: no {name} says {what}", f"write {name}: {example}")
        elif self.path:
            self.problems.add(
                f"{self.path}: [{key[0]}] does not say {what}", f"write {key[-1]} = {show(example)} below [{key[0]}]"
            )
        else:
            self.problems.add(f"{flag} is missing: it says {what}", f"add {flag} {show(example)}")


def open_sources(
    campaign: str | None,
    overrides: Overrides,
    *,
    environ: Mapping[str, str],
    problems: Problems,
    drafts: Mapping[str, str] | None = None,
) -> Sources:
    """Finds and reads the campaign's file, or its draft.  Raises `ConfigError` when neither is there or is TOML."""
    path = find_campaign(campaign, overrides)
    sources = _read_file(path, overrides, environ=environ, problems=problems, drafts=drafts or {})
    if overrides.typed:
        flags, mistakes = read_flags(overrides.typed, environ=environ)
        for flag, mistake in mistakes:
            problems.add(mistake.text, mistake.fix)
            sources.broken |= {FLAGS[flag]}
        sources.flags = {FLAGS[flag]: flag for flag in flags}
        for flag, typed in flags.items():
            sources.file = _overlaid(sources.file, typed, FLAGS[flag])
    return sources


def read_flags(
    typed: Mapping[str, object], *, environ: Mapping[str, str] = os.environ
) -> tuple[dict[str, CampaignFile], list[tuple[str, Mistake]]]:
    """What each flag says, as if it stood in a campaign of its own, and the faults of the others."""
    from bulkmail.settings.schema import read_campaign

    sound, faulty = {}, []
    for flag, value in typed.items():
        data: object = list(value) if isinstance(value, tuple) else value
        for step in reversed(FLAGS[flag]):
            data = {step: data}
        file, mistakes = read_campaign(data, environ)  # type: ignore[arg-type]
        if mistakes:
            (mistake,) = mistakes
            text = f"{Said(value, flag, Path('.'))}: {mistake.what}"
            faulty.append((flag, replace(mistake, text=text)))
        else:
            sound[flag] = file
    return sound, faulty


def _overlaid(under: M, over: M, path: KeyPath) -> M:
    """`under` with what `over` says at `path`."""
    name = under.field_of(str(path[0]))
    value = getattr(over, name)
    if path[1:]:
        value = _overlaid(getattr(under, name), value, path[1:])
    return under.model_copy(update={name: value})


def _read_file(
    path: Path | None,
    overrides: Overrides,
    *,
    environ: Mapping[str, str],
    problems: Problems,
    drafts: Mapping[str, str],
) -> Sources:
    from bulkmail.settings.schema import CampaignFile, read_campaign

    if path is None:
        return Sources(overrides, environ, problems, None, CampaignFile.model_construct())
    draft = drafts.get(str(path.absolute()))
    text = read_text(path) if draft is None else draft
    if path.suffix.lower() != SUFFIX:
        from bulkmail.settings.message_file import read_message_file

        message, message_lines, enclosed, notices = read_message_file(text, path, problems, environ=environ)
        return Sources(
            overrides,
            environ,
            problems,
            path,
            message,
            message_lines,
            is_message_file=True,
            enclosed=enclosed,
            notices=notices,
        )
    data = parse_toml(text, path)
    if "data" in data:
        data["data"] = _with_digits(text, path)
    lines = locate_keys(text)
    file, mistakes = read_campaign(data, environ)
    sources = Sources(overrides, environ, problems, path, file, lines, frozenset(mistake.path for mistake in mistakes))
    for mistake in mistakes:
        problems.add(f"{path}:{sources.line(mistake.path)}: {mistake.text}", mistake.fix)
    return sources


def _with_digits(text: str, path: Path) -> object:
    """The table `data`, whose prices keep the digits that they are written with."""
    try:
        return tomllib.loads(text, parse_float=read_number)["data"]
    except ValueError as error:
        raise ConfigError(f"{path}: data: {error}", hint="write a number that a message can hold") from None


def find_campaign(campaign: str | None, overrides: Overrides) -> Path | None:
    """The path of the `campaign.toml` or message that is meant; None when a message is given by flags."""
    if campaign is None:
        if Path(FILE_NAME).is_file() and not overrides.has_message:
            return Path(FILE_NAME)
        if not overrides.begins_message:
            raise ConfigError(
                f"which campaign?  There is no {FILE_NAME} in this folder",
                hint='name its folder, or type "bulkmail init DIR" for one to start from',
            )
        return None
    path = Path(campaign)
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        if path.suffix.lower() in _LISTS:
            raise ConfigError(
                f"{path}: that looks like a list; a campaign is a folder with {FILE_NAME}, a .toml file or a message",
                hint=f"name the message, and the list with --recipients {path}",
            )
        return path
    siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = did_you_mean(path.name, siblings)
    raise ConfigError(
        f"{campaign}: there is no such folder or file", hint=near or f"for one to start from type: bulkmail init {path}"
    )


def _in_folder(folder: Path) -> Path:
    path = folder / FILE_NAME
    if path.is_file():
        return path
    others = sorted(other.name for other in folder.glob("*.toml"))
    if others:
        hint = f"did you mean {show(str(folder / others[0]))}?"
    elif any(folder.iterdir()):
        hint = f'write one, or type "bulkmail init DIR" for a new folder and look at its {FILE_NAME}'
    else:
        hint = f"for one to start from type: bulkmail init {folder}"
    raise ConfigError(f"{folder}: there is no {FILE_NAME} in this folder", hint=hint)


def read_text(path: Path) -> str:
    """A settings file as text with `\\n` for every line end.  Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > LONGEST_FILE:
        raise ConfigError(f"{path}: is longer than {LONGEST_FILE // 1_000_000} MB", hint="is it the right file?")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8", hint="save the file as UTF-8") from None


# What is wrong with TOML, and where, tomllib says only in the sentence of its error (from Python 3.14 on, the place is
# in attributes, too).  So the place and the fix are found by its wording, here alone: a changed sentence costs both, no
# more, and is noticed by the tests of faults in a campaign.
_TOML_PLACE = lazy_pattern(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")


def parse_toml(text: str, path: Path) -> dict[str, object]:
    """The tables of `text`.  Raises `ConfigError` with line and column."""
    refuse_deep_keys(text, path)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply", hint="is it the right file?") from None
    except ValueError as error:  # TOMLDecodeError, and Python's own for a number of thousands of digits
        what = str(error)
    found = _TOML_PLACE.search(what)
    if found:
        what = what[: found.start()]
    line = int(found["line"]) if found and found["line"] else text.rstrip().count("\n") + 1
    column = f" at column {found['column']}" if found and found["column"] else ""
    raise ConfigError(f"{path}:{line}: not valid TOML{column}: {what[:1].lower()}{what[1:]}", hint=_toml_fix(what))


def refuse_deep_keys(text: str, path: Path) -> None:
    """Raises `ConfigError` for a key with too many parts, which would exhaust stack and memory."""
    found = _DEEP_KEY.search(TOML_STRING.sub(lambda string: '""' + "\n" * string[0].count("\n"), text))
    if found:
        line = found.string.count("\n", 0, found.start()) + 1
        raise ConfigError(
            f"{path}:{line}: a key has more than {DEEPEST_KEY} parts, expected such as sending.rate",
            hint="is it the right file?",
        )


DEEPEST_KEY = 20  # parts; those of ours have three
# Begins where a part begins, and never goes back into one: a long word without dots is looked at once.
_DEEP_KEY = lazy_pattern(rf"""(?<![\w"-])(?:[\w"-]++[ \t]*+\.[ \t]*+){{{DEEPEST_KEY}}}""")

_TOML_FIXES = (
    ("Invalid value", 'a text stands in quotes: name = "Spring"'),
    ("Cannot overwrite", "the same key or table stands there twice; keep one of them"),
    ("twice", "the same key or table stands there twice; keep one of them"),
    ("Illegal character '\\n'", "the closing quote is missing"),
    ("Unterminated", "the closing quote is missing"),
    ("Unescaped", "write \\\\ for a backslash, or put the text in single quotes"),
    ("", 'a line is: key = "value", or [table], or begins with #'),
)


def _toml_fix(what: str) -> str:
    return next(fix for words, fix in _TOML_FIXES if words in what)


KeyPath = tuple[str | int, ...]
"""`("message", "attachments", 0, "file")`: keys by name, items of a list by number."""

_SPACE = lazy_pattern(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = lazy_pattern(r"[A-Za-z0-9_-]+")
TOML_STRING = lazy_pattern(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = lazy_pattern(r"[^,\]}#\n]*")


def locate_keys(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every table, key and list item in `text`, which `tomllib` has accepted.

    The first line counts where a table is opened twice.  A text that is not TOML gives what was understood of it.
    """
    reader = _Reader(text)
    with suppress(_Lost, RecursionError):  # the line number is optional; the error is reported anyway
        reader.read_document()
    return reader.lines


class _Lost(Exception):
    """The text is not what `tomllib` would have accepted."""


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.lines: dict[KeyPath, int] = {}
        self._line_ends = [found.start() for found in re.finditer("\n", text)]
        self._list_lengths: dict[KeyPath, int] = {}

    def read_document(self) -> None:
        table: KeyPath = ()
        while self._skip_space():
            if self._take("[["):
                table = self._next_in_list(self._key_path(()))
                self._expect("]]")
            elif self._take("["):
                table = self._key_path(())
                self._expect("]")
            else:
                self._read_pair(table)

    def _read_pair(self, table: KeyPath) -> None:
        path = self._key_path(table)
        self._expect("=")
        self._read_value(path)

    def _read_value(self, path: KeyPath) -> None:
        self._skip_space()
        if self._take("["):
            self._read_list(path)
        elif self._take("{"):
            self._read_inline_table(path)
        elif found := TOML_STRING.match(self.text, self.position) or _SCALAR.match(self.text, self.position):
            self.position = found.end()

    def _read_list(self, path: KeyPath) -> None:
        number = 0
        while self._skip_space() and not self._take("]"):
            self._note((*path, number), self.position)
            self._read_value((*path, number))
            number += 1
            self._skip_space()
            if not self._take(","):
                self._expect("]")
                return

    def _read_inline_table(self, path: KeyPath) -> None:
        while self._skip_space() and not self._take("}"):
            self._read_pair(path)
            self._skip_space()
            if not self._take(","):
                self._expect("}")
                return

    def _key_path(self, table: KeyPath) -> KeyPath:
        """Reads `a.b."c d"`, noting each step of it."""
        path = table
        while True:
            self._skip_space()
            start = self.position
            path = self._into_last((*path, self._key()))
            self._note(path, start)
            self._skip_space()
            if not self._take("."):
                return path

    def _key(self) -> str:
        found = _BARE_KEY.match(self.text, self.position)
        if found:
            self.position = found.end()
            return found[0]
        found = TOML_STRING.match(self.text, self.position)
        if not found:
            raise _Lost
        self.position = found.end()
        try:
            return str(tomllib.loads(f"key = {found[0]}")["key"])
        except ValueError:
            raise _Lost from None

    def _next_in_list(self, path: KeyPath) -> KeyPath:
        """The path of the table that `[[path]]` opens."""
        if path and isinstance(path[-1], int):
            path = path[:-1]  # it was the last item's
        number = self._list_lengths.get(path, 0)
        self._list_lengths[path] = number + 1
        self._note((*path, number), self.position)
        return (*path, number)

    def _into_last(self, path: KeyPath) -> KeyPath:
        """After `[[a]]`, `a` in `[a.b]` means its last item."""
        length = self._list_lengths.get(path, 0)
        return (*path, length - 1) if length else path

    def _note(self, path: KeyPath, start: int) -> None:
        self.lines.setdefault(path, bisect_left(self._line_ends, start) + 1)

    def _skip_space(self) -> bool:
        """Passes blanks, line ends and comments; False at the end of the text."""
        found = _SPACE.match(self.text, self.position)
        self.position = found.end() if found else self.position
        return self.position < len(self.text)

    def _take(self, token: str) -> bool:
        if not self.text.startswith(token, self.position):
            return False
        self.position += len(token)
        return True

    def _expect(self, token: str) -> None:
        self._skip_space()
        if not self._take(token):
            raise _Lost
