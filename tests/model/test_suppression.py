"""The rules of the suppression list on paper."""

from __future__ import annotations

import pytest

from bulkmail.model.delivery import AttemptResult, Delivery
from bulkmail.model.errors import ConfigError
from bulkmail.model.feedback_event import MOST_WORDS, FeedbackEvent, FeedbackKind, Proof, event_of_reply, kind_of_reply
from bulkmail.model.outcome import Breakage, Fault, Outcome, Reason, Reply, Scope, Stage, Verdict
from bulkmail.model.quota import DAY
from bulkmail.model.suppression import (
    QUIET,
    SoftBounce,
    SoftRule,
    SuppressionEntry,
    SuppressionReason,
    campaign_scope,
    effective_kind,
    is_provider_mistake,
    list_scope,
    soft_until,
)
from bulkmail.model.tally import Status
from bulkmail.model.verdict import judge

RULE = SoftRule(3, 60 * DAY, 180 * DAY)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("3 in 60d, until 180d", RULE),
        ("  2 in 12h ", SoftRule(2, DAY / 2, None)),
        ("1 in 1d,until 2d", SoftRule(1, DAY, 2 * DAY)),
        ("never", None),
        ("Never", None),
    ],
)
def test_soft_rule_is_read(text: str, rule: SoftRule | None) -> None:
    assert SoftRule.parse(text) == rule
    assert rule is None or SoftRule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    "text", ["", "3", "0 in 60d", "3 in", "3 in 60x", "3 in 60d until 5d", "3 in 60d, until", "-1 in 5d"]
)
def test_soft_rule_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        SoftRule.parse(text)


def bounces(*days: float, run: int | None = None, is_proved: bool = True) -> list[SoftBounce]:
    return [SoftBounce(day * DAY + 100, run, is_proved) for day in days]


@pytest.mark.parametrize(
    ("found", "is_reached"),
    [
        (bounces(90, 95, 100), True),
        (bounces(100, 100.1, 100.2), False),
        (bounces(30, 95, 100), False),
        (bounces(90, 95), False),
        (bounces(90, run=1, is_proved=False) + bounces(95, 100, run=1, is_proved=False), False),
        (bounces(90, run=1, is_proved=False) + bounces(95, run=2, is_proved=False) + bounces(100), True),
    ],
    ids=["three-days", "one-day", "too-old", "two", "one-run-unproved", "mixed"],
)
def test_soft_bounces_suppress_by_days(found: list[SoftBounce], is_reached: bool) -> None:
    now = 100 * DAY + 200
    assert soft_until(found, [], RULE, now=now) == (is_reached, now + 180 * DAY if is_reached else None)


def test_soft_rule_without_an_end_is_for_good() -> None:
    assert soft_until(bounces(1), [], SoftRule(1, DAY, None), now=DAY + 200) == (True, None)


def test_message_that_stayed_clears_what_was_before() -> None:
    now = 100 * DAY + 200
    found = bounces(80, 85, 100)
    assert soft_until(found, [90 * DAY], RULE, now=now) == (False, None)
    assert soft_until(found, [83 * DAY], RULE, now=now)[0]  # it came back two days later
    assert soft_until(found, [now - QUIET + 1], RULE, now=now)[0]  # it may still come back


@pytest.mark.parametrize(
    ("hard", "sent", "usual", "is_mistake"),
    [
        (20, 20, (0, 0), False),
        (21, 21, (0, 0), True),
        (21, 0, (0, 0), True),
        (21, 420, (0, 0), False),
        (22, 420, (0, 0), True),
        (100, 10_000, (10, 10_000), True),
        (100, 10_000, (1_000, 10_000), False),
        (100, 10_000, (1, 999), False),
        (50, 10_000, (0, 100_000), False),
        (51, 10_000, (0, 100_000), True),
    ],
)
def test_mistake_is_a_large_or_unusual_share(hard: int, sent: int, usual: tuple[int, int], is_mistake: bool) -> None:
    assert is_provider_mistake(hard, sent, usual_hard=usual[0], usual_sent=usual[1]) is is_mistake


def attempt(code: int, enhanced: str, text: str, *, stage: Stage = Stage.RCPT) -> AttemptResult:
    reply = Reply(stage, code, enhanced, text)
    return AttemptResult(1_000.0, 2.0, "relay", reply, judge(reply))


def delivery(status: Status) -> Delivery:
    return Delivery(7, 3, "ann@example.org", status, attempts=1, tries=2)


@pytest.mark.parametrize(
    ("status", "reply", "kind"),
    [
        (Status.REJECTED, attempt(550, "5.1.1", "no such user"), FeedbackKind.HARD),
        (Status.REJECTED, attempt(550, "", "User unknown"), FeedbackKind.HARD),
        (Status.REJECTED, attempt(551, "5.1.6", "moved"), FeedbackKind.HARD),
        (Status.REJECTED, attempt(550, "5.1.1", "no such user", stage=Stage.END), FeedbackKind.HARD),
        (Status.REJECTED, attempt(550, "5.2.1", "mailbox disabled"), FeedbackKind.SOFT),
        (Status.REJECTED, attempt(550, "5.7.1", "rejected as spam"), None),
        (Status.REJECTED, attempt(554, "5.7.1", "policy", stage=Stage.END), None),
        (Status.REJECTED, attempt(552, "5.3.4", "too big", stage=Stage.END), None),
        (Status.EXPIRED, attempt(452, "4.2.2", "mailbox full"), FeedbackKind.SOFT),
        (Status.EXPIRED, attempt(451, "4.7.1", "greylisted"), None),
        (Status.DEFERRED, attempt(452, "4.2.2", "mailbox full"), None),
        (Status.ACCEPTED, attempt(250, "", "ok", stage=Stage.END), None),
    ],
    ids=lambda value: value.event.text if isinstance(value, AttemptResult) else None,
)
def test_reply_says_something_about_a_mailbox_only_if_it_is_about_it(
    status: Status, reply: AttemptResult, kind: FeedbackKind | None
) -> None:
    assert kind_of_reply(delivery(status), reply) is kind


def test_fault_says_nothing_about_a_mailbox() -> None:
    fault = Fault(Stage.MAIL, Breakage.UNSENDABLE, "needs SMTPUTF8")
    verdict = Verdict(Outcome.REJECTED, Scope.RECIPIENT, Reason.UNKNOWN_USER)
    assert kind_of_reply(delivery(Status.REJECTED), AttemptResult(0.0, 0.0, "relay", fault, verdict)) is None


def test_event_of_a_reply_has_the_servers_words() -> None:
    reply = attempt(550, "5.1.1", "no such user " + "x" * 400)
    event = event_of_reply(delivery(Status.REJECTED), reply, run_id="r", campaign="spring", list_id="news")
    assert event is not None
    assert (event.code, event.enhanced, event.row, event.delivery, event.at) == (550, "5.1.1", 3, 7, 1_002.0)
    assert event.proof is Proof.SMTP and event.forward_path == "ann@example.org" and len(event.words) == MOST_WORDS
    assert event.source_id == "smtp r 7 2"
    accepted = attempt(250, "", "ok", stage=Stage.END)
    assert event_of_reply(delivery(Status.ACCEPTED), accepted, run_id="r", campaign="", list_id="") is None


@pytest.mark.parametrize(
    ("proof", "run", "to", "kind"),
    [
        (Proof.TOKEN, "", "ann@example.org", FeedbackKind.HARD),
        (Proof.ADDRESS, "r", "ann@example.org", FeedbackKind.SOFT),
        (Proof.ADDRESS, "", "ann@example.org", None),
        (Proof.NONE, "r", "ann@example.org", None),
        (Proof.TOKEN, "r", "", None),
    ],
)
def test_event_counts_by_its_proof(proof: Proof, run: str, to: str, kind: FeedbackKind | None) -> None:
    assert effective_kind(FeedbackEvent("x", FeedbackKind.HARD, 0.0, proof, forward_path=to, run_id=run)) is kind


def test_event_that_may_not_suppress_counts_as_nothing() -> None:
    event = FeedbackEvent("x", FeedbackKind.BLOCKED, 0.0, Proof.TOKEN, forward_path="ann@example.org")
    assert effective_kind(event) is None


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("News <News.Example.org>", "news.example.org"),
        ("news.example.org", "news.example.org"),
        (" X> ", "x>"),
        ("", ""),
    ],
)
def test_list_is_named_by_what_is_in_its_brackets(text: str, scope: str) -> None:
    assert list_scope(text) == scope


@pytest.mark.parametrize(
    ("name", "scope"), [("News-2026-12-01", "news"), ("2026-12-01", "2026-12-01"), ("Spring sale", "spring sale")]
)
def test_campaign_of_each_day_is_the_same_list(name: str, scope: str) -> None:
    assert campaign_scope(name) == scope


def test_entry_holds_until_its_end() -> None:
    entry = SuppressionEntry(b"x", "ann@example.org", SuppressionReason.SOFT, 0.0, until=10.0)
    assert entry.holds(9.0) and not entry.holds(10.0)
    assert {reason.says for reason in SuppressionReason} >= {"hard bounce", "unsubscribed"}
