"""How much processor time the checks takes for a list, against rendering the same messages.

Run from a checkout: python benchmarks/check.py [ROWS]
"""

from __future__ import annotations

import asyncio
import csv
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bulkmail.checks.tried_messages import MessageCheck
from bulkmail.cli.program import COLLECTED_AFTER
from bulkmail.mailing.ordering import check
from bulkmail.message.compose.composer import Composer
from bulkmail.model.campaign import NO_KEYS
from bulkmail.model.recipient import Recipient
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.recipients.list_source import open_list
from bulkmail.settings.settings import load

ROWS = 20_000
ROUNDS = 3
COLUMNS = ("email", "first_name", "last_name", "city", "plan", "years")
SUBJECT = "{{ first_name }}, what is new in {{ city }}"
TEXT = "Dear {{ first_name }} {{ last_name }},\n\n" + "this is one of the lines that everyone gets to read.\n" * 34
TEXT += "{% if plan == 'gold' %}Thank you for {{ years }} years with us.\n{% else %}Have you seen gold?\n{% endif %}"
HTML = "<!doctype html>\n<html><body>\n<h1>Dear {{ first_name }} {{ last_name }}</h1>\n"
HTML += '<p style="color: #333">This is one of the lines that everyone gets.</p>\n' * 24
HTML += "{% for item in ['one', 'two', 'three'] %}<p>{{ item }} for {{ city }}</p>\n{% endfor %}</body></html>\n"


def make(folder: Path, rows: int) -> None:
    """A campaign with a list of this many rows."""
    (folder / "campaign.toml").write_text(
        'relay = "null:"\nrecipients = "people.csv"\n[message]\nfrom = "News <news@example.com>"\n'
        f'subject = "{SUBJECT}"\ntext = "message.txt"\nhtml = "message.html"\n',
        encoding="utf-8",
    )
    (folder / "message.txt").write_text(TEXT, encoding="utf-8")
    (folder / "message.html").write_text(HTML, encoding="utf-8")
    names = ("Ann", "Zoë", "Müller", "Bob", "Łukasz", "Carol", "Dave", "Eve")
    with (folder / "people.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number in range(rows):
            city, plan = "Graz" if number % 2 else "Wien", "gold" if number % 3 else "free"
            address = f"person{number}@example{number % 500}.com"
            writer.writerow([address, names[number % 8], f"Example {number}", city, plan, number % 9])


def seconds(run: Callable[[], None]) -> float:
    """The processor time that it takes."""
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    """Prints the times and their ratio."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    gc.set_threshold(COLLECTED_AFTER)  # as the command does
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), rows)
        settings = load(folder)
        with open_list(settings.list_source, ListOptions()) as opened:
            people = [row for row in opened if isinstance(row, Recipient)]
        composer = Composer(settings.campaign, run_id="benchmark")

        names = frozenset(COLUMNS)

        def render() -> None:
            for recipient in people:
                composer.render(recipient)

        def look() -> None:
            messages = MessageCheck(names, printed=names, total=rows)
            messages.bad_rows(enumerate(people, 1), composer)

        def whole() -> None:
            checked = asyncio.run(check(settings, keys=NO_KEYS, reading=lambda rows: None, checking=lambda rows: None))
            assert checked.tally.open == rows, checked.findings

        # In turns, because a machine that is busy with something else is unfair to anyone who is at work.
        times = [[seconds(run) for run in (render, look, whole)] for _ in range(ROUNDS)]
    rendered, looked, checked = (statistics.median(each) for each in zip(*times, strict=True))
    print(f"{rows:,} rows, text {len(TEXT):,} and HTML {len(HTML):,} characters, median of {ROUNDS}")
    print(f"rendered                               {rendered / rows * 1e6:7.1f} µs a row")
    print(f"tried and looked at                    {looked / rows * 1e6:7.1f} µs, {looked / rendered:.2f} times")
    print(f"bulkmail check, list and outbox in it  {checked / rows * 1e6:7.1f} µs, {checked / rendered:.2f} times")


if __name__ == "__main__":
    main()
