"""`bulkmail bounces`: what came back after a campaign is read, matched and kept for the next one."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bulkmail.cli.program import json_option, note_result
from bulkmail.cli.which_list import chosen_list, list_store_option
from bulkmail.model.errors import ConfigError, RelayError
from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, KnownRun
from bulkmail.model.relay import SecretKind, SecretSource
from bulkmail.model.tally import EXIT_OK
from bulkmail.settings.suppressions import SuppressionSettings, user_file
from bulkmail.settings.user_tables import BounceMailbox, load_mailboxes
from bulkmail.text import count, printable

if TYPE_CHECKING:
    from bulkmail.mailbox.mail_source import MailSource
    from bulkmail.mailing.intake import IntakeSummary
    from bulkmail.model.feedback_event import ReadingPlaces

VARIABLE = "BULKMAIL_BOUNCES_PASSWORD"
EXIT_LATER = 75  # EX_TEMPFAIL: an MTA keeps the mail and tries again
WATCH_SECONDS = 540.0  # for which one wait lasts
MOST_SHOWN = 200  # events that were not matched
PAUSE = 5.0  # seconds between two rounds over several sources

_SAYS = {
    FeedbackKind.HARD: "hard bounces: no such mailbox",
    FeedbackKind.SOFT: "soft bounces: full, too big, not now",
    FeedbackKind.BLOCKED: "blocked: our mail was refused, the recipient is not at fault",
    FeedbackKind.DELAYED: "delayed, still being tried",
    FeedbackKind.SPAM_COMPLAINT: "spam complaints",
    FeedbackKind.UNSUBSCRIBE: "unsubscribe requests",
    FeedbackKind.AUTO_REPLY: "automatic replies",
    FeedbackKind.DELIVERED: "delivery confirmations",
    FeedbackKind.UNCLEAR: "reports that do not say clearly what happened",
}
EPILOG = """\b
Examples:
  bulkmail bounces --imap imaps://bounces%40example.com@imap.example.com
  bulkmail bounces --maildir ~/Maildir/.Bounces --then move=Done
  bulkmail bounces --mbox /var/mail/bounces --dry-run
  |/usr/bin/bulkmail bounces -       in .forward or an alias of the MTA
"""


@click.command(epilog=EPILOG)
@click.argument("stream", required=False, metavar="[-]")
@click.option("--imap", "urls", multiple=True, metavar="URL", help="Read a mailbox: imaps://USER@HOST; repeatable.")
@click.option(
    "--maildir",
    "maildirs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Read a Maildir; repeatable.",
)
@click.option(
    "--mbox", "mboxes", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Read an mbox; repeatable."
)
@click.option("--folder", metavar="NAME", help="The folder on the IMAP server.  [INBOX]")
@click.option(
    "--imap-password-file",
    "password_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"File with the password; default: {VARIABLE}, or ask.",
)
@click.option(
    "--then",
    "then",
    metavar="WHAT",
    help="What to do with matched mail: keep, move=FOLDER or delete.  [keep]",
)
@click.option("--run", "runs", multiple=True, metavar="RUN", help="Also match against this outbox or campaign.")
@click.option("--watch", is_flag=True, help="Keep reading as mail arrives, until Ctrl-C.")
@click.option("--dry-run", is_flag=True, help="Show what was found; store, move and delete nothing.")
@click.option("--unmatched", is_flag=True, help="List mail read before that matched no message.")
@click.option("--show", type=click.IntRange(min=1), metavar="EVENT", help="Print the report of an event as received.")
@list_store_option
@json_option
def command(
    stream: str | None,
    urls: tuple[str, ...],
    maildirs: tuple[Path, ...],
    mboxes: tuple[Path, ...],
    folder: str | None,
    password_file: Path | None,
    then: str | None,
    runs: tuple[str, ...],
    watch: bool,
    dry_run: bool,
    unmatched: bool,
    show: int | None,
    store: str,
) -> int:
    """Read bounces, spam complaints and unsubscribe requests, and match them to the messages of past runs.

    What is matched goes to the suppression list before any mail is moved.  Reading
    the same mail again changes nothing.  `-` reads one mail from standard input.
    """
    if unmatched or show is not None:
        if stream or urls or maildirs or mboxes or (unmatched and show is not None):
            raise ConfigError("--unmatched and --show read no mail", hint="leave the other flags out")
        return _list_unmatched(store) if show is None else _show(show, store)
    if stream not in (None, "-"):
        raise ConfigError(
            f"{stream}: is not a place to read mail from", hint="write - for standard input, or --mbox FILE"
        )
    if stream is not None and (urls or maildirs or mboxes or watch or then is not None):
        raise ConfigError("- reads one mail from standard input, alone", hint="leave the other flags out")
    settings = () if stream or urls or maildirs or mboxes else load_mailboxes()
    if not (stream or urls or maildirs or mboxes or settings):
        raise ConfigError(
            "no mailbox was given",
            hint="add --imap imaps://USER@HOST, --maildir DIR, --mbox FILE or -, or write [[bounces]] into"
            f" {user_file()}",
        )
    if settings and (folder or password_file or then is not None):
        raise ConfigError(
            "--folder, --then and --imap-password-file are for mailboxes named by flags",
            hint="write folder, then and password_file below [[bounces]]",
        )
    if (folder or password_file) and not urls:
        raise ConfigError("--folder and --imap-password-file are for --imap", hint="add --imap imaps://USER@HOST")
    with _temporary_for_an_mta() if stream else ExitStack():
        return _read(
            mailboxes=settings or _named(urls, maildirs, mboxes, folder, password_file, then),
            runs=runs,
            is_stream=stream is not None,
            watch=watch,
            is_dry=dry_run,
            chosen=chosen_list(None, store),
        )


@contextmanager
def _temporary_for_an_mta() -> Iterator[None]:
    """Any failure is reported and ends with `EXIT_LATER`: with another code an MTA would throw the mail away."""
    try:
        yield
    except Exception as error:
        from bulkmail.cli.mishaps import tell

        tell(error, outbox="", wants_traceback=False, is_quiet=False)
        raise SystemExit(EXIT_LATER) from None


def _read(
    *,
    mailboxes: Sequence[BounceMailbox],
    runs: Sequence[str],
    is_stream: bool,
    watch: bool,
    is_dry: bool,
    chosen: SuppressionSettings,
) -> int:
    from bulkmail.mailbox.mail_files import StreamSource, is_terminal
    from bulkmail.mailing.intake import Intake
    from bulkmail.mailing.suppression_list import open_settings, verifier_of
    from bulkmail.settings.user_tables import load_serve_keys

    if is_stream and is_terminal(sys.stdin.buffer):
        raise ConfigError("standard input is a terminal", hint="bulkmail bounces - < MAIL, or name a mailbox")
    with ExitStack() as opened:
        store = opened.enter_context(open_settings(chosen))
        places = None if is_dry else store
        sources: list[MailSource] = [StreamSource(sys.stdin.buffer)] if is_stream else []
        sources += [source_of(mailbox, places, is_dry=is_dry) for mailbox in mailboxes]
        for source in sources:
            opened.callback(source.close)
        named = [_named_run(run) for run in runs]
        if not is_dry:
            named = [store.register(run) for run in named]
        progress = _Progress()
        intake = Intake(
            store,
            also=named,
            verify_unsubscribe=verifier_of(
                store.runs, lambda notice: intake.summary.note(notice), served=load_serve_keys
            ),
            is_dry=is_dry,
            observe=progress.count,
        )
        try:
            if watch:
                _watch(intake.take, sources)
            else:
                for source in sources:
                    intake.take(source)
        finally:
            progress.clear()
            summary = intake.summary
            is_json = note_result(
                {
                    "mails": summary.mails,
                    "new_events": summary.new,
                    "matched": {kind.value: summary.by_kind[kind] for kind in FeedbackKind},
                    "unproved": summary.unproved,
                    "unmatched": summary.unmatched,
                    "dry_run": is_dry,
                    "notices": list(summary.notices),
                }
            )
            if not is_json and not is_stream:
                _tell(summary, is_dry=is_dry)
            for notice in summary.notices:
                click.echo(f"Note: {notice}", err=True)
    return EXIT_OK


def _named(
    urls: Sequence[str],
    maildirs: Sequence[Path],
    mboxes: Sequence[Path],
    folder: str | None,
    password_file: Path | None,
    then: str | None,
) -> list[BounceMailbox]:
    """The mailboxes that flags name."""
    from bulkmail.mailbox.imap import Mailbox

    then = then or "keep"
    password = SecretSource(SecretKind.FILE, str(password_file)) if password_file is not None else None
    found = [
        BounceMailbox(imap=Mailbox.parse(url), folder=folder or "INBOX", then=then, password_from=password)
        for url in urls
    ]
    found += [BounceMailbox(maildir=path, then=then) for path in maildirs]
    return found + [BounceMailbox(mbox=path, then=then) for path in mboxes]


def source_of(mailbox: BounceMailbox, places: ReadingPlaces | None, *, is_dry: bool) -> MailSource:
    """Raises `ConfigError`."""
    from bulkmail.cli.reconcile import password_of
    from bulkmail.mailbox.imap import ImapSource
    from bulkmail.mailbox.mail_files import MaildirSource, MboxSource
    from bulkmail.mailbox.mail_source import KEEP, Afterwards

    then = Afterwards.parse(mailbox.then)
    then = KEEP if is_dry else then
    if mailbox.imap is not None:
        password = password_of(mailbox.imap, mailbox.password_from, variable=VARIABLE)
        return ImapSource(mailbox.imap, password, folder=mailbox.folder, then=then, places=places)
    if mailbox.maildir is not None:
        return MaildirSource(mailbox.maildir, then=then, places=places)
    return MboxSource(mailbox.mbox or Path(), then=then)


def _list_unmatched(url: str) -> int:
    """What was kept without effect, the newest first."""
    from bulkmail.mailing.suppression_list import open_settings

    with open_settings(chosen_list(None, url)) as store:
        found = store.unmatched(MOST_SHOWN)
    listed = [
        {
            "event": each.number,
            "at": each.event.at,
            "kind": each.event.kind.value,
            "reason": each.event.reason,
            "address": each.key,
            "words": each.event.words,
            "source": each.event.source,
        }
        for each in found
    ]
    if note_result({"unmatched": listed}):
        return EXIT_OK
    for each in found:
        day = time.strftime("%Y-%m-%d", time.localtime(each.event.at))
        whom = printable(each.key) or "-"
        click.echo(f"{each.number:>7}  {day}  {each.event.kind.value:<15} {whom}  {printable(each.event.words, 60)}")
    if not found:
        click.echo("All mail that was read was matched.")
    elif len(found) == MOST_SHOWN:
        click.echo(f"These are the newest {MOST_SHOWN}; --json has what they say in full.")
    return EXIT_OK


def _show(number: int, url: str) -> int:
    """The report of one event, as it came; what could steer a terminal is left out there."""
    from bulkmail.mailing.suppression_list import open_settings

    with open_settings(chosen_list(None, url)) as store:
        found = store.event(number)
    if found is None:
        raise ConfigError(f"there is no event {number}", hint="bulkmail bounces --unmatched lists some")
    text = found.event.report.decode("utf-8", "replace").replace("\r\n", "\n")
    if note_result({"event": number, "kind": found.event.kind.value, "address": found.key, "report": text}):
        return EXIT_OK
    if not text:
        raise ConfigError(f"the report of event {number} is no longer kept", hint="reports are kept for 30 days")
    for line in text.split("\n"):
        click.echo(printable(line, 2_000) if not line.isprintable() else line)
    return EXIT_OK


def _named_run(argument: str) -> KnownRun:
    """The run that `--run` names, for a register that does not know it yet."""
    from bulkmail.mailing.suppression_list import known_run
    from bulkmail.outbox.outbox_reader import OutboxReader
    from bulkmail.settings.runs import find_run

    path = find_run(argument, rehearsals=False).resolve()
    with OutboxReader.open(path) as reader:
        if reader.is_rehearsal:
            raise ConfigError(
                f"{argument}: is a rehearsal; it reached no recipient", hint="use the outbox of a real run"
            )
        return known_run(reader, path)


def _watch(take: Callable[[MailSource], None], sources: Sequence[MailSource]) -> None:
    """Reads for ever; a source that fails is tried again later, while the others go on.

    Ctrl-C ends it, and so does SIGTERM; both also where the parent process ignores them, as a background script does.
    """
    from bulkmail.mailbox.mail_source import pause_after

    failures = [0] * len(sources)
    not_before = [0.0] * len(sources)
    with suppress(KeyboardInterrupt), _interrupted_by(signal.SIGINT, signal.SIGTERM):
        while True:
            for number, source in enumerate(sources):
                if time.monotonic() < not_before[number]:
                    continue
                try:
                    take(source)
                    if len(sources) == 1:
                        source.wait(WATCH_SECONDS)
                    failures[number] = 0
                except RelayError as error:
                    failures[number] += 1
                    pause = pause_after(failures[number])
                    not_before[number] = time.monotonic() + pause
                    click.echo(f"{error}; trying again in {pause:.0f} s", err=True)
            if len(sources) > 1 or failures[0]:
                time.sleep(PAUSE)


@contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """Each of `signals` raises `KeyboardInterrupt` meanwhile."""
    before = {each: signal.signal(each, signal.default_int_handler) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class _Progress:
    """How many mails were read so far, on a terminal."""

    def __init__(self) -> None:
        self._events = 0
        self._is_shown = sys.stderr.isatty()

    def count(self, event: FeedbackEvent) -> None:
        """One more event."""
        self._events += 1
        if self._is_shown and self._events % 50 == 0:
            click.echo(f"\r{self._events:,} events read", err=True, nl=False)

    def clear(self) -> None:
        """Takes the line away."""
        if self._is_shown and self._events >= 50:
            click.echo("\r\x1b[K", err=True, nl=False)


def _tell(summary: IntakeSummary, *, is_dry: bool) -> None:
    matched = sum(summary.by_kind.values())
    click.echo(f"Read {count(summary.mails, 'mail')}; {count(matched, 'event')} matched to messages of ours.")
    for kind in FeedbackKind:
        if summary.by_kind[kind]:
            click.echo(f"  {summary.by_kind[kind]:>7,}  {_SAYS[kind]}")
    if summary.unproved:
        click.echo(f"  {summary.unproved:>7,}  name only an address that got a message: each counts as a soft bounce")
    if summary.unmatched:
        click.echo(f"{count(summary.unmatched, 'mail')} could not be matched: bulkmail bounces --unmatched")
    if is_dry:
        click.echo("Nothing was stored: this was a dry run.")
    else:
        click.echo(f"{count(summary.new, 'event')} new.")
