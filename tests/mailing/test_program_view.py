"""What a program sees of a run: the progress while it sends, and the report as text, object and JSON."""

from __future__ import annotations

import json

import pytest

import bulkmail
from bulkmail.model import errors
from bulkmail.testing import ScriptedRelay, ThreadedRelay

CAMPAIGN = bulkmail.compose(from_="a@example.com", subject="Hello", text="Dear {{ name }}")
PEOPLE = [{"email": f"p{n}@example.com", "name": f"P{n}"} for n in range(4)]


@pytest.mark.slow
async def test_progress_counts_every_outcome_and_ends_with_the_report() -> None:
    seen: list[bulkmail.SendingProgress] = []
    async with ScriptedRelay(rcpt=["550 5.1.1 no such user", None]) as relay:
        mailer = bulkmail.Mailer(f"smtp://{relay.host}:{relay.port}?tls=off", suppressions=None)
        report = await mailer.send(CAMPAIGN, PEOPLE, progress=seen.append)
    assert [each.done for each in seen] == sorted({each.done for each in seen} | {4})  # several may come together
    assert {each.total for each in seen} == {4}
    assert (seen[-1].accepted, seen[-1].rejected, seen[-1].remaining) == (3, 1, 0.0)
    assert (report.accepted, len(report.failed)) == (3, 1)


@pytest.mark.slow
async def test_progress_says_why_nothing_is_sent_and_what_is_tried_again() -> None:
    seen: list[bulkmail.SendingProgress] = []
    async with ScriptedRelay(rcpt=["451 4.7.1 greylisted, try again in 1 second", None]) as relay:
        pace = bulkmail.Pace(retry=bulkmail.RetryPolicy(schedule=(0.3,)))
        mailer = bulkmail.Mailer(f"smtp://{relay.host}:{relay.port}?tls=off", pace=pace, suppressions=None)
        await mailer.send(CAMPAIGN, PEOPLE[:1], progress=seen.append)
    assert (seen[0].done, seen[0].deferred) == (0, 1)
    assert any(each.waiting for each in seen)
    assert (seen[-1].done, seen[-1].deferred, seen[-1].accepted, seen[-1].waiting) == (1, 0, 1, "")


async def test_what_progress_raises_ends_the_run() -> None:
    def fail(now: bulkmail.SendingProgress) -> None:
        raise LookupError(now.done)

    with pytest.raises(LookupError):
        await bulkmail.send(CAMPAIGN, PEOPLE, relay="null:", progress=fail)


def test_report_is_text_object_and_json() -> None:
    report = bulkmail.send_sync(CAMPAIGN, [*PEOPLE, {"email": "nobody", "name": "?"}], relay="null:", allow_empty=True)
    assert "4 accepted" in str(report) and "1 invalid" in str(report)
    found = report.as_dict()
    assert found == json.loads(report.as_json())
    assert (found["totals"]["accepted"], found["totals"]["invalid"], len(found["rows"])) == (4, 1, 5)
    assert "rows" not in report.as_dict(rows=False)
    assert report.as_dict(rows=False)["totals"] == found["totals"]


def test_every_exception_is_exported_and_a_bulkmail_error() -> None:
    internal = {"IllegalMove"}  # a bug of ours
    ours = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}
    assert ours - internal <= set(bulkmail.__all__)
    for name in (*ours, "NothingToSend", "SendingStopped"):
        assert name in internal or issubclass(getattr(bulkmail, name), bulkmail.BulkmailError)


@pytest.mark.slow
def test_threaded_relay_serves_a_program_without_a_loop() -> None:
    with ThreadedRelay(rcpt=["550 5.1.1 no such user", None]) as relay:
        sent = bulkmail.send_sync(CAMPAIGN, PEOPLE[:2], relay=relay.url)
    assert len(sent.failed) == 1
    assert [message["To"] for message in relay.inbox] == ["P1 <p1@example.com>"]
    assert relay.scripted.violations == []


def test_threaded_relay_serves_once_more() -> None:
    relay, ports = ThreadedRelay(), []
    for _ in range(5):
        with relay:
            ports.append(relay.scripted.port)
    assert all(ports)
