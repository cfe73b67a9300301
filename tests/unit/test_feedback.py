"""What replies ask of us: which lower a rate, which pause an account, and for how long."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.config.tables import known_feedback
from bulkmail.model.feedback import LONGEST_PAUSE, Feedback, Heeding
from bulkmail.model.outcome import Effect, quota, throttle
from bulkmail.model.reply import Breakage, Fault, Reply, Stage
from bulkmail.model.verdict import Outcome, Rule, Scope, enhanced_pattern, judge

BUSY = Rule(
    ("421", "45"),
    throttle(Scope.PROVIDER, Effect.SLOWER, label="busy", suspend=300.0),
    enhanced=(enhanced_pattern("4.7.5??"),),
)
QUOTA = Rule(("550",), quota(86400.0, label="daily quota"))
MAILBOX = Rule(("450",), None, stages=frozenset({Stage.RCPT}))
TABLE = Feedback((BUSY, QUOTA, MAILBOX))


def test_feedback_names_scope_and_effect() -> None:
    heeding = TABLE.heed(Reply(Stage.RCPT, 451, "4.7.500", "Server busy"))
    assert (heeding.verdict.outcome, heeding.verdict.scope) == (Outcome.DEFERRED, Scope.PROVIDER)
    assert (heeding.verdict.says, heeding.verdict.counts) == ("busy", False)
    assert (heeding.is_slower, heeding.is_fewer, heeding.suspend, heeding.pause) == (True, False, 300.0, 0.0)


def test_feedback_before_anybody_was_named_is_about_the_relay() -> None:
    assert TABLE.heed(Reply(Stage.MAIL, 451, "4.7.500", "Server busy")).verdict.scope is Scope.RELAY


def test_feedback_keeps_what_becomes_of_the_session() -> None:
    assert TABLE.heed(Reply(Stage.RCPT, 421, "4.7.500", "busy")).verdict.drops
    assert not TABLE.heed(Reply(Stage.RCPT, 451, "4.7.500", "busy")).verdict.drops
    spent = TABLE.heed(Reply(Stage.MAIL, 452, "", "too many messages in this session")).verdict
    assert (spent.scope, spent.drops, spent.counts) == (Scope.SESSION, True, False)


@pytest.mark.parametrize(("words", "seconds"), [("in 10 minutes", 600.0), ("in 10 seconds", 300.0), ("later", 300.0)])
def test_feedback_suspends_for_what_the_server_asks_but_not_for_less(words: str, seconds: float) -> None:
    assert TABLE.heed(Reply(Stage.RCPT, 451, "4.7.500", f"try again {words}")).suspend == seconds


def test_feedback_on_a_quota_stops_and_rejects_nobody() -> None:
    reply = Reply(Stage.RCPT, 550, "5.7.1", "that was all for you")
    assert judge(reply).pause == 0  # only the table knows that it is a quota
    heeding = TABLE.heed(reply)
    assert heeding.pause == 86400.0
    verdict = heeding.verdict
    assert (verdict.outcome, verdict.scope, verdict.stops) == (Outcome.DEFERRED, Scope.SENDER, True)
    assert not verdict.counts


NOON = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("daily sending limit exceeded", 86400.0),
        ("hourly sending limit exceeded", 3600.0),
        ("daily sending limit exceeded, try again in 2 hours", 7200.0),
        ("daily sending limit exceeded, try again in 3 days", 259200.0),
        ("sending limit exceeded, try again after Tue, 01 Dec 2026", 43200.0),
        ("sending limit exceeded until 2026-11-30 18:00:00 +0100", 18000.0),
        ("hourly sending limit exceeded until Nov 30, 2026 11:00", 3600.0),  # that has gone by
        ("sending limit exceeded until Jan 1, 2030", LONGEST_PAUSE),
    ],
)
def test_feedback_pauses_an_account_until_its_window_opens(words: str, seconds: float) -> None:
    assert known_feedback().heed(Reply(Stage.RCPT, 550, "5.7.1", words)).pause_at(NOON) == seconds


@pytest.mark.parametrize("words", ["try again in 15 seconds.", "Please wait 20s", "rate exceeded; retry in 15 sec"])
def test_feedback_waits_as_many_seconds_as_a_server_names(words: str) -> None:
    heeding = known_feedback().heed(Reply(Stage.RCPT, 450, "", words))
    assert heeding.is_slower and heeding.is_suspending
    assert 15.0 <= heeding.suspend <= 20.0


def test_feedback_takes_a_wait_of_minutes_without_more_for_the_recipients() -> None:
    heeding = known_feedback().heed(Reply(Stage.RCPT, 450, "4.2.0", "try again in 5 minutes"))
    assert heeding.verdict.scope is Scope.RECIPIENT and not heeding.is_slower


def test_feedback_that_is_about_one_mailbox_changes_nothing() -> None:
    reply = Reply(Stage.RCPT, 450, "", "too many messages per hour")
    assert known_feedback().heed(reply).pause
    heeding = TABLE.heed(reply)
    assert (heeding.verdict.scope, heeding.verdict.outcome) == (Scope.RECIPIENT, Outcome.DEFERRED)
    assert not heeding.pause


@pytest.mark.parametrize(
    "event",
    [
        Reply(Stage.AUTH, 451, "4.7.500", "busy"),
        Reply(Stage.END, 250, "2.0.0", "too much today"),
        Reply(Stage.END, 354),
        Reply(Stage.RCPT, 551, "5.7.1", "moved"),
        Fault(Stage.RCPT, Breakage.LOST, "too much today"),
    ],
    ids=["login", "accepted", "desync", "another-code", "fault"],
)
def test_feedback_leaves_other_events_to_the_built_in_rules(event: Reply | Fault) -> None:
    assert TABLE.heed(event) == Heeding(judge(event))
    assert not TABLE.heed(event).is_slower
    assert TABLE.heed(event).pause == 0.0


WORDS = st.sampled_from(
    [
        "too many connections",
        "daily",
        "hourly",
        "limit exceeded",
        "quota",
        "[TSS04]",
        "throttling failure",
        "ok",
    ]
)
EVENTS = st.one_of(
    st.builds(
        Reply,
        st.sampled_from(Stage),
        st.integers(200, 599),
        st.sampled_from(["", "4.7.28", "5.4.5", "5.7.1", "4.7.500", "5.1.1"]),
        st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=4).map(" ".join)),
    ),
    st.builds(Fault, st.sampled_from(Stage), st.sampled_from(Breakage), st.text(max_size=20)),
)


@given(EVENTS)
def test_feedback_only_ever_softens(event: Reply | Fault) -> None:
    plain, heeding = judge(event), known_feedback().heed(event)
    verdict = heeding.verdict
    assert verdict.outcome is plain.outcome or (plain.outcome, verdict.outcome) == (Outcome.REJECTED, Outcome.DEFERRED)
    assert verdict == plain or not verdict.counts
    if heeding.is_complaint or heeding.pause:
        assert verdict.outcome is Outcome.DEFERRED
