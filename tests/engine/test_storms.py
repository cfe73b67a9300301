"""However a server refuses, hangs up or talks nonsense, it is not met with connection after connection."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkmail.engine.contracts import DeliveryResult, Ending, Notice, Outlet, Plan
from bulkmail.engine.engine import Engine
from bulkmail.model.pace import Pace
from bulkmail.model.recipient import Address, Place, Recipient
from bulkmail.model.relay import Relay, Secret
from bulkmail.model.route import Route
from bulkmail.model.tally import Status
from bulkmail.model.timing import Hold
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.outbox.sending import OutboxStore
from bulkmail.settings.presets import known_feedback
from bulkmail.smtp.credentials import Credentials
from bulkmail.smtp.opening import Timeouts
from bulkmail.smtp.peer_policy import PeerPolicy
from bulkmail.testing import ManualClock
from tests.connections import Single, results_of
from tests.engine.conftest import compose
from tests.examples import IN_CI

FEEDBACK = known_feedback()
MINUTES = 4
SILENCE = 0.05  # seconds, of the real clock
TLS = ssl.create_default_context()
HANGS_UP, IS_SILENT = "hangs up", "is silent"
ANSWERS = [
    "421 4.7.0 Rate limit exceeded, slow down",
    "421 4.4.5 Server busy, try again later.",
    "421 4.7.0 Error: too many errors",
    "421 Service not available, closing transmission channel.",
    "421 4.7.0 Too many connections",
    "421 4.7.0 Too many messages on this connection",
    "450 4.7.1 Error: too much mail from 192.0.2.1",
    "454 4.7.0 Too many login attempts",
    "503 5.5.1 Bad sequence of commands",
    "250 OK",
    "354 go on",
    "nonsense",
    "",
    HANGS_UP,
    IS_SILENT,
]
STAGES = ["connect", "greeting", "ehlo", "starttls", "auth", "mail", "probe", "dot"]
EVERY = st.sampled_from([0, 1, 2, 3])


@dataclass(frozen=True)
class Script:
    """Misbehaves at `stage`, except in the first `good` sessions at a time, and in the first `after` messages of one.

    `closes`: it closes the connection then.
    """

    stage: str
    answer: str
    closes: bool
    good: int = 0
    after: int = 0
    is_chunked: bool = True


class Server:
    """Takes mail by DATA and BDAT, as far as its script lets it."""

    def __init__(self, script: Script, clock: ManualClock) -> None:
        self.script = script
        self.clock = clock
        self.connects: list[float] = []
        self.fruitful: set[int] = set()  # sessions through which a message came
        self.taken: list[str] = []
        self.open = 0
        self.silent = 0
        self.auths = 0
        self.probes = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._session, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connects.append(self.clock.monotonic())
        self.open += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._talk(reader, writer, number=len(self.connects), is_good=self.open <= self.script.good)
        finally:
            self.open -= 1
            writer.close()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, number: int, is_good: bool
    ) -> None:
        script, messages, path = self.script, 0, ""

        async def fails(stage: str) -> bool:
            """Whether it has misbehaved here, so that the usual answer is not given."""
            if is_good or stage != script.stage or messages < script.after:
                return False
            if script.answer == IS_SILENT:
                self.silent += 1
                try:
                    await reader.read()
                finally:
                    self.silent -= 1
                raise ConnectionError
            if script.answer != HANGS_UP:
                writer.write(script.answer.encode() + b"\r\n")
            if script.closes or script.answer == HANGS_UP or script.answer.startswith("421"):
                raise ConnectionError
            return True

        def says(text: str) -> None:
            writer.write(text.encode() + b"\r\n")

        if await fails("connect"):
            return
        if not await fails("greeting"):
            says("220 mini ESMTP")
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                if await fails("ehlo"):
                    continue
                offers = ["PIPELINING"] + ["CHUNKING"] * script.is_chunked
                offers += {"starttls": ["STARTTLS"], "auth": ["AUTH PLAIN"]}.get(script.stage, [])
                says("\r\n".join(["250-mini", *(f"250-{offer}" for offer in offers), "250 8BITMIME"]))
            elif verb == b"STAR":
                if not await fails("starttls"):
                    says("454 4.7.0 not now")
            elif verb == b"AUTH":
                self.auths += 1
                if not await fails("auth"):
                    says("235 2.7.0 welcome")
            elif verb == b"MAIL":
                if not await fails("mail"):
                    says("250 ok")
            elif verb == b"RCPT":
                path = line[9:-3].decode()
                says("250 ok")
            elif verb == b"BDAT":
                self.probes += not path
                await reader.readexactly(int(line.split()[1]))
                if not path:
                    if not await fails("probe"):
                        says("503 5.5.1 no transaction")
                    continue
                messages += 1
                self._takes(path, number)
                says("250 queued")
                path = ""
            elif verb == b"DATA":
                says("354 go on")
                await reader.readuntil(b"\r\n.\r\n")
                if not await fails("dot"):
                    messages += 1
                    self._takes(path, number)
                    says("250 queued")
                path = ""
                if script.stage == "behind":  # what has come in the same write
                    for _ in range(bytes(reader._buffer).count(b"\n")):  # type: ignore[attr-defined]
                        await reader.readline()
                        says(script.answer)
            elif verb == b"QUIT":
                says("221 bye")
                return
            else:
                says("250 ok")

    def _takes(self, path: str, number: int) -> None:
        self.taken.append(path)
        self.fruitful.add(number)


class Trial:
    """A run over some rows against a server, by a clock that is turned whenever nothing moves."""

    def __init__(self, script: Script, *, rows: int = 40, connections: int = 5, depth: int = 8, pace: Pace) -> None:
        self.clock = ManualClock(1_000.0)
        self.server = Server(script, self.clock)
        self.rows, self.connections, self.depth, self.pace = rows, connections, depth, pace
        self.events: list[object] = []
        self.tally: dict[Status, int] = {}
        self.ending: Ending | None = None

    async def run(self) -> None:
        with Outbox.create(None, campaign=None) as box:
            addresses = [f"p{n}@example.com" for n in range(self.rows)]
            box.record(
                Entry(Recipient(Address.parse(address), "", {"email": address}, Place("people.csv", line)))
                for line, address in enumerate(addresses, 2)
            )
            box.finish_loading()
            async with self.server as server:
                engine = Engine(self._plan(box, server))
                self._health = engine._run.relays[0].health
                running = asyncio.create_task(engine.run())
                while not running.done() and self.clock.monotonic() < 1_000.0 + 60 * MINUTES:
                    await self._settle()
                    if (wake := self.clock.next_wake) is not None and not running.done():
                        self.clock.advance(max(wake, 0.001))
                running.cancel()
                with suppress(asyncio.CancelledError):
                    self.ending = await running
            self.tally = box.tally().by_status

    def settled(self) -> list[DeliveryResult]:
        return results_of(self.events)

    def events_of(self, kind: type[object]) -> list[object]:
        return [event for event in self.events if isinstance(event, kind)]

    async def _settle(self) -> None:
        """Until client and server have nothing to say to one another."""
        for _ in range(2_000):
            taken = len(self.server.taken)
            for _ in range(40):
                await asyncio.sleep(0)
            if self.server.silent:
                await asyncio.sleep(SILENCE * 1.5)
            if not self._health.opening and taken == len(self.server.taken):
                return
            if self._health.opening:
                await asyncio.sleep(0.001)  # the name is looked up in a thread

    def _plan(self, box: Outbox, server: Server) -> Plan:
        tls = "" if server.script.stage == "starttls" else "tls=off&"
        user, login = ("me@", "&auth=plaintext") if server.script.stage == "auth" else ("", "")
        url = f"smtp://{user}127.0.0.1:{server.port}?{tls}connections={self.connections}{login}"
        relay = Relay.parse(url)
        policy = PeerPolicy(depth=self.depth, notify=lambda text: self.events.append(Notice(text, "")))
        credentials = Credentials("me", Secret("secret")) if user else None
        least = SILENCE if server.script.answer == IS_SILENT else 10.0
        end = least if server.script.stage == "dot" else 10.0
        timeouts = Timeouts(greeting=least, ehlo=least, mail=least, rcpt=10.0, data=10.0, block=10.0, end=end, quit=0.1)

        async def connect() -> Single:
            return await Single.to(relay, credentials, tls_context=TLS, policy=policy, timeouts=timeouts)

        return Plan(
            OutboxStore(box),
            compose,
            [Outlet(Route(relay, "the relay"), connect)],
            pace=self.pace,
            observe=self.events.append,
            feedback=FEEDBACK,
            clock=self.clock,
            rng=lambda: 0.0,
        )


def check_budget(trial: Trial) -> None:
    """Openings that carried nothing: 30 in the first minute, 6 a minute afterwards."""
    connects, fruitful = trial.server.connects, trial.server.fruitful
    fruitless = [at - 1_000.0 for number, at in enumerate(connects, 1) if number not in fruitful]
    assert sum(at < 60 for at in fruitless) <= 30
    for begin in range(60, 60 * MINUTES, 10):
        assert sum(begin <= at < begin + 60 for at in fruitless) <= 6 + (5 if fruitful else 0)


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(max_examples=150 if IN_CI else 15, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.builds(
        Script,
        stage=st.sampled_from(STAGES),
        answer=st.sampled_from(ANSWERS),
        closes=st.booleans(),
        good=EVERY,
        after=EVERY,
        is_chunked=st.booleans(),
    )
)
def test_opening_that_carried_nothing_is_not_repeated_without_back_off(script: Script) -> None:
    trial = Trial(script, pace=Pace(patience=600.0))
    asyncio.run(trial.run())
    check_budget(trial)
    assert len(trial.server.taken) == len(set(trial.server.taken))
    assert trial.server.auths <= len(trial.server.connects)


@pytest.mark.parametrize("answer", ["421 4.7.0 Error: too many errors", "503 5.5.1 no", HANGS_UP, IS_SILENT])
async def test_probe_costs_at_most_one_session(answer: str) -> None:
    trial = Trial(Script("probe", answer, closes=True), rows=50, pace=Pace())
    await trial.run()
    assert trial.tally.get(Status.ACCEPTED, 0) == 50
    assert trial.server.probes == 1
    notices = [event.text for event in trial.events if isinstance(event, Notice)]
    assert sum("from now on messages go there by DATA instead of BDAT" in text for text in notices) == 1


@pytest.mark.slow
@pytest.mark.parametrize("connections", [1, 10])
@pytest.mark.parametrize(
    "answer",
    ["503 Bad sequence of commands - pipelined after end of DATA", "554 5.5.1 Improper command pipelining"],
)
async def test_server_that_refuses_what_is_behind_the_end_keeps_its_sessions(connections: int, answer: str) -> None:
    trial = Trial(
        Script("behind", answer, closes=False, is_chunked=False), rows=1_000, connections=connections, pace=Pace()
    )
    await trial.run()
    assert trial.tally == {Status.ACCEPTED: 1_000}
    assert sorted(trial.server.taken) == sorted({f"p{n}@example.com" for n in range(1_000)})
    assert len(trial.server.connects) <= 20
    assert {event.attempt.event.stage.value for event in trial.settled()} == {"end"}
    notices = [event.text for event in trial.events if isinstance(event, Notice)]
    assert len(notices) == 1 and "waits for the answer to the one before" in notices[0]


async def test_depth_of_one_probes_nothing_and_writes_nothing_behind_an_end() -> None:
    trial = Trial(Script("probe", "421 4.7.0 Error: too many errors", closes=True), depth=1, pace=Pace())
    await trial.run()
    assert trial.tally == {Status.ACCEPTED: 40}
    assert len(trial.server.connects) <= 5 and not trial.events_of(Notice)


async def test_login_is_not_tried_again_within_a_minute_where_logins_are_counted() -> None:
    trial = Trial(Script("auth", "454 4.7.0 Too many login attempts, please try again later", closes=True), pace=Pace())
    await trial.run()
    times = trial.server.connects
    assert len(times) == trial.server.auths >= 3
    assert all(later - before >= 60 for before, later in pairwise(times))
    assert trial.events_of(Hold)


@pytest.mark.parametrize("patience", [20.0, 100.0])
async def test_patience_ends_when_it_says(patience: float) -> None:
    trial = Trial(Script("greeting", HANGS_UP, closes=True), pace=Pace(patience=patience))
    await trial.run()
    assert trial.ending is not None and trial.ending.error is not None
    assert patience <= trial.server.connects[-1] - trial.server.connects[0] <= patience + 1.0
    assert trial.events_of(Hold)


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 5])
async def test_session_that_ends_after_that_many_messages_is_left_before(most: int) -> None:
    answer = "421 Service not available, closing transmission channel."
    trial = Trial(Script("mail", answer, closes=True, after=most), rows=200, pace=Pace())
    await trial.run()
    assert trial.tally == {Status.ACCEPTED: 200}
    assert len(trial.server.connects) <= 200 / most + 10
    assert trial.clock.monotonic() - 1_000.0 < 10
