"""Messages that other processes make ahead are those that the sending process makes, and nothing depends on them."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

import bulkmail
from bulkmail.engine.contracts import Notice
from bulkmail.mailing import composing
from bulkmail.mailing.composing import ComposingProcesses, SignedMessage
from bulkmail.message.compose.composer import Composer
from bulkmail.model.campaign import Attachment, BounceKey, Template
from bulkmail.model.pace import Pace
from bulkmail.model.recipient import Address, Place, Recipient
from bulkmail.model.relay import Secret
from bulkmail.outbox.entries import Entry
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.testing import ScriptedRelay
from tests.signing import RSA, KeyRing

HTML = "<p>{% for n in range(3) %}{% if n %}<b>{{ name | upper }} {{ n }}</b>{% endif %}{% endfor %}</p>"
NAMES = ("Ann", "Jürgen Groß", 'O"Neil, Bob', "李雷", "")
FILE = Attachment("a.bin", "application/octet-stream", bytes(range(256)) * 40)
NOW = 1_800_000_000


def message(**changes: object):
    campaign = bulkmail.compose(from_="Shop <shop@shop.example>", subject="Hi {{ name }}", text="Hello", html=HTML)
    return replace(campaign, **changes)


def filled(path: Path, campaign, *, rows: int) -> Outbox:
    outbox = Outbox.create(path, campaign=campaign)
    outbox.record(
        Entry(Recipient(Address(f"p{n}", f"x{n % 3}.example"), name := NAMES[n % 5], {"name": name}, Place("l.csv", n)))
        for n in range(1, rows + 1)
    )
    outbox.finish_loading()
    return outbox


class Asking:
    """Asks for the messages of an outbox, one after another, as a run does."""

    def __init__(self, outbox: Outbox, keys, *, hook=None, number: int = 1) -> None:
        self.outbox = outbox
        self.composer = Composer(outbox.campaign, run_id=outbox.run_id, keys=keys, on_message=hook)
        self.others = ComposingProcesses(number, composing._setup(outbox, keys, hook), self.composer)
        self.jobs = OutboxReader.over(outbox).open_between(0, 1 << 40, NOW)
        self.hits = 0

    def ask(self, *, until: int, date: int | None = None) -> None:
        """Holds each message that comes against the one that is made here, until this many have come."""
        end = time.monotonic() + 15
        for job in self.jobs:
            seconds = int(time.time()) if date is None else date
            at = job.delivery
            message = self.others.take(at.id, seconds)
            if message is not None:
                self.hits += 1
                ours = self.composer.compose(
                    job.recipient, row=at.row, forward_path=at.forward_path, date=seconds, delivery=at.id
                )
                assert (message.envelope, message.message_id, tuple(message.buffers)) == (
                    *(ours.envelope, ours.message_id, tuple(ours.buffers)),
                )
                assert (message.needs_smtputf8, message.is_8bit) == (ours.needs_smtputf8, ours.is_8bit)
                assert message.digest() == ours.digest()
            if self.hits >= until or time.monotonic() > end:
                return
            time.sleep(0.002)


@pytest.fixture(scope="module")
def ring() -> KeyRing:
    return KeyRing()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "signed", "token", "file"])
def test_messages_made_ahead_are_those_made_here(tmp_path, ring, kind):
    changes = {
        "plain": {},
        "signed": {"dkim": (RSA,)},
        "token": {"reverse_path": "b+{bounce}@shop.example", "html": None},
        "file": {"attachments": (FILE,), "to_name": Template("to_name", "{{ name }}")},
    }[kind]
    keys = replace(ring.keys_for(*changes.get("dkim", ())), bounce=BounceKey(7, Secret("ab" * 16)))
    with filled(tmp_path / "run.outbox", message(**changes), rows=4_000) as outbox:
        asking = Asking(outbox, keys)
        try:
            asking.ask(until=100)
            assert asking.hits == 100 and not asking.others.trouble
            assert all(each.date for each in asking.others._made.values())
        finally:
            asking.others.stop()
        assert asking.others.pids == [] and not asking.others._made


@pytest.mark.slow
def test_date_is_that_of_the_first_attempt_whenever_the_message_was_made(tmp_path):
    with filled(tmp_path / "run.outbox", message(), rows=3_000) as outbox:
        asking = Asking(outbox, bulkmail.model.campaign.NO_KEYS)
        try:
            asking.ask(until=50, date=NOW)
            assert asking.hits == 50
        finally:
            asking.others.stop()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_secrets_are_in_neither_arguments_nor_environment(tmp_path, ring, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "tell-nobody")
    keys = replace(ring.keys_for(RSA), bounce=BounceKey(7, Secret("ab" * 16)))
    with filled(tmp_path / "run.outbox", message(dkim=(RSA,)), rows=200) as outbox:
        asking = Asking(outbox, keys, hook=shout)
        try:
            deadline = time.monotonic() + 10
            while not asking.others._last and time.monotonic() < deadline:
                time.sleep(0.02)
            (pid,) = asking.others.pids
            seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        finally:
            asking.others.stop()
    assert asking.others._last == 200
    pem = keys.dkim[0].reveal().splitlines()[1]
    for secret in ("tell-nobody", keys.unsubscribe.reveal(), "ab" * 16, pem):
        assert secret.encode() not in seen
        assert secret not in repr(composing._setup(outbox, keys, shout))


def shout(message):
    """A hook that another process can import, if it finds this file."""
    message.replace_header("Subject", "LOUD")
    return message


def test_hook_is_in_another_process_if_it_can_be_imported_by_name(tmp_path):
    assert composing._name_of(shout) == f"{__name__}:shout"
    for hook in (lambda message: message, _local_hook(), shout.__get__("x")):
        assert composing._name_of(hook) == ""
    composer = Composer(message(), run_id="r")
    with filled(tmp_path / "run.outbox", message(), rows=10) as outbox:
        assert composing._number_of(outbox, composer, 3, hook=shout) == 2
        assert composing._number_of(outbox, composer, 3, hook=_local_hook()) == 0
    with filled(None, message(), rows=10) as outbox:
        assert composing._number_of(outbox, composer, 3, hook=None) == 0


def _local_hook():
    def hook(message):
        return message

    return hook


@pytest.mark.parametrize(
    ("cores", "rows", "processes", "expected"),
    [(2, 9, 0, 0), (2, 10, 0, 1), (1, 10, 0, 0), (2, 10, 1, 0), (1, 5, 4, 3), (64, 10, 0, 1)],
)
def test_number_of_processes_follows_rows_and_cores(tmp_path, monkeypatch, cores, rows, processes, expected):
    monkeypatch.setattr(composing, "MANY", 10)
    monkeypatch.setattr(composing, "usable_cores", lambda: cores)
    with filled(tmp_path / "run.outbox", message(), rows=rows) as outbox:
        assert composing._number_of(outbox, Composer(message(), run_id="r"), processes, hook=None) == expected


def test_several_processes_for_messages_that_take_long_to_sign(tmp_path, monkeypatch, ring):
    monkeypatch.setattr(composing, "MANY", 10)
    monkeypatch.setattr(composing, "usable_cores", lambda: 4)
    composer = Composer(message(dkim=(RSA,)), run_id="r", keys=ring.keys_for(RSA))
    with filled(tmp_path / "run.outbox", message(), rows=10) as outbox:
        assert composing._number_of(outbox, composer, 0, hook=None) == 3


@pytest.mark.slow
def test_what_is_made_ahead_is_bounded_by_count_and_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(composing, "MOST_BYTES", 20_000)
    monkeypatch.setattr(composing, "LONGEST_RANGE", 16)
    with filled(tmp_path / "run.outbox", message(), rows=4_000) as outbox:
        asking = Asking(outbox, bulkmail.model.campaign.NO_KEYS)
        try:
            asking.ask(until=5)
            time.sleep(0.2)
            held = list(asking.others._made.values())
        finally:
            asking.others.stop()
    assert asking.hits == 5
    assert held
    assert sum(len(part) for made in held for part in made.buffers if isinstance(part, bytes)) <= 20_000


@pytest.mark.slow
@pytest.mark.crash
@pytest.mark.parametrize("seed", [1, 2])
async def test_run_goes_on_when_its_composing_processes_are_killed(tmp_path, monkeypatch, seed):
    rng = random.Random(seed)
    started: list[ComposingProcesses] = []
    init = ComposingProcesses.__init__

    def note(self, *arguments):
        init(self, *arguments)
        started.append(self)
        delays = [rng.uniform(0, 1.2) for _ in range(2)]
        threading.Thread(target=lambda: [kill(self, delay) for delay in delays], daemon=True).start()

    def kill(others, delay):
        time.sleep(delay)
        for pid in others.pids[:1]:
            os.kill(pid, 9)

    monkeypatch.setattr(ComposingProcesses, "__init__", note)
    people = [{"email": f"p{n}@x{n % 3}.example", "name": NAMES[n % 5]} for n in range(1_000)]
    path = tmp_path / "run.outbox"
    notices: list[str] = []
    monkeypatch.setattr(composing, "Notice", lambda text, relay: notices.append(text) or Notice(text, relay))
    async with ScriptedRelay() as relay:
        mailer = bulkmail.Mailer(f"smtp://{relay.host}:{relay.port}?tls=off&connections=4", pace=Pace(processes=3))
        report = await mailer.send(message(), people, outbox=path)
        taken = {message.forward_paths[0]: message.content for message in relay.messages}
        assert len(relay.messages) == len(taken) == report.accepted == len(people)
    (others,) = started
    assert others.pids == []
    # Each message is the one that its first attempt's time makes here, whichever process made it.
    with OutboxReader.open(path) as reader:
        composer = Composer(reader.campaign, run_id=reader.run_id)
        records = dict(enumerate(reader.rows(), 1))
        for found in reader.find(rows=list(records)):
            record = records[found.row]
            local, _, domain = record.address.rpartition("@")
            recipient = Recipient(Address(local, domain), record.name, record.fields, record.place)
            ours = composer.compose(
                recipient, row=found.row, forward_path=found.forward_path, date=found.first_at, delivery=found.id
            )
            assert taken[found.forward_path] == b"".join(ours.buffers)
    assert not notices or all("composing process ended" in text for text in notices)


def test_killed_process_is_reported_of_once(tmp_path):
    with filled(tmp_path / "run.outbox", message(), rows=100) as outbox:
        asking = Asking(outbox, bulkmail.model.campaign.NO_KEYS)
        try:
            deadline = time.monotonic() + 10
            while not asking.others.trouble and time.monotonic() < deadline:
                for pid in asking.others.pids:
                    os.kill(pid, 9)
                time.sleep(0.05)
            assert asking.others.trouble.startswith("a composing process ended (signal 9): ")
            assert asking.others.take(1, NOW) is None
        finally:
            asking.others.stop()


@pytest.mark.slow
async def test_cancelled_run_leaves_no_process(tmp_path, monkeypatch):
    started: list[ComposingProcesses] = []
    init = ComposingProcesses.__init__

    def note(self, *arguments):
        started.append(self)
        init(self, *arguments)

    monkeypatch.setattr(ComposingProcesses, "__init__", note)
    with filled(tmp_path / "run.outbox", message(), rows=10) as outbox:
        with anyio.CancelScope() as scope:
            async with composing.composing(
                outbox, keys=bulkmail.model.campaign.NO_KEYS, on_message=None, processes=3, observe=print
            ):
                while len(started[0].pids) < 2:
                    await anyio.sleep(0.01)
                scope.cancel()
                await anyio.sleep(1)
        assert scope.cancelled_caught
        assert started[0].pids == []


@pytest.mark.slow
def test_signed_message_is_not_signed_again(tmp_path, ring):
    keys = ring.keys_for(RSA)
    with filled(tmp_path / "run.outbox", message(dkim=(RSA,)), rows=2_000) as outbox:
        asking = Asking(outbox, keys)
        try:
            asking.ask(until=1)
            signed = next(
                found
                for made in list(asking.others._made.values())
                if (found := asking.others.take(made.delivery, made.date)) is not None
            )
        finally:
            asking.others.stop()
    assert isinstance(signed, SignedMessage)
    assert ring.verifies(b"".join(signed.buffers))
