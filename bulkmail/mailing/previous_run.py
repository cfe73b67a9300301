"""What an earlier run with the same outbox means for a new one, and whether the list is still the same."""

from __future__ import annotations

import datetime
import glob
import os
import re
import shlex
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import field
from email.message import EmailMessage, Message
from enum import Enum
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from anyio import to_thread

from bulkmail.mailing.checking import Messages
from bulkmail.mailing.rows import Feed, GivenRows
from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.pace import Durability
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.model.relay import Kind
from bulkmail.model.route import Route
from bulkmail.model.schedule import Schedule
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.entries import encode_fields
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader, is_outbox
from bulkmail.outbox.run_info import RunInfo
from bulkmail.outbox.sqlite_file import noticing_damage
from bulkmail.text import count

# -- What an earlier run with the same outbox means for a new one, and how a run takes its place.


class Standing(Enum):
    """How far an earlier run came."""

    NONE = "none"  # there is no outbox
    UNTOUCHED = "untouched"  # nothing came of it for anyone: it can be replaced
    UNFINISHED = "unfinished"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier run.  `list_digest` is that of the list it was loaded from.

    `is_closed` is False where a finished run was killed before it could note its end; `ended_at` is that of its last
    try then.  `number` counts the runs under this name.  `passes` are the run ids of the earlier passes that it goes on
    from, by `--changed`; `suppress` are the suppression files that it was begun with, `inputs` all files that its
    campaign was made of.  `schedule` is what it was begun with of planned times, as its outbox has it; `is_ready`: its
    list was read and the checks before sending passed.
    It has more attributes than a class should: each is one thing that an earlier run decides for a later one.
    """

    path: Path
    standing: Standing
    is_rehearsal: bool = False
    run_id: str = ""
    number: int = 1
    passes: tuple[str, ...] = ()
    suppress: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    fingerprint: str = ""
    list_digest: str = ""
    tally: Tally = field(default_factory=lambda: Tally(0))
    ended_at: float | None = None
    is_closed: bool = True
    schedule: Schedule | None = None
    is_ready: bool = False

    @property
    def has_begun(self) -> bool:
        """Whether mail may have been sent."""
        return self.standing in (Standing.UNFINISHED, Standing.FINISHED)

    @property
    def is_planned(self) -> bool:
        """Whether it waits for the first of its planned times: they were counted from its start, and stay."""
        return self.standing is Standing.UNTOUCHED and bool(self.is_ready and self.schedule and self.tally.open)

    def changes(self, campaign: Campaign, list_digest: str, schedule: Schedule | None = None) -> list[str]:
        """What is not as it was: "the message", "the list", "the planned times (send_at)"."""
        return self.changes_from(campaign.fingerprint, list_digest, schedule)

    def changes_from(self, fingerprint: str, list_digest: str, schedule: Schedule | None = None) -> list[str]:
        """The same by the fingerprint of the message, empty for ready-made ones."""
        changed = []
        if self.fingerprint != fingerprint:
            changed.append("the message")
        if self.list_digest != list_digest:
            changed.append("the list")
        if self.schedule != schedule:
            changed.append("the planned times (send_at)")
        return changed


def look(path: Path) -> Past:
    """What `path` holds.  Raises `OutboxError` when it is there but not to be read."""
    if not path.exists():
        return Past(path, Standing.NONE)
    with OutboxReader.open(path) as reader, noticing_damage(reader.name):
        tally = reader.tally()
        info = reader.info
        if not reader.is_loaded or (tally.is_untouched and not reader.has_marks):
            standing = Standing.UNTOUCHED
        else:
            standing = Standing.UNFINISHED if tally.open else Standing.FINISHED
        return Past(
            path,
            standing,
            reader.is_rehearsal,
            run_id=reader.run_id,
            number=info.number,
            passes=info.passes,
            suppress=info.suppress,
            inputs=info.files,
            fingerprint=reader.campaign.fingerprint if reader.campaign else "",
            list_digest=info.list_digest,
            tally=tally,
            schedule=info.schedule,
            is_ready=reader.is_loaded and info.is_checked,
            is_closed=reader.ended_at is not None,
            ended_at=reader.ended_at if reader.ended_at is not None else reader.last_tried_at(),
        )


def close_finished(past: Past) -> None:
    """Notes the end of a finished run that was killed before it could.  Raises `OutboxBusy` while it is still there."""
    if not past.is_closed:
        with Outbox.open(past.path) as outbox:
            outbox.finish(ended_at=past.ended_at)


def refuse_other_kind(past: Past, *, is_rehearsal: bool, hint: str) -> None:
    """Raises `ConfigError` when a rehearsal meets a real run or the reverse: neither goes on from the other, nor
    replaces it.  `hint` says where a run of this kind may keep its outbox instead.
    """
    if past.standing is Standing.NONE or past.is_rehearsal == is_rehearsal:
        return
    if is_rehearsal:
        raise ConfigError(f"{past.path} is the outbox of a real run; a rehearsal does not replace it", hint=hint)
    raise ConfigError(
        f"{past.path} is the outbox of a rehearsal, which reached no recipient; a real run does not go on from it",
        hint=hint,
    )


def refuse_relays_of_other_kind(path: Path | None, info: RunInfo, routes: Sequence[Route]) -> None:
    """Raises `ConfigError` when a real run would go on through a relay that delivers nothing, or a rehearsal through
    one that does: the one would record recipients as accepted who got nothing, the other would send to them.

    `info` is that of the outbox at `path`.
    """
    relay = routes[0].relay
    if relay.kind.is_rehearsal and not info.is_rehearsal:
        raise ConfigError(
            f"{path} is the outbox of a real run, and {relay.kind.value}: delivers nothing: its recipients would"
            " be recorded as accepted",
            hint="leave --relay out to go on through the relay of the run; to rehearse, send --dry-run with an outbox"
            " of its own",
        )
    if info.is_rehearsal and not (relay.kind.is_rehearsal or info.redirect_to):
        raise ConfigError(
            f"{path} is the outbox of a rehearsal, and {relay} delivers: its recipients would be sent to",
            hint="to send for real, run bulkmail send with the campaign; the rehearsal goes on with its own relay",
        )


def refuse_changed(past: Past, changed: list[str], *, command: str) -> None:
    """Raises `ConfigError` that names what changed since, and the ways to go on, the harmless ones first."""
    since = f"this mailing ended {when(past)}" if past.standing is Standing.FINISHED else "this run began"
    raise ConfigError(
        f"{' and '.join(changed)} changed since {since} ({reached(past)}; {past.path})",
        hint="; ".join([*_ways_with_the_old(past), *_ways_with_the_new(command)]),
    )


def refuse_others(past: Past, changed: list[str]) -> None:
    """Raises `ConfigError` if something `changed` since a program began the run with this outbox."""
    if changed:
        raise ConfigError(
            f"{' and '.join(changed)} changed since the run in {past.path} began ({reached(past)}); nothing was sent",
            hint="use another outbox; to send only to those not yet reached, with suppress=[the outbox of that run]",
        )


def refuse_cancelled(past: Past, *, command: str) -> None:
    """Raises `ConfigError` for a run that was cancelled: nothing is sent by calling it again."""
    raise ConfigError(
        f"this mailing was cancelled: {reached(past)}, {past.tally[Status.CANCELLED]:,} given up; nothing was sent now",
        hint="; ".join(_ways_with_the_new(command)),
    )


def _ways_with_the_old(past: Past) -> list[str]:
    """Commands that send the message of the run as it was recorded."""
    if past.standing is not Standing.FINISHED:
        return [f"`{resume_command(past.path)}` goes on with the old message and list"]
    return retries(past)


def retries(past: Past) -> list[str]:
    """How to try just those again that a finished run was refused for, if there are any."""
    ways = [(Status.REJECTED, "--retry-rejected"), (Status.EXPIRED, "--retry-expired")]
    return [
        f"`{resume_command(past.path)} {flag}` tries just the {past.tally[status]:,} {status.value} again"
        for status, flag in ways
        if past.tally[status]
    ]


def _ways_with_the_new(command: str) -> list[str]:
    return [
        f"`{command} --changed` sends the message and list of now to those not yet reached",
        f"`{command} --new` sends them to everyone again",
    ]


def resume_command(path: Path) -> str:
    """What to type to go on with the run in `path`."""
    return f"bulkmail resume {shlex.quote(str(path))}"


def when(past: Past) -> str:
    """When a finished run ended."""
    if past.ended_at is None:
        return "before"
    ended = datetime.datetime.fromtimestamp(past.ended_at)
    return f"on {ended.day} {ended:%B %Y} at {ended:%H:%M}"


def reached(past: Past) -> str:
    """How many recipients have the message, and how many of them were refused."""
    said = f"{past.tally[Status.ACCEPTED]:,} of {count(past.tally.eligible, 'recipient')} accepted"
    for status in (Status.REJECTED, Status.EXPIRED, Status.IN_DOUBT):
        if past.tally[status]:
            said += f", {past.tally[status]:,} {status.value.replace('_', ' ')}"
    return said


REPORT_SUFFIXES = (".csv", ".json", ".html")  # of the reports beside an outbox


def take_over(outbox: Outbox, old: Path, *, durability: Durability) -> Outbox:
    """The new outbox takes the old one's name, the old one a number: at no instant is there none."""
    new = outbox.path
    if new is None:
        return outbox
    number = _free_number(old)
    outbox.note(number=number + 1)
    outbox.close()
    with Outbox.open(old):  # no process sends from it, and closing it leaves a single file
        pass
    os.link(old, _numbered(old, number))
    os.replace(new, old)
    return Outbox.open(old, durability=durability)


def earlier_passes(past: Past) -> list[Path]:
    """The outboxes of the passes that `past` went on from.  Raises `ConfigError` when one is gone."""
    found = _replaced_runs(past.path) if past.passes else {}
    if any(run_id not in found for run_id in past.passes):
        raise ConfigError(
            f"the outbox of an earlier pass of {past.path} is gone, and only that says whom it reached",
            hint=f"put {past.path.stem}.1{past.path.suffix} and those after it back into {past.path.parent}",
        )
    return [found[run_id] for run_id in past.passes]


def passes_of(outbox: Path) -> tuple[list[Path], int]:
    """The passes that the run in `outbox` goes on from, oldest first, with its own last; and how many are gone.

    A rehearsal, which reaches no recipient, has no passes but itself.
    """
    with OutboxReader.open(outbox) as reader, noticing_damage(reader.name):
        wanted = reader.info.passes
        if reader.is_rehearsal or not wanted:
            return [outbox], 0
    found = _replaced_runs(outbox)
    earlier = [found[run_id] for run_id in wanted if run_id in found]
    return [*earlier, outbox], len(wanted) - len(earlier)


def _replaced_runs(outbox: Path) -> dict[str, Path]:
    """The runs that others took the place of under this name, by run id."""
    found: dict[str, Path] = {}
    for path in outbox.parent.glob(f"{glob.escape(outbox.stem)}.*{outbox.suffix}"):
        if path.name[len(outbox.stem) + 1 : -len(outbox.suffix) or None].isdecimal() and is_outbox(path):
            with OutboxReader.open(path) as reader:
                found[reader.run_id] = path
    return found


def number_of(past: Past) -> int:
    """The number of a new run in the place of `past`, which begins at once.

    Where there is no outbox, reports that are there nevertheless are of a run whose outbox was taken away.
    """
    if past.standing is not Standing.NONE:
        return past.number
    number = 1
    while any(report.exists() for report in reports_beside(past.path, number)):
        number += 1
    return number


def reports_beside(outbox: Path, number: int) -> tuple[Path, ...]:
    """The reports of run `number` under this name: a later pass does not overwrite those of the first."""
    stem = f"{outbox.stem}-report" if number == 1 else f"{outbox.stem}-report-{number}"
    return tuple(outbox.with_name(f"{stem}{suffix}") for suffix in REPORT_SUFFIXES)


def empty_inbox(outbox: Outbox, routes: Sequence[Route]) -> None:
    """A rehearsal always begins again: what an earlier one kept beside this outbox goes.

    Raises `ConfigError` for a mail folder that no rehearsal made.
    """
    kept_here = [route for route in routes if route.relay.kind is Kind.SANDBOX and not route.relay.directory]
    if not kept_here or outbox.path is None:
        return
    from bulkmail.sandbox.maildir import Maildir

    inbox = inbox_of(outbox.path)
    check_inbox(inbox)
    maildir = Maildir(inbox)
    (inbox / INBOX_MARK).touch(mode=0o600)
    maildir.clear()
    outbox.note(maildir=str(inbox))


INBOX_MARK = ".bulkmail-rehearsal"  # in a mail folder that a rehearsal made, and may empty


def inbox_of(outbox: Path) -> Path:
    """Where a rehearsal in the sandbox keeps its mail."""
    return outbox.with_name(outbox.name.removesuffix(".outbox").removesuffix(".rehearsal") + ".inbox")


def check_inbox(inbox: Path) -> None:
    """Raises `ConfigError` unless a rehearsal may empty this mail folder: it made it, or there is no mail in it."""
    for path in (inbox, *(inbox / name for name in ("tmp", "new", "cur")), inbox / INBOX_MARK):
        is_as_made = path.is_file() if path.name == INBOX_MARK else path.is_dir()
        if path.is_symlink() or (path.exists() and not is_as_made):
            raise ConfigError(
                f"{path}: a rehearsal would keep its mail there, and that is a link or a file", hint="move it away"
            )
    is_empty = not any(next(folder.iterdir(), None) for name in ("new", "cur") if (folder := inbox / name).is_dir())
    if not is_empty and not (inbox / INBOX_MARK).is_file():
        raise ConfigError(
            f"{inbox}: a rehearsal would empty this mail folder, and no rehearsal made it",
            hint="move it away, or remove it if you do not need its mail",
        )


def _free_number(path: Path) -> int:
    """The first number that no older run has, and the next of which no report has."""
    number = 1
    while _numbered(path, number).exists() or any(report.exists() for report in reports_beside(path, number + 1)):
        number += 1
    return number


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


# -- Whether a list or ready-made messages are those that a run was begun with: 32 hex digits that say so.


BLOCK = 1 << 20
# A program that makes the same message again gives these other values each time.
_REGENERATED = frozenset({"date", "message-id", "mime-version", "content-id"})
_BOUNDARY = lazy_pattern(r";\s*boundary=(\"[^\"]*\"|[^;\s]*)", re.IGNORECASE)


class Digest:
    """Takes the parts of something one after another."""

    def __init__(self) -> None:
        self._state = blake2b(digest_size=16)

    def add(self, *parts: bytes) -> None:
        """Parts that are divided otherwise count as others."""
        for part in parts:
            self._state.update(b"%d:" % len(part))
            self._state.update(part)

    def add_file(self, path: Path) -> None:
        """The bytes of a file, if it is one."""
        if not path.is_file():
            return
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                self._state.update(block)

    def __str__(self) -> str:
        return self._state.hexdigest()


class DigestedRows:
    """The same rows, and `digest` of them all when they have been read to the end."""

    def __init__(self, rows: GivenRows, digest: Digest) -> None:
        self.digest = digest
        self.fetch = rows.fetch
        self.aclose = rows.aclose
        self.repeated = rows.repeated
        self.remarks = rows.remarks
        self._rows = rows

    @property
    def columns(self) -> list[str]:
        """As far as they are known."""
        return self._rows.columns

    @property
    def notices(self) -> list[str]:
        """What was noticed so far."""
        return self._rows.notices

    def __iter__(self) -> Iterator[Recipient | BadRow]:
        """Each row in order."""
        for row in self._rows:
            add_row(self.digest, row)
            yield row

    async def read_through(self) -> None:
        """Reads all rows for their digest alone."""
        await _read_through(iter(self), self.fetch)

    def close(self) -> None:
        """Closes what it reads from."""
        self._rows.close()


def add_row(digest: Digest, row: Recipient | BadRow) -> None:
    """One row of a list: its address and all its fields."""
    address, name = (row.address.wire, row.name) if isinstance(row, Recipient) else ("", row.reason)
    digest.add(_encoded(address), _encoded(name), encode_fields(row.fields, place=row.place))


async def digest_of_messages(messages: Messages) -> str:
    """The digest of ready-made messages: headers, parts and recipients, without what differs in each copy of them."""
    digest = Digest()
    feed: Feed[EmailMessage] = Feed(messages, lambda message: message)
    try:
        await _read_through(map(partial(add_message, digest), feed), feed.fetch)
    finally:
        await feed.aclose()
    return str(digest)


async def _read_through(items: Iterator[object], fetch: Callable[[], Awaitable[int]]) -> None:
    while True:
        ready = await fetch()
        # At the end the iterator is asked once more, so that it can come to its own end.
        taken = await to_thread.run_sync(lambda count: len(list(islice(items, count))), ready or 1)
        if not taken:
            return


def add_message(digest: Digest, message: EmailMessage) -> None:
    """One ready-made message."""
    ids = [str(part["Content-ID"]).strip("<> \t") for part in message.walk() if part["Content-ID"]]
    names = {name: f"part{number}" for number, name in enumerate(ids) if name}
    digest.add(b"message")
    for part in message.walk():
        digest.add(b"part")
        for name, value in part.raw_items():
            if name.lower() not in _REGENERATED:
                digest.add(_encoded(name.lower()), _encoded(_BOUNDARY.sub("", " ".join(str(value).split()))))
        if not part.is_multipart():
            digest.add(_content(part, names))


def _content(part: Message, names: dict[str, str]) -> bytes:
    """What the part holds; in a text, each part that it shows by its Content-ID is called by its place."""
    payload = part.get_payload(decode=True)
    content = payload if isinstance(payload, bytes) else _encoded(str(part.get_payload()))
    if part.get_content_maintype() == "text":
        for name, place in names.items():
            content = content.replace(_encoded(name), _encoded(place))
    return content


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
