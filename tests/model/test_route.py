"""Which of several relays mail may go through: the closest name counts, and it is found for any addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Kind, Relay
from bulkmail.model.route import Route, clashes, parse_patterns, serving, split_url

LABELS = st.sampled_from(["a", "b", "mail"])
DOMAINS = st.lists(LABELS, min_size=1, max_size=3).map(lambda labels: ".".join([*labels, "example"]))
PATTERNS = st.one_of(st.just("*"), DOMAINS, DOMAINS.map(lambda domain: f"*.{domain}"))
LISTS = st.lists(PATTERNS, max_size=3, unique=True).map(tuple)


def route(name: str = "", *, senders: tuple[str, ...] = (), recipients: tuple[str, ...] = ()) -> Route:
    return Route(Relay.parse("smtp://mail.example.com"), name, senders=senders, recipients=recipients)


@pytest.mark.parametrize(
    ("recipient", "numbers"),
    [
        ("gmail.com", (0,)),
        ("example.org", (2,)),
        ("a.example.org", (1,)),
        ("b.a.example.org", (1,)),
        ("deep.example.org", (3,)),
        ("badexample.org", (2,)),
    ],
)
def test_closest_pattern_counts(recipient: str, numbers: tuple[int, ...]) -> None:
    routes = [
        route(recipients=("gmail.com",)),
        route(recipients=("*.example.org",)),
        route(),
        route(recipients=("deep.example.org",)),
    ]
    assert serving(routes, sender="shop.example", recipient=recipient) == numbers


def test_relays_that_name_it_alike_share_it() -> None:
    routes = [route(recipients=("gmail.com",)), route(recipients=("*", "gmail.com")), route()]
    assert serving(routes, sender="x.example", recipient="gmail.com") == (0, 1)
    assert serving(routes, sender="x.example", recipient="other.example") == (1, 2)


def test_mail_that_no_one_takes_is_served_by_none() -> None:
    assert serving([route(recipients=("gmail.com",))], sender="x.example", recipient="other.example") == ()


@pytest.mark.slow
@given(st.lists(st.tuples(LISTS, LISTS), min_size=1, max_size=4), DOMAINS, DOMAINS)
def test_all_that_serve_it_name_it_alike_unless_the_routes_clash(
    lists: list[tuple[tuple[str, ...], tuple[str, ...]]], sender: str, recipient: str
) -> None:
    routes = [route(str(n), senders=senders, recipients=recipients) for n, (senders, recipients) in enumerate(lists)]
    found = serving(routes, sender=sender, recipient=recipient)
    alike = {
        tuple(
            max((p for p in patterns or ("*",) if fits(p, domain)), key=lambda p: (not p.startswith("*"), len(p)))
            for patterns, domain in ((routes[n].senders, sender), (routes[n].recipients, recipient))
        )
        for n in found
    }
    assert len(alike) <= 1 or clashes(routes)


def fits(pattern: str, domain: str) -> bool:
    return pattern in ("*", domain) or (pattern[:2] == "*." and domain.endswith(pattern[1:]))


def test_options_of_a_url_are_reported_from_the_relays_own() -> None:
    assert split_url("smtp://a.example?tls=off&weight=2&name=x") == (
        "smtp://a.example?tls=off",
        {"weight": "2", "name": "x"},
    )
    assert split_url("maildir:out?weight=2") == ("maildir:out?weight=2", {})
    assert Route.parse("maildir:out?weight=2").relay == Relay(Kind.MAILDIR, directory="out?weight=2")


@pytest.mark.parametrize("text", ["", "a b", "*.", "**", "a@b@c", "x\ny.example", "-"])
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_patterns([text])


@given(st.text(max_size=40))
def test_any_text_is_a_domain_or_a_config_error(text: str) -> None:
    try:
        (pattern,) = parse_patterns([text])
    except ConfigError:
        return
    assert pattern.isascii()
    assert parse_patterns([pattern]) == (pattern,)
