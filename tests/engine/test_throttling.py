"""What is kept of providers, and what is notified of their complaints, stays bounded however many there are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bulkmail.engine.contracts import Slowed
from bulkmail.engine.relay_state import ProviderUse, Throttling
from bulkmail.model import shaper as shapers
from bulkmail.model.outcome import Reply, Stage
from bulkmail.model.route import MailboxProviders
from bulkmail.model.shaper import Shaper
from bulkmail.model.timing import PROVIDERS_FORGOTTEN_EVERY, SAME_NOTICE_AFTER
from bulkmail.settings.presets import known_feedback
from bulkmail.testing import ManualClock

BUSY = Reply(Stage.RCPT, 451, "4.7.28", "unusual rate of mail")
RELAY: Any = SimpleNamespace(name="one", provider_use=ProviderUse(), health=SimpleNamespace(open=3))


class Trial:
    def __init__(self) -> None:
        self.clock = ManualClock(1_000.0)
        self.clock.set_wall(5_000.0)
        self.shaper = Shaper(MailboxProviders())
        self.shaper.add_relay("one", connections=3)
        self.shown: list[Slowed] = []
        self.reported: list[str] = []
        self.throttling = Throttling(
            self.shaper,
            clock=self.clock,
            rng=lambda: 0.0,
            show=self.shown.append,
            tell=lambda relay, text: self.reported.append(text),
        )

    def complain(self, queue: str) -> None:
        assert self.throttling.throttle(known_feedback().decide(BUSY), BUSY, RELAY, queue)


def test_every_complaint_is_shown_and_a_notice_given_once_a_minute() -> None:
    trial = Trial()
    for _ in range(5):
        trial.complain("google")
    trial.complain("yahoo")
    assert [(each.slowdown.provider, each.slowdown.times) for each in trial.shown[-2:]] == [("google", 5), ("yahoo", 1)]
    assert trial.shown[-1].slowdown.until == 5_600.0  # by the clock on the wall
    assert [text.partition(" ")[0] for text in trial.reported] == ["google", "yahoo"]
    trial.clock.advance(SAME_NOTICE_AFTER)
    trial.complain("google")
    assert len(trial.reported) == 3


def test_reply_that_is_no_complaint_changes_nothing() -> None:
    trial = Trial()
    reply = Reply(Stage.RCPT, 450, "4.2.0", "greylisted")
    assert not trial.throttling.throttle(known_feedback().decide(reply), reply, RELAY, "google")
    assert trial.shown == trial.reported == []


def test_providers_with_nothing_to_remember_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapers, "MOST_IDLE", 10)
    trial = Trial()
    trial.complain("google")
    for number in range(50):
        trial.throttling.accepted(RELAY, f"d{number}.example")
    assert len(trial.shaper._through) == 51
    trial.clock.advance(PROVIDERS_FORGOTTEN_EVERY)
    trial.throttling.accepted(RELAY, "last.example")
    assert set(trial.shaper._through) == {("one", "google"), ("one", "last.example")}
