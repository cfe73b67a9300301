"""Lists of one or two recipients: what their server says of them is theirs, and what it says of us stops the run."""

from __future__ import annotations

import pytest

import bulkmail
from bulkmail.model.retry import Backoff
from bulkmail.testing import ScriptedRelay

MESSAGE = bulkmail.compose(from_="Shop <shop@example.com>", subject="Hello", text="Dear {{ email }},\n")
NO_ONE_NAMED = "554 5.7.1 rejected"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr("bulkmail.model.delivery.REFUSED_BACKOFF", Backoff(first=0.05, longest=0.1))


async def send(relay, number, **more):
    rows = [{"email": f"p{index}@example.com"} for index in range(number)]
    return await bulkmail.send(MESSAGE, rows, relay=f"smtp://{relay.host}:{relay.port}?tls=off&connections=1", **more)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("rcpt", "550 5.1.1 User unknown"),
        ("rcpt", "550 no such user"),
        ("rcpt", "550 rejected"),
        ("rcpt", "553 sorry"),
        ("rcpt", "550 5.2.2 over quota"),
        ("rcpt", "550 5.7.1 <p0@example.com>: Recipient address rejected: Access denied"),
        ("rcpt", "550 5.7.1 blocked by the recipient"),
        ("rcpt", NO_ONE_NAMED),
        ("rcpt", "550 5.7.1"),
        ("end", NO_ONE_NAMED),
    ],
)
async def test_refusal_of_a_short_lists_recipients_rejects_them(number, stage, reply):
    async with ScriptedRelay(**{stage: reply}) as relay:
        report = await send(relay, number)
    assert [code for _, code, _ in report.failed] == [int(reply[:3])] * number
    assert report.exit_code == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("reply", ["552 mailbox full", "450 4.2.1 busy"])
async def test_short_lists_recipient_that_cannot_take_it_now_stays_due(number, reply):
    async with ScriptedRelay(rcpt=reply) as relay:
        report = await send(relay, number, pace=bulkmail.Pace(wait=0.0))
    assert (report.accepted, report.failed, report.tally.open) == (0, [], number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    "reply",
    [
        "554 5.7.1 Relay access denied",
        "550 5.7.1 Authentication required",
        "550 5.7.26 SPF check of shop.example failed",
        "550 5.7.1 go away, spammer",  # a hint at us
    ],
)
async def test_refusal_of_us_stops_a_short_list_and_rejects_no_recipient(number, reply):
    async with ScriptedRelay(rcpt=reply) as relay:
        with pytest.raises(bulkmail.SendingStopped) as stopped:
            await send(relay, number)
    assert stopped.value.report.failed == []
    assert stopped.value.report.tally.open == number


@pytest.mark.slow
async def test_policy_that_names_no_one_rejects_the_one_that_got_it_while_others_are_accepted():
    async with ScriptedRelay(rcpt=lambda path: NO_ONE_NAMED if path.startswith("p7@") else None) as relay:
        report = await send(relay, 20)
    assert (report.accepted, [address for address, *_ in report.failed]) == (19, ["p7@example.com"])


async def test_policy_that_names_no_one_stops_a_list_at_the_third_recipient():
    async with ScriptedRelay(rcpt=NO_ONE_NAMED) as relay:
        with pytest.raises(bulkmail.SendingStopped) as stopped:
            await send(relay, 20)
    assert (stopped.value.report.failed, stopped.value.report.tally.open) == ([], 20)
