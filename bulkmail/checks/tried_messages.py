"""What trying the message of every row showed."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Protocol, TypeVar

from bulkmail.checks.check_finding import Hits
from bulkmail.checks.leftovers import ODD_CELLS, damage, dead, is_worth_a_look, leftover
from bulkmail.message.compose.composer import Rendered, TriedMessage
from bulkmail.model.errors import TemplateError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.recipient import Address, Place, Recipient, RowFields, StoredRow
from bulkmail.text import printable

K = TypeVar("K")

SAMPLE = 20  # messages that are looked at whole
_BLOCK = 50  # rows whose cells are searched as one text; one with a find is searched row by row
_MOST_KINDS = 1_000  # reasons, cells: they may quote the list, and memory stays flat
_MOST_DOMAINS = 50_000
_LONGEST_CELL = 40  # characters of one that is quoted
_ROLES = frozenset(
    [
        "abuse",
        "admin",
        "administrator",
        "billing",
        "bounce",
        "bounces",
        "contact",
        "daemon",
        "do-not-reply",
        "donotreply",
        "everyone",
        "feedback",
        "ftp",
        "help",
        "hostmaster",
        "info",
        "jobs",
        "list",
        "mailer-daemon",
        "marketing",
        "news",
        "no-reply",
        "noc",
        "nobody",
        "noreply",
        "office",
        "postmaster",
        "privacy",
        "root",
        "sales",
        "security",
        "service",
        "spam",
        "staff",
        "support",
        "sysadmin",
        "team",
        "undisclosed-recipients",
        "unsubscribe",
        "usenet",
        "uucp",
        "webmaster",
        "www",
    ]
)
_NO_ONE = frozenset(
    {"abuse", "bounce", "bounces", "do-not-reply", "donotreply", "mailer-daemon", "no-reply", "nobody", "noreply"}
)


@dataclass(slots=True)
class Failure:
    """One reason that messages fail for, and the rows that it is true of."""

    error: TemplateError
    place: Place
    hits: Hits = field(default_factory=Hits)


@dataclass(slots=True)
class DeadLink:
    """A cell that a link of its row begins with and that leads nowhere, and the rows with others of its kind."""

    example: str
    hits: Hits = field(default_factory=Hits)


@dataclass(frozen=True, slots=True)
class Sample:
    """One row's message as its reader would see it."""

    place: Place
    message: Rendered


class MessageRenderer(Protocol):
    """Makes the messages: a `Composer`."""

    def check(self, recipient: Recipient) -> TriedMessage:
        """Renders the message of one recipient strictly.  Raises `TemplateError`."""

    @property
    def check_in_brief(self) -> Callable[[dict[str, object], str, str], str | None] | None:
        """Gives the subject for fields, address and name of a row that `check` need not look at, else None."""

    def render(self, recipient: Recipient) -> Rendered:
        """The whole message.  Raises `TemplateError`."""


@dataclass(slots=True)
class MessageCheck:
    """Tries row after row and remembers what is worth telling, in bounded memory.

    `names` are the fields that the message uses, `printed` those whose value stands in it as it is, `linked`
    those that links begin with, `of_rows` those that it asks of each of the rows that share it.  Of about `total` rows
    `SAMPLE` are looked at whole.  `hidden` are the lines of rows that the list hides.
    """

    names: frozenset[str] = frozenset()
    printed: frozenset[str] = frozenset()
    linked: frozenset[str] = frozenset()
    of_rows: frozenset[str] = frozenset()
    total: int = 0
    hidden: Container[int] = frozenset()
    rows: int = 0
    failed: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)
    blank: dict[str, Hits] = field(default_factory=dict)
    leftovers: dict[tuple[str, str], Hits] = field(default_factory=dict)  # by column and what is in it
    damaged: dict[tuple[str, str, str], Hits] = field(default_factory=dict)  # column, cell, and the sign of it
    dummies: dict[tuple[str, str], Hits] = field(default_factory=dict)
    dead_links: dict[tuple[str, str], DeadLink] = field(default_factory=dict)  # by column and what is the matter
    subjects: dict[str, Hits] = field(default_factory=dict)  # by what is the matter with them
    long_subjects: Hits = field(default_factory=Hits)
    longest_subject: str = ""
    domains: dict[str, Hits] = field(default_factory=dict)
    roles: dict[str, Hits] = field(default_factory=dict)
    hidden_rows: Hits = field(default_factory=Hits)
    empty_files: dict[str, Hits] = field(default_factory=dict)
    largest_files: tuple[int, int] = (0, 0)  # bytes of the files of one row, and its line
    samples: list[Sample] = field(default_factory=list)

    def bad_rows(self, rows: Iterable[tuple[int, Recipient]], messages: MessageRenderer) -> list[tuple[int, str]]:
        """The numbers of those rows that do not render, each with the reason."""
        return [(number, fault) for number, recipient in rows if (fault := self._try(recipient, messages)) is not None]

    def bad_stored_rows(self, rows: Sequence[StoredRow], messages: MessageRenderer) -> list[tuple[int, str]]:
        """The same.  Rows whose message surely renders, and whose cells say nothing, get no more than a look."""
        bad: list[tuple[int, str]] = []
        check = messages.check_in_brief
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            subjects = self._plain_subjects(block, check) if check is not None else [None] * len(block)
            for row, subject in zip(block, subjects, strict=True):
                if subject is None or self._is_sample(self.rows + 1):
                    number, wire, name, fields, file, line = row
                    local, _, domain = wire.rpartition("@")
                    person = Recipient(Address(local, domain), name, fields, Place(file, line))
                    if (fault := self._try(person, messages)) is not None:
                        bad.append((number, fault))
                else:
                    self.rows += 1
                    self._look_at_row(row[3], row[1], subject, row[5])
        return bad

    def _plain_subjects(
        self, rows: Sequence[StoredRow], check: Callable[[dict[str, object], str, str], str | None]
    ) -> list[str | None]:
        """The subject of each row for which nothing needs a second look but address, links and the subject's length."""
        # For every cell of every row, as in `_look_at_cells`.
        names, odd = tuple(self.names), ODD_CELLS
        subjects: list[str | None] = []
        texts: list[str] = []
        for _, wire, name, fields, _, _ in rows:
            subject = check(fields, wire, name)
            cells = [subject or ""]
            for wanted in names if subject is not None else ():
                value = fields.get(wanted, "-")
                if value.__class__ is not str or value in odd or value[0].isspace():
                    subject = None
                    break
                cells.append(value)
            subjects.append(subject)
            texts.append("\n".join(cells))
        if is_worth_a_look("\n".join(texts)):
            pairs = zip(subjects, texts, strict=True)
            return [None if is_worth_a_look(text) else subject for subject, text in pairs]
        return subjects

    def _is_sample(self, number: int) -> bool:
        """Whether the row is looked at whole that is the one with this number, from 1, among those tried."""
        return number % max(1, self.total // SAMPLE) == 0 and len(self.samples) <= SAMPLE

    def _try(self, recipient: Recipient, messages: MessageRenderer) -> str | None:
        """Why the row does not render; None if it does, and what there is to say of it is remembered then."""
        self.rows += 1
        try:
            tried = messages.check(recipient)
            if self._is_sample(self.rows):
                self.samples.append(Sample(recipient.place, messages.render(recipient)))
        except TemplateError as error:
            self._note_failure(error, recipient.place)
            self.failed += 1
            return str(error)
        line = recipient.place.line
        self._look_at_cells(recipient.fields, tried.subject, line, names=self.names)
        for fields in recipient.rows:
            place = RowFields.place_of(fields)
            self._look_at_cells(fields, "", place.line if place else line, names=self.of_rows - self.names)
        self._look_at_row(recipient.fields, recipient.address.wire, tried.subject, line)
        for path in tried.empty_files:
            _count(self.empty_files, path, line)
        if tried.files_size > self.largest_files[0]:
            self.largest_files = (tried.files_size, line)
        return None

    def _look_at_row(self, fields: Mapping[str, object], wire: str, subject: str, line: int) -> None:
        """What is looked at in every row."""
        if self.linked:
            self._look_at_links(fields, line)
        self._look_at_address(wire, line)
        self._look_at_subject(subject, line)
        if line in self.hidden:
            self.hidden_rows.add(line)

    def _note_failure(self, error: TemplateError, place: Place) -> None:
        reason = str(error)
        if reason in self.failures or len(self.failures) < _MOST_KINDS:
            self.failures.setdefault(reason, Failure(error, place)).hits.add(place.line)

    def _look_at_cells(self, fields: Mapping[str, object], subject: str, line: int, *, names: frozenset[str]) -> None:
        # For every cell of every row: nothing here may cost a microsecond.
        texts = [subject]
        keep = texts.append
        for name in names:
            value = fields.get(name, "-")
            if value.__class__ is str:
                if value not in ODD_CELLS and not value[0].isspace():
                    keep(value)
                    continue
            elif value is not None:
                continue
            if not self._is_reported(name, value, line):
                keep(str(value))
        if is_worth_a_look("\n".join(texts)):
            if found := leftover(subject):
                _count(self.subjects, found, line)
            for name in names:
                value = fields.get(name)
                if isinstance(value, str):
                    if found := leftover(value):
                        _count(self.leftovers, (name, found), line)
                    if found := damage(value):
                        _count(self.damaged, (name, printable(value, _LONGEST_CELL), found), line)

    def _look_at_links(self, fields: Mapping[str, object], line: int) -> None:
        for name in self.linked:
            value = fields.get(name)
            if isinstance(value, str) and (fault := dead(value)):
                key = name, fault
                if key in self.dead_links or len(self.dead_links) < _MOST_KINDS:
                    self.dead_links.setdefault(key, DeadLink(value)).hits.add(line)

    def _is_reported(self, name: str, value: object, line: int) -> bool:
        """Whether a cell is blank or a dummy; then it is remembered."""
        text = "" if value is None else str(value).strip()
        if text in ODD_CELLS:
            if text:
                _count(self.dummies, (name, text), line)
            elif name in self.printed:
                self.blank.setdefault(name, Hits()).add(line)
        return text in ODD_CELLS

    def _look_at_address(self, wire: str, line: int) -> None:
        local, _, domain = wire.rpartition("@")
        hits = self.domains.get(domain)
        if hits is None:
            if len(self.domains) >= _MOST_DOMAINS:
                return
            hits = self.domains[domain] = Hits()
        hits.add(line)
        local = local.lower()
        if local in _ROLES:
            self.roles.setdefault("nobody" if local in _NO_ONE else "role", Hits()).add(line)

    def _look_at_subject(self, subject: str, line: int) -> None:
        if len(subject) > LONGEST_SUBJECT:
            self.long_subjects.add(line)
            if len(subject) > len(self.longest_subject):
                self.longest_subject = subject
        if "test" in subject.lower() and _TEST.search(subject):
            _count(self.subjects, "test", line)


LONGEST_SUBJECT = 100  # characters; what a wide window shows
# "test" where it marks a trial; in the middle of a sentence a message may speak of one.
_TEST = lazy_pattern(r"^\W*test(?:ing|mail|e-?mail)?\b|[\[(]\s*test\s*[\])]|\btest\W*$", re.IGNORECASE)


def _count(found: dict[K, Hits], key: K, line: int) -> None:
    if key in found or len(found) < _MOST_KINDS:
        found.setdefault(key, Hits()).add(line)
