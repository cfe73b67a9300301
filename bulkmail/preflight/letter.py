"""What trying the letter of every row showed."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from bulkmail.message.composer import Rendered, Tried
from bulkmail.model.errors import TemplateError
from bulkmail.model.recipient import Place, Recipient
from bulkmail.model.reply import printable
from bulkmail.preflight.addresses import dead
from bulkmail.preflight.finding import Hits
from bulkmail.preflight.leftovers import ODD_CELLS, damage, is_worth_a_look, leftover

K = TypeVar("K")

SAMPLE = 20  # letters that are looked at whole
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
_NOBODY = frozenset(
    {"abuse", "bounce", "bounces", "do-not-reply", "donotreply", "mailer-daemon", "no-reply", "nobody", "noreply"}
)


@dataclass(slots=True)
class Failure:
    """One reason that letters fail for, and the rows that it is true of."""

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
    """One row's letter as its reader would see it."""

    place: Place
    letter: Rendered


class Letters(Protocol):
    """Whoever makes the letters: a `Composer`."""

    def check(self, recipient: Recipient) -> Tried:
        """Renders the letter of one recipient strictly.  Raises `TemplateError`."""

    def render(self, recipient: Recipient) -> Rendered:
        """The whole letter.  Raises `TemplateError`."""


@dataclass(slots=True)
class LetterCheck:
    """Tries row after row and remembers what is worth telling, in bounded memory.

    `names` are the fields that the message uses, `printed` those whose value stands in it as it is, `linked`
    those that links begin with.  Of about `total` rows `SAMPLE` are looked at whole.  `hidden` are the lines of rows
    that the list hides.
    """

    names: frozenset[str] = frozenset()
    printed: frozenset[str] = frozenset()
    linked: frozenset[str] = frozenset()
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
    largest_files: tuple[int, int] = (0, 0)  # octets of the files of one row, and its line
    samples: list[Sample] = field(default_factory=list)

    def bad_rows(self, rows: Iterable[tuple[int, Recipient]], letters: Letters) -> list[tuple[int, str]]:
        """The numbers of those rows that do not render, each with the reason."""
        bad = []
        step = max(1, self.total // SAMPLE)
        for number, recipient in rows:
            self.rows += 1
            try:
                tried = letters.check(recipient)
                if self.rows % step == 0 and len(self.samples) <= SAMPLE:
                    self.samples.append(Sample(recipient.place, letters.render(recipient)))
            except TemplateError as error:
                bad.append((number, str(error)))
                self._note_failure(error, recipient.place)
                continue
            line = recipient.place.line
            self._look_at_cells(recipient, tried.subject, line)
            if self.linked:
                self._look_at_links(recipient, line)
            self._look_at_address(recipient, line)
            self._look_at_subject(tried.subject, line)
            if line in self.hidden:
                self.hidden_rows.add(line)
            for path in tried.empty_files:
                _count(self.empty_files, path, line)
            if tried.files_size > self.largest_files[0]:
                self.largest_files = (tried.files_size, line)
        self.failed += len(bad)
        return bad

    def _note_failure(self, error: TemplateError, place: Place) -> None:
        reason = str(error)
        if reason in self.failures or len(self.failures) < _MOST_KINDS:
            self.failures.setdefault(reason, Failure(error, place)).hits.add(place.line)

    def _look_at_cells(self, recipient: Recipient, subject: str, line: int) -> None:
        # For every cell of every row: nothing here may cost a microsecond.
        fields = recipient.fields
        texts = [subject]
        keep = texts.append
        for name in self.names:
            value = fields.get(name, "-")
            if value.__class__ is str:
                if value not in ODD_CELLS and not value[0].isspace():
                    keep(value)
                    continue
            elif value is not None:
                continue
            if not self._is_told(name, value, line):
                keep(str(value))
        if is_worth_a_look("\n".join(texts)):
            if found := leftover(subject):
                _count(self.subjects, found, line)
            for name in self.names:
                value = fields.get(name)
                if isinstance(value, str):
                    if found := leftover(value):
                        _count(self.leftovers, (name, found), line)
                    if found := damage(value):
                        _count(self.damaged, (name, printable(value, _LONGEST_CELL), found), line)

    def _look_at_links(self, recipient: Recipient, line: int) -> None:
        for name in self.linked:
            value = recipient.fields.get(name)
            if isinstance(value, str) and (fault := dead(value)):
                key = name, fault
                if key in self.dead_links or len(self.dead_links) < _MOST_KINDS:
                    self.dead_links.setdefault(key, DeadLink(value)).hits.add(line)

    def _is_told(self, name: str, value: object, line: int) -> bool:
        """Whether a cell is blank or a dummy; then it is remembered."""
        text = "" if value is None else str(value).strip()
        if text in ODD_CELLS:
            if text:
                _count(self.dummies, (name, text), line)
            elif name in self.printed:
                self.blank.setdefault(name, Hits()).add(line)
        return text in ODD_CELLS

    def _look_at_address(self, recipient: Recipient, line: int) -> None:
        domain = recipient.address.domain
        hits = self.domains.get(domain)
        if hits is None:
            if len(self.domains) >= _MOST_DOMAINS:
                return
            hits = self.domains[domain] = Hits()
        hits.add(line)
        local = recipient.address.local.lower()
        if local in _ROLES:
            self.roles.setdefault("nobody" if local in _NOBODY else "role", Hits()).add(line)

    def _look_at_subject(self, subject: str, line: int) -> None:
        if len(subject) > LONGEST_SUBJECT:
            self.long_subjects.add(line)
            if len(subject) > len(self.longest_subject):
                self.longest_subject = subject
        if "test" in subject.lower() and _TEST.search(subject):
            _count(self.subjects, "test", line)


LONGEST_SUBJECT = 100  # characters; what a wide window shows
# "test" where it marks a trial; in the middle of a sentence a letter may speak of one.
_TEST = re.compile(r"^\W*test(?:ing|mail|e-?mail)?\b|[\[(]\s*test\s*[\])]|\btest\W*$", re.IGNORECASE)


def _count(found: dict[K, Hits], key: K, line: int) -> None:
    if key in found or len(found) < _MOST_KINDS:
        found.setdefault(key, Hits()).add(line)
