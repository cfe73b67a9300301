"""`send_at` and `timezone` as a campaign file and flags say them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkmail.model.errors import ConfigError
from bulkmail.model.schedule import Schedule
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.settings import load

TOP = 'recipients = "people.csv"\n[message]\nfrom = "a@shop.example"\nsubject = "Hi"\ntext = { inline = "Hi" }\n'


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    (tmp_path / "people.csv").write_text("email,when\nann@example.com,09:00\n")
    return tmp_path


def schedule_of(folder: Path, sending: str, message: str = "", **flags: str) -> Schedule | None:
    (folder / "campaign.toml").write_text(f"{TOP}{message}[sending]\n{sending}")
    return load(str(folder), Overrides(**flags)).schedule


@pytest.mark.parametrize(
    ("sending", "expected"),
    [
        ("", None),
        ('send_at = "09:00"', Schedule("09:00")),
        ("send_at = 09:00:00", Schedule("09:00:00")),
        ("send_at = 2026-12-24T09:00:00", Schedule("2026-12-24T09:00:00")),
        ("send_at = 2026-12-24T09:00:00+01:00", Schedule("2026-12-24T09:00:00+01:00")),
        ('send_at = "column:when"\ntimezone = "column:tz"', Schedule("column:when", "column:tz")),
        ('send_at = "2001-01-01 09:00"', Schedule("2001-01-01 09:00")),  # a run that goes on may be old
    ],
)
def test_campaign_file_says_when(campaign: Path, sending: str, expected: Schedule | None) -> None:
    assert schedule_of(campaign, sending) == expected


def test_flags_come_before_the_file_and_the_zone_of_the_message_is_the_usual_one(campaign: Path) -> None:
    found = schedule_of(campaign, 'send_at = "09:00"', 'timezone = "Asia/Tokyo"\n', send_at="10:00", timezone="UTC")
    assert found == Schedule("10:00", "UTC", "Asia/Tokyo")


@pytest.mark.parametrize(
    ("sending", "fault"),
    [
        ('send_at = "soon"', r"campaign\.toml:7: .*'soon' is not a time: expected"),
        ('send_at = "2026-12-24"', "says no time of day"),
        ('send_at = ""', "names no column"),
        ('send_at = "column:"', "names no column"),
        ('send_at = "09:00"\ntimezone = "Europe/Wien"', r'campaign\.toml:8: .*"Europe/Wien" is not a time zone'),
        ('timezone = "UTC"', r"campaign\.toml:7: .*has no effect without send_at"),
        ("send_at = 9", "expected a text in quotes"),
    ],
)
def test_fault_names_file_and_line(campaign: Path, sending: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        schedule_of(campaign, sending)
