"""A campaign compiled to one function: constant parts encoded once, a message made by one join.

The function makes exactly the bytes that the general composer makes, or returns None for a row that needs the general
one; which rows those are depends on campaign and row alone.  The generated source holds fixed text and our own names:
whatever comes from campaign or list is bound to it as a constant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import escape

from bulkmail.message.compose.identity import date_field, identity_of
from bulkmail.message.compose.mime_plan import Slot, body_slot
from bulkmail.message.compose.pieces import FILTERS, Cell, FilterStep, NotCompiled, Piece
from bulkmail.message.compose.transfer_encoding import encode_text, is_mostly_foreign, line_count, quoted_line
from bulkmail.message.header import headers
from bulkmail.model.lazy import dataclass, lazy_pattern

if TYPE_CHECKING:
    from bulkmail.message.unsubscribe import Unsubscriber
    from bulkmail.message.verp import BounceTokens
    from bulkmail.model.recipient import Address, Recipient

LONGEST_CELL = 5_000
"""Characters; a message with a longer cell is made by the general composer, which bounds the whole."""

_MOST_LINES = 8_192  # remembered encoded, of all templates, …
_LONGEST_LINE = 1_000  # … of this many bytes: 8 MB
_UNSUBSCRIBE_URL = "unsubscribe_url"
_EMAIL = "email"


Part = tuple[Piece, ...] | bytes | Callable[[dict[str, object], Mapping[str, object]], bytes]
"""A body: its pieces, what its slot holds for every row, or what makes that by the general way for one row."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the messages of a campaign are made of.

    `senders` are From and what belongs to it, `rest` the fields behind Message-ID.  `bodies` is by slot; `check` tries,
    for one row, those of them that the general way makes, and `variables` gives it what it needs.  `locale` names the
    locale of a row where each has its own: its text is given to `enter`, which says whether there is such a locale.
    """

    run_id: bytes
    segments: Sequence[bytes | tuple[bytes | int, ...]]
    senders: bytes
    author: Address
    to_name: tuple[Piece, ...] | None
    subject: tuple[Piece, ...]
    rest: bytes
    bodies: Mapping[Slot, Part]
    check: Callable[[dict[str, object], Mapping[str, object]], object]
    variables: Callable[[Recipient, str], dict[str, object]]
    unsubscriber: Unsubscriber | None
    tokens: BounceTokens | None = None
    locale: tuple[Piece, ...] | None = None
    enter: Callable[[str], bool] | None = None


class Compiled(NamedTuple):
    """The functions of one campaign.

    `compose(recipient, row, second)` gives the buffers and the Message-ID of a message with this whole second of wall
    time in Date, `check(recipient)` the subject of a message that cannot fail; both None for a row of the general
    composer.  `check_in_brief(fields, wire, name)` is `check` with less to look at, and None for more rows; it is not
    there where each row needs more than that.
    """

    compose: Callable[[Recipient, int, int], tuple[tuple[bytes, ...], str] | None]
    check: Callable[[Recipient], str | None]
    check_in_brief: Callable[[dict[str, object], str, str], str | None] | None
    source: str


def compile_message(parts: Parts) -> Compiled:
    """Raises `NotCompiled`."""
    return _Writer(parts).written()


_SCRIPT = lazy_pattern(r"[\x00-\x20]*".join("javascript:"), re.IGNORECASE)
# What an attribute says begins here; the same with the beginning of a script.
_OPENING = lazy_pattern(r"(?:=|\A)[\x00-\x20\"']*\Z")
_OPENING_SCRIPT = lazy_pattern(r"(?:=|\A)[\x00-\x20\"']*j[\x00-\x20avscript]*\Z", re.IGNORECASE)
_may_open_script = re.compile(r"=[\s\"']*j", re.IGNORECASE).search
_may_be_script = re.compile(r"\s*[jJ](?:\s*[aA](?:\s*[vV]|\s*\Z)|\s*\Z)").match
_is_link = re.compile(r"https?://[!-~]+").fullmatch
_is_plain_line = re.compile(r"(?!From |\.)[ -<>-~]{0,75}(?<! )").fullmatch
# Without "=", so that nothing looks like an encoded word.
_are_atoms = re.compile(r"[A-Za-z0-9!#$%&'*+/^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/^_`{|}~-]+)*").fullmatch
_LONGEST_TO = 76 - len("To:  <>")  # characters of name and address that stand on one line
_LONGEST_SUBJECT = 78 - len("Subject: ")


_UNPRINTABLE_SPACES = str.maketrans("", "", "\u00a0\u202f")  # between thousands, and before a currency


_MOST_KEPT = 4_096  # results of one filter
_LONGEST_KEPT = 40  # characters of a cell: dates, numbers and amounts are shorter, and many rows have the same


def _stepped(step: FilterStep) -> Callable[[object, str], str | None]:
    """What the filter makes of a value for the people of a locale, by its name, which holds already.

    None where the general composer says what is wrong, or has to look at it.
    """
    call, args, kwargs = step.call, step.args, dict(step.kwargs)
    kept: dict[tuple[str, str], str | None] = {}

    def made(value: object) -> str | None:
        try:
            text = call(value, *args, **kwargs)
        except Exception:
            return None
        if type(text) is not str or len(text) > LONGEST_CELL:
            return None
        return text if text.isprintable() or text.translate(_UNPRINTABLE_SPACES).isprintable() else None

    def stepped(value: object, place: str) -> str | None:
        if type(value) is not str or len(value) > _LONGEST_KEPT:
            return made(value)
        key = (value, place)
        try:
            return kept[key]
        except KeyError:
            pass
        if len(kept) >= _MOST_KEPT:
            kept.clear()
        text = kept[key] = made(value)
        return text

    return stepped


def _to_field(name: str, address: Address) -> bytes:
    return headers.address_field("To", [(name.strip(" "), address)])


class _Lines(dict[Any, tuple[bytes, bool, int, int]]):
    """One line of a body by its cells: encoded, whether that is as it was, and its bytes outside ASCII and in all.

    The last ones are remembered: a town is that of many people.
    """

    def __init__(self, make: Callable[[Any], str], *, most: int) -> None:
        super().__init__()
        self._make = make
        self._most = most

    def __missing__(self, cells: object) -> tuple[bytes, bool, int, int]:
        line = self._make(cells)
        encoded = line.encode() if _is_plain_line(line) else quoted_line(line)
        made = encoded, len(encoded) == len(line), *line_count(line)
        if len(encoded) <= _LONGEST_LINE:
            if len(self) >= self._most:
                self.clear()
            self[cells] = made
        return made


class _Writer:
    """Writes the source of one campaign's functions, and gathers what is bound to it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._scope: dict[str, object] = {
            "are_atoms": _are_atoms,
            "body_slot": body_slot,
            "check_others": parts.check,
            "date_field": date_field,
            "encode_text": encode_text,
            "enter": parts.enter,
            "escape": escape,
            "identity_of": identity_of,
            "is_link": _is_link,
            "may_be_script": _may_be_script,
            "may_open_script": _may_open_script,
            "run_id": parts.run_id,
            "text_field": headers.text_field,
            "to_field": _to_field,
            "tokens": parts.tokens,
            "unsubscriber": parts.unsubscriber,
            "variables_of": parts.variables,
        }
        self._locale = ""
        self._before_locale = 0
        self._names: dict[tuple[type, object], str] = {}
        self._cells: dict[Cell, int] = {}
        self._tests: dict[str, None] = {}  # conditions for the general composer, in order
        self._escaped: dict[int, None] = {}
        self._lines_made: dict[str, str] = {}  # by their number, what each is asked for
        self._functions: list[list[str]] = []  # that make them

    def written(self) -> Compiled:
        parts = self._parts
        self._locale = self._row_locale()
        self._before_locale = len(self._cells)  # cells that have to be known before the others are written
        to_name = self._joined(parts.to_name) if parts.to_name is not None else "given_name"
        subject = self._header(parts.subject)
        if parts.to_name is not None:
            self._header(parts.to_name)
        lines: list[str] = []
        slots: dict[int, list[str]] = {}
        for slot, part in parts.bodies.items():
            if isinstance(part, bytes):
                slots[slot] = [self._constant(part)]
            elif callable(part):
                self._scope[f"make_{int(slot)}"] = part
                lines.append(f"slot_{int(slot)} = make_{int(slot)}(variables, fields)")
                slots[slot] = [f"slot_{int(slot)}"]
            else:
                slots[slot] = self._body(slot, part, lines)
        slots[Slot.IDENTITY] = ["identity"]
        slots[Slot.HEAD] = [
            self._constant(parts.senders),
            "to",
            "subject_line",
            "date_field(second)",
            self._constant(b"Message-ID: <"),
            "identity",
            self._constant(f"@{parts.author.domain}>\r\n".encode() + parts.rest),
            *(["unsubscriber.fields(token)"] if parts.unsubscriber else []),
            *(["tokens.field(row)"] if parts.tokens else []),
        ]
        has_others = any(callable(part) for part in parts.bodies.values())
        prelude = [*self._row(), *self._prelude(to_name, subject)]
        if has_others:
            url = "url" if parts.unsubscriber else "''"
            prelude.append(f"variables = variables_of(recipient, {url})")
        escaped = [f"h{number} = escape(c{number})" for number in self._escaped]
        compose = [
            "def compose(recipient, row, second):",
            *prelude,
            *escaped,
            *lines,
            "if not name: to = b'To: %b\\r\\n' % wire.encode()",
            f"elif len(name) + len(wire) <= {_LONGEST_TO} and are_atoms(name):",
            "    to = b'To: %b <%b>\\r\\n' % (name.encode(), wire.encode())",
            "else: to = to_field(name, address)",
            f"if len(subject) <= {_LONGEST_SUBJECT} and subject.isascii() and '=?' not in subject:",
            "    subject_line = b'Subject: %b\\r\\n' % subject.encode()",
            "else: subject_line = text_field('Subject', subject)",
            "identity_text = identity_of(run_id, row)",
            "identity = identity_text.encode()",
            f"return ({self._buffers(slots)},), {self._constant('<')} + identity_text"
            f" + {self._constant(f'@{parts.author.domain}>')}",
        ]
        check = ["def check(recipient):", *prelude]
        if has_others:
            check.append("check_others(variables, fields)")
        check.append("return subject")
        functions = [*self._functions, compose, check]
        if not has_others and not any(map(_is_own_url, (*parts.subject, *(parts.to_name or ())))):
            functions.append(self._check_in_brief(to_name, subject))
        source = "\n\n".join("\n    ".join(function) for function in functions) + "\n"
        exec(compile(source, "<compiled message>", "exec"), self._scope)  # noqa: S102 - only names of our own
        made: Any = self._scope.get
        for name in self._lines_made:
            self._scope[f"lines_{name}"] = _Lines(made(f"make_{name}"), most=_MOST_LINES // len(self._lines_made))
        return Compiled(made("compose"), made("check"), made("check_in_brief"), source)

    def _row(self) -> list[str]:
        """What the prelude needs of a recipient."""
        lines = ["fields = recipient.fields", "given_name = recipient.name", "address = recipient.address"]
        lines.append("wire = address.wire")
        if self._parts.unsubscriber:
            lines += ["token = unsubscriber.token(address)", "url = unsubscriber.url(token)"]
        return lines

    def _check_in_brief(self, to_name: str, subject: str) -> list[str]:
        """The function of that name.  For the tests each link to unsubscribe is as good as any other."""
        lines = ["def check_in_brief(fields, wire, given_name):"]
        if unsubscriber := self._parts.unsubscriber:
            lines.append(f"url = {self._constant(unsubscriber.url(unsubscriber.token(self._parts.author)))}")
        return [*lines, *self._prelude(to_name, subject, readable="None"), "return subject"]

    def _prelude(self, to_name: str, subject: str, *, readable: str = "address.readable") -> list[str]:
        """The cells, tested; returns None where the general composer is needed."""
        lines = ["get = fields.get", "if not wire.isascii(): return None"]
        for cell, number in self._cells.items():
            if self._locale and number == self._before_locale:
                lines += [f"place = {self._locale}", "if not enter(place): return None"]
            lines += self._cell_lines(cell, number, readable)
        if self._tests:
            lines.append(f"if {' or '.join(self._tests)}: return None")
        lines += [
            f"name = {to_name}",
            f"if not name.isprintable() or len(name) > {headers.LONGEST_VALUE}: return None",
            "name = name.strip(' ')",
            f"subject = {subject}.strip(' ')",
            f"if not subject or subject.isspace() or len(subject) > {headers.LONGEST_VALUE}: return None",
        ]
        return lines

    def _row_locale(self) -> str:
        """The name of the row's locale as an expression; empty where all rows have the same."""
        pieces = self._parts.locale
        if pieces is None:
            return ""
        if any(isinstance(step, FilterStep) for piece in pieces if isinstance(piece, Cell) for step in piece.filters):
            raise NotCompiled
        return self._header(pieces)

    def _cell_lines(self, cell: Cell, number: int, readable: str) -> Iterable[str]:
        key = self._constant(cell.name)
        if _is_own_url(cell) and self._parts.unsubscriber:
            yield f"c{number} = url"
        elif cell.name == _EMAIL and not cell.is_by_row:
            yield f"c{number} = get({key}) if {key} in fields else {readable}"
        elif cell.value is not None:
            self._scope[f"value_{number}"] = cell.value
            yield f"c{number} = get({key}, value_{number})"
        else:
            yield f"c{number} = get({key})"
        test = f"c{number}.__class__ is not str or len(c{number}) > {LONGEST_CELL} or not c{number}.isprintable()"
        if isinstance(cell.value, date):
            test = f"c{number} is not value_{number} and ({test})"
        yield f"if {test}: return None"
        for place, step in enumerate(cell.filters):
            if isinstance(step, str):
                self._scope[f"do_{step}"] = FILTERS[step]
                yield f"c{number} = do_{step}(c{number})"
            else:
                name = f"step_{number}_{place}"
                self._scope[name] = _stepped(step)
                place_name = "place" if self._locale else "''"
                yield f"c{number} = {name}(c{number}, {place_name})"
                yield f"if c{number} is None: return None"
        if cell.is_link:
            yield f"if not is_link(c{number}): return None"

    def _header(self, pieces: tuple[Piece, ...]) -> str:
        """The value of a header field as an expression; raises `NotCompiled` where every row needs the general way."""
        if not all(piece.isprintable() for piece in pieces if isinstance(piece, str)):
            raise NotCompiled
        return self._joined(pieces)

    def _body(self, slot: Slot, pieces: tuple[Piece, ...], before: list[str]) -> list[str]:
        """What the slot is joined of; statements for that go to `before`."""
        is_html = slot is Slot.HTML
        if is_html:
            self._watch_scripts(pieces)
        lines = self._lines(pieces)
        constant = [line for line in lines if not _has_cell(line)]
        varying = [line for line in lines if _has_cell(line)]
        static = line_count("".join("".join(_texts(line)) + "\n" for line in constant))
        if is_mostly_foreign(0, 0, ["".join(_texts(line)) + "\n" for line in lines]):
            before.append(f"slot_{int(slot)} = body_slot(*encode_text({self._text(lines, is_html=is_html)}))")
            return [f"slot_{int(slot)}"]
        quoted = {id(line): quoted_line("".join(_texts(line))) for line in constant}
        alike = {tuple(line): f"{int(slot)}_{number}" for number, line in enumerate(varying)}
        names = {id(line): alike[tuple(line)] for line in varying}
        for name, line in zip(names.values(), varying, strict=True):
            if name not in self._lines_made:
                self._lines_made[name] = self._line_function(name, line, is_html=is_html)
                key = self._lines_made[name]
                before.append(f"e{name}, same_{name}, foreign_{name}, size_{name} = lines_{name}[{key}]")
        if names:
            foreign, size = (" + ".join(f"{what}_{name}" for name in names.values()) for what in ("foreign", "size"))
            is_foreign = f"({static.foreign} + {foreign}) * 6 > {static.size} + {size}"
            if not is_mostly_foreign(*static, ()):  # then ASCII in the rest cannot change it
                is_foreign = f"({' or '.join(f'foreign_{n}' for n in dict.fromkeys(names.values()))}) and {is_foreign}"
            before.append(f"if {is_foreign}: return None")
        needs_quoting = any(len(quoted[id(line)]) != len("".join(_texts(line))) for line in constant)
        quoted_printable, plain = (self._constant(body_slot(name, b"")) for name in (b"quoted-printable", b"7bit"))
        if needs_quoting or not names:
            head = quoted_printable if needs_quoting else plain
        else:
            same = " and ".join(f"same_{name}" for name in dict.fromkeys(names.values()))
            before.append(f"head_{int(slot)} = {plain} if {same} else {quoted_printable}")
            head = f"head_{int(slot)}"
        joined: list[str] = [head]
        raw = b""
        for position, line in enumerate(lines):
            if position:
                raw += b"\r\n"
            if id(line) in names:
                joined += [self._constant(raw)] if raw else []
                joined.append(f"e{names[id(line)]}")
                raw = b""
            else:
                raw += quoted[id(line)]
        return [*joined, self._constant(raw)]

    def _lines(self, pieces: tuple[Piece, ...]) -> list[list[Piece]]:
        """The lines of a body without their ends, as `normalised` leaves them; the last one is empty."""
        found = [
            piece.replace("\r\n", "\n").replace("\r", "\n") if isinstance(piece, str) else piece for piece in pieces
        ]
        while found and isinstance(found[-1], str):
            found[-1] = found[-1].rstrip("\n")
            if found[-1]:
                break
            found.pop()
        if found and isinstance(found[-1], Cell):  # an empty one would leave the line ends before it at the end
            self._tests[f"not c{self._number(found[-1])}"] = None
        lines: list[list[Piece]] = [[]]
        for piece in found:
            if isinstance(piece, Cell):
                lines[-1].append(piece)
                continue
            first, *others = piece.split("\n")
            lines[-1].append(first)
            lines += [[text] for text in others]
        return [*lines, []]

    def _watch_scripts(self, pieces: tuple[Piece, ...]) -> None:
        """Leaves to the general composer every row in which a link might run a script.  Raises `NotCompiled`."""
        before: Piece = ""
        for piece in pieces:
            if isinstance(piece, str):
                if _SCRIPT.search(piece):
                    raise NotCompiled
            else:
                number = self._number(piece)
                self._tests[f"'=' in c{number} and may_open_script(c{number})"] = None
                if isinstance(before, Cell) or _OPENING.search(before):
                    self._tests[f"may_be_script(c{number})"] = None
                elif _OPENING_SCRIPT.search(before):
                    raise NotCompiled
            before = piece

    def _text(self, lines: list[list[Piece]], *, is_html: bool) -> str:
        """The whole text as an expression."""
        pieces: list[Piece] = []
        for position, line in enumerate(lines):
            pieces += ["\n", *line] if position else line
        return self._joined(pieces, self._escaped if is_html else None)

    def _line_function(self, name: str, line: list[Piece], *, is_html: bool) -> str:
        """Writes the function that makes this line of its cells; what `lines_…` of that name is asked for."""
        numbers = dict.fromkeys(self._number(piece) for piece in line if isinstance(piece, Cell))
        escaped: dict[int, None] = {}
        joined = self._joined(line, escaped if is_html else None)
        cells = ", ".join(f"c{number}" for number in numbers)
        self._functions.append(
            [
                f"def make_{name}(cells):",
                f"{cells} = cells",
                *(f"h{number} = escape(c{number})" for number in escaped),
                f"return {joined}",
            ]
        )
        return cells if len(numbers) == 1 else f"({cells})"

    def _joined(self, pieces: Iterable[Piece], escaped: dict[int, None] | None = None) -> str:
        """The text of these pieces as an expression; for HTML `escaped` takes down whose `h…` it needs."""
        names: list[str] = []
        text = ""
        for piece in pieces:
            if isinstance(piece, str):
                text += piece
                continue
            if text:
                names.append(self._constant(text))
            text = ""
            number = self._number(piece)
            if escaped is not None:
                escaped[number] = None
            names.append(f"{'c' if escaped is None else 'h'}{number}")
        if text or not names:
            names.append(self._constant(text))
        return "''.join((" + ", ".join(names) + ",))"

    def _buffers(self, slots: Mapping[int, list[str]]) -> str:
        buffers = []
        for segment in self._parts.segments:
            if isinstance(segment, bytes):
                buffers.append(self._constant(segment))
                continue
            joined: list[str] = []
            for piece in segment:
                joined += [self._constant(piece)] if isinstance(piece, bytes) else slots[piece]
            buffers.append("b''.join((" + ", ".join(joined) + ",))")
        return ", ".join(buffers)

    def _number(self, cell: Cell) -> int:
        return self._cells.setdefault(cell, len(self._cells))

    def _constant(self, value: bytes | str) -> str:
        """The name that `value` is bound to."""
        name = self._names.setdefault((type(value), value), f"k{len(self._names)}")
        self._scope[name] = value
        return name


def _is_own_url(piece: Piece) -> bool:
    """Whether a link to unsubscribe is printed there, if the campaign has any."""
    return isinstance(piece, Cell) and piece.name == _UNSUBSCRIBE_URL and not piece.is_by_row


def _has_cell(line: Sequence[Piece]) -> bool:
    return any(isinstance(piece, Cell) for piece in line)


def _texts(line: Iterable[Piece]) -> Iterable[str]:
    return (piece for piece in line if isinstance(piece, str))
