"""`bulkmail report`: what became of every row."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bulkmail.cli.words import screen_width
from bulkmail.config.runs import find_run
from bulkmail.report.csv import write_csv
from bulkmail.report.html import write_html
from bulkmail.report.json import write_json
from bulkmail.report.report import Report
from bulkmail.report.text import styled, summary

WRITERS = {"csv": write_csv, "json": write_json, "html": write_html}
EPILOG = """\b
Examples:
  bulkmail report spring
  bulkmail report spring -o spring.csv
  bulkmail report spring -o spring.html
  bulkmail report spring --format json | jq .totals
"""


@click.command(epilog=EPILOG)
@click.argument("run", default=".")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["text", *WRITERS]),
    help="Default: what FILE's name ends in, else text.  CSV and JSON have every row, HTML is a page to look at.",
)
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), metavar="FILE", help="Write it here.")
def command(run: str, kind: str | None, target: Path | None) -> None:
    """Say what became of every row.

    RUN is an outbox file, or a campaign (its latest run); without one, the latest here.  The CSV report is the list
    with columns added, and can be sent from again.
    """
    report = Report.read(find_run(run))
    kind = kind or _kind_of(target)
    if kind != "text":
        with report.source() as source:
            WRITERS[kind](source, target if target is not None else sys.stdout.buffer)
    elif target is not None:
        target.write_text(summary(report), encoding="utf-8")
    elif sys.stdout.isatty():
        _print_styled(report)
    else:
        click.echo(summary(report), nl=False)
    if target is not None:
        click.echo(f"written to {target}", err=True)


def _kind_of(target: Path | None) -> str:
    suffix = target.suffix.lower().removeprefix(".") if target is not None else ""
    return suffix if suffix in WRITERS else "text"


def _print_styled(report: Report) -> None:
    from rich.console import Console

    Console().print(styled(report, width=screen_width()), soft_wrap=True)
