"""Everything that holds messages back, in one: what a complaint in one place does there, and does not do elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model import shaper as module
from bulkmail.model.outcome import Reply, Stage, make_reply
from bulkmail.model.rate import Rate
from bulkmail.model.retry import Backoff
from bulkmail.model.route import MailboxProvider, MailboxProviders, ProviderLimits
from bulkmail.model.shaper import Shaper
from bulkmail.settings.presets import known_feedback

SLOW_PROVIDER = MailboxProviders({"google": MailboxProvider("google", limits=ProviderLimits(Rate(2.0), 3, 50))})


def make_shaper(
    providers: MailboxProviders = SLOW_PROVIDER, *, rate: Rate | None = None, relay_rate: Rate | None = None
) -> Shaper:
    shaper = Shaper(providers, rate=rate)
    shaper.add_relay("one", connections=10, rate=relay_rate)
    shaper.add_relay("two", connections=4)
    return shaper


def complain(shaper: Shaper, line: str, provider: str, now: float, *, stage: Stage = Stage.END, open: int = 10) -> None:
    reply = make_reply(stage, int(line[:3]), [line[4:]])
    shaper.throttle(known_feedback().decide(reply), ("one", provider), now, open=open, words="its words", jitter=0.0)


def test_shaper_books_campaign_relay_and_provider_together() -> None:
    shaper = make_shaper(rate=Rate(10.0), relay_rate=Rate(5.0))
    assert shaper.take("one", "google", 0.0)
    assert shaper.wait("one", "google", 0.0) == 0.5
    assert shaper.wait("two", "google", 0.0) == 0.5
    assert shaper.wait("one", "yahoo", 0.0) == pytest.approx(0.2)
    assert shaper.wait("two", "yahoo", 0.0) == pytest.approx(0.1)
    assert not shaper.take("two", "google", 0.2)
    assert shaper.take("two", "yahoo", 0.2)


def test_shaper_knows_the_limits_of_providers() -> None:
    shaper = make_shaper()
    assert (shaper.connections("one"), shaper.session_limits("one", "google")[0]) == (10, 3)
    assert shaper.session_limits("one", "yahoo")[0] == 10
    assert (shaper.session_limits("one", "google")[1], shaper.session_limits("one", "yahoo")[1]) == (50, None)


def test_shaper_suspends_a_provider_and_no_other() -> None:
    shaper = make_shaper()
    complain(shaper, "421 4.7.0 [TSS04] Messages temporarily deferred", "yahoo", 100.0)
    assert shaper.wait("one", "yahoo", 100.0) == 7200.0
    assert not shaper.take("one", "yahoo", 7299.0)
    assert shaper.take("one", "google", 100.0)
    assert shaper.take("two", "yahoo", 100.0)
    assert shaper.session_limits("one", "yahoo")[0] == 5
    found = shaper.slowdown("one", "yahoo", 100.0)
    assert found is not None
    assert (found.relay, found.provider, found.times, found.until, found.connections) == ("one", "yahoo", 1, 7300.0, 5)
    assert (found.why, found.words) == ("Yahoo: deferred for volume or complaints", "its words")
    assert shaper.slowdown("one", "google", 100.0) is None
    assert shaper.take("one", "yahoo", 7300.0)


def test_shaper_slows_a_relay_to_what_it_took() -> None:
    shaper, now = make_shaper(relay_rate=Rate(100.0, 5)), 0.0
    for number in range(140):
        now = number / 14
        shaper.accepted("one", "yahoo", now)
    complain(shaper, "454 4.7.0 Throttling failure: Maximum sending rate exceeded", "yahoo", now)
    found = shaper.slowdown("one", "", now)
    assert found is not None and found.why == "Amazon SES: rate"
    assert found.per_second(now) == found.lowest == pytest.approx(12.6, rel=0.05)
    assert (found.connections, found.is_left_alone(now), found.is_over(now)) == (None, False, False)
    went = 0
    for tick in range(100):
        went += shaper.take("one", f"provider{tick % 7}", now + tick / 100)
    assert went == pytest.approx(13.5, rel=0.1)
    assert found.is_over(now + 1e6)


def test_shaper_learns_how_many_sessions_a_relay_accepts() -> None:
    shaper = make_shaper()
    complain(shaper, "421 4.7.0 Too many connections", "yahoo", 0.0, stage=Stage.GREETING, open=3)
    assert shaper.connections("one") == shaper.session_limits("one", "yahoo")[0] == 3
    assert shaper.connections("two") == 4
    for _ in range(100):
        shaper.accepted("one", "yahoo", 61.0)
    assert shaper.connections("one") == 4


@pytest.mark.parametrize(
    "line", ["250 2.0.0 queued", "550 5.1.1 no such user", "421 bye", "550 5.4.5 Daily user sending limit exceeded"]
)
def test_shaper_takes_no_other_reply_for_a_complaint(line: str) -> None:
    shaper = make_shaper()
    complain(shaper, line, "yahoo", 0.0)
    assert shaper.slowdown("one", "yahoo", 0.0) is shaper.slowdown("one", "", 0.0) is None
    assert shaper.take("one", "yahoo", 0.0)


def test_shaper_forgets_providers_that_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IDLE", 3)
    shaper = make_shaper(MailboxProviders(other=ProviderLimits(Rate(0.1))))
    complain(shaper, "421 4.7.0 [TSS04] Messages temporarily deferred", "yahoo", 0.0)
    for name in "abcd":
        assert shaper.take("one", name, 0.0)
    shaper.tidy(5.0)
    assert not shaper.take("one", "a", 5.0)
    shaper.tidy(20.0)
    assert shaper.take("one", "a", 20.0)
    assert not shaper.take("one", "a", 20.0)
    assert shaper.slowdown("one", "yahoo", 20.0) is not None


def rest_of(shaper: Shaper, now: float, line: str = "451 4.7.500 Server busy") -> float:
    """Seconds for which a complaint of yahoo's at `now` lets it rest."""
    complain(shaper, line, "yahoo", now)
    return shaper.provider_wait("one", "yahoo", now)


def test_provider_pauses_twice_as_long_each_time_that_it_complains_in_a_row() -> None:
    shaper, now, rests = make_shaper(), 0.0, []
    for _ in range(6):
        rests.append(rest_of(shaper, now))
        assert rest_of(shaper, now + 1) <= rests[-1]  # what was under way says it, too
        now += rests[-1] + 1
    assert rests == [300, 600, 1200, 2400, 3600, 3600]
    shaper.accepted("one", "yahoo", now)
    assert rest_of(shaper, now) == 300
    assert rest_of(shaper, now + 1000, "451 4.7.500 Server busy, try again in 50 minutes") == 3000


def test_written_schedule_says_how_long_providers_and_relays_rest() -> None:
    providers, relays = Backoff(60.0, 3600.0, (10.0, 100.0)), Backoff(1.0, 300.0, (20.0,))
    shaper = Shaper(SLOW_PROVIDER, provider_backoff=providers, relay_backoff=relays)
    shaper.add_relay("one", connections=10)
    assert [rest_of(shaper, now) for now in (0.0, 50.0, 500.0)] == [10.0, 100.0, 100.0]
    complain(shaper, "454 4.7.0 Throttling failure, try again in 5 seconds", "yahoo", 900.0)
    assert shaper.relay_wait("one", 900.0) == 20.0


def test_shaper_treats_whom_it_knows_from_an_earlier_run_as_it_did_then() -> None:
    before, now = make_shaper(), 0.0
    for number in range(100):
        now = number / 20
        before.accepted("one", "google", now)
    complain(before, "421 4.7.28 unusual rate of mail", "google", now)
    complain(before, "421 4.7.0 Too many connections", "", now, stage=Stage.GREETING, open=3)
    known = [found for provider in ("google", "") if (found := before.slowdown("one", provider, now)) is not None]
    after = Shaper(SLOW_PROVIDER, known=[each.shifted(1000.0) for each in known])
    for _ in range(2):  # the second engine of a campaign adds its relays once more
        after.add_relay("one", connections=10)
        after.add_relay("two", connections=4)
    now += 1000.0
    assert after.provider_wait("one", "google", now) == 600.0
    assert after.provider_wait("two", "google", now) == 0.0
    assert (after.connections("one"), after.session_limits("one", "google")[0]) == (3, 1)
    assert after.slowdown("one", "google", now) == known[0].shifted(1000.0)
    complain(after, "421 4.7.28 unusual rate of mail", "google", now + 600.0)
    again = after.slowdown("one", "google", now + 600.0)
    assert again is not None and (again.times, again.until) == (2, now + 600.0 + 1200.0)


def test_shaper_says_when_someone_gets_more_again() -> None:
    shaper = make_shaper()
    complain(shaper, "451 4.7.500 Server busy", "yahoo", 0.0)  # takes nothing, and so gets less and less
    assert shaper.is_left_alone("one", "yahoo", 299.0) and shaper.is_left_alone("one", "yahoo", 301.0)
    assert shaper.accepted("one", "yahoo", 301.0)
    assert not shaper.is_left_alone("one", "yahoo", 301.0)
    reported = [shaper.accepted("one", "yahoo", 302.0) for _ in range(200)]
    assert [number for number, gets_more in enumerate(reported, 2) if gets_more] == [100, 200]  # a session each
    assert not shaper.accepted("two", "yahoo", 302.0)


LINES = st.sampled_from(
    [
        "454 4.7.0 Throttling failure: Maximum sending rate exceeded",
        "421 4.7.0 Too many connections",
        "451 4.7.500 Server busy",
        "421 4.7.28 unusual rate",
        "250 2.0.0 ok",
    ]
)
STEPS = st.lists(
    st.tuples(st.floats(0, 5), st.sampled_from(["google", "yahoo"]), st.one_of(st.none(), LINES)), max_size=60
)


@pytest.mark.slow
@given(STEPS)
def test_shaper_never_exceeds_what_was_configured_whatever_servers_say(
    steps: list[tuple[float, str, str | None]],
) -> None:
    rates = {"campaign": Rate(3.0, 2), "relay": Rate(2.5, 3), "google": Rate(2.0)}
    shaper = make_shaper(rate=rates["campaign"], relay_rate=rates["relay"])
    went: dict[str, list[float]] = {name: [] for name in (*rates, "yahoo")}
    now = 0.0
    for nap, provider, line in steps:
        now += nap
        if line is not None:
            complain(shaper, line, provider, now)
        while shaper.take("one", provider, now):
            shaper.accepted("one", provider, now)
            for name in ("campaign", "relay", provider):
                went[name].append(now)
        assert shaper.wait("one", provider, now) > 0
        assert 1 <= shaper.session_limits("one", provider)[0] <= shaper.connections("one") <= 10
    for name, rate in rates.items():
        for first, begin in enumerate(went[name]):
            for last in range(first, len(went[name])):
                assert last - first + 1 <= rate.burst + rate.per_second * (went[name][last] - begin) + 1e-6


def test_shaper_needs_a_complaint() -> None:
    shaper = make_shaper()
    shaper.throttle(
        known_feedback().decide(Reply(Stage.RCPT, 450, "4.2.0", "greylisted")), ("one", "yahoo"), 0.0, open=1
    )
    assert shaper.slowdown("one", "yahoo", 0.0) is shaper.slowdown("one", "", 0.0) is None


@pytest.mark.slow
def test_shaper_keeps_to_a_servers_own_limit_and_loses_little_by_it() -> None:
    """14 messages in any second, then 454; answers take 50 ms.  No one told us about the limit."""
    shaper, now, step = make_shaper(), 0.0, 0.005
    arrived, flying = list[float](), list[tuple[float, bool]]()
    accepted, throttled_late, sent_late = 0, 0, 0
    while accepted < 2000 and now < 1000:
        now += step
        while flying and flying[0][0] <= now:
            _, was_taken = flying.pop(0)
            if was_taken:
                accepted += 1
                shaper.accepted("one", "yahoo", now)
            else:
                complain(shaper, "454 4.7.0 Throttling failure: Maximum sending rate exceeded", "yahoo", now)
        while len(flying) < shaper.session_limits("one", "yahoo")[0] and shaper.take("one", "yahoo", now):
            arrived = [at for at in arrived if at > now - 1.0]
            is_taken = len(arrived) < 14
            if is_taken:
                arrived.append(now)
            sent_late += now > 10.0
            throttled_late += now > 10.0 and not is_taken
            flying.append((now + 0.05, is_taken))
    assert accepted == 2000
    assert throttled_late < 0.02 * sent_late
    assert accepted / now > 0.85 * 14
