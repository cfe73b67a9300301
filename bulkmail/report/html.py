"""The report as one page that opens anywhere: no network, no script needed to read it, nothing in it that runs."""

from __future__ import annotations

import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bulkmail.model.returned import GRAVEST_FIRST
from bulkmail.model.status import Status
from bulkmail.model.units import say_duration
from bulkmail.outbox.entries import RowRecord
from bulkmail.outbox.reader import OutboxReader
from bulkmail.report.figures import LATENCIES, MOST_ROWS, Figures, People, Timeline, figures_of
from bulkmail.report.files import replacing
from bulkmail.report.report import Report
from bulkmail.report.returned import came_back, of_passes, of_variants
from bulkmail.report.slowdowns import sentence
from bulkmail.report.source import Source
from bulkmail.report.specimen import specimen_of
from bulkmail.report.text import MEANINGS, copies_of, meaning, rehearsal, rest, say_rows, times
from bulkmail.text import count, printable

MOST_SLOWED = 20  # relays and providers that are named as having slowed the run down
_OUTCOMES = {"accepted": "accepted", "deferred": "deferred", "rejected": "rejected", "in_doubt": "in doubt"}


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
    script, css = _part("page.js"), _part("page.css")
    page = (
        _environment()
        .from_string(_part("page.html"))
        .render(
            name=printable(report.name),
            subtitle=_subtitle(report),
            times=" ".join([times(report), *rest(report)]),
            rehearsal=rehearsal(report) if report.is_rehearsal else "",
            totals=list(_totals(report)),
            timeline=_timeline(figures.timeline),
            charts=list(_charts(report, figures)),
            slowed=_slowed(report),
            returned=[
                *came_back(report.returned, report.accepted),
                *filter(None, [printable(of_variants(report.returned_by_variant))]),
            ],
            passes=of_passes(report.passes),
            lines=figures.lines,
            lines_note=_lines_note(figures),
            message=specimen_of(source.campaign, source.rows()),
            colophon=f"Written by bulkmail from the run {report.run.run_id}, {_moment(report.run.created_at)}.",
            # Both are ours, and neither holds an end of its own element.
            css=Markup(css),  # noqa: S704
            script=Markup(script),  # noqa: S704
            script_hash=f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}",
        )
    )
    with replacing(target) as file:
        file.write(page.encode("utf-8", "replace"))


def _seen_by(people: People, source: Source) -> Iterator[RowRecord]:
    for record in source.unproven_rows():
        people.add(record)
        yield record


def _environment() -> Environment:
    return Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)


def _part(name: str) -> str:
    return files("bulkmail.report").joinpath(name).read_text("utf-8")


def _subtitle(report: Report) -> str:
    source = f" from {printable(report.run.list_name)}" if report.run.list_name else ""
    through = f" through {printable(report.relay)}" if report.relay else ""
    follows = f", a follow-up of {printable(Path(report.run.follows[1]).stem)}" if report.run.follows else ""
    return f"{say_rows(report.messages)}{source}{through}{follows}"


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _totals(report: Report) -> Iterator[dict[str, str]]:
    for status in MEANINGS:
        if report.tally[status]:
            yield {
                "kind": status.value,
                "number": f"{report.tally[status]:,}",
                "word": status.value.replace("_", " "),
                "meaning": meaning(report, status),
            }
    for status, number in copies_of(report.tally).items():
        word = status.value.replace("_", " ")
        yield {"kind": status.value, "number": f"{number:,}", "word": f"copies {word}", "meaning": "To, Cc and Bcc"}


def _slowed(report: Report) -> list[str]:
    run, now = report.run, time.time()
    several = len(run.relays) > 1
    return [
        sentence(slowdown, now, is_running=run.process is not None, has_several=several)
        for slowdown in run.slowdowns[:MOST_SLOWED]
    ]


def _timeline(timeline: Timeline) -> dict[str, Any] | None:
    """The bars, bottom up, in a picture 100 high and one wide for each."""
    if len(timeline.buckets) < 2:
        return None
    highest = max(bucket.total() for bucket in timeline.buckets)
    bars = []
    for x, bucket in enumerate(timeline.buckets):
        top = 100.0
        for kind in _OUTCOMES:
            height = 100 * bucket[kind] / highest
            top -= height
            if height:
                bars.append({"kind": kind, "x": x, "y": f"{top:.2f}", "height": f"{height:.2f}"})
    end = timeline.start + timeline.seconds * len(timeline.buckets)
    seen: Counter[str] = sum(timeline.buckets, Counter())
    return {
        "bars": bars,
        "width": len(timeline.buckets),
        "start": _moment(timeline.start),
        "end": _moment(end),
        "words": f"Tries by outcome, {say_duration(timeline.seconds)} a bar; at most {highest / timeline.seconds:,.1f} "
        "a second.",
        "key": [(kind, word) for kind, word in _OUTCOMES.items() if seen[kind]],
    }


def _charts(report: Report, figures: Figures) -> Iterator[dict[str, Any]]:
    kinds = [(kind, report.returned[kind]) for kind in GRAVEST_FIRST if report.returned[kind]]
    if kinds:
        yield {
            "title": "Bounces and replies",
            "note": "Recipients by what was reported about them after the server accepted the message.",
            "lines": _single([(kind.value.replace("_", " "), number) for kind, number in kinds], kind="rejected"),
        }
    if figures.providers:
        yield {
            "title": "By domain",
            "note": "Attempted rows, by result.",
            "lines": _stacked(figures.providers),
        }
    if report.outcomes_by_variant:
        yield {
            "title": "By variant",
            "note": "Rows of each variant, by result.",
            "lines": _stacked(report.outcomes_by_variant.items()),
        }
    if reasons := report.reasons:
        yield {"title": "Why not", "note": "", "lines": _single(reasons.most_common(12), kind="rejected")}
    if figures.replies:
        yield {
            "title": "Replies of the servers",
            "note": "All attempts, by reply code.",
            "lines": _single(figures.replies, kind="other"),
        }
    if any(figures.latencies):
        median = figures.median_latency
        yield {
            "title": "Duration of an attempt",
            "note": f"From the envelope to the reply; the median is at most {_say_seconds(median)}." if median else "",
            "lines": _single(_latencies(figures.latencies), kind="other"),
        }
    if len(figures.attempts) > 1:
        tries = [(count(number, "try", "tries"), rows) for number, rows in figures.attempts[:12]]
        yield {
            "title": "Number of attempts",
            "note": "Rows by number of attempts.",
            "lines": _single(tries, kind="other"),
        }
    if figures.slowest and figures.slowest[0][1] >= 1:
        lines = [
            {"label": address, "number": say_duration(seconds), "parts": _parts([("other", seconds)], slowest)}
            for slowest in [figures.slowest[0][1]]
            for address, seconds in figures.slowest
        ]
        yield {"title": "The slowest", "note": "", "lines": lines}


def _stacked(providers: Iterable[tuple[str, Counter[Status]]]) -> list[dict[str, Any]]:
    found = list(providers)
    most = max((counts.total() for _, counts in found), default=1) or 1
    return [
        {
            "label": label,
            "number": f"{counts.total():,}",
            "parts": _parts([(status.value, counts[status]) for status in MEANINGS if counts[status]], most),
        }
        for label, counts in found
    ]


def _single(values: Sequence[tuple[str, int]], *, kind: str) -> list[dict[str, Any]]:
    most = max((number for _, number in values), default=1) or 1
    return [{"label": label, "number": f"{n:,}", "parts": _parts([(kind, n)], most)} for label, n in values]


def _parts(values: Iterable[tuple[str, float]], most: float) -> list[dict[str, str]]:
    return [{"kind": kind, "percent": f"{100 * value / most:.2f}"} for kind, value in values]


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
