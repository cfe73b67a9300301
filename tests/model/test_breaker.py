"""What stops a campaign, after how many messages, and what is said then."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.breaker import (
    Ahead,
    Breaker,
    BreakerLimits,
    CanaryBreaker,
    Danger,
    Strikes,
    Trip,
    judge_canary,
    policy_key,
    unreachable,
)
from bulkmail.model.outcome import Outcome, Reply, Scope, Stage
from bulkmail.model.verdict import judge

ACCEPTED = Reply(Stage.END, 250, "2.0.0", "queued")
POLICY = Reply(Stage.RCPT, 550, "5.7.1", "message looks like spam")
SPAM = Reply(Stage.END, 554, "5.7.9", "looks like spam")
UNKNOWN = Reply(Stage.RCPT, 550, "5.1.1", "no such user")
GREYLISTED = Reply(Stage.RCPT, 450, "4.2.0", "greylisted")


def run(breaker: Breaker, *replies: Reply, begin: int = 1) -> Trip | None:
    """The trip of the last of `replies`; those before must not trip."""
    trip = None
    for number, reply in enumerate(replies, begin):
        assert trip is None, f"tripped before number {number}"
        trip = breaker.note(number, reply, judge(reply))
    return trip


def test_breaker_stops_after_20_equal_policy_rejections_and_puts_them_back() -> None:
    trip = run(Breaker(), *[POLICY] * 20)
    assert trip is not None
    assert trip.danger is Danger.POLICY
    assert trip.put_back == tuple(range(1, 21))
    assert trip.sentence == (
        '20 of the last 20 messages were refused with the same words, "550 5.7.1 message looks like spam": '
        "that is about you or the message, not about the people"
    )
    assert "resume" in trip.hint


def test_breaker_counts_equal_ones_among_the_last_50() -> None:
    assert run(Breaker(), *[POLICY, ACCEPTED] * 19, POLICY) is not None
    assert run(Breaker(), *[POLICY, ACCEPTED, ACCEPTED] * 100) is None


def test_breaker_does_not_add_different_policies() -> None:
    assert run(Breaker(), *[POLICY, SPAM] * 19) is None


def test_breaker_takes_bare_refusals_by_their_code() -> None:
    trip = run(Breaker(), *[Reply(Stage.END, 554, "", f"transaction failed, ticket {number}") for number in range(20)])
    assert trip is not None
    assert "554 transaction failed, ticket 19" in trip.sentence


def test_breaker_takes_no_notice_of_what_is_deferred() -> None:
    assert run(Breaker(), *[GREYLISTED] * 1000) is None


def test_breaker_does_not_take_a_refused_address_for_policy() -> None:
    assert run(Breaker(BreakerLimits(unknown_share=1.0)), *[UNKNOWN] * 500) is None
    refused = Reply(Stage.RCPT, 550, "5.4.1", "recipient address rejected: access denied")
    assert run(Breaker(), *[refused] * 100) is None


def test_breaker_stops_when_more_than_a_tenth_of_200_is_unknown() -> None:
    assert run(Breaker(), *[UNKNOWN] * 20, *[ACCEPTED] * 180) is None
    trip = run(Breaker(), *[ACCEPTED] * 179, *[UNKNOWN] * 21)
    assert trip is not None
    assert trip.danger is Danger.UNKNOWN_USERS
    assert trip.sentence.startswith("21 of 200 addresses do not exist (10.5%, the limit is 10.0%)")
    assert not trip.put_back


def test_breaker_counts_a_dead_copy_address_once() -> None:
    breaker = Breaker()
    for number in range(1, 600, 2):
        assert breaker.note(number, ACCEPTED, judge(ACCEPTED)) is None
        assert breaker.note(number + 1, UNKNOWN, judge(UNKNOWN), copy_to="Archive@example.com") is None
    breaker = Breaker()
    for number in range(1, 200):
        trip = breaker.note(number, UNKNOWN, judge(UNKNOWN), copy_to=f"boss{number}@example.com")
        assert trip is None
    assert breaker.note(200, UNKNOWN, judge(UNKNOWN), copy_to="boss200@example.com") is not None


def test_breaker_puts_back_what_a_repeated_copy_was_refused_for_too() -> None:
    breaker = Breaker()
    for number in range(1, 40, 2):
        assert breaker.note(number + 1, POLICY, judge(POLICY), copy_to="archive@example.com") is None
        trip = breaker.note(number, POLICY, judge(POLICY))
        if trip is not None:
            break
    assert trip is not None and trip.sentence.startswith("20 of the last 20 messages")
    assert set(trip.put_back) == set(range(1, number + 2))


@pytest.mark.parametrize("limits", [BreakerLimits(unknown_share=1.0), BreakerLimits(unknown_after=0)])
def test_breaker_for_unknown_users_can_be_switched_off(limits: BreakerLimits) -> None:
    assert run(Breaker(limits), *[UNKNOWN] * 500) is None


def test_breaker_for_policies_can_be_switched_off() -> None:
    assert run(Breaker(BreakerLimits(policy_run=0)), *[POLICY] * 500) is None


RECIPIENTS_OWN = Reply(Stage.RCPT, 550, "5.7.1", "you are not allowed to post to this mailing list")


def last() -> bool:
    return True


def test_breaker_trips_in_a_short_list_of_which_nothing_was_accepted() -> None:
    trip = run(Breaker(total=12), *[SPAM] * 5)
    assert trip is not None and trip.put_back == (1, 2, 3, 4, 5)
    assert run(Breaker(total=2), *[SPAM] * 2) is None
    assert run(Breaker(total=12), ACCEPTED, *[SPAM] * 11) is None
    assert run(Breaker(total=12), *[RECIPIENTS_OWN] * 12) is None
    assert run(Breaker(total=12), *[UNKNOWN] * 12) is None


def test_breaker_trips_at_the_end_of_a_long_list() -> None:
    breaker = Breaker(total=100)
    assert run(breaker, *[ACCEPTED] * 50, *[SPAM] * 9) is None
    trip = breaker.note(60, SPAM, judge(SPAM), is_last=last)
    assert trip is not None and trip.put_back == tuple(range(51, 61))
    breaker = Breaker(total=100)
    assert run(breaker, *[ACCEPTED] * 50, *[SPAM] * 5) is None
    assert breaker.note(56, SPAM, judge(SPAM), is_last=last) is None


def test_breaker_that_has_tripped_spares_what_still_comes_in_those_words() -> None:
    breaker = Breaker()
    assert breaker.spared(SPAM, judge(SPAM)) == judge(SPAM)
    assert run(breaker, *[SPAM] * 20) is not None
    spared = breaker.spared(SPAM, judge(SPAM))
    assert (spared.outcome, spared.counts) == (Outcome.DEFERRED, False)
    for other in (UNKNOWN, POLICY, ACCEPTED, RECIPIENTS_OWN):
        assert breaker.spared(other, judge(other)) == judge(other)


def test_strikes_end_it_at_the_third_delivery_or_when_there_are_no_others() -> None:
    strikes, among = Strikes(), {"more": True}

    def has_others(done: object) -> bool:
        return among["more"]

    def strike(number: int) -> bool:
        return strikes.strike(number, names_us=True, has_others=has_others)

    assert not strike(1)
    assert not strike(1)
    assert not strike(2)
    strikes.accepted()
    assert not strike(3)
    assert not strike(4)
    assert strike(5)
    among["more"] = False
    assert Strikes().strike(1, names_us=True, has_others=has_others)


def test_policy_that_names_no_one_is_the_recipients_when_nothing_speaks_for_its_being_about_us() -> None:
    def more(done: Collection[int]) -> bool:
        return True

    def no_more(done: Collection[int]) -> bool:
        return False

    assert Strikes().is_own(1, has_others=no_more)  # a list of one
    assert not Strikes().is_own(1, has_others=more)
    strikes = Strikes()
    for number in (1, 2):
        assert not strikes.strike(number, names_us=False, has_others=more)
    assert not strikes.is_own(3, has_others=no_more)  # the third in a row
    strikes.accepted()
    assert strikes.is_own(1, has_others=more)  # again, and others were accepted since
    assert not strikes.is_own(3, has_others=more)
    strikes.strike(4, names_us=True, has_others=more)
    assert not strikes.is_own(3, has_others=no_more)  # the one before was about us


def test_canary_gives_back_the_refusals_in_the_commonest_words_and_no_unknown_users() -> None:
    breaker = CanaryBreaker(BreakerLimits(canary=6), total=100, messages={})
    trip = run(breaker, ACCEPTED, UNKNOWN, SPAM, POLICY, SPAM, UNKNOWN)
    assert trip is not None and trip.danger is Danger.CANARY
    assert trip.put_back == (3, 5)


def test_canary_of_unknown_users_gives_no_one_back() -> None:
    trip = run(CanaryBreaker(BreakerLimits(canary=3), total=100, messages={}), *[UNKNOWN] * 3)
    assert trip is not None and not trip.put_back


def test_canary_goes_on_with_the_messages_of_an_earlier_run() -> None:
    verdict = judge(SPAM)
    messages = {"7": Ahead(verdict.outcome, verdict.scope, 7, policy_key(SPAM, verdict))}
    trip = run(CanaryBreaker(BreakerLimits(canary=2), total=100, messages=messages), SPAM)
    assert trip is not None and trip.put_back == (7, 1)


@pytest.mark.slow
@given(st.lists(st.sampled_from([ACCEPTED, POLICY, SPAM, UNKNOWN, GREYLISTED]), max_size=300))
def test_breaker_puts_back_only_what_was_rejected_with_those_words(replies: list[Reply]) -> None:
    breaker = Breaker(BreakerLimits(policy_run=5, policy_among=12))
    for number, reply in enumerate(replies):
        trip = breaker.note(number, reply, judge(reply))
        if trip and trip.danger is Danger.POLICY:
            assert 5 <= len(trip.put_back) <= 12
            assert {replies[each] for each in trip.put_back} == {reply}


def test_relay_is_unreachable_after_its_patience() -> None:
    relay = "smtp://mail.example.com:587"
    assert unreachable(relay, since=None, now=1000.0, patience=300.0) is None
    assert unreachable(relay, since=701.0, now=1000.0, patience=300.0) is None
    trip = unreachable(relay, since=700.0, now=1000.0, patience=300.0, what="connection refused")
    assert trip is not None
    assert trip.sentence == "smtp://mail.example.com:587 could not be used for 5 min: connection refused"
    bare = unreachable(relay, since=700.0, now=1000.0, patience=300.0)
    assert bare is not None and bare.sentence.endswith("for 5 min")


Out, S = Outcome, Scope


@pytest.mark.parametrize(
    ("outcomes", "scopes", "why"),
    [
        ({}, {}, ""),
        ({Out.ACCEPTED: 10}, {}, ""),
        ({Out.ACCEPTED: 9, Out.REJECTED: 1}, {S.RECIPIENT: 1}, ""),
        ({Out.ACCEPTED: 1, Out.DEFERRED: 9}, {}, ""),
        ({Out.DEFERRED: 10}, {}, "of the first 10 messages none was accepted"),
        ({Out.REJECTED: 1}, {S.RECIPIENT: 1}, "of the first 1 message none was accepted"),
        ({Out.ACCEPTED: 8, Out.REJECTED: 2}, {S.RECIPIENT: 2}, "2 were rejected (the limit is 10%)"),
        ({Out.ACCEPTED: 8, Out.REJECTED: 2}, {S.MESSAGE: 1}, "2 were rejected, 1 of them for what is in the message"),
        ({Out.ACCEPTED: 9, Out.IN_DOUBT: 1}, {}, "1 may or may not have arrived"),
    ],
)
def test_canary_is_judged_by_what_came_of_it(outcomes: dict[Outcome, int], scopes: dict[Scope, int], why: str) -> None:
    trip = judge_canary(outcomes, scopes, BreakerLimits())
    if not why:
        assert trip is None
    else:
        assert trip is not None and trip.danger is Danger.CANARY
        assert why in trip.sentence
        assert trip.sentence.endswith("the rest was not sent")
