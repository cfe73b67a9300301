"""A campaign goes into a real mailbox server by LMTP, and all of it is there, once, when it is read over IMAP."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

import bulkmail
from tests.servers.dovecot_lmtp import Mailboxes, run_dovecot

pytestmark = pytest.mark.slow

PEOPLE = [f"p{number}@example.com" for number in range(60)]
BOSSES = ["boss0@example.com", "boss1@example.com"]


@pytest.fixture(scope="module")
def mailboxes() -> Iterator[Mailboxes]:
    with run_dovecot([*PEOPLE, *BOSSES]) as server:
        yield server


@pytest.mark.real
@pytest.mark.timeout(60)
@pytest.mark.parametrize("way", ["tcp", "socket"])
async def test_messages_and_their_copies_are_in_the_mailboxes_once(mailboxes: Mailboxes, way: str) -> None:
    where = f"lmtp://{mailboxes.host}:{mailboxes.port}" if way == "tcp" else f"lmtp://{mailboxes.socket_path}"
    campaign = bulkmail.compose(
        from_="Grüner Laden <shop@example.com>",
        subject=f"Grüße by {way}, {{{{ email }}}}",
        text="Dear {{ email }},\n.\n..and a dot.\n",
        cc="{{ boss }}",
    )
    rows = [
        {"email": person, "boss": "nobody@example.com" if number % 10 == 3 else BOSSES[number % 2]}
        for number, person in enumerate(PEOPLE)
    ]
    report = await bulkmail.Mailer(f"{where}?connections=4").send(campaign, rows)
    # A copy's refusal is the copy's: each person got the message, and the unknown boss is named once.
    assert [(path, code) for path, code, _ in report.failed] == [("nobody@example.com", 550)], mailboxes.log
    assert report.accepted == len(PEOPLE)
    kept = {address: await asyncio.to_thread(mailboxes.read, address) for address in (*PEOPLE, *BOSSES)}
    subjects = {
        address: Counter(str(campaign["Subject"]) for campaign in messages if f" by {way}," in str(campaign["Subject"]))
        for address, messages in kept.items()
    }
    for person in PEOPLE:
        assert subjects[person] == {f"Grüße by {way}, {person}": 1}
    for boss in BOSSES:
        assert subjects[boss] == {f"Grüße by {way}, {row['email']}": 1 for row in rows if row["boss"] == boss}
    campaign = next(campaign for campaign in kept[PEOPLE[5]] if f" by {way}," in str(campaign["Subject"]))
    assert campaign.get_content().replace("\r\n", "\n") == f"Dear {PEOPLE[5]},\n.\n..and a dot.\n"
    assert campaign["Cc"] == BOSSES[1]
    assert campaign["Return-Path"] == "<shop@example.com>"
