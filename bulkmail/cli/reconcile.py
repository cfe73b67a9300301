"""`bulkmail reconcile`: rows in doubt are looked up where their messages may have arrived, or decided by a person."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import click

from bulkmail.cli.passwords import read_password
from bulkmail.cli.running import password_prompt
from bulkmail.mailbox.imap import Mailbox
from bulkmail.mailing.operator import Doubt, Findings, decide, rewriter_of, settle, weigh
from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Secret, SecretKind, SecretSource
from bulkmail.model.tally import EXIT_IN_DOUBT, Status
from bulkmail.outbox.entries import Doubtful
from bulkmail.outbox.outbox import Outbox
from bulkmail.reconcile.logs import look_in_log
from bulkmail.reconcile.mail_folders import look_in_imap, look_in_maildir
from bulkmail.reconcile.sighting import Sighting
from bulkmail.settings.runs import find_run
from bulkmail.text import count, printable

VARIABLE = "BULKMAIL_IMAP_PASSWORD"
MOST_SHOWN = 20  # rows of each kind
EPILOG = """\b
Examples:
  bulkmail reconcile spring --imap imaps://shop%40example.com@imap.example.com
  bulkmail reconcile spring --log /var/log/mail.log --log /var/log/mail.log.1
  bulkmail reconcile spring --maildir ~/Maildir --dry-run
  bulkmail reconcile spring --as accepted --rows 3,7,40-45
"""


@click.command(epilog=EPILOG)
@click.argument("run")
@click.option(
    "--maildir",
    "maildirs",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DIR",
    help="Look in this Maildir; repeatable.",
)
@click.option("--imap", "url", metavar="URL", help="Look on this server: imaps://USER@HOST.")
@click.option("--folder", "folders", multiple=True, metavar="NAME", help="Folder to search there; repeatable.  [Sent]")
@click.option(
    "--imap-password-file",
    "password_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"File with the password; default: {VARIABLE}, or ask.",
)
@click.option(
    "--log",
    "logs",
    multiple=True,
    metavar="FILE",
    help="Look in a Postfix or Exim log, or standard input (-); repeatable.",
)
@click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password of --imap from standard input, one line; it is stored nowhere.",
)
@click.option("--dry-run", is_flag=True, help="Show what was found, and change nothing.")
@click.option(
    "--as",
    "decision",
    type=click.Choice([Doubt.RETRY.value, Doubt.ACCEPTED.value, Doubt.REJECTED.value]),
    help="Look nothing up: give rows in doubt this status yourself.  Nothing is sent before the next bulkmail resume.",
)
@click.option("--rows", metavar="ROWS", help='Decide these rows only: "3,7,40-45".  [all in doubt]')
def command(
    run: str,
    maildirs: tuple[Path, ...],
    url: str | None,
    folders: tuple[str, ...],
    password_file: Path | None,
    logs: tuple[str, ...],
    password_stdin: bool,
    dry_run: bool,
    decision: str | None,
    rows: str | None,
) -> int:
    """Look up rows in doubt by their Message-IDs, and mark those found as accepted.

    RUN is an outbox file, or a campaign (its latest run).  A row that is not found stays
    in doubt.  With --as nothing is looked up: the rows get the status that you give.
    """
    has_places = bool(maildirs or url or logs)
    if decision is not None and (has_places or dry_run):
        raise ConfigError("--as decides without looking", hint="leave out --as, or the places to look in")
    if rows is not None and decision is None:
        raise ConfigError("--rows is for --as", hint="add --as accepted, --as rejected or --as retry")
    if decision is None and not has_places:
        raise ConfigError("no place to look in was given", hint="add --imap URL, --maildir DIR or --log FILE")
    if (folders or password_file or password_stdin) and not url:
        raise ConfigError(
            "--folder, --imap-password-file and --password-stdin are for --imap", hint="add --imap imaps://USER@HOST"
        )
    if password_stdin and (password_file or "-" in logs):
        raise ConfigError("--password-stdin excludes --imap-password-file and --log -", hint="leave one of them out")
    path = find_run(run, rehearsals=False)
    if decision is not None:
        return _decide(path, Doubt(decision), rows_of(rows) if rows is not None else None)
    mailbox = Mailbox.parse(url) if url else None
    outbox = Outbox.open(path)
    try:
        doubts = outbox.doubts() if outbox.is_loaded else []
        if not doubts:
            click.echo(f"Nothing is in doubt in {printable(str(path))}.")
            return 0
        places: list[Iterator[Sighting]] = [look_in_maildir(folder) for folder in maildirs]
        places += [look_in_log(name) for name in logs]
        if mailbox is not None:
            places += _on_the_server(
                mailbox,
                read_password()
                if password_stdin
                else password_of(mailbox, SecretSource(SecretKind.FILE, str(password_file)) if password_file else None),
                folders or ("Sent",),
                doubts,
            )
        findings = weigh(doubts, chain.from_iterable(places))
        if not dry_run:
            settle(outbox, findings)
            outbox.finish()
        _tell(findings, is_dry=dry_run)
        left = doubts if dry_run else outbox.doubts()
        _advise(findings, path, relay=bytes(outbox.info.sending).decode(), left=left)
        return EXIT_IN_DOUBT if left else 0
    finally:
        outbox.close()


def rows_of(text: str) -> list[range]:
    """`"3,7,40-45"` as ranges of row numbers.  Raises `ConfigError`."""
    found = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not all(each.isascii() and each.isdigit() and len(each) < 19 for each in (first, last if dash else first)):
            raise ConfigError(f"--rows {printable(text, 80)!r} is not a list of rows", hint="write --rows 3,7,40-45")
        found.append(range(int(first), int(last if dash else first) + 1))
    return found


def _decide(path: Path, decision: Doubt, rows: Sequence[range] | None) -> int:
    outbox = Outbox.open(path)
    try:
        if not outbox.is_loaded:
            click.echo(f"Nothing is in doubt in {printable(str(path))}.")
            return 0
        number = decide(outbox, decision, rows)
        outbox.finish()
        tally = outbox.tally()
    finally:
        outbox.close()
    left = tally.with_copies(Status.IN_DOUBT)
    becomes = "sent again by the next resume" if decision is Doubt.RETRY else decision.value
    click.echo(f"{count(number, 'message')} decided: {becomes}; {count(left, 'message')} still in doubt.")
    if decision is Doubt.RETRY and number:
        click.echo(f"To send: bulkmail resume {shlex.quote(str(path))}")
    return EXIT_IN_DOUBT if left else 0


def _on_the_server(
    mailbox: Mailbox, password: Secret, folders: Sequence[str], doubts: Sequence[Doubtful]
) -> list[Iterator[Sighting]]:
    ids = list(dict.fromkeys(doubtful.message_id for doubtful in doubts))

    def unaskable(message_id: str) -> None:
        click.echo(f"{printable(message_id)} is no Message-ID that a server can be asked for", err=True)

    return [look_in_imap(mailbox, password, folder=name, message_ids=ids, reported=unaskable) for name in folders]


def password_of(mailbox: Mailbox, source: SecretSource | None, *, variable: str = VARIABLE) -> Secret:
    """The password of an IMAP login, from `source`, from `variable`, or by asking."""
    from bulkmail.settings.secrets import LONGEST_SECRET, Wanted, secret_at

    ask = password_prompt()
    if source is not None:
        wanted = Wanted("IMAP password", whose="the password of the mailbox")
        password = secret_at(source, wanted, environ=os.environ)
    elif os.environ.get(variable):
        password = os.environ[variable]
    elif ask is not None:
        password = ask(f"Password for {mailbox}: ")
    else:
        raise ConfigError(
            f"{printable(str(mailbox))} needs a password, and none was found",
            hint=f"set {variable}, or name a file with --imap-password-file",
        )
    if not password or len(password) > LONGEST_SECRET or any(character in password for character in "\0\r\n"):
        raise ConfigError(f"the password of the mailbox is not one line of at most {LONGEST_SECRET:,} characters")
    return Secret(password)


def _tell(findings: Findings, *, is_dry: bool) -> None:
    click.echo(f"Looked at {count(findings.looked_at, 'Message-ID')}.")
    verb = "would become accepted" if is_dry else "accepted now"
    if findings.seen:
        click.echo(f"{count(len(findings.seen), 'message')} found, {verb}:")
        _list([(f.doubtful, f"found in {f.place}") for f in findings.seen])
    if findings.unclear:
        click.echo(
            f"{count(len(findings.unclear), 'message')} found that were sent to several recipients, unclear which:"
        )
        _list([(f.doubtful, f"found in {f.place}") for f in findings.unclear])
    if findings.missing:
        click.echo(f"{count(len(findings.missing), 'message')} not found, still in doubt:")
        _list([(doubtful, doubtful.message_id) for doubtful in findings.missing])


def _list(rows: Sequence[tuple[Doubtful, str]]) -> None:
    for doubtful, words in rows[:MOST_SHOWN]:
        click.echo(f"  row {doubtful.row:,}  {printable(doubtful.forward_path)}  {printable(words)}")
    if len(rows) > MOST_SHOWN:
        click.echo(f"  and {len(rows) - MOST_SHOWN:,} more")


def _advise(findings: Findings, path: Path, *, relay: str, left: Sequence[Doubtful]) -> None:
    if findings.missing:
        who = rewriter_of(relay)
        click.echo(
            f"{who} puts a Message-ID of its own into each message, so that ours cannot be found after it."
            if who
            else "Not found is no proof: mail can be delayed, filed elsewhere or filtered, and some relays (Amazon"
            " SES is one) put a Message-ID of their own into each message."
        )
    command = f"bulkmail resume {shlex.quote(str(path))}"
    if retried := sum(doubtful.is_retried for doubtful in left):
        click.echo(f"{count(retried, 'message')} in doubt before will be sent again by {command}")
    if len(left) > retried:
        click.echo(f"To decide them yourself: bulkmail reconcile {shlex.quote(str(path))} --as retry|accepted|rejected")
