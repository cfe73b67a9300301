"""`bulkmail report`: what became of every row."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bulkmail.cli.choices import DatedFile
from bulkmail.cli.in_store import StorePlace, look, store_option
from bulkmail.cli.notifying import notify_if_killed
from bulkmail.cli.words import screen_width
from bulkmail.mailing.intake import opened_campaign
from bulkmail.mailing.run_record import Targets
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.report.csv_report import write_csv
from bulkmail.report.html import write_html
from bulkmail.report.json_report import write_json
from bulkmail.report.recognising import text_mark
from bulkmail.report.report import Report
from bulkmail.report.report_files import replacing
from bulkmail.report.run_source import Source
from bulkmail.report.text_report import styled, summary
from bulkmail.settings.runs import find_run, names_outbox

WRITERS = {"csv": write_csv, "json": write_json, "html": write_html}
EPILOG = """\b
Examples:
  bulkmail report spring
  bulkmail report spring -o spring.csv
  bulkmail report spring -o spring.html
  bulkmail report spring --format json | jq .totals
  bulkmail report spring --store -o spring.csv
"""


@click.command(epilog=EPILOG)
@click.argument("run", default=".")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["text", *WRITERS]),
    help="Default: by the extension of FILE, else text.  CSV and JSON list every row.",
)
@click.option("-o", "--output", "target", type=DatedFile(), metavar="FILE", help="Write to this file; {date} is today.")
@store_option
def command(run: str, kind: str | None, target: Path | None, store: str | None) -> None:
    """Report the result of every row.

    RUN is a campaign, with all its passes and what came back since, or the outbox of one run; without it, the latest
    here; with --store the name of a campaign there.  The CSV report is the list with columns added, and can be sent
    from again.
    """
    if store is not None:
        _of_store(StorePlace(store), run, kind, target)
        return
    path = find_run(run)
    if target is not None:
        with OutboxReader.open(path) as reader:
            Targets(reports=(target,), inputs=reader.info.files, takes_any_format=True).check()
    with opened_campaign(path, alone=names_outbox(run)) as (source, notices):
        for notice in notices:
            click.echo(f"Note: {notice}", err=True)
        _write(source, kind or _kind_of(target), target)
    if target is not None:
        click.echo(f"written to {target}", err=True)
    notify_if_killed(path)


def _of_store(place: StorePlace, name: str, kind: str | None, target: Path | None) -> None:
    def write(reader: OutboxReader, source: Source, lines: list[str]) -> None:
        if target is not None:
            Targets(reports=(target,), inputs=reader.info.files, takes_any_format=True).check()
        _write(source, kind or _kind_of(target), target)

    look(place, name, write)
    if target is not None:
        click.echo(f"written to {target}", err=True)


def _write(source: Source, kind: str, target: Path | None) -> None:
    if kind != "text":
        WRITERS[kind](source, target if target is not None else sys.stdout.buffer)
        return
    report = Report.of(source)
    if target is not None:
        with replacing(target) as file:
            file.write(f"{summary(report)}\n{text_mark(report.run.run_id)}\n".encode())
    elif sys.stdout.isatty():
        _print_styled(report)
    else:
        click.echo(summary(report), nl=False)


def _kind_of(target: Path | None) -> str:
    suffix = target.suffix.lower().removeprefix(".") if target is not None else ""
    return suffix if suffix in WRITERS else "text"


def _print_styled(report: Report) -> None:
    from rich.console import Console

    Console().print(styled(report, width=screen_width()), soft_wrap=True)
