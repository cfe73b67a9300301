"""Complaints: which replies are one, what they ask of us, and that no person is ever blamed for them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.config.tables import known_feedback
from bulkmail.model.feedback import Complaint, Effect, Feedback, Heeding, enhanced_pattern
from bulkmail.model.reply import Breakage, Fault, Reply, Stage
from bulkmail.model.verdict import Outcome, Scope, judge

BUSY = Complaint(
    "busy",
    ("421", "45"),
    Scope.LANE,
    enhanced=(enhanced_pattern("4.7.5??"),),
    effects=frozenset({Effect.SLOWER}),
    suspend=300.0,
)
QUOTA = Complaint("daily quota", ("550",), Scope.SENDER, text=re.compile("too much today"), pause=86400.0)
MAILBOX = Complaint("one mailbox", ("450",), Scope.RECIPIENT, text=re.compile("mailbox gets too much"))
SPENT = Complaint("session used up", ("452",), Scope.SESSION, text=re.compile("this session"))
TABLE = Feedback((BUSY, QUOTA, MAILBOX, SPENT))


def test_feedback_names_scope_and_effect() -> None:
    heeding = TABLE.heed(Reply(Stage.RCPT, 451, "4.7.500", "Server busy"))
    assert (heeding.verdict.outcome, heeding.verdict.scope) == (Outcome.DEFERRED, Scope.LANE)
    assert (heeding.verdict.reason, heeding.verdict.counts) == ("busy", False)
    assert (heeding.is_slower, heeding.is_fewer, heeding.suspend, heeding.pause) == (True, False, 300.0, 0.0)


def test_feedback_before_anybody_was_named_is_about_the_relay() -> None:
    assert TABLE.heed(Reply(Stage.MAIL, 451, "4.7.500", "Server busy")).verdict.scope is Scope.RELAY


def test_feedback_keeps_what_becomes_of_the_session() -> None:
    assert TABLE.heed(Reply(Stage.RCPT, 421, "4.7.500", "busy")).verdict.drops
    assert not TABLE.heed(Reply(Stage.RCPT, 451, "4.7.500", "busy")).verdict.drops
    spent = TABLE.heed(Reply(Stage.MAIL, 452, "", "enough in this session")).verdict
    assert (spent.scope, spent.drops, spent.counts) == (Scope.SESSION, True, False)


@pytest.mark.parametrize(("words", "seconds"), [("in 10 minutes", 600.0), ("in 10 seconds", 300.0), ("later", 300.0)])
def test_feedback_suspends_for_what_the_server_asks_but_not_for_less(words: str, seconds: float) -> None:
    assert TABLE.heed(Reply(Stage.RCPT, 451, "4.7.500", f"try again {words}")).suspend == seconds


def test_feedback_on_a_quota_stops_and_rejects_nobody() -> None:
    reply = Reply(Stage.RCPT, 550, "5.7.1", "you sent too much today")
    assert judge(reply).outcome is Outcome.REJECTED
    heeding = TABLE.heed(reply)
    assert heeding.pause == 86400.0
    verdict = heeding.verdict
    assert (verdict.outcome, verdict.scope, verdict.stops) == (Outcome.DEFERRED, Scope.SENDER, True)
    assert not verdict.counts


def test_feedback_that_is_about_one_mailbox_changes_nothing() -> None:
    reply = Reply(Stage.RCPT, 450, "", "this mailbox gets too much, try again in 1 hour")
    assert TABLE.heed(reply) == Heeding(judge(reply), MAILBOX)


@pytest.mark.parametrize(
    "event",
    [
        Reply(Stage.AUTH, 451, "4.7.500", "busy"),
        Reply(Stage.END, 250, "2.0.0", "too much today"),
        Reply(Stage.END, 354),
        Reply(Stage.RCPT, 551, "5.7.1", "too much today"),
        Fault(Stage.RCPT, Breakage.LOST, "too much today"),
    ],
    ids=["login", "accepted", "desync", "another-code", "fault"],
)
def test_feedback_leaves_other_events_to_the_verdict(event: Reply | Fault) -> None:
    assert TABLE.heed(event) == Heeding(judge(event))
    assert not TABLE.heed(event).is_slower
    assert TABLE.heed(event).pause == 0.0


def test_feedback_can_be_for_some_stages_only() -> None:
    at_mail = Feedback((Complaint("busy", ("4",), Scope.RELAY, stages=frozenset({Stage.MAIL})),))
    assert at_mail.find(Reply(Stage.MAIL, 450)) is not None
    assert at_mail.find(Reply(Stage.RCPT, 450)) is None


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
    assert plain.drops <= verdict.drops
    assert verdict == plain or not verdict.counts
    if heeding.complaint is not None and heeding.complaint.scope is not Scope.RECIPIENT:
        assert verdict.outcome is Outcome.DEFERRED
