"""The report on one screen, in words that a shop owner understands."""

from __future__ import annotations

import os
import shlex
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from bulkmail.model.quantities import say_duration
from bulkmail.model.tally import Status, Tally
from bulkmail.report.came_back import came_back, of_passes, of_variants
from bulkmail.report.planned import sentence
from bulkmail.report.report import AttentionRow, Report
from bulkmail.report.rest import next_try, say_rest
from bulkmail.report.slowdowns import short_sentence
from bulkmail.text import count, printable

if TYPE_CHECKING:
    from rich.text import Text

MOST_LINES = 24
_MOST_BROKEN = 12  # lines, of the title, the table and the times, that leave room for the rest
MOST_SLOWED = 3  # relays and providers that slowed the run down


# In this order.  What became of the message first, then the rows that it was never meant for.
MEANINGS = {
    Status.ACCEPTED: "accepted by the mail server",
    Status.REJECTED: "rejected permanently",
    Status.EXPIRED: "deferred until the time limit",
    Status.IN_DOUBT: "perhaps sent: the connection broke before the reply",
    Status.DEFERRED: "deferred, will be retried",
    Status.PENDING: "not tried yet",
    Status.CANCELLED: "cancelled with bulkmail cancel",
    Status.INVALID: "the row cannot be used",
    Status.DUPLICATE: "the same address appears earlier in the list",
    Status.SUPPRESSED: "on a suppression list",
    Status.FILTERED: "excluded by --where",
}
_WORDS = {status: status.value.replace("_", " ") for status in Status}
_EXPLAINED = frozenset(
    {
        *(Status.REJECTED, Status.EXPIRED, Status.DEFERRED, Status.PENDING),
        *(Status.INVALID, Status.SUPPRESSED, Status.FILTERED),
    }
)
_STYLES = {
    Status.ACCEPTED: "green",
    Status.REJECTED: "red",
    Status.EXPIRED: "red",
    Status.INVALID: "red",
    Status.IN_DOUBT: "bold yellow",
    Status.DEFERRED: "yellow",
    Status.PENDING: "yellow",
    Status.CANCELLED: "yellow",
}


def summary(report: Report, *, width: int = 80, reports: Sequence[Path] = ()) -> str:
    """The report as plain text, at most 24 lines of `width` columns, 40 or more; ends in a line end.

    `reports` are the files that hold it row by row.  Only a command with a long path in it may be wider: it is there to
    be copied.  Of a rehearsal the first line says so, and who got its messages.
    """
    head = []
    if report.is_rehearsal:
        head = [*(_cut(line, width) for line in textwrap.wrap(rehearsal(report), width)), ""]
    head += _fitted(
        [
            _title(report),
            *_table(report),
            *_copies(report),
            *_relays(report),
            *_variants(report),
            *came_back(report.returned, report.accepted),
            *filter(None, [printable(of_variants(report.returned_by_variant))]),
            *of_passes(report.passes),
            times(report),
            *rest(report),
            *_slowed(report),
        ],
        width,
    )
    after = _next_steps(report, reports, width=width, most=MOST_LINES - len(head))
    look = [_cut(line, width) for line in _attention(report, most=MOST_LINES - len(head) - len(after))]
    return "\n".join([*head, *look, *after]) + "\n"


def rehearsal(report: Report) -> str:
    """That nothing was sent to the list, and who got the messages instead, if anyone."""
    if report.run.redirected_to:
        return f"Rehearsal: {printable(report.run.redirected_to)} got every message; your recipients got none."
    return "Rehearsal: no mail was sent to your recipients."


def styled(report: Report, *, width: int = 80, reports: Sequence[Path] = ()) -> Text:
    """The same text with colours for a terminal; to be printed with `soft_wrap=True`, as its lines are laid out."""
    from rich.text import Text

    text = Text(summary(report, width=width, reports=reports), end="")
    for status, style in _STYLES.items():
        text.highlight_regex(rf"(?m)^ +[0-9,]+ {_WORDS[status]} ", style)
        text.highlight_regex(rf"(?m)^  \S+:\d+ .*? {_WORDS[status]}: ", style)
    text.highlight_regex(r"(?s)\ARehearsal.*?(?=\n\n)", "bold magenta")
    text.highlight_regex(r"(?m)^ +bulkmail .*", "bold")
    return text


def _title(report: Report) -> str:
    through = f" through {printable(report.relay)}" if report.relay else ""
    source = f" from {printable(report.run.list_name)}" if report.run.list_name else ""
    follows = f", a follow-up of {printable(Path(report.run.follows[1]).stem)}" if report.run.follows else ""
    return f"{printable(report.name)}: {say_rows(report.messages)}{source}{through}{follows}"


def _table(report: Report) -> list[str]:
    """A line for each status that some row has."""
    found = [status for status in MEANINGS if report.tally[status]]
    numbers = {status: f"{report.tally[status]:,}" for status in found}
    figures = max(map(len, numbers.values()), default=0)
    words = max((len(_WORDS[status]) for status in found), default=0)
    return [f"  {numbers[status]:>{figures}} {_WORDS[status]:<{words}}  {meaning(report, status)}" for status in found]


def _copies(report: Report) -> list[str]:
    """What became of the other addresses of the rows (To, Cc, Bcc), as a line; none for a mailing without."""
    copies = copies_of(report.tally)
    said = ", ".join(f"{number:,} {_WORDS[status]}" for status, number in copies.items())
    return [f"Copies (To, Cc, Bcc): {said}."] if said else []


def copies_of(tally: Tally) -> dict[Status, int]:
    """The copies that were to be sent, and those that are suppressed, by status, in the order of the table."""
    shown = [status for status in MEANINGS if status.is_eligible or status is Status.SUPPRESSED]
    return {status: tally.copies[status] for status in shown if tally.copies.get(status)}


def say_left(tally: Tally) -> str:
    """What sending goes on with: "3 rows", "3 rows and 1 copy"."""
    return rows_and_copies(tally.open_rows, tally.open - tally.open_rows)


def say_rows(messages: Tally) -> str:
    """`"3 rows"`, `"3 rows in 2 messages"`."""
    rows = count(messages.rows, "row")
    return f"{rows} in {count(messages.messages, 'message')}" if messages.sharing else rows


def rows_and_copies(rows: int, copies: int) -> str:
    """`"3 rows"`, `"3 rows and 1 copy"`, `"1 copy"`."""
    said = [count(rows, "row")] if rows or not copies else []
    return " and ".join(said + ([count(copies, "copy", "copies")] if copies else []))


def meaning(report: Report, status: Status) -> str:
    """What it means that rows have this status, and the commonest reasons for it."""
    said = MEANINGS[status]
    if status is Status.ACCEPTED and report.is_rehearsal and not report.run.redirected_to:
        said = "in the rehearsal only"
    reasons = report.reasons_of.get(status)
    if status is Status.FILTERED and reasons:  # the reason is the whole meaning
        return ", ".join(
            f"{reason} {times:,}" if len(reasons) > 1 else reason for reason, times in reasons.most_common(5)
        )
    if status not in _EXPLAINED or not reasons:
        return said
    if status is Status.PENDING:
        said = "to be sent"  # some of them were tried already
    return said + ": " + ", ".join(f"{reason} {times:,}" for reason, times in reasons.most_common(5))


def _relays(report: Report) -> list[str]:
    """What each relay accepted, where there are several: one line, to fit on a screen."""
    taken = {**dict.fromkeys(report.run.relays, 0), **report.accepted_by_relay}
    if len(report.run.relays) < 2:
        return []
    return ["Through " + ", ".join(f"{printable(relay)} {number:,}" for relay, number in taken.items()) + "."]


def _variants(report: Report) -> list[str]:
    """What became of each variant: a line."""
    if not report.outcomes_by_variant:
        return []
    said = []
    for name, outcomes in report.outcomes_by_variant.items():
        meant = sum(number for status, number in outcomes.items() if status.is_eligible)
        said.append(f"{printable(name)} {outcomes[Status.ACCEPTED]:,} of {meant:,} accepted")
    return ["Variants: " + ", ".join(said) + "."]


def times(report: Report) -> str:
    """When it began and ended, and how fast it was, as a sentence."""
    run = report.run
    if run.process is not None:
        pid, host = run.process
        return f"Being sent now, by process {pid} on {printable(host)}."
    if run.started_at is None:
        return "Nothing was sent."
    begun = f"Started {datetime.fromtimestamp(run.started_at):%Y-%m-%d %H:%M}"
    if report.duration is None:
        return f"{begun}, not finished."
    speed = f", {report.per_second:,.1f} messages a second" if report.per_second else ""
    return f"{begun}, finished after {say_duration(report.duration)}{speed}."


def rest(report: Report) -> list[str]:
    """Why nothing is sent now, as a line, for users who resume too soon."""
    run, now = report.run, time.time()
    is_running = run.process is not None
    if run.stopped is not None and report.tally.open and not is_running:
        return [run.stopped.sentence]
    planned = sentence(run.planned, now, is_running=is_running) if run.planned is not None and report.tally.open else ""
    if run.rest is not None and report.tally.open:
        return [say_rest(run.rest, now), *([planned] if planned else [])]
    if planned:
        return [planned]
    waiting = next_try(run.next_try_at, now) if not is_running else None
    return [waiting] if waiting else []


def _slowed(report: Report) -> list[str]:
    """Who asked us to slow down, a line for each and one for all beyond the first."""
    found, now, has_several = report.run.slowdowns, time.time(), len(report.run.relays) > 1
    reported = [short_sentence(slowdown, now, has_several=has_several) for slowdown in found[:MOST_SLOWED]]
    lines = [f"{said}." for said in reported]
    left = len(found) - len(reported)
    return lines + ([f"{count(left, 'other')} also asked us to slow down."] if left else [])


def _attention(report: Report, *, most: int) -> list[str]:
    """The heading and the rows to look at, `most` lines in all; nothing if there is no room for a row."""
    rows = _picked(report.attention, (most - 2) // 2)
    return ["", "To look at:", *chain.from_iterable(map(_say_trouble, rows))] if rows else []


def _picked(troubles: Sequence[AttentionRow], most: int) -> list[AttentionRow]:
    """At most `most`, and of each status at least one if there is room, in the given order."""
    first = {trouble.status: trouble for trouble in reversed(troubles)}
    chosen = [trouble for trouble in troubles if trouble is first[trouble.status]][: max(0, most)]
    chosen += [trouble for trouble in troubles if trouble is not first[trouble.status]][: max(0, most - len(chosen))]
    return sorted(chosen, key=troubles.index)


def _say_trouble(trouble: AttentionRow) -> tuple[str, str]:
    """Who, and below it why: the words of a server are long, and they are what one has to read."""
    address = printable(trouble.address) or "no address"
    place = printable(str(trouble.place), 40)
    of = f" (copy of {count(trouble.copies, 'row')})" if trouble.copies else ""
    return f"  {place} {_WORDS[trouble.status]}: {address}{of}", f"      {printable(trouble.words)}"


def _next_steps(report: Report, reports: Sequence[Path], *, width: int, most: int) -> list[str]:
    """The heading and what to do next, `most` lines in all: where a step does not fit on a line, its commands alone."""
    steps = _steps(report, reports)
    lines: list[str] = []
    for what, *commands in steps:
        line = f"  {what}: {', '.join(commands)}"
        fits = cell_len(line) <= width
        lines += [line] if fits else [_cut(f"  {what}:", width), *(f"    {command}" for command in commands)]
    if len(lines) > most - 2:
        lines = [f"  {', '.join(commands)}" for _, *commands in steps]
    return ["", "Next:", *lines] if lines else []


def _steps(report: Report, reports: Sequence[Path]) -> list[tuple[str, ...]]:
    """What to do, and the command or the files to do it with.  Four at most."""
    tally = report.tally
    steps: list[tuple[str, ...]] = []
    named = report.run.named or (_say_path(report.outbox) if report.outbox is not None else "")
    if named and report.run.process is None:
        command = f"bulkmail resume {named}"
        if tally.open and not report.run.redirected_to:
            steps.append((f"send the {say_left(tally)} left", command))
        if doubts := tally.with_copies(Status.IN_DOUBT):
            steps.append((f"send the {doubts:,} in doubt again, perhaps twice", f"{command} --in-doubt retry"))
    if report.is_rehearsal and report.run.maildir:
        steps.append(("see the messages", f"bulkmail inbox {_say_path(Path(report.run.maildir))}"))
    if reports:
        steps.append(("the report, row by row", *map(_say_path, reports)))
    elif named:
        steps.append(("the report, row by row", f"bulkmail report {named} -o report.csv"))
    return steps


def _say_path(path: Path) -> str:
    """The shorter of the whole path and the way there from here, quoted for a shell and safe to print."""
    text = str(path)
    with suppress(OSError, ValueError):  # the working folder has gone; on Windows, another drive
        text = min(text, os.path.relpath(text), key=len)
    text = printable(text, 4_000)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def _fitted(lines: Sequence[str], width: int) -> list[str]:
    """`lines` in `width` columns: broken between words while there are few of them, else cut."""
    broken = [
        _cut(piece, width)
        for line in lines
        for piece in textwrap.wrap(line, width, subsequent_indent="    ", break_on_hyphens=False) or [line]
    ]
    return broken if len(broken) <= _MOST_BROKEN else [_cut(line, width) for line in lines]


def _cut(line: str, width: int) -> str:
    """`line` in at most `width` columns of a terminal, where a Chinese character takes two."""
    return line if cell_len(line) <= width else set_cell_size(line, width - 1).rstrip() + "…"
