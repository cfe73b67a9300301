"""Follow-ups: the next message of a conversation, only to recipients whom an earlier run reached."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from types import MappingProxyType

from bulkmail.mailing.previous_run import earlier_passes, look
from bulkmail.mailing.rows import Rows, WrappedRows
from bulkmail.mailing.suppression_list import open_settings
from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.errors import ConfigError
from bulkmail.model.feedback_event import FeedbackKind
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import FIELD as VARIANT
from bulkmail.model.recipient import Address, BadRow, Recipient
from bulkmail.model.suppression import SuppressionReason
from bulkmail.model.tally import Status
from bulkmail.outbox.entries import RowRecord
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.recipients.remarks import Remarks
from bulkmail.settings.suppressions import SuppressionSettings
from bulkmail.text import count, printable

MESSAGE_ID, REFERENCES = "thread_message_id", "thread_references"
"""The fields of a row of a follow-up: the Message-ID that it answers, and all those of the conversation."""

MOST_REFERENCES = 20  # Message-IDs of a conversation that a message names: the first, and the last ones

UNLESS = MappingProxyType(
    {
        "bounced": (
            frozenset({FeedbackKind.HARD, FeedbackKind.SOFT}),
            frozenset({SuppressionReason.HARD, SuppressionReason.SOFT}),
        ),
        "complained": (frozenset({FeedbackKind.SPAM_COMPLAINT}), frozenset({SuppressionReason.SPAM_COMPLAINT})),
        "unsubscribed": (frozenset({FeedbackKind.UNSUBSCRIBE}), frozenset({SuppressionReason.UNSUBSCRIBE})),
    }
)
"""What recipients may have done since that leaves them out: what came back of the run, and what the list says."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Which run is followed, and `unless` what: names of `UNLESS`."""

    outbox: Path
    unless: frozenset[str] = frozenset()


def parse_unless(text: str) -> frozenset[str]:
    """The names in `"bounced,unsubscribed"`.  Raises `ConfigError`."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = next((name for name in names if name not in UNLESS), None)
    if unknown is not None or not names:
        raise ConfigError(
            f"--unless {printable(unknown or text, 40)!r}: is nothing that bulkmail knows of a recipient",
            hint=f"expected {', '.join(UNLESS)}, with commas between",
        )
    return frozenset(names)


@dataclass(slots=True)
class Followed:
    """The run in `path`, the last of its `passes`, as a follow-up sees it.

    `threads` are, by `Address.key` of those reached, the Message-IDs of the conversation with spaces between, that of
    their message last; `others` are the reasons of the other recipients to be left out.
    """

    path: Path
    run_id: str
    passes: tuple[Path, ...]
    unless: frozenset[str]
    campaign: Campaign | None
    columns: tuple[str, ...] = ()
    threads: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For people."""
        return printable(self.path.stem, 60)

    def why_not(self, key: str) -> str:
        """Why a follow-up does not go to an `Address.key`; empty if it does."""
        if key in self.threads:
            return ""
        return self.others.get(key) or f"not reached by {self.name}"


def read_followed(follow_up: FollowUp, suppressions: SuppressionSettings | None) -> Followed:
    """Whom the run and the passes that it went on from reached; of the suppression list, what is asked for.

    Reads all of their rows.  Raises `ConfigError` for a rehearsal, for a run that reached no recipient and when the
    outbox of an earlier pass is gone, `OutboxError`, `SuppressionError`.
    """
    with OutboxReader.open(follow_up.outbox) as reader:
        path = Path(os.path.abspath(follow_up.outbox))  # for the new outbox, which is read from any folder
        if reader.is_rehearsal:
            raise ConfigError(
                f"{path} is the outbox of a rehearsal, which reached no recipient: there is nothing to follow up",
                hint="name the outbox of the real run, or its campaign",
            )
        columns = tuple(column for column in reader.info.columns if column not in (MESSAGE_ID, REFERENCES))
        passes = (*earlier_passes(look(path)), path)
        found = Followed(path, reader.run_id, passes, follow_up.unless, reader.campaign, columns)
        tally = reader.tally()
    erased = sum(_read_rows(one, found) for one in passes)
    if erased:
        found.notices.append(f"{count(erased, 'recipient')} of {found.name} were erased since, and get no follow-up")
    if not found.threads:
        raise ConfigError(
            f"the run in {path} reached no recipient, so there is nothing to follow up",
            hint=f"look at it with bulkmail status {shlex.quote(str(path))}",
        )
    for number, what in (
        (tally[Status.IN_DOUBT], "in doubt: it is not known whether they got the first message"),
        (tally.open_rows, "still open there"),
    ):
        if number:
            found.notices.append(f"{count(number, 'recipient')} of {found.name} are left out: {what}")
    if follow_up.unless:
        _leave_out(found, suppressions)
    return found


def _read_rows(outbox: Path, found: Followed) -> int:
    """Fills in whom a pass reached and whom not; how many were reached and erased since."""
    erased = 0
    with OutboxReader.open(outbox) as reader:
        for record in reader.rows():
            if not record.address:
                erased += record.status is Status.ACCEPTED
                continue
            key = _key(record)
            if record.status is Status.ACCEPTED and record.message_id:
                found.threads[key] = _references(record)
                found.others.pop(key, None)
            elif key not in found.threads and record.status is not Status.DUPLICATE:
                found.others[key] = f"{record.status.value.replace('_', ' ')} in {found.name}"
    return erased


def _address(record: RowRecord) -> Address:
    local, _, domain = record.address.rpartition("@")
    return Address(local, domain)


def _key(record: RowRecord) -> str:
    return _address(record).key


def _references(record: RowRecord) -> str:
    """All Message-IDs of the conversation so far, the oldest first (RFC 5322 §3.6.4)."""
    before = str(record.fields.get(REFERENCES) or "").split()
    ids = [*before, record.message_id]
    if len(ids) > MOST_REFERENCES:
        ids = [ids[0], *ids[1 - MOST_REFERENCES :]]
    return " ".join(ids)


def _leave_out(found: Followed, suppressions: SuppressionSettings | None) -> None:
    """Takes out those who did since what the follow-up is not for."""
    if suppressions is None:
        raise ConfigError("--unless asks the suppression list, and this run uses none", hint="leave --unless out")
    kinds = {kind: name for name in found.unless for kind in UNLESS[name][0]}
    reasons = {reason: name for name in found.unless for reason in UNLESS[name][1]}
    try:
        if not suppressions.is_there():
            return  # nothing ever came back
    except RuntimeError:  # no home folder, and so no list
        return
    with open_settings(suppressions) as store:
        known = store.since_run(found.run_id, kinds=kinds, reasons=reasons, now=time.time())
        for key in list(found.threads) if known else ():
            digests = (store.digest(key), store.digest(key[key.rindex("@") :]))
            if name := next((known[digest] for digest in digests if digest in known), ""):
                del found.threads[key]
                found.others[key] = f"{name} since {found.name} (--unless)"


def with_thread(campaign: Campaign, followed: Followed) -> Campaign:
    """The campaign whose messages answer those of the run.  Raises `ConfigError` where it sets these headers itself."""
    threading = {"in-reply-to", "references"}
    for name, template in campaign.headers:
        if name.lower() in threading:
            raise ConfigError(
                f"{template.name}: the header {printable(name, 40)} is that of the message that is followed up",
                hint="take it out of the headers, or leave --follow-up out",
            )
    headers = (
        ("In-Reply-To", Template("In-Reply-To", f"{{{{ {MESSAGE_ID} }}}}")),
        ("References", Template("References", f"{{{{ {REFERENCES} }}}}")),
    )
    return replace(campaign, headers=(*campaign.headers, *headers), follows=followed.run_id)


def subject_notice(campaign: Campaign, followed: Followed) -> list[str]:
    """That some readers show the follow-up apart, because its subject is another."""
    first = followed.campaign
    if first is None or not (first.has_subject and campaign.has_subject):
        return []
    ours, theirs = (_bare(one.subject.text) for one in (campaign, first))
    if ours == theirs:
        return []
    return [
        f"the subject is not that of {followed.name}: Gmail shows a follow-up with another subject as a conversation of"
        f" its own; to keep them together, write subject = {printable('Re: ' + first.subject.text.strip(), 200)!r}"
    ]


def _bare(subject: str) -> str:
    subject = " ".join(subject.split())
    while subject[:3].lower() == "re:":
        subject = subject[3:].strip()
    return subject


class RunRows:
    """The rows of the run that is followed, with their fields, as a list: whom it was meant for, each once.

    First those of the last pass, then those whom only an earlier one has.
    """

    def __init__(self, followed: Followed) -> None:
        self._followed = followed
        self.columns = list(followed.columns)
        self.notices: list[str] = []
        self.repeated: dict[str, list[str]] = {}
        self.remarks = Remarks()

    def __iter__(self) -> Iterator[Recipient | BadRow]:
        """Each row in order."""
        has_several = len(self._followed.passes) > 1
        known: set[str] = set()
        for outbox in reversed(self._followed.passes):
            with OutboxReader.open(outbox) as reader:
                for record in reader.rows():
                    if not record.address or (key := _key(record)) in known:
                        continue
                    if key in self._followed.threads or (record.status.is_eligible and outbox == self._followed.path):
                        if has_several:
                            known.add(key)
                        yield Recipient(_address(record), record.name, record.fields, record.place)

    def close(self) -> None:
        """Nothing is open."""


class FollowedRows(WrappedRows):
    """The same rows, each with the Message-ID that its message answers, where the run reached its recipient."""

    def __init__(self, rows: Rows, followed: Followed, campaign: Campaign) -> None:
        super().__init__(rows, MESSAGE_ID, REFERENCES)
        self._followed = followed
        self._variants = {name for name, _ in campaign.variants}

    def fields(self, key: str, fields: Mapping[str, object]) -> Mapping[str, object]:
        """With the Message-IDs of the conversation."""
        thread = self._followed.threads.get(key)
        if thread is None:
            return fields
        found = {**fields, MESSAGE_ID: thread.rpartition(" ")[2], REFERENCES: thread}
        # The variant of the first message, unless this campaign has others.
        if self._variants and found.get(VARIANT) not in self._variants and isinstance(self._rows, RunRows):
            found.pop(VARIANT, None)
        return found


def following(rows: Rows, followed: Followed | None, campaign: Campaign) -> Rows:
    """The rows of a follow-up; those of any other run as they are."""
    return rows if followed is None else FollowedRows(rows, followed, campaign)


def said(names: Iterable[str]) -> str:
    """The names of `UNLESS` as an outbox and a digest have them."""
    return ",".join(sorted(names))
