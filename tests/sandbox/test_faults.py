"""FaultInjector on request: as much as was asked for, the same for the same seed, and told honestly."""

from __future__ import annotations

from pathlib import Path

import aiosmtplib
import pytest

from bulkmail.model.rate import Rate
from bulkmail.sandbox.faults import FaultInjector, Faults
from bulkmail.sandbox.inbox import Inbox
from bulkmail.sandbox.server import Sandbox

MESSAGE = b"From: shop@example.com\r\nTo: ann@example.org\r\nSubject: Hello\r\n\r\nDear Ann\r\n"
PEOPLE = [f"p{n}@example.org" for n in range(2_000)]


def refused(seed: int, people: list[str]) -> set[str]:
    trouble = FaultInjector(Faults(reject=0.05, seed=seed))
    return {address for address in people if trouble.at_recipient(address)}


def test_seed_hits_the_same_addresses_in_whatever_order() -> None:
    assert refused(7, PEOPLE) == refused(7, PEOPLE[::-1])
    assert refused(7, PEOPLE) != refused(8, PEOPLE)
    assert 60 <= len(refused(7, PEOPLE)) <= 140


def test_what_is_deferred_is_taken_in_the_end() -> None:
    trouble = FaultInjector(Faults(defer=0.5))
    left, rounds = PEOPLE, 0
    while left:
        left = [address for address in left if trouble.at_recipient(address).startswith("451")]
        rounds += 1
    assert 3 < rounds < 40


def test_throttle_puts_off_what_is_more() -> None:
    trouble = FaultInjector(Faults(throttle=Rate.parse("10/s")))
    taken = [not trouble.at_sender(now / 100) for now in range(1_000)]
    assert sum(taken) == pytest.approx(100, abs=1)
    assert trouble.throttled == 1_000 - sum(taken)


def client(sandbox: Sandbox) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(
        hostname=sandbox.host, port=sandbox.port, local_hostname="client.example", use_tls=False, start_tls=False
    )


async def test_sandbox_refuses_for_good_and_keeps_nothing(tmp_path: Path) -> None:
    async with Sandbox(tmp_path, faults=Faults(reject=1.0)) as sandbox, client(sandbox) as smtp:
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as caught:
            await smtp.sendmail("shop@example.com", ["ann@example.org"], MESSAGE)
        assert caught.value.recipients[0].code == 550
    assert len(Inbox(tmp_path)) == 0
    assert sandbox.trouble.summary() == ["1 rejected"]


async def test_sandbox_hangs_up_without_an_answer_and_counts_what_it_kept(tmp_path: Path) -> None:
    async with Sandbox(tmp_path, faults=Faults(drop_after_dot=1.0)) as sandbox:
        for number in range(20):
            smtp = client(sandbox)
            await smtp.connect()
            with pytest.raises(aiosmtplib.SMTPServerDisconnected):
                await smtp.sendmail("shop@example.com", [f"p{number}@example.org"], MESSAGE)
            smtp.close()
    kept = len(Inbox(tmp_path))
    assert 2 <= kept <= 18
    assert sandbox.trouble.summary() == [f"20 left without a reply ({kept} of them kept)"]
    assert sandbox.kept == kept
