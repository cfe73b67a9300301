"""What every store of the suppression list must do: a suite that each of them passes.

A test module of a store derives `Contract` as a class of its own and gives it a fixture `open_store`, which opens the
same store again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import pytest

from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, IntakeState, KnownRun, Proof, ReturnedEvent
from bulkmail.model.recipient import Address
from bulkmail.model.suppression import (
    SoftRule,
    SuppressionPolicy,
    SuppressionReason,
    SuppressionRules,
)
from bulkmail.suppression.index import SuppressionIndex
from bulkmail.suppression.ports import Addition, EntryQuery, SuppressionStore

DAY = 86_400.0
START = 1_750_000_000.0 // DAY * DAY + 10 * 3600
EVERYTHING = EntryQuery()
APPLIED = SuppressionPolicy()


@dataclass
class Clock:
    """Wall-clock seconds as a test wants them."""

    now: float = START

    def __call__(self) -> float:
        return self.now


class OpenStore(Protocol):
    """Opens the store of a test, as often as it likes."""

    def __call__(self, *, rules: SuppressionRules = ..., clock: Callable[[], float] = ...) -> SuppressionStore: ...


def event(
    number: int | str = 1,
    kind: FeedbackKind = FeedbackKind.HARD,
    *,
    to: str = "ann@example.org",
    at: float = START,
    run: str = "run-1",
    proof: Proof = Proof.SMTP,
    **more: object,
) -> FeedbackEvent:
    """One event about `to`."""
    found = FeedbackEvent(
        f"source {number}",
        kind,
        at,
        proof,
        forward_path=to,
        run_id=run,
        campaign="spring",
        code=550,
        enhanced="5.1.1",
        words="no such user",
    )
    return replace(found, **more)  # type: ignore[arg-type]


def reasons(store: SuppressionStore, key: str = "ann@example.org") -> set[SuppressionReason]:
    """Why the list has `key`."""
    return {entry.reason for entry in store.history(key).entries}


class Contract:
    """The suite."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, open_store: OpenStore, clock: Clock) -> SuppressionStore:
        return open_store(clock=clock)

    # -- the list

    def test_entry_is_there_for_the_next_program(
        self, store: SuppressionStore, open_store: OpenStore, clock: Clock
    ) -> None:
        assert store.add([Addition("ann@example.org", note="by phone")], why="she called", who="eve") == 1
        other = open_store(clock=clock)
        (entry,) = other.history("ann@example.org").entries
        assert (entry.key, entry.reason, entry.since, entry.note) == (
            "ann@example.org",
            SuppressionReason.MANUAL,
            START,
            "by phone",
        )
        (change,) = other.history("ann@example.org").changes
        assert (change.what, change.why, change.who) == ("added", "she called", "eve")

    def test_entry_that_is_there_stays_as_it_is(self, store: SuppressionStore, clock: Clock) -> None:
        store.add([Addition("ann@example.org", note="first")])
        clock.now += 60
        assert store.add([Addition("ann@example.org", note="second", until=clock.now + DAY)]) == 0
        (entry,) = store.history("ann@example.org").entries
        assert entry.note == "first" and entry.until is None

    def test_entry_that_lasts_longer_replaces_one_that_ends(self, store: SuppressionStore, clock: Clock) -> None:
        store.add([Addition("ann@example.org", until=START + DAY)])
        store.add([Addition("ann@example.org", until=START + 9 * DAY)])
        (entry,) = store.history("ann@example.org").entries
        assert entry.until == START + 9 * DAY

    def test_entry_that_ran_out_no_longer_holds(self, store: SuppressionStore, clock: Clock) -> None:
        store.add([Addition("ann@example.org", until=START + DAY)])
        digest = store.digest("ann@example.org")
        assert store.reason(digest, APPLIED, START) != ""
        assert store.reason(digest, APPLIED, START + DAY) == ""
        assert len(store.applied(APPLIED, START)[1]) == 8
        assert store.applied(APPLIED, START + DAY)[1] == b""

    def test_removal_keeps_the_history(self, store: SuppressionStore) -> None:
        store.add([Addition("ann@example.org")])
        assert store.remove(["ann@example.org", "bob@example.org"], why="a mistake", who="eve") == 1
        history = store.history("ann@example.org")
        assert history.entries == ()
        assert [(change.what, change.why) for change in history.changes] == [("added", ""), ("removed", "a mistake")]

    def test_removal_of_one_reason_leaves_the_others(self, store: SuppressionStore) -> None:
        store.add([Addition("ann@example.org", reason) for reason in SuppressionReason])
        assert store.remove(["ann@example.org"], why="x", reason=SuppressionReason.HARD) == 1
        assert reasons(store) == set(SuppressionReason) - {SuppressionReason.HARD}

    def test_query_means_entries_by_reason_time_and_provider(self, store: SuppressionStore, clock: Clock) -> None:
        store.record([event(1), event(2, to="bob@example.net", run="run-2")])
        clock.now += DAY
        store.add([Addition("eve@example.org")])
        assert store.count(EVERYTHING) == 3
        assert store.count(EntryQuery(reason=SuppressionReason.HARD)) == 2
        assert store.count(EntryQuery(since=START + DAY)) == 1
        assert store.count(EntryQuery(to=START + DAY)) == 2
        assert store.count(EntryQuery(provider="example.net")) == 1
        assert store.count(EntryQuery(run_id="run-1", campaign="spring")) == 1
        assert {entry.key for entry in store.entries(EntryQuery(run_id="run-1"))} == {"ann@example.org"}
        assert [entry.key for entry in store.newest(EVERYTHING, 1)] == ["eve@example.org"]

    def test_undo_takes_back_what_was_meant_and_nothing_else(self, store: SuppressionStore) -> None:
        store.record([event(1), event(2, FeedbackKind.UNSUBSCRIBE, proof=Proof.TOKEN)])
        store.add([Addition("bob@example.org", SuppressionReason.HARD)])
        assert store.undo(EntryQuery(reason=SuppressionReason.HARD, run_id="run-1"), why="Gmail was ill") == 1
        assert reasons(store) == {SuppressionReason.UNSUBSCRIBE}
        assert reasons(store, "bob@example.org") == {SuppressionReason.HARD}
        assert store.history("ann@example.org").changes[-1].why == "Gmail was ill"

    def test_import_adds_and_never_removes(self, store: SuppressionStore, clock: Clock) -> None:
        store.add([Addition("ann@example.org", SuppressionReason.UNSUBSCRIBE)])
        names = [Addition(f"p{number}@example.org", note="old list") for number in range(2_500)]
        assert (
            store.import_([*names, Addition("ann@example.org", SuppressionReason.UNSUBSCRIBE)], why="old.csv") == 2_500
        )
        assert store.count(EVERYTHING) == 2_501
        assert reasons(store) == {SuppressionReason.UNSUBSCRIBE}
        (change,) = store.history("p7@example.org").changes
        assert (change.what, change.why) == ("imported", "old.csv")

    def test_import_leaves_nothing_when_its_source_fails(self, store: SuppressionStore) -> None:
        def broken() -> object:
            yield Addition("ann@example.org")
            raise ValueError

        with pytest.raises(ValueError):
            store.import_(broken(), why="old.csv")  # type: ignore[arg-type]
        assert store.count(EVERYTHING) == 0
        assert store.import_([Addition("ann@example.org")], why="again") == 1

    # -- what a campaign applies

    def test_policy_leaves_out_by_reason_and_list(self, store: SuppressionStore) -> None:
        store.add([Addition("ann@example.org", SuppressionReason.UNSUBSCRIBE, scope="news.example.org")])
        digest = store.digest("ann@example.org")

        def applies(policy: SuppressionPolicy) -> bool:
            found = store.reason(digest, policy, START) != ""
            assert bool(store.applied(policy, START)[1]) is found
            return found

        assert applies(SuppressionPolicy(list_id="news.example.org"))
        assert applies(SuppressionPolicy(list_id=None))
        assert not applies(SuppressionPolicy(list_id="invoices.example.org"))
        assert not applies(SuppressionPolicy(frozenset({SuppressionReason.HARD}), list_id=None))

    def test_index_finds_addresses_and_domains(self, store: SuppressionStore) -> None:
        store.add([Addition("ann@example.org"), Addition("@example.net")])
        store.record([event(1, to="Bob@example.com")])
        index = SuppressionIndex(store, APPLIED, clock=lambda: START)
        assert len(index) == 3
        assert index.reason("ann@example.org").startswith("added by hand on")
        assert index.reason("who@example.net") != ""
        assert index.reason("who@mail.example.net") == ""
        assert index.reason("eve@example.org") == ""
        said = index.reason("bob@example.com")
        assert said.startswith("hard bounce of") and said.endswith("(spring): 550 5.1.1 no such user")

    def test_index_of_many_finds_each_of_them(self, store: SuppressionStore) -> None:
        store.import_([Addition(f"p{number}@example.org") for number in range(500)], why="x")
        index = SuppressionIndex(store, APPLIED, clock=lambda: START)
        assert all(index.reason(f"p{number}@example.org") for number in range(500))
        assert not any(index.reason(f"q{number}@example.org") for number in range(500))

    def test_changes_name_what_was_added_since(self, store: SuppressionStore, open_store: OpenStore) -> None:
        store.add([Addition("ann@example.org")])
        seq = SuppressionIndex(store, APPLIED, clock=lambda: START).seq
        version = store.version()
        assert store.changes(seq).keys == frozenset() and store.version() == version
        other = open_store()
        other.add([Addition("bob@example.org"), Addition("@example.net")])
        other.remove(["ann@example.org"], why="x")
        assert store.version() != version
        found = store.changes(seq)
        assert found.keys == {"bob@example.org", "@example.net"} and not found.has_more
        assert store.changes(found.latest).latest == found.latest

    def test_changes_say_that_there_are_more_after_an_import(self, store: SuppressionStore) -> None:
        store.import_([Addition("ann@example.org")], why="x")
        assert store.changes(0).has_more

    # -- events

    def test_event_read_twice_changes_nothing(self, store: SuppressionStore, open_store: OpenStore) -> None:
        assert store.record([event(1), event(1)]) == 1
        assert open_store().record([event(1), event(2)]) == 1
        assert len(store.history("ann@example.org").events) == 2
        assert len(store.history("ann@example.org").changes) == 1

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            (FeedbackKind.HARD, SuppressionReason.HARD),
            (FeedbackKind.SPAM_COMPLAINT, SuppressionReason.SPAM_COMPLAINT),
            (FeedbackKind.UNSUBSCRIBE, SuppressionReason.UNSUBSCRIBE),
            (FeedbackKind.SOFT, None),
            (FeedbackKind.BLOCKED, None),
            (FeedbackKind.DELAYED, None),
            (FeedbackKind.AUTO_REPLY, None),
            (FeedbackKind.DELIVERED, None),
            (FeedbackKind.UNCLEAR, None),
        ],
        ids=lambda value: value.value if value else "nothing",
    )
    def test_event_suppresses_by_its_kind(
        self, store: SuppressionStore, kind: FeedbackKind, reason: SuppressionReason | None
    ) -> None:
        store.record([event(1, kind)])
        assert reasons(store) == ({reason} if reason else set())
        (stored,) = store.history("ann@example.org").events
        assert stored.event.kind is kind and stored.event.words == "no such user" and stored.event.campaign == "spring"

    def test_event_acts_on_the_forward_path(self, store: SuppressionStore) -> None:
        store.record([event(1, to="alias@example.org", address=Address("real", "example.net"))])
        assert reasons(store, "alias@example.org") == {SuppressionReason.HARD}
        assert reasons(store, "real@example.net") == set()

    def test_event_about_no_address_is_kept_and_acts_on_nothing(self, store: SuppressionStore) -> None:
        assert store.record([event(1, to="")]) == 1
        assert store.count(EVERYTHING) == 0

    def test_unsubscribing_holds_for_its_list_only(self, store: SuppressionStore) -> None:
        store.record([event(1, FeedbackKind.UNSUBSCRIBE, proof=Proof.TOKEN, list_id="news.example.org")])
        (entry,) = store.history("ann@example.org").entries
        assert entry.scope == "news.example.org"

    def test_spam_complaint_holds_for_all_lists(self, store: SuppressionStore) -> None:
        store.record([event(1, FeedbackKind.SPAM_COMPLAINT, list_id="news.example.org")])
        assert store.reason(store.digest("ann@example.org"), SuppressionPolicy(list_id="other"), START) != ""

    @pytest.mark.parametrize("kind", [k for k in FeedbackKind if k.may_suppress], ids=lambda kind: kind.value)
    def test_report_without_proof_needs_as_many_campaigns_as_soft_says(
        self, store: SuppressionStore, clock: Clock, kind: FeedbackKind
    ) -> None:
        clock.now = START + 7 * DAY  # a week of forgeries about one run
        store.record([event(n, kind, proof=Proof.ADDRESS, at=START + n * 600) for n in range(1_000)])
        assert reasons(store) == set()
        clock.now += DAY
        store.record([event("b", kind, proof=Proof.ADDRESS, run="run-2", at=clock.now)])
        assert reasons(store) == set()
        clock.now += DAY
        store.record([event("c", kind, proof=Proof.ADDRESS, run="run-3", at=clock.now)])
        assert reasons(store) == {SuppressionReason.SOFT}

    def test_report_without_proof_about_no_run_never_counts(self, store: SuppressionStore, clock: Clock) -> None:
        for number in range(10):
            clock.now += DAY
            store.record([event(number, proof=Proof.ADDRESS, run="", at=clock.now)])
            store.record([event(f"n{number}", proof=Proof.NONE, run=f"r{number}", at=clock.now)])
        assert reasons(store) == set()

    def test_report_without_proof_is_ignored_when_settings_say_so(self, open_store: OpenStore, clock: Clock) -> None:
        store = open_store(rules=SuppressionRules(counts_unproved=False), clock=clock)
        for number in range(10):
            clock.now += DAY
            store.record([event(number, proof=Proof.ADDRESS, run=f"r{number}", at=clock.now)])
        assert reasons(store) == set()

    def test_soft_bounces_count_by_days(self, store: SuppressionStore, clock: Clock) -> None:
        for number, at in enumerate([0, 1, 2, DAY, DAY + 9], 1):
            clock.now = START + at
            store.record([event(number, FeedbackKind.SOFT, at=clock.now)])
        assert reasons(store) == set()
        clock.now = START + 2 * DAY
        store.record([event(9, FeedbackKind.SOFT, at=clock.now)])
        (entry,) = store.history("ann@example.org").entries
        assert entry.reason is SuppressionReason.SOFT and entry.until == clock.now + 180 * DAY

    def test_soft_bounces_before_a_message_that_arrived_do_not_count(
        self, store: SuppressionStore, clock: Clock
    ) -> None:
        store.register(KnownRun(0, "run-2"))
        for number in range(2):
            clock.now = START + number * DAY
            store.record([event(number, FeedbackKind.SOFT, at=clock.now)])
        digest = store.digest("ann@example.org")
        assert store.soft_bounced(60 * DAY) == {digest}
        clock.now += DAY
        store.note_reached("run-2", [digest], at=clock.now)
        clock.now += 6 * DAY
        store.record([event("later", FeedbackKind.SOFT, at=clock.now)])
        assert reasons(store) == set()

    def test_soft_bounces_before_a_message_that_came_back_count(self, store: SuppressionStore, clock: Clock) -> None:
        store.register(KnownRun(0, "run-2"))
        for number in range(2):
            clock.now = START + number * DAY
            store.record([event(number, FeedbackKind.SOFT, at=clock.now)])
        store.note_reached("run-2", [store.digest("ann@example.org")], at=clock.now + 10)
        clock.now += 2 * DAY
        store.record([event("later", FeedbackKind.SOFT, at=clock.now)])
        assert reasons(store) == {SuppressionReason.SOFT}

    def test_rules_say_how_many_bounces_suppress(self, open_store: OpenStore, clock: Clock) -> None:
        store = open_store(rules=SuppressionRules(hard=2, soft=SoftRule(1, DAY, None)), clock=clock)
        store.record([event(1)])
        assert reasons(store) == set()
        store.record([event(2, FeedbackKind.SOFT), event(3)])
        assert reasons(store) == {SuppressionReason.HARD, SuppressionReason.SOFT}
        never = open_store(rules=SuppressionRules(hard=0, soft=None), clock=clock)
        never.record([event(4, to="bob@example.org"), event(5, FeedbackKind.SOFT, to="bob@example.org")])
        assert reasons(never, "bob@example.org") == set()

    def test_removed_address_comes_back_by_a_later_bounce_only(self, store: SuppressionStore, clock: Clock) -> None:
        store.record([event(1)])
        clock.now = START + 100
        store.remove(["ann@example.org"], why="the mailbox is back")
        store.record([event(2, at=START + 50)])
        assert reasons(store) == set()
        clock.now = START + 300
        store.record([event(3, at=START + 200)])
        assert reasons(store) == {SuppressionReason.HARD}

    # -- a provider's mistake

    def _sent(self, store: SuppressionStore, run: str, count: int, *, at: float = START) -> None:
        store.register(KnownRun(0, run, campaign=run))
        store.note_sent(run, {"example.org": count}, at=at)

    def test_mass_refusal_by_a_provider_suppresses_no_address(self, store: SuppressionStore, clock: Clock) -> None:
        self._sent(store, "run-1", 10_000)
        store.record([event("before", at=START - 7200, run="run-0", to="old@example.org")])
        for first in range(0, 500, 10):
            clock.now = START + first
            batch = range(first, first + 10)
            store.record([event(number, to=f"p{number}@example.org", at=clock.now) for number in batch])
            if first == 10:
                assert store.count(EVERYTHING) == 21  # this many may be true
        assert {entry.key for entry in store.entries(EVERYTHING)} == {f"p{n}@example.org" for n in range(500)} | {
            "old@example.org"
        }  # 5 % at most
        store.record([event(n, to=f"p{n}@example.org", at=clock.now) for n in range(500, 502)])
        assert [entry.key for entry in store.entries(EVERYTHING)] == ["old@example.org"]
        (found,) = store.mistakes()
        assert (found.run_id, found.provider, found.held) == ("run-1", "example.org", 502)
        (stored,) = store.history("p3@example.org").events
        assert stored.event.kind is FeedbackKind.UNCLEAR and stored.is_held
        assert [change.what for change in store.history("p3@example.org").changes] == ["added", "held"]

    def test_refusals_of_another_provider_are_believed_meanwhile(self, store: SuppressionStore) -> None:
        self._sent(store, "run-1", 100)
        store.record([event(number, to=f"p{number}@example.org") for number in range(50)])
        store.record([event("x", to="ann@example.net")])
        assert [entry.key for entry in store.entries(EVERYTHING)] == ["ann@example.net"]

    def test_unusual_share_is_a_mistake_too(self, store: SuppressionStore, clock: Clock) -> None:
        self._sent(store, "run-0", 100_000, at=START - DAY)
        self._sent(store, "run-1", 2_000)
        store.record([event(number, to=f"p{number}@example.org") for number in range(21)])  # 1 %, where 0.1 % is usual
        assert store.count(EVERYTHING) == 0

    def test_second_campaign_confirms_what_the_first_said(self, store: SuppressionStore, clock: Clock) -> None:
        self._sent(store, "run-1", 100)
        store.record([event(number, to=f"p{number}@example.org") for number in range(50)])
        clock.now = START + 3600
        self._sent(store, "run-2", 100)
        again = [event(f"b{n}", to=f"p{n}@example.org", run="run-2", at=clock.now) for n in range(50)]
        store.record(again)
        assert store.count(EVERYTHING) == 0  # the same hour of the same day says nothing new
        clock.now = START + 3 * DAY
        store.record([event("c", to="p1@example.org", run="run-3", at=clock.now)])
        assert [entry.key for entry in store.entries(EVERYTHING)] == ["p1@example.org"]

    # -- runs, places, keys

    def test_run_keeps_its_number(self, store: SuppressionStore, open_store: OpenStore) -> None:
        first = store.register(KnownRun(0, "run-1", "spring", "news", "/a/spring.outbox", START))
        second = store.register(KnownRun(0, "run-2", "summer"))
        assert (first.number, second.number) == (1, 2)
        assert open_store().register(KnownRun(0, "run-1", "spring", "news", "/b/spring.outbox", START)).number == 1
        assert store.runs() == [replace(first, outbox="/b/spring.outbox"), second]

    def test_keys_are_the_stores_own_and_stay(self, store: SuppressionStore, open_store: OpenStore) -> None:
        other = open_store()
        assert len(store.token_key()) == 32 and store.token_key() == other.token_key()
        assert store.digest("ann@example.org") == other.digest("ann@example.org") != store.digest("bob@example.org")
        assert store.token_key() not in store.digest("ann@example.org")

    def test_place_is_remembered(self, store: SuppressionStore, open_store: OpenStore) -> None:
        assert store.place("imap://a") == (0, 0)
        store.set_place("imap://a", (7, 12))
        store.set_place("imap://a", (7, 13))
        assert open_store().place("imap://a") == (7, 13)

    def test_report_that_is_matched_later_is_no_longer_unmatched(
        self, store: SuppressionStore, open_store: OpenStore
    ) -> None:
        unmatched = event("unmatched", to="", run="", proof=Proof.NONE)
        other = event("other", to="", run="", proof=Proof.NONE)
        matched = event(1, proof=Proof.TOKEN, replaces=("source unmatched",))
        assert store.record([unmatched, other]) == 2
        assert store.record([matched]) == 1
        assert [each.event.words for each in store.unmatched(10)] == [other.words]
        assert store.record([matched, event(2, replaces=("source 1",))]) == 1
        assert len(open_store().history("ann@example.org").events) == 2  # only what is not proved goes

    # -- intake

    def test_intake_is_remembered_and_held_against_bulk_campaigns(
        self, store: SuppressionStore, open_store: OpenStore, clock: Clock
    ) -> None:
        assert store.intake_state() == IntakeState()
        store.register(KnownRun(0, "plain", outbox="/a", began_at=START - 4 * DAY))
        store.register(KnownRun(0, "news", outbox="/b", began_at=START - 3 * DAY, is_bulk=True))
        store.register(KnownRun(0, "later", outbox="/c", began_at=START - 2 * DAY, is_bulk=True))
        store.register(KnownRun(0, "old", outbox="/d", began_at=START - 40 * DAY, is_bulk=True))
        assert store.intake_state() == IntakeState(None, None, START - 3 * DAY)
        store.note_intake("imap a", is_pushed=False)
        clock.now += 60
        store.note_intake("imap b", is_pushed=False)
        store.note_intake("standard input", is_pushed=True)
        assert open_store(clock=clock).intake_state() == IntakeState(START + 60, START + 60, START - 3 * DAY)

    def test_campaign_to_many_is_a_bulk_campaign(self, store: SuppressionStore) -> None:
        store.register(KnownRun(0, "big", outbox="/a", began_at=START - DAY))
        store.note_sent("big", {"google": 3_000, "yahoo": 1_999}, at=START)
        assert store.intake_state().bulk_began is None
        store.note_sent("big", {"yahoo": 1}, at=START + 3_600)
        assert store.intake_state().bulk_began == START - DAY

    # -- what came back

    def test_what_came_back_about_a_run_is_listed_without_refusals_in_our_sessions(
        self, store: SuppressionStore
    ) -> None:
        store.record(
            [
                event(1, row=4, delivery=5, proof=Proof.TOKEN, reason="unknown-user", at=START - 60),
                event(2, row=6, delivery=7, proof=Proof.SMTP),
                event(3, row=8, delivery=9, proof=Proof.ADDRESS, to="bob@example.org", at=START - 30),
                event(4, row=1, delivery=1, run="run-2", proof=Proof.TOKEN),
                event(5, to="", run="", proof=Proof.NONE),
            ]
        )
        assert store.returned("run-1") == [
            ReturnedEvent(FeedbackKind.HARD, START - 60, "unknown-user", "ann@example.org", 4, 5),
            ReturnedEvent(FeedbackKind.SOFT, START - 30, "", "bob@example.org", 8, 9),
        ]
        assert store.returned("run-3") == []
        assert store.count_unmatched() == 1
        assert store.count_returned() == {("spring", FeedbackKind.HARD): 2, ("spring", FeedbackKind.SOFT): 1}

    def test_opt_outs_without_a_run_are_found_by_list_and_time(self, store: SuppressionStore) -> None:
        for number, (list_id, at) in enumerate([("news", -9), ("news", -5), ("", -4), ("other", -3), ("news", -1)]):
            kind, whom = FeedbackKind.UNSUBSCRIBE, f"u{number}@example.org"
            store.record([event(number, kind, to=whom, run="", list_id=list_id, at=START + at, proof=Proof.TOKEN)])
        store.record([event("bounce", run="", list_id="news", at=START - 4, proof=Proof.TOKEN)])
        found = store.opted_out("news", since=START - 5, to=START - 1)
        assert [each.key for each in found] == ["u1@example.org", "u2@example.org"]

    def test_report_is_dropped_after_thirty_days(self, store: SuppressionStore, clock: Clock) -> None:
        store.record([event(1, report=b"as it came")])
        (kept,) = store.history("ann@example.org").events
        assert kept.event.report == b"as it came"
        clock.now += 31 * DAY
        store.record([event(2, to="bob@example.org")])
        (kept,) = store.history("ann@example.org").events
        assert (kept.event.report, kept.event.words) == (b"", "no such user")

    # -- erasure

    def test_erased_address_stays_suppressed(self, store: SuppressionStore) -> None:
        store.record([event(1, report=b"To: ann@example.org")])
        store.record([event(2, to="bob@example.org", words="not Ann@example.org", report=b"Cc: ANN@example.org")])
        store.add([Addition("ann@example.org", note="phone")], why="ann called")
        assert store.erase("ann@example.org") >= 4
        history = store.history("ann@example.org")
        assert {entry.key + entry.note for entry in history.entries} == {""}
        assert {stored.key + stored.event.words for stored in history.events} == {""}
        assert store.reason(store.digest("ann@example.org"), APPLIED, START) != ""
        assert store.erase("ann@example.org") == 0
        assert store.record([event(1)]) == 0
        (other,) = store.history("bob@example.org").events
        assert other.key == "bob@example.org" and other.event.words == "" and other.event.report == b""

    def test_erased_address_cannot_be_named_to_a_running_send(self, store: SuppressionStore) -> None:
        store.add([Addition("ann@example.org")])
        store.erase("ann@example.org")
        assert store.changes(0).has_more
