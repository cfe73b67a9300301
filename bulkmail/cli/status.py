"""`bulkmail status`: where a run stands."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import click

from bulkmail.cli.in_store import StorePlace, look, store_option
from bulkmail.cli.notifying import notify_if_killed
from bulkmail.cli.words import step, wrapped
from bulkmail.mailing.intake import opened_campaign
from bulkmail.mailing.suppression_list import overdue_of
from bulkmail.model.feedback_event import say_overdue
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.report.came_back import came_back, of_passes
from bulkmail.report.json_report import head
from bulkmail.report.planned import planned_in
from bulkmail.report.planned import sentence as planned_sentence
from bulkmail.report.rest import next_try, rest_of, say_rest
from bulkmail.report.run_source import Source
from bulkmail.report.slowdowns import sentence, slowdowns_of
from bulkmail.report.text_report import copies_of, say_left, say_rows
from bulkmail.settings.runs import find_run, names_outbox
from bulkmail.text import count, printable

MOST_DOUBTFUL = 20
MOST_SLOWED = 5
EVERY = 2.0  # seconds between two looks at a store
EPILOG = """\b
Examples:
  bulkmail status spring
  bulkmail status spring --watch
  bulkmail status spring/runs/spring.outbox
  bulkmail status spring --json | jq .totals
  bulkmail status spring --store
"""


@click.command(epilog=EPILOG)
@click.argument("run", default=".")
@click.option("--watch", "keeps_looking", is_flag=True, help="Update every second until the run ends.")
@click.option("--json", "in_json", is_flag=True, help="Print one JSON object; with --watch, one per line.")
@store_option
def command(run: str, keeps_looking: bool, in_json: bool, store: str | None) -> None:
    """Show the state of a run, also while another process is sending.

    RUN is a campaign, with all its passes and what came back since, or the outbox of one run; without it, the latest
    here; with --store the name of a campaign there.
    """
    if store is not None:
        _show_of_store(StorePlace(store), run, keeps_looking=keeps_looking, in_json=in_json)
        return
    path = find_run(run)
    _show(path, run, keeps_looking=keeps_looking, in_json=in_json)
    sys.stdout.flush()
    notify_if_killed(path)


def _show(path: Path, run: str, *, keeps_looking: bool, in_json: bool) -> None:
    """`run` is what was asked for, and `path` the outbox that it comes to."""
    if keeps_looking:
        from bulkmail.cli.watch import watch, watch_json

        if in_json:
            watch_json(path, lambda reader, tally: json.dumps(_object(Source.of(reader, path), reader)))
        else:
            watch(path, lambda reader, tally: _said(reader, tally, str(path)))
        return
    with opened_campaign(path, alone=names_outbox(run)) as (source, notices), OutboxReader.open(path) as reader:
        for notice in notices:
            click.echo(f"Note: {notice}", err=True)
        overdue = 0.0 if reader.is_rehearsal else overdue_of(reader.info)
        if in_json:
            click.echo(json.dumps(_object(source, reader) | {"intake_overdue_seconds": round(overdue)}, indent=2))
            return
        tally = reader.tally()
        lines = _said(reader, source.messages or source.tally, str(path), passes=of_passes(source.passes))
        lines += came_back(source.returned, source.tally[Status.ACCEPTED])
        lines += _doubtful(reader, tally.with_copies(Status.IN_DOUBT))
        is_running = reader.is_running is not None
        if not is_running and reader.has_marks:
            lines.append("It was cut off before some replies came: resuming will mark those messages as in doubt.")
        if said := say_overdue(overdue):
            lines.append(f"{said[0].upper()}{said[1:]}.  To read it: bulkmail bounces")
    for line in lines:
        click.echo(wrapped(line, indent=4, on=sys.stdout))
    whole = run if source.passes else str(path)
    for line in _steps(tally, shlex.quote(str(path)), shlex.quote(whole), is_running=is_running):
        click.echo(line)


def _show_of_store(place: StorePlace, name: str, *, keeps_looking: bool, in_json: bool) -> None:
    """The same for a campaign in a store."""
    last: list[str] = []
    while True:
        lines, is_over = look(place, name, lambda *seen: _of_store(*seen, place=place, in_json=in_json))
        if lines != last:
            for line in lines:
                click.echo(line if in_json else wrapped(line, indent=4, on=sys.stdout))
            sys.stdout.flush()
        last = lines
        if is_over or not keeps_looking:
            return
        time.sleep(EVERY)


def _of_store(
    reader: OutboxReader, source: Source, workers: list[str], *, place: StorePlace, in_json: bool
) -> tuple[list[str], bool]:
    """What is said of a campaign in a store, and whether it is over."""
    tally, named = reader.tally(), source.run.named
    is_running = reader.is_running is not None
    is_over = not is_running and not tally.open
    if in_json:
        return [json.dumps(_object(source, reader))], is_over
    lines = _said(reader, tally, place.shown) + workers
    lines += _doubtful(reader, tally.with_copies(Status.IN_DOUBT))
    return [*lines, *_steps(tally, named, named, is_running=is_running)], is_over


def _steps(tally: Tally, path: str, whole: str, *, is_running: bool) -> list[str]:
    """What to type next: for the run at `path`, and for the campaign with all its passes, `whole`."""
    lines: list[str] = []
    if tally.open and not is_running:
        lines += step(f"To continue with the {say_left(tally)} left", f"bulkmail resume {path}")
    if tally.with_copies(Status.IN_DOUBT) and not is_running:
        lines += step(
            "To look up the messages in doubt", f"bulkmail reconcile {path} --imap URL, --maildir DIR or --log FILE"
        )
        lines += step("To decide them yourself", f"bulkmail resume {path} --in-doubt retry|accepted|rejected")
    if tally.rows > tally.open_rows:
        lines += step("The result of each row", f"bulkmail report {whole}")
    return lines


def _said(reader: OutboxReader, tally: Tally, place: str, *, passes: Sequence[str] = ()) -> list[str]:
    """The state of a campaign whose latest run is in `place`; `passes` are lines about its passes, if it has any."""
    name = reader.campaign.name if reader.campaign is not None else reader.info.name or Path(place).stem
    rehearsal = "a rehearsal, " if reader.is_rehearsal else ""
    follows = printable(Path(reader.info.follows).stem)
    rehearsal += f"a follow-up of {follows}, " if follows else ""
    now = time.time()
    rest = rest_of(reader.info, now) if tally.open else None
    stopped = reader.info.stopped if tally.open and reader.is_running is None else None
    plan = planned_in(reader) if tally.open else None
    planned = planned_sentence(plan, now, is_running=reader.is_running is not None) if plan is not None else ""
    waiting = say_rest(rest, now) if rest else next_try(reader.next_try_at(), now)
    return [
        f"{printable(name)}: {rehearsal}{say_rows(tally)} in {place}",
        *(f"  {line}" for line in _table(tally)),
        *passes,
        *_relays(reader),
        _times(reader),
        *([stopped.sentence] if stopped else []),
        *([waiting] if waiting else []),
        *([planned] if planned else []),
        *_slowed(reader),
    ]


def _slowed(reader: OutboxReader) -> list[str]:
    """Who has asked us to slow down, and how it is treated."""
    now, is_running = time.time(), reader.is_running is not None
    several = len(reader.info.relays) > 1
    found = slowdowns_of(reader.info)
    lines = [
        f"  {sentence(slowdown, now, is_running=is_running, has_several=several)}" for slowdown in found[:MOST_SLOWED]
    ]
    if len(found) > MOST_SLOWED:
        lines.append(f"  and {count(len(found) - MOST_SLOWED, 'other')}; --json has them all")
    return ["Slowed down:", *lines] if lines else []


def _object(source: Source, reader: OutboxReader) -> dict[str, object]:
    """The head of the JSON report, and who sends just now."""
    process = source.run.process
    return {
        **head(source),
        "outbox": str(source.run.path),
        "process": process and {"pid": process[0], "host": process[1]},
        "accepted_by_relay": reader.accepted_by_relay(),
    }


def _table(tally: Tally) -> list[str]:
    """A line for each status that some row has: its number and its share."""
    found = [(status, tally[status]) for status in Status if tally[status]]
    figures = max((len(f"{number:,}") for _, number in found), default=0)
    return [
        f"{number:>{figures},} {status.value.replace('_', ' '):<10} {number / tally.messages:>6.1%}"
        for status, number in found
    ] + [f"{number:,} copies {status.value.replace('_', ' ')}" for status, number in copies_of(tally).items()]


def _relays(reader: OutboxReader) -> list[str]:
    """What each took, where there are several."""
    relays = reader.info.relays
    if len(relays) < 2:
        return []
    accepted = reader.accepted_by_relay()
    return [
        f"  {accepted.get(relay, 0):,} through {printable(relay)}" for relay in {**dict.fromkeys(relays), **accepted}
    ]


def _doubtful(reader: OutboxReader, number: int) -> list[str]:
    """Each row in doubt, as far as they fit on a screen, and why it is so."""
    if not number:
        return []
    lines = ["In doubt (sent completely, but no reply came):"]
    paths = ((row, path) for row in reader.in_doubt() for path in (row, *row.copies) if path.status is Status.IN_DOUBT)
    for row, path in islice(paths, MOST_DOUBTFUL):
        when = f" at {_clock(path.last_at)}" if path.last_at is not None else ""
        why = printable(path.error or path.reply or path.reason)
        through = f" through {printable(path.relay)}" if path.relay else ""
        lines.append(f"  row {row.row:,}  {printable(path.address)}{through}{when}: {why}")
    if number > MOST_DOUBTFUL:
        lines.append(f"  and {number - MOST_DOUBTFUL:,} more; the report has them all")
    return lines


def _times(reader: OutboxReader) -> str:
    if not reader.is_loaded:
        return (
            "The list has not been read completely yet." if reader.is_running else "The list was never read completely."
        )
    if reader.is_running is not None:
        pid, host = reader.is_running
        begun = f", since {_clock(reader.started_at)}" if reader.started_at is not None else ""
        return f"Being sent now, by process {pid} on {printable(host)}{begun}."
    if reader.started_at is None:
        return "Nothing has been sent yet."
    ended = f"finished {_clock(reader.ended_at)}" if reader.ended_at is not None else "not finished"
    return f"Started {_clock(reader.started_at)}, {ended}."


def _clock(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
