"""What goes into an outbox and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct

from bulkmail.model.delivery import Status
from bulkmail.model.feedback_event import CameBack
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import BadRow, Place, Recipient


@dataclass(frozen=True, slots=True)
class ReadyMade:
    """A finished message in place of a row that templates make one from.

    `content` is wire bytes as `Message` has them.  `reverse_path` is an address or empty for the null path.  `label` is
    what people know the message by: a subject, a file name.
    """

    content: bytes = field(repr=False)
    reverse_path: str
    message_id: str
    label: str


_NONE: Mapping[str, str] = MappingProxyType({})


class Entry(NamedTuple):
    """One input row on its way into the outbox.

    `status` is PENDING, or why nothing is sent: INVALID, FILTERED, SUPPRESSED, DUPLICATE, with the `reason` in
    words (a `BadRow` may leave it to its own).  `forward_paths` are addresses without angle brackets; empty means the
    recipient's own.  A `ReadyMade` has at least one.  `suppressed` are those of a pending row that are left out all the
    same, with the reason of each.  `due_at`, in wall-clock seconds, is when a pending row may be tried first; 0 is at
    once.  Rows with the same `group`, if it is not empty, share a message.
    """

    row: Recipient | BadRow | ReadyMade
    status: Status = Status.PENDING
    reason: str = ""
    forward_paths: tuple[str, ...] = ()
    suppressed: Mapping[str, str] = _NONE
    due_at: float = 0.0
    group: bytes = b""


class Fold(Struct, frozen=True):
    """It is time to move what the journal of turns holds into the tables."""


class PathRecord(Struct, frozen=True, kw_only=True):
    """One address that a row is sent to, and what has become of that.

    `code`, `enhanced` and `reply` are the server's last words, `error` what broke where it had none; `reason` says
    either in a word or three, or why nothing was sent.  `attempts` counts every try.  Times are wall clock.
    `overruled` says who took it out of doubt, where no server did, and when.  `came_back` is not the outbox's: reports
    put it there.
    """

    address: str
    status: Status
    code: int | None
    enhanced: str
    reply: str
    reason: str
    attempts: int
    relay: str
    message_id: str
    first_at: float | None
    last_at: float | None
    error: str
    overruled: str = ""
    came_back: CameBack | None = None


class RowRecord(PathRecord, frozen=True, kw_only=True):
    """One input row and what has become of its own recipient; `copies` are the other addresses it is sent to.

    `run_number` says which run under its name it belongs to, where a report is about several.  `shares` is the number
    of the earlier row whose message it shares, which tolerates the copies; 0: it has its own.
    """

    row: int
    place: Place
    name: str
    fields: Mapping[str, object]
    copies: tuple[PathRecord, ...] = ()
    run_number: int = 0
    shares: int = 0


AcceptedRow = tuple[int, int, int, bytes, int, str, str, int, str, str, float | None, float | None]
"""What a report's table says of an accepted row that has one delivery: its id, the row's number, 1, the fields as JSON,
code, enhanced code, reply, tries, relay, Message-ID, and when the first and the last try were."""


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A delivery in doubt.  `is_alone`: no other delivery of the run has its Message-ID.

    `is_retried`: it is to be sent again, and has not been yet.
    """

    delivery: int
    row: int
    forward_path: str
    message_id: str
    is_alone: bool
    is_retried: bool = False


class Suppressed(NamedTuple):
    """How many rows became SUPPRESSED, and how many copies of rows that go on."""

    rows: int
    copies: int


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One try for one row.  `at` is wall-clock seconds, `took` seconds; `code` is None where no reply came."""

    row: int
    address: str
    at: float
    took: float
    relay: str
    code: int | None
    enhanced: str
    outcome: str
    reason: str
