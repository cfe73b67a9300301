"""The guide's example of planned times comes out as it says."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bulkmail.model.schedule import Schedule, read_moment
from bulkmail.settings.parsers import find_zone
from bulkmail.settings.settings import load

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
SECTION = GUIDE.partition("### Planned times\n")[2].partition("\n## ")[0]
BEFORE = datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()


def test_guide_example_of_planned_times_comes_out_as_it_says(tmp_path: Path) -> None:
    settings, rows, said = re.findall(r"^```(?:csv)?\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    (tmp_path / "people.csv").write_text(rows)
    (tmp_path / "campaign.toml").write_text(
        'relay = "null:"\nrecipients = "people.csv"\n[message]\nfrom = "a@shop.example"\nsubject = "Hi"\n'
        f'text = """\nHi\n"""\n{settings}'
    )
    schedule = load(str(tmp_path)).schedule
    assert schedule == Schedule("2026-12-24 09:00", "column:tz")
    lines = [dict(zip(("email", "name", "tz"), line.split(","), strict=True)) for line in rows.splitlines()[1:]]
    due = [schedule.due_at(fields, find_zone, now=BEFORE) for fields in lines]
    first, last = (datetime.fromtimestamp(at, UTC) for at in (min(due), max(due)))
    assert said == (
        f"Planned: 3 from Thu 24 December {first:%H:%M} UTC to Thu 24 December {last:%H:%M} UTC; Europe/Vienna 1,"
        " America/New_York 1, Asia/Tokyo 1\n"
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-12-24 09:00", "2026-12-24T08:00"),
        ("2026-12-24T09:00:30", "2026-12-24T08:00:30"),
        ("2026-12-24 09:00+01:00", "2026-12-24T08:00"),
        ("09:00", "2026-12-02T08:00"),
        ("46380.375", "2026-12-24T08:00"),
        ("now", "2026-12-01T12:00"),
    ],
)
def test_guide_names_times_that_are_read_so(written: str, expected: str) -> None:
    assert f"`{written}`" in SECTION
    found = read_moment(written, find_zone("Europe/Vienna"), find_zone, now=BEFORE)
    assert found == datetime.fromisoformat(expected).replace(tzinfo=UTC).timestamp()
