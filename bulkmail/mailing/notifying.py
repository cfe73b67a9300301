"""Notifies of a run by mail, webhook and command.  What fails is returned in words, and never raised."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.message import EmailMessage
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio import to_thread

from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.relays import open_routes
from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import AddressError, BulkmailError
from bulkmail.model.lazy import dataclass
from bulkmail.model.notification import NotifyEvent, NotifySettings, sentence, without_addresses
from bulkmail.model.pace import Pace
from bulkmail.model.recipient import parse_mailbox
from bulkmail.model.relay import Secret
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.route import Route
from bulkmail.model.tally import Status, Tally
from bulkmail.report.row_words import iso
from bulkmail.settings.notify_settings import find_webhook, signing_key
from bulkmail.text import printable

TIMEOUT = 10.0  # seconds
LONGEST = 65_536  # bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered: the status and the body, which is complete."""

    status: int
    body: bytes


def request(
    address: str, *, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """The answer to a request.  Blocks for `TIMEOUT` seconds or so; raises `OSError` without the address."""
    parts = urlsplit(address)
    if parts.scheme != "https" or not parts.hostname:
        raise OSError("not an https address")
    until = time.monotonic() + TIMEOUT
    connection = HTTPSConnection(parts.hostname, parts.port or 443, timeout=TIMEOUT)
    try:
        target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        connection.request(method, target, body=body, headers=dict(headers or {}))
        answer = connection.getresponse()
        found = bytearray()
        while piece := answer.read1(8_192):
            found += piece
            if len(found) > LONGEST or time.monotonic() > until:
                raise OSError("the answer is too long or too slow")
        return Answer(answer.status, bytes(found))
    except HTTPException as error:
        raise OSError(f"no HTTP answer: {type(error).__name__}") from None
    finally:
        connection.close()


VERSION = 1
COMMAND_TIMEOUT = 60.0  # seconds
MAIL_TIMEOUT = 90.0  # seconds; longer than a relay that works ever takes
BACKOFF = (1.0, 5.0)  # seconds before the second and the third try of a webhook
CALL_TIMEOUT = 15.0  # seconds for one call, whatever the server does
TEXT = "{text}"  # stands for the sentence in an argument of the command


@dataclass(frozen=True, slots=True)
class NotifiedRun:
    """The run of a notification, by its name."""

    name: str
    run_id: str
    outbox: str
    is_rehearsal: bool


@dataclass(frozen=True, slots=True)
class Notification:
    """What is sent: a sentence for people and an object for programs.  Neither names a recipient."""

    event: NotifyEvent
    text: str
    content: dict[str, Any]


@dataclass(frozen=True, slots=True)
class MailWay:
    """How a notification by mail goes: through the relays of the run, from `sender`; `inbox` is a sandbox's."""

    routes: Sequence[Route]
    passwords: Sequence[Secret | None]
    sender: str
    inbox: Path | None = None


def make_notification(
    event: NotifyEvent,
    run: NotifiedRun,
    tally: Tally,
    *,
    now: float,
    exit_code: int | None = None,
    error: str = "",
    still: float | None = None,
) -> Notification:
    """The notification of `event` at `now` (wall-clock seconds).

    `exit_code` is that of the command, None while it runs or when it was killed; `still` is how many seconds nothing
    has moved.  Within a version keys may be added; none is removed and none changes its meaning.
    """
    error = printable(without_addresses(error))
    name = printable(without_addresses(run.name))
    text = sentence(event, name=name, tally=tally, error=error, still=still)
    content = {
        "type": f"run.{event.value}",
        "timestamp": iso(now),
        "version": VERSION,
        "text": text,
        "data": {
            "name": name,
            "run_id": run.run_id,
            "outbox": run.outbox,
            "host": socket.gethostname(),
            "is_rehearsal": run.is_rehearsal,
            "exit_code": exit_code,
            "error": error or None,
            "still_seconds": still and round(still),
            "totals": {"rows": tally.rows, **{status.value: tally[status] for status in Status}},
            "copies": {status.value: tally.copies.get(status, 0) for status in Status if status.is_eligible},
        },
    }
    return Notification(event, text, content)


async def notify(
    settings: NotifySettings, notification: Notification, *, mail: MailWay | None, backoff: Sequence[float] = BACKOFF
) -> list[str]:
    """Sends `notification` by every way of `settings`, all at the same time; returns what failed, in words.

    A webhook that fails is called again after each wait of `backoff`.
    """
    faults: list[str] = []

    async def attempt(way: str, send: Callable[[], Any]) -> None:
        try:
            fault = await send()
        except (OSError, BulkmailError, subprocess.SubprocessError) as error:
            fault = _words(error)
        if fault:
            faults.append(f"by {way}: {printable(without_addresses(fault))}")

    async with anyio.create_task_group() as group:
        if settings.mail and mail is not None:
            group.start_soon(attempt, "mail", lambda: _send_mail(settings.mail, notification, mail))
        if settings.webhook_from:
            group.start_soon(attempt, "webhook", lambda: _call(settings, notification, backoff))
        if settings.command:
            group.start_soon(attempt, "command", lambda: _run(settings.command, notification))
    return sorted(faults)


def _words(error: Exception) -> str:
    match error:
        case subprocess.TimeoutExpired():
            return f"the command did not end within {COMMAND_TIMEOUT:.0f} s"
        case OSError(strerror=str() as reason):
            return reason
    return str(error) or type(error).__name__


# By command.


async def _run(command: Sequence[str], notification: Notification) -> str:
    """Runs the program without a shell; it gets the JSON on standard input."""
    words = [word.replace(TEXT, notification.text) for word in command]
    environ = {name: value for name, value in os.environ.items() if not _is_password(name)}

    def run() -> int:
        done = subprocess.run(  # noqa: S603 - the user's own command, which was allowed
            words,
            input=_encoded(notification),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environ,
            start_new_session=True,  # Ctrl-C ends the run, not the message about it
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        return done.returncode

    code = await to_thread.run_sync(run, abandon_on_cancel=True)
    return f"{words[0]} ended with exit code {code}" if code else ""


def _is_password(name: str) -> bool:
    return name.startswith("BULKMAIL_") and name.endswith("PASSWORD")


def _encoded(notification: Notification) -> bytes:
    return json.dumps(notification.content, ensure_ascii=False).encode("utf-8", "replace")


# By webhook.


async def _call(settings: NotifySettings, notification: Notification, backoff: Sequence[float]) -> str:
    found = await to_thread.run_sync(lambda: find_webhook(settings))
    if found is None:
        return ""
    url, secret = found
    body, number = _encoded(notification), f"msg_{secrets.token_hex(12)}"  # the same for each try, as the standard asks
    for wait in (*backoff, None):
        headers = signed_headers(number, body, secret, now=time.time())
        fault, may_pass = "it did not answer in time", True
        with anyio.move_on_after(CALL_TIMEOUT):
            fault, may_pass = await to_thread.run_sync(_post, url, body, headers, abandon_on_cancel=True)
        if not fault or not may_pass or wait is None:
            return fault
        await anyio.sleep(wait)
    raise AssertionError("the last try returns")


def _post(url: str, body: bytes, headers: dict[str, str]) -> tuple[str, bool]:
    """What failed, empty if nothing did, and whether another try may help."""
    try:
        status = request(url, method="POST", body=body, headers=headers).status
    except OSError as error:
        return str(error.strerror or error), True
    if 200 <= status < 300:
        return "", False
    return f"it answered {status}", status >= 500 or status in (408, 425, 429)


def signed_headers(number: str, body: bytes, secret: Secret | None, *, now: float) -> dict[str, str]:
    """The header of a call by Standard Webhooks: HMAC-SHA256 over id, time and body.  Unsigned without a secret."""
    stamp = str(int(now))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "bulkmail",
        "webhook-id": number,
        "webhook-timestamp": stamp,
    }
    if secret is not None:
        digest = hmac.digest(signing_key(secret.reveal()), f"{number}.{stamp}.".encode() + body, "sha256")
        headers["webhook-signature"] = f"v1,{b64encode(digest).decode()}"
    return headers


# By mail.


async def _send_mail(address: str, notification: Notification, way: MailWay) -> str:
    """Sends one message through the relays of the run, as a run of its own in memory."""
    report = None
    with anyio.move_on_after(MAIL_TIMEOUT) as scope:
        mailing = await Mailing.prepare_messages(
            None,
            [_message(address, notification, way.sender)],
            routes=way.routes,
            pace=Pace(retry=RetryPolicy(max_attempts=1), wait=0.0, patience=0.0),
        )
        try:
            async with open_routes(way.routes, way.passwords, inbox=way.inbox) as connects:
                ending = await mailing.send(connects)
        except BaseException:
            mailing.abandon()
            raise
        report = await to_thread.run_sync(mailing.close)
        if ending.error is not None:
            return str(ending.error)
    if scope.cancelled_caught or report is None:
        return f"the relay did not take it within {MAIL_TIMEOUT:.0f} s"
    if report.tally[Status.ACCEPTED]:
        return ""
    with report.source() as source:
        row = next(iter(source.rows()), None)
    if row is None:
        return "the relay did not take it"
    reply = " ".join(str(part) for part in (row.code, row.enhanced, row.reply) if part)
    return reply or row.error or row.reason or row.status.value


def _message(address: str, notification: Notification, sender: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender or address
    message["To"] = address
    message["Subject"] = notification.text
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834 §5: no vacation notice answers it
    data = notification.content["data"]
    totals = (f"{number:>9,} {name.replace('_', ' ')}" for name, number in data["totals"].items() if number)
    lines = [notification.text, "", *totals, "", f"Outbox: {data['outbox']}", f"Host: {data['host']}"]
    if notification.event is not NotifyEvent.FINISHED:
        lines += ["", f"To look at it: bulkmail status {data['outbox']}"]
    message.set_content("\n".join(lines) + "\n")
    return message


def sender_of(campaign: Campaign | None, routes: Iterable[Route]) -> str:
    """The From of a notification: the campaign's where it is the same for all rows, else the login where it is one."""
    candidates = [campaign.sender.text] if campaign is not None and "{" not in campaign.sender.text else []
    candidates += [route.relay.username for route in routes]
    for candidate in candidates:
        try:
            return parse_mailbox(candidate)[1].wire
        except AddressError:
            continue
    return ""
