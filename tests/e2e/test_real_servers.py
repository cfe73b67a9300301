"""Real mail servers take a thousand letters each, and whom they do not know is told in their words."""

from __future__ import annotations

import asyncio
import csv
from collections import Counter

import pytest

from tests.e2e.commands import run, write_campaign
from tests.servers.kept import UNKNOWN, MailServer

NAMES = ["Ann", "José", "Łukasz", "Ольга", "佐藤", "محمد", "Zoë"]


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("server", ["postfix", "exim"])
async def test_thousand_letters_are_accepted_and_unknown_users_rejected(server, request, tmp_path):
    real: MailServer = request.getfixturevalue(server)
    people = [f"{UNKNOWN if n % 20 == 7 else 'p'}{n}@example.com" for n in range(1000)]
    known = [person for person in people if not person.startswith(UNKNOWN)]
    campaign = write_campaign(tmp_path / "spring", people, relay=real.url)
    names = {person: NAMES[n % len(NAMES)] for n, person in enumerate(people)}
    rows = "".join(f"{person},{name}\n" for person, name in names.items())
    (campaign / "people.csv").write_text(f"email,first_name\n{rows}", encoding="utf-8")
    result = await run("send", campaign, "--yes", "--progress", "none", cwd=tmp_path)
    assert result.code == 1, result.err + real.tail()
    with (campaign / "runs" / "spring-report.csv").open(newline="", encoding="utf-8") as file:
        report = list(csv.DictReader(file))
    assert Counter(row["delivery_status"] for row in report) == {"accepted": 950, "rejected": 50}
    for row in report:
        is_known = not row["email"].startswith(UNKNOWN)
        assert row["delivery_status"] == ("accepted" if is_known else "rejected")
        if not is_known:
            assert row["delivery_code"] == "550"
            assert "unknown" in row["delivery_reply"].lower() or "unrouteable" in row["delivery_reply"].lower()
    await asyncio.to_thread(real.wait_for, len(known), seconds=60)
    assert real.recipients() == dict.fromkeys(known, 1)
    for message in real.kept():
        name = names[str(message[real.recipient_header])]
        assert message["Subject"] == f"Hello {name}"
        assert message.get_content().startswith(f"Dear {name},")
