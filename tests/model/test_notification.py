"""Whom to notify, when a run counts as stalled, and what is said of it."""

from __future__ import annotations

import pytest

from bulkmail.model.notification import (
    NotifyEvent,
    NotifySettings,
    Stillness,
    event_of,
    sentence,
    without_addresses,
)
from bulkmail.model.tally import Status, Tally


def test_settings_of_a_campaign_stand_before_those_of_the_user() -> None:
    campaign = NotifySettings(mail="me@shop.example", after=60.0)
    user = NotifySettings(mail="boss@shop.example", command=("beep",), after=1800.0)
    assert campaign.over(user) == NotifySettings(mail="me@shop.example", command=("beep",), after=60.0)


def test_webhook_of_a_campaign_is_never_signed_with_the_secret_of_the_user() -> None:
    user = NotifySettings(webhook_from="url:https://mine.example", secret_from="env:KEY")
    found = NotifySettings(webhook_from="url:https://other.example").over(user)
    assert (found.webhook_from, found.secret_from) == ("url:https://other.example", "")
    assert NotifySettings().over(user) == user


def test_run_is_stalled_once_when_nothing_moves() -> None:
    stillness = Stillness(60.0, now=0.0)
    assert stillness.due_in(10.0) == 50.0
    assert stillness.due_in(60.0) == 0.0
    stillness.notified()
    assert stillness.due_in(10_000.0) is None


def test_run_is_stalled_later_each_time() -> None:
    stillness = Stillness(60.0, now=0.0)
    stillness.notified()
    stillness.moved(100.0)
    assert stillness.due_in(100.0) == 120.0


def test_run_that_waits_for_its_hour_is_not_stalled() -> None:
    stillness = Stillness(60.0, now=0.0)
    stillness.waits_until(3600.0)
    assert stillness.due_in(70.0) == 3590.0
    stillness.moved(80.0)
    assert stillness.due_in(80.0) == 3580.0


@pytest.mark.parametrize(
    ("tally", "has_failed", "event"),
    [
        (Tally(2, {Status.ACCEPTED: 2}), False, NotifyEvent.FINISHED),
        (Tally(2, {Status.ACCEPTED: 1, Status.PENDING: 1}), False, NotifyEvent.STOPPED),
        (Tally(2, {Status.ACCEPTED: 2}), True, NotifyEvent.STOPPED),
    ],
    ids=["all-done", "some-left", "fault"],
)
def test_end_of_a_run_is_called_by_what_is_left(tally: Tally, has_failed: bool, event: NotifyEvent) -> None:
    assert event_of(tally, has_failed=has_failed) is event


def test_sentence_counts_what_matters() -> None:
    tally = Tally(1210, {Status.ACCEPTED: 1204, Status.REJECTED: 3, Status.IN_DOUBT: 1, Status.DUPLICATE: 2})
    said = sentence(NotifyEvent.FINISHED, name="spring", tally=tally)
    assert said == "bulkmail: spring finished: 1,204 accepted, 3 rejected, 1 in doubt"
    stalled = sentence(NotifyEvent.STALLED, name="spring", tally=Tally(1, {Status.PENDING: 1}), still=1800.0)
    assert stalled == "bulkmail: spring has not moved for 30 min: 1 pending"
    stopped = sentence(NotifyEvent.STOPPED, name="spring", tally=Tally(2), error="535 no")
    assert stopped == "bulkmail: spring stopped before the end: 2 rows (535 no)"


def test_addresses_in_the_words_of_a_server_are_left_out() -> None:
    said = without_addresses("550 <ann@example.com>: no relaying for bob@example.org, sorry")
    assert said == "550 <address>: no relaying for <address>, sorry"
