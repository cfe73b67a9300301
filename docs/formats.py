"""The JSON that bulkmail writes, as types: docs/reference.py makes their schemas, tests hold real output to them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

Time = str
"""ISO 8601 in UTC: `2026-12-01T09:30:00.000Z`."""


class Format(Struct, forbid_unknown_fields=True, kw_only=True):
    """All keys are always there, but for those with a default."""


class Rest(Format):
    """Why sending waits, and until when; null where time alone does not help."""

    until: Time | None
    why: str


class Stopped(Format):
    """Who stopped the run, and when."""

    by: str
    at: Time | None


class Follows(Format):
    """The run that this one follows up."""

    run_id: str
    outbox: str


class Planned(Format):
    """Rows that were never tried: those that are due, and those that have a time to come."""

    at_once: int
    later: int
    first_at: Time | None
    last_at: Time | None
    zones: dict[str, int]


class Slowdown(Format):
    """A relay or mailbox provider that throttled; `mailbox_provider` is null for a relay as a whole."""

    relay: str
    mailbox_provider: str | None
    times: int
    last_at: Time
    why: str
    reply: str
    until: Time | None
    per_second: float | None
    lowest_per_second: float | None
    connections: int | None


class Pass(Format, rename={"number": "pass"}):
    """One of the runs that a campaign was sent in."""

    number: int
    run_id: str
    outbox: str | None
    totals: dict[str, int]
    feedback: dict[str, int]
    started: Time | None
    ended: Time | None


class Times(Format):
    """When the run was created, when its first message went out, and when nothing was left to do."""

    created: Time | None
    started: Time | None
    ended: Time | None


class Run(Format, rename={"list_name": "list"}):
    """What holds for a run as a whole.

    `totals` has every status and their sum, `rows`; `messages` the same, but rows that share a message count once;
    `copies` counts the other addresses of rows; `feedback` what came back, by kind, and what is `unmatched`.
    """

    bulkmail: int
    name: str
    run_id: str
    relay: str
    list_name: str
    is_rehearsal: bool
    exit_code: int
    rest: Rest | None
    stopped: Stopped | None
    follows: Follows | None
    planned: Planned | None
    slowdowns: list[Slowdown]
    totals: dict[str, int]
    messages: dict[str, int]
    copies: dict[str, int]
    feedback: dict[str, int]
    passes: list[Pass]
    times: Times


class Feedback(Format):
    """What came back about one address."""

    kind: str
    at: Time | None
    reason: str


class Copy(Format):
    """A copy of a row's message, to another address."""

    address: str
    status: str
    code: int | None
    enhanced_code: str
    reply: str
    reason: str
    attempts: int
    relay: str
    last_at: Time | None
    error: str
    feedback: Feedback | None = None


class Row(Format, rename={"number": "pass"}):
    """A row of the list.  `shares` is the row whose message it shares; `fields` are the columns of the list."""

    row: int
    shares: int | None
    file: str
    line: int
    address: str
    name: str
    status: str
    code: int | None
    enhanced_code: str
    reply: str
    reason: str
    attempts: int
    relay: str
    message_id: str
    first_at: Time | None
    last_at: Time | None
    error: str
    copies: list[Copy]
    feedback: Feedback | None
    number: int
    fields: dict[str, Any]


class Report(Run):
    """`bulkmail report --format json`, `NAME-report.json`.

    `reasons` has, by status, words with counts; `variants`, by variant of the message, what became of its rows.
    """

    rows: list[Row]
    reasons: dict[str, dict[str, int]]
    variants: dict[str, Any]


class Process(Format):
    """The process that is sending."""

    pid: int
    host: str


class Status(Run):
    """`bulkmail status --json`."""

    outbox: str
    process: Process | None
    accepted_by_relay: dict[str, int]
    intake_overdue_seconds: int = 0


class Sent(Run):
    """`bulkmail send --json`, `bulkmail resume --json`, and the event `ended` of `--progress json`."""

    outbox: str
    reports: list[str]
    error: str | None
    hint: str | None


class Finding(Format):
    """What a check found.  `rows` are the first lines of the list with it, `rows_in_all` their number."""

    code: str
    severity: str
    message: str
    where: str | None
    file: str | None
    line: int | None
    column: str | None
    rows: list[int]
    rows_in_all: int
    why: str
    fix: str


class Check(Format):
    """`bulkmail check --json`."""

    campaign: str
    ready: bool
    rows: int
    recipients: int
    by_status: dict[str, int]
    planned: Planned | None
    notices: list[str]
    findings: list[Finding]


class Trouble(Format):
    """What stands in the way of using a relay."""

    what: str
    fix: str
    reply: str | None


class Tried(Format):
    """An address of the relay, and how long connecting took."""

    address: str
    seconds: float | None
    error: str | None


class Tls(Format):
    """How the connection is secured."""

    version: str
    cipher: str


class Certificate(Format):
    """What the server showed."""

    subject: str
    names: list[str]
    issuer: str
    valid_from: str
    valid_until: str


class Login(Format):
    """Whether the login worked."""

    state: str
    mechanism: str | None


class Reply(Format):
    """What the server said of a sender or a recipient."""

    code: int
    enhanced: str | None
    text: str


class Relay(Format):
    """`bulkmail relay --json`; what is not known is null.  `round_trip` is seconds."""

    relay: str
    usable: bool
    trouble: Trouble | None
    addresses: list[Tried]
    connected_to: str | None
    tls: Tls | None
    certificate: Certificate | None
    server: str | None
    extensions: Any
    size_limit: int | None
    limits: dict[str, Any]
    login: Login
    mode: str | None
    probe_passed: bool | None
    depth: int
    round_trip: float | None
    sender: Reply | None
    recipient: Reply | None


class Diagnosis(Format):
    """One thing that `doctor` looked at."""

    subject: str
    state: str
    found: str
    fix: str | None


class Doctor(Format):
    """`bulkmail doctor --json`."""

    bulkmail: int
    checks: list[Diagnosis]


class Ended(Format):
    """What every command with `--json` adds to its own keys."""

    bulkmail: int
    error: str | None
    hint: str | None
    exit_code: int


class Stop(Ended):
    """`bulkmail stop --json`.  `left` counts messages that are left to send."""

    outbox: str
    was_sending: bool
    has_ended: bool
    left: int | None


class Suppressed(Format, rename={"list_name": "list"}):
    """An entry of the suppression list."""

    address: str
    reason: str
    list_name: str
    since: Time
    until: Time | None
    note: str
    digest: str


class Suppressions(Ended):
    """`bulkmail suppress list --json`."""

    total: int
    entries: list[Suppressed]


class History(Ended):
    """`bulkmail suppress show --json`: all that is known of an address."""

    address: str
    suppressed: bool
    entries: list[Suppressed]
    events: list[dict[str, Any]]
    changes: list[dict[str, Any]]


class Bounces(Ended):
    """`bulkmail bounces --json`."""

    mails: int
    new_events: int
    matched: dict[str, int]
    unproved: int
    unmatched: int
    dry_run: bool
    notices: list[str]


class NotifiedRun(Format):
    """The run that a notification is about."""

    name: str
    run_id: str
    outbox: str
    host: str
    is_rehearsal: bool
    exit_code: int | None
    error: str | None
    still_seconds: float | None
    totals: dict[str, int]
    copies: dict[str, int]


class Notification(Format):
    """What webhook and command of `[notify]` get."""

    type: str
    timestamp: Time
    version: int
    text: str
    data: NotifiedRun


FORMATS: dict[str, type[Format]] = {
    "report": Report,
    "status": Status,
    "send": Sent,
    "check": Check,
    "relay": Relay,
    "doctor": Doctor,
    "stop": Stop,
    "suppress-list": Suppressions,
    "suppress-show": History,
    "bounces": Bounces,
    "notify": Notification,
}
EVENTS = {
    "note": "Something said to people: `text`, and `relay` where it is about one",
    "reading": "Rows read so far: `done`, `total` (null where it is not known)",
    "checking": "Rows checked so far: `done`, `total`",
    "planned": "What waits for a time of its own: the keys of `planned` in a report",
    "sending": "Sending begins, with `total` open messages",
    "settled": "One outcome: `row`, `address`, `is_copy`, `status`, `attempt`, `relay`, `stage`, `code`, `reply`",
    "progress": "The figures, every five seconds: `total`, `done`, counts by status, `rate`, `mean_rate`, "
    "`left_seconds`, `connections`, `slowed`",
    "waiting": "Sending waits: `until`, `why`",
    "sessions": "Connections that are open now: `open`, `relay`",
    "slowed": "A relay or provider throttled: the keys of `slowdowns` in a report",
    "ended": "How the command ended: the result, `exit_code`, `error`, `hint`; the last line",
}
