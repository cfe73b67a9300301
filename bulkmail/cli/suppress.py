"""`bulkmail suppress`: the list of addresses that get no mail from any campaign."""

from __future__ import annotations

import getpass
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from bulkmail.cli.program import json_option, note_result
from bulkmail.cli.which_list import list_options
from bulkmail.mailing.suppression_list import open_settings
from bulkmail.model.errors import AddressError, ConfigError, ListError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.quantities import parse_duration
from bulkmail.model.suppression import ALL_LISTS, SuppressionEntry, SuppressionReason, list_scope
from bulkmail.settings.suppressions import SuppressionSettings
from bulkmail.suppression.exchange import adopt, export, is_archive, iso, read_file
from bulkmail.suppression.explaining import explain
from bulkmail.suppression.ports import Addition, AddressHistory, EntryQuery, StoredEvent, SuppressionStore
from bulkmail.text import count, printable

SHOWN = 100  # entries that are listed unless more are asked for
MOST_FAULTS_SHOWN = 5
EPILOG = """\b
Examples:
  bulkmail suppress add ann@example.com --note "asked by phone"
  bulkmail suppress show ann@example.com
  bulkmail suppress list --reason hard --since 7d
  bulkmail suppress remove ann@example.com --why "subscribed again"
  bulkmail suppress remove --reason hard --since 2d --provider google \\
      --why "Gmail refused live accounts" --dry-run
  bulkmail suppress import old-list.csv --reason unsubscribe
  bulkmail suppress export -o suppressed.csv
"""
_REASON = click.Choice([reason.value for reason in SuppressionReason])
_AGO = lazy_pattern(r"[\d.]+\s*[smhd]")


class Moment(click.ParamType[float]):
    """A date or a time by this computer's clock, or how long ago."""

    name = "time"

    def __init__(self, *, ahead: bool = False) -> None:
        self._ahead = ahead

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Wall-clock seconds."""
        if isinstance(value, float):
            return value
        try:
            if _AGO.fullmatch(value.strip()):
                distance = parse_duration(value)
                return time.time() + (distance if self._ahead else -distance)
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError, ConfigError):
            span = "180d for that long from now" if self._ahead else "7d for that long ago"
            self.fail(
                f"{printable(value, 60)!r} is not a time; write 2026-12-15, 2026-12-15T10:00 or {span}", param, ctx
            )


@click.group(epilog=EPILOG)
def command() -> None:
    """Manage the suppression list: addresses never to send to.

    Hard bounces, spam complaints and unsubscribes are added automatically. The list
    is suppressions.db in the state folder, unless [suppressions] file in
    config.toml, BULKMAIL_SUPPRESSIONS or --file names another. --store takes that
    of a store in PostgreSQL, which several machines share.
    """


@command.command(epilog="")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS|@DOMAIN...")
@click.option("--reason", type=_REASON, default="manual", show_default=True, help="Why they are suppressed.")
@click.option("--until", type=Moment(ahead=True), metavar="TIME", help="When the entry expires: 2027-01-31, or 180d.")
@click.option("--list", "list_id", default="", metavar="ID", help="Only for campaigns with this list_id.  [all lists]")
@click.option("--note", default="", metavar="TEXT", help="A note for the history.")
@list_options
def add(
    addresses: tuple[str, ...], reason: str, until: float | None, list_id: str, note: str, chosen: SuppressionSettings
) -> None:
    """Add addresses or domains to the list."""
    additions = [
        Addition(_key(text), SuppressionReason(reason), list_scope(list_id), until, printable(note))
        for text in addresses
    ]
    with open_settings(chosen) as store:
        added = store.add(additions, who=_who())
    click.echo(f"{count(added, 'address', 'addresses')} added" + _others(len(additions) - added, "already on the list"))


@command.command()
@click.argument("addresses", nargs=-1, metavar="[ADDRESS|@DOMAIN]...")
@click.option("--why", metavar="TEXT", required=True, help="The reason, for the history.")
@click.option("--reason", type=_REASON, help="Only entries with this reason.")
@click.option("--since", type=Moment(), metavar="TIME", help="Only entries made since then: 2026-12-14, or 2d.")
@click.option("--until", type=Moment(), metavar="TIME", help="Only entries made before then.")
@click.option("--provider", default="", metavar="NAME", help="Only of this mailbox provider: google, or a domain.")
@click.option("--run", "run", default="", metavar="RUN", help="Only entries from this run: an outbox, or a campaign.")
@click.option("--dry-run", is_flag=True, help="Show how many, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@list_options
def remove(
    addresses: tuple[str, ...],
    why: str,
    reason: str | None,
    since: float | None,
    until: float | None,
    provider: str,
    run: str,
    dry_run: bool,
    yes: bool,
    chosen: SuppressionSettings,
) -> None:
    """Remove addresses from the list, or undo many entries at once.

    The history keeps them; a later hard bounce or spam complaint brings an
    address back. Without addresses all entries that the flags mean are taken
    off.
    """
    only = SuppressionReason(reason) if reason else None
    query = EntryQuery(
        reason=only, since=since, to=until, provider=provider.lower(), run_id=_run_id(run) if run else ""
    )
    if addresses and query != EntryQuery(reason=only):
        raise ConfigError("--since, --until, --provider and --run do not go with addresses", hint="leave them out")
    if not addresses and query == EntryQuery():
        raise ConfigError("no entries to remove were given", hint="name addresses, or add --reason, --since or --run")
    keys = [_key(text) for text in addresses]
    with open_settings(chosen) as store:
        if addresses:
            found = [entry for key in keys for entry in store.history(key).entries if only in (None, entry.reason)]
            if not dry_run:
                store.remove(keys, why=printable(why), who=_who(), reason=only)
            missing = len(set(keys) - {entry.key for entry in found})
            number = len(found)
        else:
            number, missing = store.count(query), 0
            if not dry_run and number:
                _confirm(f"{count(number, 'entry', 'entries')} will be removed from the list.", yes=yes)
                number = store.undo(query, why=printable(why), who=_who())
    verb = "would be removed" if dry_run else "removed from the list"
    click.echo(f"{count(number, 'entry', 'entries')} {verb}" + _others(missing, "not on the list"))


@command.command(name="list")
@click.option("--reason", type=_REASON, help="Only entries with this reason.")
@click.option("--since", type=Moment(), metavar="TIME", help="Only entries made since then: 2026-12-14, or 7d.")
@click.option("--campaign", default="", metavar="NAME", help="Only entries from this campaign.")
@click.option("--provider", default="", metavar="NAME", help="Only of this mailbox provider: google, or a domain.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=SHOWN, show_default=True, metavar="N", help="Show at most N entries."
)
@click.option("--held", is_flag=True, help="Show rejections that look like a provider's mistake, instead of entries.")
@json_option
@list_options
def list_(
    reason: str | None,
    since: float | None,
    campaign: str,
    provider: str,
    limit: int,
    held: bool,
    chosen: SuppressionSettings,
) -> None:
    """Show the entries, the newest first."""
    query = EntryQuery(
        reason=SuppressionReason(reason) if reason else None,
        since=since,
        campaign=campaign,
        provider=provider.lower(),
    )
    with open_settings(chosen) as store:
        if held:
            _list_held(store)
            return
        total, entries = store.count(query), store.newest(query, limit)
    if note_result({"total": total, "entries": [_as_json(entry) for entry in entries]}):
        return
    for entry in entries:
        click.echo(_line(entry))
    click.echo(
        f"{count(total, 'entry', 'entries')}"
        + (f", the newest {limit:,} shown; --limit N shows more" if total > limit else "")
    )


def _list_held(store: SuppressionStore) -> None:
    found = store.mistakes()
    if note_result(
        {
            "held": [
                {"run": each.run_id, "campaign": each.campaign, "provider": each.provider, "count": each.held}
                for each in found
            ]
        }
    ):
        return
    for each in found:
        click.echo(
            f"{each.provider} refused {count(each.held, 'address', 'addresses')} of {printable(each.campaign)}"
            f" as unknown from {_time(each.since)} on: not suppressed unless another campaign gets the same reply"
        )
    if not found:
        click.echo("No provider seems to have rejected live mailboxes.")


@command.command()
@click.argument("address", metavar="ADDRESS|@DOMAIN")
@json_option
@list_options
def show(address: str, chosen: SuppressionSettings) -> None:
    """Show everything that is known about an address."""
    key = _key(address)
    with open_settings(chosen) as store:
        history = store.history(key)
        domain = key.rpartition("@")[2]
        of_domain = store.history(f"@{domain}").entries if not key.startswith("@") else ()
    if not note_result(_history_as_json(key, history, of_domain)):
        _say_history(key, history, of_domain)


def _say_history(key: str, history: AddressHistory, of_domain: tuple[SuppressionEntry, ...]) -> None:
    now = time.time()
    holding = [entry for entry in (*history.entries, *of_domain) if entry.holds(now)]
    click.echo(f"{key} {'gets no mail:' if holding else 'is not on the list.'}")
    events = {stored.number: stored for stored in history.events}
    for entry in holding:
        stored = events.get(entry.event or 0)
        said = _said(stored) if stored else ""
        whole = explain(entry, campaign=stored.event.campaign if stored else "", said=said)
        domain = f" (all of {entry.key})" if entry.key.startswith("@") and not key.startswith("@") else ""
        click.echo(f"  {printable(whole)}; {_reach(entry)}{domain}")
    if history.events:
        click.echo("What came back:")
        for stored in history.events:
            held = ", looks like a provider's mistake" if stored.is_held else ""
            place = f", {printable(stored.event.campaign)}" if stored.event.campaign else ""
            row = f" row {stored.event.row:,}" if stored.event.row else ""
            click.echo(f"  {_time(stored.event.at)}  {stored.event.kind.value}: {_said(stored)}{held}{place}{row}")
            click.echo(f"      proved by {stored.event.proof.value}, read from {printable(stored.event.source)}")
    if history.changes:
        click.echo("History:")
        for change in history.changes:
            why = f": {printable(change.why)}" if change.why else ""
            who = f" by {printable(change.who)}" if change.who else ""
            click.echo(f"  {_time(change.at)}  {change.what} {change.reason}{who}{why}".rstrip())


@command.command(name="import")
@click.argument("source", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE")
@click.option("--reason", type=_REASON, default="manual", show_default=True, help="Why they are suppressed.")
@click.option("--until", type=Moment(ahead=True), metavar="TIME", help="When the entry expires: 2027-01-31, or 180d.")
@click.option("--list", "list_id", default="", metavar="ID", help="Only for campaigns with this list_id.  [all lists]")
@click.option("--note", default="", metavar="TEXT", help="A note for the history.")
@click.option("--skip-faults", is_flag=True, help="Skip lines that cannot be read, and import the others.")
@list_options
def import_(
    source: Path,
    reason: str,
    until: float | None,
    list_id: str,
    note: str,
    skip_faults: bool,
    chosen: SuppressionSettings,
) -> None:
    """Add the entries of a file; removes none.

    FILE is an export or an archive of this program, an address or @domain in
    each line, or a list with an address column (CSV, JSON, JSON lines, XLSX).
    An export and an archive say themselves why; the flags are for the others.
    """
    if is_archive(source) and _take_over(source, chosen):
        with open_settings(chosen) as store:
            click.echo(f"{count(store.count(EntryQuery()), 'entry', 'entries')} taken over as a new list")
        return
    with open_settings(chosen) as store:
        read = read_file(
            source,
            secret=store.secret,
            reason=SuppressionReason(reason),
            scope=list_scope(list_id),
            until=until,
            note=printable(note),
        )
        for notice in read.notices:
            click.echo(f"note: {printable(notice)}", err=True)
        if read.fault_count and not skip_faults:
            shown = "\n  ".join(printable(fault) for fault in read.faults[:MOST_FAULTS_SHOWN])
            raise ListError(
                f"{count(read.fault_count, 'entry', 'entries')} cannot be read; nothing was imported:\n  {shown}",
                hint="correct the lines, or add --skip-faults to import the others",
            )
        added = store.import_(read.additions, why=f"import of {source.name}", who=_who())
    click.echo(
        f"{count(added, 'entry', 'entries')} added"
        + _others(len(read.additions) - added, "already on the list")
        + _others(read.fault_count, "could not be read")
    )


@command.command(name="export")
@click.option(
    "-o",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to this file.  [default: standard output]",
)
@click.option("--hashed", is_flag=True, help="Write digests only, without addresses and notes.")
@click.option(
    "--archive",
    "archive",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the whole list with its key and history, for another machine.",
)
@list_options
def export_(target: Path | None, hashed: bool, archive: Path | None, chosen: SuppressionSettings) -> None:
    """Write the entries as CSV, or the whole list as an archive.

    An archive contains the key of all digests and links: protect it like a
    password.
    """
    if archive is not None and (target is not None or hashed):
        raise ConfigError("--archive does not go with -o or --hashed", hint="give one of them")
    with open_settings(chosen) as store:
        if archive is not None:
            store.copy_to(archive)
            click.echo(f"{count(store.count(EntryQuery()), 'entry', 'entries')} written to {printable(str(archive))}")
            return
        entries = store.entries(EntryQuery())
        if target is None:
            export(entries, sys.stdout, secret=store.secret, is_hashed=hashed)
            return
        draft = target.with_name(f".{target.name}.new")
        with open(
            os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8", newline=""
        ) as out:
            number = export(entries, out, secret=store.secret, is_hashed=hashed)
        draft.replace(target)
    click.echo(f"{count(number, 'entry', 'entries')} written to {printable(str(target))}")


# -- what they share


def _take_over(archive: Path, chosen: SuppressionSettings) -> bool:
    """Makes the list, where there is none yet, of an archive; False where there is one."""
    if chosen.store:
        from bulkmail.suppression.postgres import PostgresSuppressions

        with PostgresSuppressions(chosen.store) as store:
            return store.take_over(archive)
    if chosen.is_there():
        return False
    adopt(archive, chosen.path())
    return True


def _key(text: str) -> str:
    from bulkmail.recipients.screening import entry_key

    try:
        return entry_key(text)
    except AddressError as error:
        raise ConfigError(
            f"{printable(text, 80)}: {error}", hint="write ann@example.com, or @example.com for a whole domain"
        ) from None


def _who() -> str:
    try:
        return printable(getpass.getuser(), 60)
    except (KeyError, OSError, ImportError):  # no such user, as in a container
        return ""


def _run_id(run: str) -> str:
    from bulkmail.outbox.outbox_reader import OutboxReader
    from bulkmail.settings.runs import find_run

    with OutboxReader.open(find_run(run, rehearsals=False)) as reader:
        return reader.run_id


def _confirm(what: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{what} There is no terminal to ask on", hint="add --yes, or --dry-run to see what it would do"
        )
    click.confirm(f"{what} Go on?", abort=True, err=True)


def _others(number: int, what: str) -> str:
    """`"; 2 already on the list"`."""
    return f"; {number:,} {what if number == 1 else what.replace('was', 'were')}" if number else ""


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _reach(entry: SuppressionEntry) -> str:
    where = f"list {printable(entry.scope)}" if entry.scope != ALL_LISTS else "all lists"
    return where + (f", until {_time(entry.until)}" if entry.until is not None else "")


def _said(stored: StoredEvent) -> str:
    event = stored.event
    return printable(" ".join(str(part) for part in (event.code, event.enhanced, event.words or event.reason) if part))


def _line(entry: SuppressionEntry) -> str:
    ended = "" if entry.holds(time.time()) else "  (ended)"
    note = f"  {printable(entry.note, 60)}" if entry.note else ""
    who = entry.key or f"(erased {entry.digest.hex()[:8]})"
    return f"{_time(entry.since)}  {entry.reason.value:<14}  {who}  {_reach(entry)}{note}{ended}"


def _as_json(entry: SuppressionEntry) -> dict[str, object]:
    return {
        "address": entry.key,
        "reason": entry.reason.value,
        "list": entry.scope,
        "since": iso(entry.since),
        "until": None if entry.until is None else iso(entry.until),
        "note": entry.note,
        "digest": entry.digest.hex(),
    }


def _history_as_json(key: str, history: AddressHistory, of_domain: tuple[SuppressionEntry, ...]) -> dict[str, object]:
    now = time.time()
    return {
        "address": key,
        "suppressed": any(entry.holds(now) for entry in (*history.entries, *of_domain)),
        "entries": [_as_json(entry) for entry in (*history.entries, *of_domain)],
        "events": [
            {
                "event": stored.number,
                "at": iso(stored.event.at),
                "kind": stored.event.kind.value,
                "proof": stored.event.proof.value,
                "held": stored.is_held,
                "code": stored.event.code,
                "enhanced": stored.event.enhanced,
                "words": stored.event.words,
                "campaign": stored.event.campaign,
                "run": stored.event.run_id,
                "row": stored.event.row,
                "source": stored.event.source,
            }
            for stored in history.events
        ],
        "changes": [
            {"at": iso(change.at), "what": change.what, "reason": change.reason, "why": change.why, "who": change.who}
            for change in history.changes
        ],
    }
