"""Mailboxes that are read beside a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import pytest

from bulkmail.mailbox.mail_source import AFTER_TROUBLE, FetchedMail, Interruptible, pause_after
from bulkmail.mailing import intake
from bulkmail.mailing.intake import Mailboxes
from bulkmail.model.errors import RelayError


class Box(Interruptible):
    """A mailbox that fails the first `failures` times, with `error`."""

    is_pushed = False

    def __init__(self, name: str, *, failures: int = 0, error: Exception | None = None) -> None:
        super().__init__(name)
        self.failures = failures
        self.error = error or RelayError(f"{name} cannot be reached")
        self.reads = 0
        self.is_waiting = threading.Event()

    def batches(self) -> Iterator[Sequence[FetchedMail]]:
        self.reads += 1
        if self.reads <= self.failures:
            raise self.error
        return iter(())

    def done(self, mails: Sequence[FetchedMail], *, understood: frozenset[str]) -> None: ...

    def wait(self, seconds: float) -> None:
        self.is_waiting.set()
        self._pause(seconds)

    def close(self) -> None: ...


class Taking:
    """In place of an intake: reads and stores nothing."""

    def take(self, source: Any) -> None:
        for _ in source.batches():
            pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "pause_after", lambda failures: 0.01)


async def until(condition: Any) -> None:
    while not condition():
        await anyio.sleep(0.01)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [None, ZeroDivisionError("a fault of ours")], ids=["unreachable", "bug"])
async def test_mailbox_that_fails_is_tried_again_while_others_are_read(error: Exception | None) -> None:
    bad, good, reported = Box("bad", failures=3, error=error), Box("good"), list[str]()
    reading = Mailboxes([bad, good], Taking, reported=reported.append)  # type: ignore[arg-type]
    async with anyio.create_task_group() as group:
        group.start_soon(reading.run)
        await until(bad.is_waiting.is_set)
        await until(good.is_waiting.is_set)
        group.cancel_scope.cancel()  # and both wait for 540 seconds
    assert (bad.reads, good.reads) == (4, 1)
    assert [state.failures for state in reading.states] == [3, 0]
    assert all(state.read_at is not None and state.trouble == "" for state in reading.states)
    assert len(reported) == 1 and reported[0].startswith("bad")


def test_pauses_grow_and_stay_bounded() -> None:
    assert [pause_after(number) for number in (1, 2, 3, 4, 5, 50)] == [*AFTER_TROUBLE, 300.0, 300.0]


def test_interrupted_mailbox_is_not_taken_for_one_that_was_read() -> None:
    box = Box("box")
    box.interrupt()
    with pytest.raises(RelayError, match="was interrupted"):
        box._go_on()
