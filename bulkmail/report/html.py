"""The report as one page that opens anywhere: no network, no script needed to read it, nothing in it that runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from markupsafe import Markup, escape

from bulkmail.model.feedback_event import GRAVEST_FIRST, FeedbackKind
from bulkmail.model.quantities import say_duration
from bulkmail.model.tally import Status
from bulkmail.outbox.entries import RowRecord
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.pages.kit import page_of
from bulkmail.pages.moments import moment
from bulkmail.pages.plots import Bar, bar, bars, say_share, time_plot
from bulkmail.report.came_back import MOST_PASSES, of_variants, remarks
from bulkmail.report.figures import LATENCIES, MOST_ROWS, Figures, People, figures_of, timeline_of
from bulkmail.report.report import Report
from bulkmail.report.report_files import replacing
from bulkmail.report.run_source import Pass, Source
from bulkmail.report.slowdowns import sentence
from bulkmail.report.specimen import specimen_of
from bulkmail.report.text_report import MEANINGS, copies_of, meaning, rehearsal, rest, say_rows, times
from bulkmail.text import count, printable

MOST_REASONS = 8  # of each status
MOST_SLOWED = 20  # relays and providers that are named as having slowed the run down
_OUTCOMES = {"accepted": "accepted", "deferred": "deferred", "rejected": "rejected", "in_doubt": "in doubt"}
_LEFT_OUT = "left out of this run"


def write_html(source: OutboxReader | Source, target: Path | BinaryIO) -> None:
    """Writes the page: UTF-8, some hundred kilobytes at most beside the message.

    Of a long list it has the rows to look at, a thousand at most; the CSV report has all.  Raises `BulkmailError` as
    `write_csv` does.
    """
    if not isinstance(source, Source):
        source = Source.of(source)
    people = People()
    # Without the reader, which counts what is accepted by itself: the page shows rows that are accepted, too.
    report = Report.of(replace(source, unproven_rows=partial(_seen_by, people, source), reader=None))
    figures = figures_of(people, source.attempts())
    page = page_of(
        "bulkmail.report",
        name=printable(report.name),
        subtitle=_subtitle(report),
        times=_times(report),
        rehearsal=rehearsal(report) if report.is_rehearsal else "",
        totals=list(_totals(report)),
        plots=list(_plots(report, figures)),
        reasons=list(_reasons(report)),
        charts=list(_charts(report, figures)),
        after=list(_after(report)),
        remarks=[
            *remarks(report.returned, report.accepted),
            *filter(None, [printable(of_variants(report.returned_by_variant))]),
        ],
        slowed=_slowed(report),
        lines=[(line, moment(line.last_at, "second")) for line in figures.lines],
        lines_note=_lines_note(figures),
        message=specimen_of(source.campaign, source.rows()),
        run_id=report.run.run_id,
        created=moment(report.run.created_at, "second"),
        zone=time.strftime("%Z"),
    )
    with replacing(target) as file:
        file.write(page)


def _seen_by(people: People, source: Source) -> Iterator[RowRecord]:
    for record in source.unproven_rows():
        people.add(record)
        yield record


def _subtitle(report: Report) -> str:
    source = f" from {printable(report.run.list_name)}" if report.run.list_name else ""
    through = f" through {printable(report.relay)}" if report.relay else ""
    follows = f", a follow-up of {printable(Path(report.run.follows[1]).stem)}" if report.run.follows else ""
    return f"{say_rows(report.messages)}{source}{through}{follows}"


def _times(report: Report) -> list[Markup]:
    """When it began and ended, how fast it was, and why nothing is sent just now."""
    run, stopped = report.run, report.run.stopped
    said = [escape(line) for line in rest(report)]
    if stopped is not None and report.tally.open and run.process is None:
        said = [Markup("Stopped by {} at {}.").format(stopped.by, moment(stopped.at, "second"))]
    if run.process is not None or run.started_at is None:
        return [escape(times(report)), *said]
    began = Markup("Started {}").format(moment(run.started_at, "minute"))
    if report.duration is None:
        return [began + ", not finished.", *said]
    speed = f", {report.per_second:,.1f} messages a second" if report.per_second else ""
    return [began + f", finished after {say_duration(report.duration)}{speed}.", *said]


def _totals(report: Report) -> Iterator[dict[str, str]]:
    tally = report.tally
    for status in MEANINGS:
        if tally[status]:
            short = MEANINGS[status]
            if status is Status.ACCEPTED:  # of a rehearsal, something else
                short = meaning(report, status)
            yield {
                "kind": status.value,
                "number": f"{tally[status]:,}",
                "share": say_share(tally[status], tally.rows),
                "word": _word(status),
                "meaning": _LEFT_OUT if status is Status.FILTERED else short,
                "why": f"why-{status.value}" if _has_reasons(report, status) else "",
            }
    for status, number in copies_of(tally).items():
        yield {
            "kind": status.value,
            "number": f"{number:,}",
            "share": say_share(number, sum(tally.copies.values())),
            "word": f"copies {_word(status)}",
            "meaning": "To, Cc and Bcc",
            "why": "",
        }


def _word(status: Status) -> str:
    return status.value.replace("_", " ")


def _has_reasons(report: Report, status: Status) -> bool:
    return status is not Status.DUPLICATE and bool(report.reasons_of.get(status))


def _reasons(report: Report) -> Iterator[dict[str, Any]]:
    """Why rows are not accepted: a list for each status, below the totals that are short for it."""
    for status in MEANINGS:
        if report.tally[status] and _has_reasons(report, status):
            found = report.reasons_of[status]
            most, left = found.most_common(MOST_REASONS), len(found) - MOST_REASONS
            yield {
                "id": f"why-{status.value}",
                "title": f"Why {_word(status)}",
                "note": f"{count(left, 'other reason')} in the CSV report." if left > 0 else "",
                "lines": bars(most, kind=status.value, whole=report.tally[status]),
            }


def _slowed(report: Report) -> list[str]:
    run, now = report.run, time.time()
    several = len(run.relays) > 1
    return [
        sentence(slowdown, now, is_running=run.process is not None, has_several=several)
        for slowdown in run.slowdowns[:MOST_SLOWED]
    ]


def _plots(report: Report, figures: Figures) -> Iterator[dict[str, Any]]:
    """How tries went over time; of a campaign that was sent in several passes, one plot for each."""
    timelines = [("", figures.timeline)]
    if report.passes:
        last_ones = report.passes[-MOST_PASSES:]
        timelines = [(f"Pass {each.run.number}", timeline_of(each.attempts())) for each in last_ones]
    for title, timeline in timelines:
        plot = time_plot(timeline.buckets, _OUTCOMES, start=timeline.start, seconds=timeline.seconds)
        if plot is None:
            continue
        seen: Counter[str] = sum(timeline.buckets, Counter())
        yield {
            "title": title,
            "boxes": plot.boxes,
            "ticks": plot.ticks,
            "moments": plot.shown_moments(),
            "words": f"Tries a second by outcome, {say_duration(timeline.seconds)} a bar; at most {plot.highest:,.1f}.",
            "key": [(kind, f"{word} {seen[kind]:,}") for kind, word in _OUTCOMES.items() if seen[kind]],
        }


def _after(report: Report) -> Iterator[dict[str, Any]]:
    """What came back after the sending, and the passes that the campaign was sent in."""
    kinds = [(kind.value.replace("_", " "), report.returned[kind]) for kind in GRAVEST_FIRST if report.returned[kind]]
    if kinds:
        yield {
            "title": "Bounces and replies",
            "note": "Recipients by what was reported about them after the server accepted the message, with their share"
            " of the accepted.",
            "lines": bars(kinds, kind="rejected", whole=report.accepted),
        }
    if report.passes:
        most = max(each.tally.rows for each in report.passes)
        yield {
            "title": "Passes",
            "note": f"Sent in {len(report.passes)} passes: when each began, its rows, and the share that was accepted.",
            "lines": [_pass(each, most) for each in report.passes],
        }


def _pass(each: Pass, most: int) -> Bar:
    tally = each.tally
    bounced = sum(each.returned[kind] for kind in FeedbackKind if kind.is_bounce)
    label = Markup("{}: {}").format(each.run.number, moment(each.run.started_at, "minute") or "not sent")
    if bounced:
        label += f", {bounced:,} came back"
    return _stack(label, Counter({status: tally[status] for status in MEANINGS}), most)


def _charts(report: Report, figures: Figures) -> Iterator[dict[str, Any]]:
    if figures.providers:
        yield {
            "title": "By domain",
            "note": "Rows that were tried, by what became of them, and the share that was accepted.",
            "lines": _stacked(figures.providers),
        }
    if report.outcomes_by_variant:
        yield {
            "title": "By variant",
            "note": "Rows of each variant of the message, by what became of them, and the share that was accepted.",
            "lines": _stacked(report.outcomes_by_variant.items()),
        }
    if figures.replies:
        yield {
            "title": "Replies of the servers",
            "note": "All attempts, by reply code.",
            "lines": bars(figures.replies, kind="other"),
        }
    if any(figures.latencies):
        median = figures.median_latency
        yield {
            "title": "Duration of an attempt",
            "note": f"From the envelope to the reply; the median is at most {_say_seconds(median)}." if median else "",
            "lines": bars(_latencies(figures.latencies), kind="other"),
        }
    if len(figures.attempts) > 1:
        tries = [(count(number, "try", "tries"), rows) for number, rows in figures.attempts[:12]]
        yield {"title": "Number of attempts", "note": "Rows by number of attempts.", "lines": bars(tries, kind="other")}
    if figures.slowest and figures.slowest[0][1] >= 1:
        slowest = figures.slowest[0][1]
        lines = [
            bar(address, [("other", seconds)], widest=slowest, number=say_duration(seconds))
            for address, seconds in figures.slowest
        ]
        yield {"title": "The slowest", "note": "", "lines": lines}


def _stacked(counted: Iterable[tuple[str, Counter[Status]]]) -> list[Bar]:
    found = list(counted)
    most = max((counts.total() for _, counts in found), default=1)
    return [_stack(label, counts, most) for label, counts in found]


def _stack(label: object, counts: Counter[Status], widest: float) -> Bar:
    """A line of rows by status, with the share that is accepted."""
    parts = [(status.value, counts[status]) for status in MEANINGS if counts[status]]
    share = say_share(counts[Status.ACCEPTED], counts.total())
    return bar(label, parts, widest=widest, number=f"{counts.total():,}", share=share)


def _latencies(counts: Sequence[int]) -> list[tuple[str, int]]:
    """The classes from the first to the last that has any."""
    labels = [f"up to {_say_seconds(LATENCIES[0])}"]
    labels += [f"{_say_seconds(low)} to {_say_seconds(high)}" for low, high in pairwise(LATENCIES)]
    labels += [f"over {_say_seconds(LATENCIES[-1])}"]
    used = [number for number, times in enumerate(counts) if times]
    return list(zip(labels, counts, strict=True))[used[0] : used[-1] + 1]


def _say_seconds(seconds: float) -> str:
    return f"{seconds * 1000:g} ms" if seconds < 1 else f"{seconds:g} s"


def _lines_note(figures: Figures) -> str:
    if not figures.left_out:
        return "All rows, those to look at first."
    shown = f"The {MOST_ROWS:,} rows to look at first; {figures.left_out:,} more are in the CSV report"
    return f"{shown}: bulkmail report RUN -o report.csv"
