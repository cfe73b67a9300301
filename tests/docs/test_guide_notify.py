"""The guide's object of a notification is the one that is sent."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from bulkmail.mailing.notifying import VERSION, NotifiedRun, make_notification
from bulkmail.model.notification import NotifyEvent
from bulkmail.model.tally import Status, Tally
from bulkmail.settings.schema import read_user_file

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
SECTION = GUIDE.partition("### Notifications\n")[2].partition("\n## ")[0]


def test_guide_object_of_a_notification_is_what_is_sent() -> None:
    (text,) = re.findall(r"^```json\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    example = json.loads(text)
    data = example["data"]
    run = NotifiedRun(data["name"], data["run_id"], data["outbox"], data["is_rehearsal"])
    tally = Tally(1207, {Status.ACCEPTED: 1204, Status.REJECTED: 3})
    found = make_notification(NotifyEvent.FINISHED, run, tally, now=1_796_117_400.0, exit_code=1).content
    found["data"]["host"] = data["host"]
    for counts in ("totals", "copies"):
        sent = found["data"].pop(counts)
        assert data.pop(counts).items() <= sent.items()
    assert found == example
    assert f'"version": {VERSION}' in text


def test_guide_names_every_type_of_a_notification() -> None:
    assert all(f"`run.{event.value}`" in SECTION for event in NotifyEvent)


def test_guide_table_of_notify_holds_for_the_user_as_well() -> None:
    (table,) = re.findall(r"^```toml\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    assert read_user_file(tomllib.loads(table), {})[1] == []
