"""`bulkmail compose`: a message that is written at the terminal, and everything that it needs, asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import click
from anyio import to_thread

from bulkmail.checks.relay_trouble import trouble_with
from bulkmail.cli.progress import Progress, make_progress
from bulkmail.cli.question import ask, look_ahead_of
from bulkmail.cli.running import abandoned_on_error, deliver_and_conclude, password_prompt, run_async, tell
from bulkmail.cli.tracing import progress_mode, tracing
from bulkmail.cli.words import wrapped
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.ordering import Order, order_mailing
from bulkmail.mailing.previous_run import Past
from bulkmail.mailing.relays import look_at_relay
from bulkmail.mailing.rows import GivenRows
from bulkmail.model.campaign import NO_KEYS
from bulkmail.model.errors import AddressError, BulkmailError, ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import parse_mailbox, parse_mailboxes
from bulkmail.model.relay import Kind, Secret
from bulkmail.model.route import Route
from bulkmail.model.tally import EXIT_NOTHING_SENT
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.settings.draft import Draft, write_campaign
from bulkmail.settings.message_table import MOST_TOGETHER
from bulkmail.settings.presets import FROM, expanded, named_preset, relay_presets, say_login
from bulkmail.settings.secrets import find_password
from bulkmail.settings.settings import load
from bulkmail.smtp.trace import Trace
from bulkmail.text import printable

T = TypeVar("T")

END = "."  # a line that ends the text, as in SMTP itself
COMMAND = (
    'type: echo "Hello" | bulkmail send --to ann@example.com --from me@example.com --subject Hello --text -'
    " --relay smtp://me@mail.example.com --yes"
)
EPILOG = """\b
Examples:
  bulkmail compose
  bulkmail compose --trace
"""


@dataclass(frozen=True, slots=True)
class _FoundLogin:
    """A relay that lets us in, as it was written and as it was read."""

    written: str
    route: Route
    password: Secret | None


@click.command(epilog=EPILOG)
@click.option("--trace", "is_traced", is_flag=True, help="Show the SMTP conversation, without passwords.")
def command(is_traced: bool) -> int:
    """Write and send one message, step by step.

    Asks for the relay, the login, the recipients, the subject and the text,
    shows what is about to be sent and asks before it is. Nothing is left on
    the disk unless you keep it as a campaign. Ctrl-C at any question ends it
    with nothing sent.
    """
    if not sys.stdin.isatty():
        raise ConfigError("compose needs a terminal to ask its questions", hint=COMMAND)
    try:
        login = _ask_login()
        draft = _ask_draft(login)
        folder = _ask_folder(draft)
    except click.Abort:
        click.echo("\nNothing was sent or stored.", err=True)
        return EXIT_NOTHING_SENT
    if folder is not None:
        write_campaign(folder, draft)
        click.echo(f"Kept as {folder}; the password is not in it.", err=True)

    async def main(trace: Trace | None, progress: Progress) -> int:
        mailing = await _prepared(draft, folder)
        with abandoned_on_error(mailing):
            tell(mailing)
            if not mailing.outbox.is_rehearsal:
                outlook = await to_thread.run_sync(look_ahead_of, mailing)
                try:
                    ask(mailing, outlook)
                except click.Abort:
                    mailing.abandon()
                    click.echo("\nNothing was sent.", err=True)
                    return EXIT_NOTHING_SENT
            return await deliver_and_conclude(
                mailing, passwords=[login.password], progress=progress, trace=trace, targets=(), notify=None
            )

    target = "-" if is_traced else None
    with tracing(target, login.route.relay) as trace:
        progress = make_progress(progress_mode("auto", target))
        return run_async(lambda: main(trace, progress))


async def _prepared(draft: Draft, folder: Path | None) -> Mailing:
    """The mailing of the draft: in memory, or, if it was kept, with the campaign's usual outbox."""
    if folder is not None:
        settings = await to_thread.run_sync(load, str(folder))
        order = Order(command=f"bulkmail send {folder}")
        found = await order_mailing(settings, order, keys=NO_KEYS, reading=_unseen, checking=_unseen)
        if isinstance(found, Past):
            raise ConfigError(f"{folder}: was already sent", hint=f"bulkmail status {folder}")
        return found
    settings = await to_thread.run_sync(lambda: load(None, draft.overrides))
    rows = GivenRows([{"email": address} for address in settings.to], ListOptions(), name="To")
    rows.fetch_all()
    mailing = await Mailing.prepare(
        None,
        campaign=settings.campaign,
        rows=rows,
        routes=settings.routes,
        pace=settings.pace,
        is_rehearsal=settings.routes[0].relay.kind.is_rehearsal,
        suppressions=settings.suppressions,
    )
    mailing.notices += settings.notices
    mailing.pass_gate()
    mailing.refuse_empty()
    return mailing


def _unseen(rows: int) -> None:
    """A list of one screen is read in no time."""


# The questions.  Each is asked again until its answer can be used; Ctrl-C and the end of the input are `click.Abort`.


def _asked(question: str, parse: Callable[[str], T], *, default: str | None = None) -> T:
    while True:
        answer = click.prompt(question, default=default, type=str, err=True, show_default=bool(default))
        try:
            return parse(answer.strip())
        except BulkmailError as error:
            _say(f"{error}; {error.hint}" if error.hint else str(error))


def _say(text: str) -> None:
    click.echo(wrapped(printable(text, 1_000), indent=2), err=True)


def _ask_login() -> _FoundLogin:
    """A relay and a password with which it lets us in."""
    _say(f"Known relays: {', '.join(relay_presets())}.  Or give a server's name or URL; sandbox: is for testing.")
    while True:
        written, route = _asked("Relay", _relay)
        relay = route.relay
        if relay.kind is not Kind.SMTP or not relay.username:
            return _FoundLogin(written, route, None)
        try:
            password = find_password(relay, ask=password_prompt())
            facts = run_async(lambda: look_at_relay(relay, password))  # noqa: B023 - awaited here
        except BulkmailError as error:
            _say(f"{error}; {error.hint}" if error.hint else str(error))
            continue
        trouble = trouble_with(facts)
        if trouble is None:
            return _FoundLogin(written, route, password)
        _say(f"{trouble.what} {trouble.fix}")


def _relay(answer: str) -> tuple[str, Route]:
    """The relay that is meant, with its user: a preset, a URL, or the name of a server."""
    preset = named_preset(answer)
    if preset is not None:
        if preset.login == "token":
            raise ConfigError(
                f"{preset.title} takes {preset.password}",
                hint="write it into a campaign (bulkmail init, guide: Logging in), or name another relay",
            )
        _say(say_login(preset))
        if "{region}" in preset.url and answer.count(":") == 0:
            answer += f":{click.prompt('Region, such as ' + ' or '.join(preset.regions[:2]), err=True)}"
        if not Route.parse(expanded(answer)).relay.username:
            question = "Your address there" if preset.username == FROM else "User name"
            answer += f":{click.prompt(question, err=True).strip()}"
        return answer, Route.parse(expanded(answer, needs_user=True))
    if not answer or ("://" not in answer and not answer.endswith(":") and ("/" in answer or "@" in answer)):
        raise ConfigError("that is not a relay", hint="write gmail, mail.example.com or smtp://me@mail.example.com:587")
    if "://" not in answer and not answer.endswith(":"):
        answer = f"{'smtps' if answer.endswith(':465') else 'smtp'}://{answer}"
    relay = Route.parse(answer).relay
    if relay.kind is Kind.SMTP and not relay.username and not relay.socket_path:
        user = click.prompt("User name (empty: no login)", default="", show_default=False, err=True).strip()
        scheme, _, rest = answer.partition("://")
        answer = f"{scheme}://{quote(user, safe='')}@{rest}" if user else answer
    return answer, Route.parse(answer)


def _ask_draft(login: _FoundLogin) -> Draft:
    sender = _asked("From", _mailbox, default=_sender_of(login.route))
    source, addresses = _asked("To (addresses separated by commas, or a list file)", _recipients)
    together = False
    if 1 < len(addresses) <= MOST_TOGETHER:
        question = "One message that shows all addresses?  (No: one message each)"
        together = click.confirm(question, default=False, err=True)
    subject = _asked("Subject", _subject)
    return Draft(
        login.written, sender=sender, list_source=source, to=addresses, together=together, subject=subject, text=_text()
    )


def _sender_of(route: Route) -> str | None:
    """The login where it is an address."""
    try:
        return parse_mailbox(route.relay.username)[1].readable
    except AddressError:
        return None


def _mailbox(answer: str) -> str:
    try:
        parse_mailbox(answer)
    except AddressError as error:
        raise ConfigError(str(error), hint='write me@example.com or "Ann Li <ann@example.com>"') from None
    return answer


def _recipients(answer: str) -> tuple[str, tuple[str, ...]]:
    """The path of a list, or addresses."""
    if "@" not in answer or Path(answer).is_file():
        if not Path(answer).is_file():
            raise ConfigError(f"{answer}: is neither an address nor a file", hint="write ann@example.com or people.csv")
        return answer, ()
    try:
        found = parse_mailboxes(answer)
    except AddressError as error:
        raise ConfigError(str(error), hint="write ann@example.com, bob@example.com") from None
    return "", tuple(f"{_quoted(name)} <{address.readable}>" if name else address.readable for name, address in found)


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _subject(answer: str) -> str:
    if not answer:
        raise ConfigError("a message needs a subject", hint="write a few words")
    return answer


def _text() -> str:
    click.echo(f"Text; a line with only a {END!r} ends it:", err=True)
    lines: list[str] = []
    while True:
        try:
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            raise click.Abort from None
        if not line:
            raise click.Abort
        if line.rstrip("\r\n") == END:
            return "\n".join(lines) + "\n"
        lines.append(line.rstrip("\r\n"))


def _ask_folder(draft: Draft) -> Path | None:
    """Where the message is kept as a campaign; None if it is not.  A list always is, so that its run can go on."""
    if draft.list_source:
        default = time.strftime("message-%Y%m%d-%H%M%S")
        return _asked(
            "Keep it as a campaign, so that an interrupted run can be resumed; folder", _new_folder, default=default
        )
    answer = click.prompt(
        "Keep it as a campaign?  Folder (empty: keep nothing)", default="", show_default=False, err=True
    ).strip()
    if not answer:
        return None
    try:
        return _new_folder(answer)
    except ConfigError as error:
        _say(f"{error}; {error.hint}")
        return _ask_folder(draft)


def _new_folder(answer: str) -> Path:
    folder = Path(answer)
    if folder.exists():
        raise ConfigError(f"{answer}: already exists", hint="name a new folder")
    return folder
