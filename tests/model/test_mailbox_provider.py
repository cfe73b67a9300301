"""Which provider a recipient belongs to, and how its provider may be used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.rate import Rate
from bulkmail.model.route import MailboxProvider, MailboxProviders, ProviderLimits

GOOGLE = MailboxProvider(
    "google", frozenset({"gmail.com"}), frozenset({"google.com"}), preset=ProviderLimits(Rate(10.0), 5, 50)
)
YAHOO = MailboxProvider("yahoo", frozenset({"yahoo.*", "aol.com"}), frozenset({"yahoodns.net"}))
JAPAN = MailboxProvider("yahoo-japan", frozenset({"yahoo.co.jp"}))
PROVIDERS = MailboxProviders({provider.name: provider for provider in (GOOGLE, YAHOO, JAPAN)})


@pytest.mark.parametrize(
    ("domain", "provider"),
    [
        ("gmail.com", "google"),
        ("GMail.Com.", "google"),
        ("yahoo.fr", "yahoo"),
        ("yahoo.co.uk", "yahoo"),
        ("yahoo.co.jp", "yahoo-japan"),
        ("yahoo.com", "yahoo"),
        ("yahoo.com.br", "yahoo"),
        ("yahoo.example.com", "yahoo.example.com"),
        ("yahoo.example.fr", "yahoo.example.fr"),
        ("yahoo.co.example", "yahoo.co.example"),
        ("yahoo.shop.example.com", "yahoo.shop.example.com"),
        ("mail.gmail.com", "mail.gmail.com"),
        ("example.org", "example.org"),
        ("localhost", "localhost"),
    ],
)
def test_provider_is_the_known_one_or_the_domain(domain: str, provider: str) -> None:
    assert PROVIDERS.of(domain) == provider


@pytest.mark.parametrize(
    ("hosts", "provider"),
    [
        (["aspmx.l.google.com", "alt1.aspmx.l.google.com"], "google"),
        (["MX.YAHOODNS.NET."], "yahoo"),
        (["mail.notgoogle.com"], None),
        (["google.com.evil.example"], None),
        ([], None),
        (["mx.example.org", "google.com"], "google"),
    ],
)
def test_provider_by_exchanger_goes_by_the_end_of_the_name(hosts: list[str], provider: str | None) -> None:
    assert PROVIDERS.of_exchangers(hosts) == provider


@given(st.text(max_size=300))
def test_provider_of_anything_is_something(domain: str) -> None:
    assert isinstance(PROVIDERS.of(domain), str)
    assert PROVIDERS.of_exchangers([domain]) in (None, *PROVIDERS.by_name)


def test_provider_presets_hold_only_where_they_are_wanted() -> None:
    assert PROVIDERS.limits("google") == ProviderLimits()
    wanting = MailboxProviders(PROVIDERS.by_name, uses_presets=True)
    assert wanting.limits("google") == ProviderLimits(Rate(10.0), 5, 50)


def test_provider_limits_of_the_user_stand_above_the_preset_one_by_one() -> None:
    providers = MailboxProviders(PROVIDERS.by_name, uses_presets=True).with_provider(
        MailboxProvider("google", frozenset({"shop.example"}), limits=ProviderLimits(rate=Rate(20.0)))
    )
    assert providers.limits("google") == ProviderLimits(Rate(20.0), 5, 50)
    assert (providers.of("shop.example"), providers.of("gmail.com")) == ("google", "google")
    assert providers.with_provider(MailboxProvider("google", limits=ProviderLimits(connections=1))).limits(
        "google"
    ).rate == Rate(20.0)


def test_provider_of_the_user_takes_domains_from_the_table() -> None:
    providers = PROVIDERS.with_provider(
        MailboxProvider("ours", frozenset({"gmail.com"}), limits=ProviderLimits(connections=2))
    )
    assert providers.of("gmail.com") == "ours"
    assert providers.limits("ours").connections == 2
    # One that was in the table before stands last as well, once the user wrote about it.
    assert providers.with_provider(MailboxProvider("google", frozenset({"gmail.com"}))).of("gmail.com") == "google"


def test_provider_of_a_domain_that_is_no_ones_has_the_limits_of_the_others() -> None:
    providers = MailboxProviders(PROVIDERS.by_name, other=ProviderLimits(Rate(1.0)))
    assert providers.limits("example.org") == ProviderLimits(Rate(1.0))
    assert providers.limits("google") == ProviderLimits()


def test_provider_presets_are_about_us_only_at_a_providers_own_exchanger() -> None:
    assert PROVIDERS.for_relay(host="gmail-smtp-in.l.google.com", port=25).uses_presets
    assert PROVIDERS.for_relay(host="smtp.google.com", port=587) is PROVIDERS
    assert PROVIDERS.for_relay(host="mail.example.com", port=25) is PROVIDERS
    unwilling = MailboxProviders(PROVIDERS.by_name, uses_presets=False)
    assert unwilling.for_relay(host="gmail-smtp-in.l.google.com", port=25) is unwilling
