"""What replies ask of us: which lower a rate, which pause an account, and for how long."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.outcome import Breakage, Effect, Fault, Outcome, Reply, Scope, Stage, quota, throttle
from bulkmail.model.shaper import Feedback, ThrottleDecision
from bulkmail.model.timing import LONGEST_ACCOUNT_PAUSE
from bulkmail.model.verdict import Rule, enhanced_pattern, judge
from bulkmail.settings.presets import known_feedback

BUSY = Rule(
    ("421", "45"),
    throttle(Scope.PROVIDER, Effect.SLOWER, label="busy", suspend=300.0),
    enhanced=(enhanced_pattern("4.7.5??"),),
)
QUOTA = Rule(("550",), quota(86400.0, label="daily quota"))
MAILBOX = Rule(("450",), None, stages=frozenset({Stage.RCPT}))
TABLE = Feedback((BUSY, QUOTA, MAILBOX))


def test_feedback_names_scope_and_effect() -> None:
    decision = TABLE.decide(Reply(Stage.RCPT, 451, "4.7.500", "Server busy"))
    assert (decision.verdict.outcome, decision.verdict.scope) == (Outcome.DEFERRED, Scope.PROVIDER)
    assert (decision.verdict.says, decision.verdict.counts) == ("busy", False)
    assert (decision.is_slower, decision.is_fewer, decision.suspend, decision.pause) == (True, False, 300.0, 0.0)


def test_feedback_before_anyone_was_named_is_about_the_relay() -> None:
    assert TABLE.decide(Reply(Stage.MAIL, 451, "4.7.500", "Server busy")).verdict.scope is Scope.RELAY


def test_feedback_keeps_what_becomes_of_the_session() -> None:
    assert TABLE.decide(Reply(Stage.RCPT, 421, "4.7.500", "busy")).verdict.drops
    assert not TABLE.decide(Reply(Stage.RCPT, 451, "4.7.500", "busy")).verdict.drops
    spent = TABLE.decide(Reply(Stage.MAIL, 452, "", "too many messages in this session")).verdict
    assert (spent.scope, spent.drops, spent.counts) == (Scope.SESSION, True, False)


@pytest.mark.parametrize(("words", "seconds"), [("in 10 minutes", 600.0), ("in 10 seconds", 300.0), ("later", 300.0)])
def test_feedback_suspends_for_what_the_server_asks_but_not_for_less(words: str, seconds: float) -> None:
    assert TABLE.decide(Reply(Stage.RCPT, 451, "4.7.500", f"try again {words}")).suspend == seconds


def test_feedback_on_a_quota_stops_and_rejects_no_recipient() -> None:
    reply = Reply(Stage.RCPT, 550, "5.7.1", "that was all for you")
    assert judge(reply).pause == 0  # only the table knows that it is a quota
    decision = TABLE.decide(reply)
    assert decision.pause == 86400.0
    verdict = decision.verdict
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
        ("sending limit exceeded until Jan 1, 2030", LONGEST_ACCOUNT_PAUSE),
    ],
)
def test_feedback_pauses_an_account_until_its_window_opens(words: str, seconds: float) -> None:
    assert known_feedback().decide(Reply(Stage.RCPT, 550, "5.7.1", words)).pause_at(NOON) == seconds


@pytest.mark.parametrize("words", ["try again in 15 seconds.", "Please wait 20s", "rate exceeded; retry in 15 sec"])
def test_feedback_waits_as_many_seconds_as_a_server_names(words: str) -> None:
    decision = known_feedback().decide(Reply(Stage.RCPT, 450, "", words))
    assert decision.is_slower and decision.is_suspending
    assert 15.0 <= decision.suspend <= 20.0


def test_feedback_takes_a_wait_of_minutes_without_more_for_the_recipients() -> None:
    decision = known_feedback().decide(Reply(Stage.RCPT, 450, "4.2.0", "try again in 5 minutes"))
    assert decision.verdict.scope is Scope.RECIPIENT and not decision.is_slower


def test_feedback_that_is_about_one_mailbox_changes_nothing() -> None:
    reply = Reply(Stage.RCPT, 450, "", "too many messages per hour")
    assert known_feedback().decide(reply).pause
    decision = TABLE.decide(reply)
    assert (decision.verdict.scope, decision.verdict.outcome) == (Scope.RECIPIENT, Outcome.DEFERRED)
    assert not decision.pause


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
    assert TABLE.decide(event) == ThrottleDecision(judge(event))
    assert not TABLE.decide(event).is_slower
    assert TABLE.decide(event).pause == 0.0


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
    plain, decision = judge(event), known_feedback().decide(event)
    verdict = decision.verdict
    assert verdict.outcome is plain.outcome or (plain.outcome, verdict.outcome) == (Outcome.REJECTED, Outcome.DEFERRED)
    assert verdict == plain or not verdict.counts
    if decision.is_complaint or decision.pause:
        assert verdict.outcome is Outcome.DEFERRED
