"""Which row of which run a mail that came back is about, and how far that is proved."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import field, replace
from typing import Protocol, TypeVar

from bulkmail.feedback.classify import NoticeMeaning
from bulkmail.feedback.feedback_report import FeedbackReport, Reported
from bulkmail.feedback.notice import RecipientNotice
from bulkmail.message.verp import TokenSubject, find_token, read_token
from bulkmail.model.errors import AddressError
from bulkmail.model.feedback_event import (
    MOST_REPORT_BYTES,
    MOST_WORDS,
    FeedbackEvent,
    FeedbackKind,
    KnownRun,
    Proof,
)
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.quota import DAY
from bulkmail.model.recipient import Address
from bulkmail.outbox.lookup import FoundDelivery
from bulkmail.text import printable

K = TypeVar("K")

ADDRESS_COUNTS = 14 * DAY
"""Seconds after a message in which a report that only names its address may be about it."""

OLDEST_RUN = 400 * DAY
"""Seconds after its beginning in which reports are looked up in a run without a token."""

VerifyUnsubscribe = Callable[[str], tuple[Address, str] | None]
"""Whom a signed unsubscribe token was made for, and the list id it holds for (empty: all); None for any other text."""


class Deliveries(Protocol):
    """Where the deliveries of one run are looked up."""

    def find(
        self,
        *,
        numbers: Collection[int] = (),
        rows: Collection[int] = (),
        message_ids: Collection[str] = (),
        paths: Collection[str] = (),
    ) -> list[FoundDelivery]:
        """Those with one of these numbers, rows, Message-IDs, or forward paths in lower case."""
        ...


@dataclass(frozen=True, slots=True)
class Arrived:
    """A mail that was read: `digest` is the same whenever and wherever it is; `raw` is the mail as it came.

    `source` names the mailbox, for people; `read_at` is wall-clock seconds.
    """

    digest: str
    report: FeedbackReport
    raw: bytes
    source: str
    read_at: float


@dataclass(slots=True)
class _Clue:
    """One mail with what may tell whose it is, and what was found by it."""

    mail: Arrived
    subject: TokenSubject | None
    message_ids: dict[str, Proof]
    paths: frozenset[str]
    run: KnownRun | None = None
    proof: Proof = Proof.NONE
    deliveries: list[FoundDelivery] = field(default_factory=list)
    by_path: dict[str, tuple[KnownRun, FoundDelivery]] = field(default_factory=dict)


class Matcher:
    """Finds what reports are about, in the runs that a register knows.

    `look_in` gives the deliveries of a run, None where its outbox is gone or cannot be read.
    """

    def __init__(
        self,
        runs: Sequence[KnownRun],
        token_key: bytes,
        *,
        look_in: Callable[[KnownRun], Deliveries | None],
        verify_unsubscribe: VerifyUnsubscribe = lambda token: None,
    ) -> None:
        self._runs = sorted(runs, key=lambda run: run.began_at, reverse=True)
        self._key = token_key
        self._look_in = look_in
        self._verify = verify_unsubscribe

    def match(self, mails: Sequence[Arrived]) -> list[FeedbackEvent]:
        """The events that these mails are; at least one for each.  Each outbox is looked into once at most."""
        return [event for events in self.match_each(mails) for event in events]

    def match_each(self, mails: Sequence[Arrived]) -> list[list[FeedbackEvent]]:
        """The same, by mail."""
        clues = [self._clue(mail) for mail in mails]
        for run in self._runs:
            self._search(run, clues)
        return [list(self._events(clue)) for clue in clues]

    def _clue(self, mail: Arrived) -> _Clue:
        report = mail.report
        subject = find_token(report.written_to, self._key)
        for value in report.our_ids:
            subject = subject or read_token(value, self._key)
        ids = dict.fromkeys(report.message_ids, Proof.MESSAGE_ID)
        if report.envelope_id:
            ids.setdefault(f"<{_of_xtext(report.envelope_id)}>", Proof.ENVELOPE_ID)
        if report.kind in (FeedbackKind.AUTO_REPLY, FeedbackKind.UNCLEAR) or not ids:
            ids |= {each: Proof.MESSAGE_ID for each in report.replies_to if each not in ids}
        paths = (each.lower() for reported in report.recipients for each in _named(reported.notice))
        return _Clue(mail, subject, ids, frozenset(paths))

    # Looking up -------------------------------------------------------------------------------------------------------

    def _search(self, run: KnownRun, clues: Sequence[_Clue]) -> None:
        tokens = [clue for clue in clues if clue.subject is not None and clue.subject.run == run.number]
        numbers = {clue.subject.delivery for clue in tokens if clue.subject and clue.subject.delivery is not None}
        rows = {clue.subject.row for clue in tokens if clue.subject and clue.subject.row is not None}
        open_clues = [clue for clue in clues if clue.run is None and self._may_be_of(run, clue)]
        ids = {each for clue in open_clues for each in clue.message_ids}
        paths = {path for clue in open_clues for path in clue.paths - clue.by_path.keys()}
        if not (numbers or rows or ids or paths) or (deliveries := self._look_in(run)) is None:
            return
        found = deliveries.find(numbers=numbers, rows=rows, message_ids=ids, paths=paths)
        by_number = {each.id: [each] for each in found}
        by_row, by_id = _grouped(found, lambda each: each.row), _grouped(found, lambda each: each.message_id)
        for clue in tokens:
            if clue.subject is not None and clue.subject.delivery is not None:
                self._take(clue, run, Proof.TOKEN, by_number.get(clue.subject.delivery, []))
            elif clue.subject is not None and clue.subject.row is not None:
                self._take(clue, run, Proof.TOKEN, by_row.get(clue.subject.row, []))
        for clue in open_clues:
            for message_id, proof in clue.message_ids.items():
                if clue.run is None:
                    self._take(clue, run, proof, by_id.get(message_id, []))
        by_path = _grouped(found, lambda each: each.forward_path.lower())
        for clue in open_clues:
            for path in clue.paths - clue.by_path.keys():
                about = [each for each in by_path.get(path, []) if _may_be_about(each, clue.mail)]
                if about:
                    clue.by_path[path] = (run, about[0])

    @staticmethod
    def _may_be_of(run: KnownRun, clue: _Clue) -> bool:
        """By when it was written or read: many clocks are wrong, and some mail is read late."""
        times = [clue.mail.read_at] + ([clue.mail.report.at] if clue.mail.report.at is not None else [])
        return not run.began_at or any(run.began_at - DAY <= at <= run.began_at + OLDEST_RUN for at in times)

    @staticmethod
    def _take(clue: _Clue, run: KnownRun, proof: Proof, found: list[FoundDelivery]) -> None:
        if found:
            clue.run, clue.proof, clue.deliveries = run, proof, found

    # Events -----------------------------------------------------------------------------------------------------------

    def _events(self, clue: _Clue) -> Iterator[FeedbackEvent]:
        mail, report = clue.mail, clue.mail.report
        if (request := self._request(report)) is not None:
            address, list_id = request
            yield _event(
                mail,
                0,
                Reported(RecipientNotice(""), NoticeMeaning(FeedbackKind.UNSUBSCRIBE, "requested")),
                proof=Proof.TOKEN,
                address=address,
                list_id=list_id,
            )
            return
        reported = report.recipients or (Reported(RecipientNotice(""), NoticeMeaning(report.kind, report.kind.value)),)
        if clue.run is None:
            for number, each in enumerate(reported):
                yield self._unproved(clue, number, each)
        elif len(clue.deliveries) == 1:
            delivery = clue.deliveries[0]
            event = _matched(mail, 0, _about(delivery, reported), clue, delivery)
            yield replace(event, replaces=tuple(_unmatched_id(mail, number) for number in range(len(reported))))
        else:
            yield from self._of_copies(clue, reported)

    def _of_copies(self, clue: _Clue, reported: Sequence[Reported]) -> Iterator[FeedbackEvent]:
        """A row that went to several addresses: only the one that is named counts."""
        for number, each in enumerate(reported):
            names = {_key(name) for name in _named(each.notice)} - {""}
            named = [delivery for delivery in clue.deliveries if _key(delivery.forward_path) in names]
            if named:
                yield _matched(clue.mail, number, each, clue, named[0])
            else:
                finding = replace(each.finding, kind=_without_effect(each.finding.kind))
                row = clue.deliveries[0].row
                unsure = Reported(each.notice, finding)
                yield _event(clue.mail, number, unsure, proof=clue.proof, run=clue.run, row=row)

    @staticmethod
    def _unproved(clue: _Clue, number: int, reported: Reported) -> FeedbackEvent:
        for name in _named(reported.notice):
            if (known := clue.by_path.get(name.lower())) is not None:
                run, delivery = known
                return _event(
                    clue.mail, number, reported, proof=Proof.ADDRESS, run=run, row=delivery.row, delivery=delivery
                )
        address = next((found for name in _named(reported.notice) if (found := _parsed(name)) is not None), None)
        return _event(clue.mail, number, reported, proof=Proof.NONE, address=address)

    def _request(self, report: FeedbackReport) -> tuple[Address, str] | None:
        """Whom a signed token in the subject or the address that was written to takes off the list."""
        if report.recipients or report.kind is FeedbackKind.AUTO_REPLY:
            return None
        locals_ = [address.rpartition("@")[0] for address in report.written_to]
        texts = [*_TOKENS.findall(report.subject), *(piece for local in locals_ for piece in local.split("+"))]
        for text in texts:
            if len(text) >= _SHORTEST_TOKEN and (found := self._verify(text)) is not None:
                return found
        return None


def _grouped(found: Iterable[FoundDelivery], key: Callable[[FoundDelivery], K]) -> dict[K, list[FoundDelivery]]:
    groups: dict[K, list[FoundDelivery]] = {}
    for each in found:
        groups.setdefault(key(each), []).append(each)
    return groups


_SHORTEST_TOKEN = 27  # characters of an unsubscribe token
_TOKENS = lazy_pattern(r"[A-Za-z0-9_-]{27,1000}")


def _about(delivery: FoundDelivery, reported: Sequence[Reported]) -> Reported:
    """What a report says of this delivery; where it names others that differ, nothing that acts."""
    key = _key(delivery.forward_path)
    named = [each for each in reported if key in {_key(name) for name in _named(each.notice)}]
    if named or len({each.finding.kind for each in reported}) == 1:
        return (named or reported)[0]
    finding = replace(reported[0].finding, kind=FeedbackKind.UNCLEAR)
    return Reported(reported[0].notice, finding)


def _without_effect(kind: FeedbackKind) -> FeedbackKind:
    return FeedbackKind.UNCLEAR if kind.may_suppress or kind.is_bounce else kind


def _matched(mail: Arrived, number: int, reported: Reported, clue: _Clue, delivery: FoundDelivery) -> FeedbackEvent:
    return _event(mail, number, reported, proof=clue.proof, run=clue.run, row=delivery.row, delivery=delivery)


def _event(
    mail: Arrived,
    number: int,
    reported: Reported,
    *,
    proof: Proof,
    run: KnownRun | None = None,
    row: int | None = None,
    delivery: FoundDelivery | None = None,
    address: Address | None = None,
    list_id: str = "",
) -> FeedbackEvent:
    """The event number `number` of a mail; read again with more known about it, it is another one."""
    notice, finding, report = reported.notice, reported.finding, mail.report
    if delivery is not None:
        address = next((found for name in _named(notice) if (found := _parsed(name)) is not None), None)
        address = address or _parsed(delivery.forward_path)
    unmatched = _unmatched_id(mail, number)
    return FeedbackEvent(
        source_id=unmatched if proof is Proof.NONE else f"mail:{mail.digest}:{number}:{proof.value}",
        kind=finding.kind,
        at=min(report.at, mail.read_at) if report.at is not None and proof.is_proved else mail.read_at,
        proof=proof,
        address=address,
        forward_path=delivery.forward_path if delivery is not None else "",
        run_id=run.run_id if run else "",
        campaign=run.campaign if run else "",
        list_id=list_id or (run.list_id if run else ""),
        row=row,
        delivery=delivery.id if delivery is not None else None,
        reason=finding.reason,
        code=finding.code,
        enhanced=finding.enhanced,
        words=printable(finding.words or report.words, MOST_WORDS),
        source=printable(mail.source, 300),
        report=mail.raw[:MOST_REPORT_BYTES],
        replaces=() if proof is Proof.NONE else (unmatched,),
    )


def _unmatched_id(mail: Arrived, number: int) -> str:
    """The source id of an event as long as no message of ours is known for it."""
    return f"mail:{mail.digest}:{number}:unmatched"


def _may_be_about(delivery: FoundDelivery, mail: Arrived) -> bool:
    """By when it was read: the date in a forged report can be any."""
    began = delivery.first_at
    return delivery.was_sent and began is not None and began - DAY <= mail.read_at <= began + ADDRESS_COUNTS


def _named(notice: RecipientNotice) -> Iterable[str]:
    return [each for each in (notice.address, notice.other) if each]


def _parsed(text: str) -> Address | None:
    try:
        return Address.parse(text)
    except AddressError:
        return None


def _key(text: str) -> str:
    found = _parsed(text)
    return found.key if found else ""


def _of_xtext(text: str) -> str:
    """RFC 3461 §4 undone."""
    return re.sub(r"\+([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), text.strip())
