"""What holds a campaign back besides its rate: quota, hours, ramp, providers and breakers, read into a `Pace`."""

from __future__ import annotations

from dataclasses import replace
from datetime import tzinfo
from typing import TYPE_CHECKING, TypeVar

from bulkmail.model.breaker import BreakerLimits
from bulkmail.model.errors import ConfigError
from bulkmail.model.lane import MailboxProvider, MailboxProviders, ProviderLimits
from bulkmail.model.pace import Pace
from bulkmail.model.pattern import lazy_pattern
from bulkmail.model.quota import NO_QUOTA, parse_quota
from bulkmail.model.ramp import parse_ramp
from bulkmail.model.rate import Rate
from bulkmail.model.window import ALWAYS, parse_start, parse_windows
from bulkmail.settings.locator import KeyPath
from bulkmail.settings.pacing import read
from bulkmail.settings.problems import Said
from bulkmail.settings.sources import Sources
from bulkmail.settings.tables import known_providers
from bulkmail.settings.zones import find_zone

if TYPE_CHECKING:
    from bulkmail.settings.pace_tables import ProviderTable

T = TypeVar("T")
V = TypeVar("V", str, int)

OTHER = "other"
"""`[mailbox_providers.other]`: each domain that belongs to no provider."""

_DOMAIN = lazy_pattern(r"[^\s@*.]+(\.[^\s@*.]+)*(\.\*)?")
_PERCENT = lazy_pattern(r"(\d{1,3}(?:\.\d{1,2})?)\s*%")


def with_bounds(sources: Sources, pace: Pace) -> Pace:
    """`pace` with what `[sending]`, `[mailbox_providers]` and `[breakers]` add, without what has a fault."""
    sending, overrides = sources.file.sending, sources.overrides

    def zone(name: str) -> tzinfo:
        return find_zone(name, environ=sources.environ)

    def said(key: str, written: str | None, typed: str | None) -> Said[str] | None:
        return sources.pick(("sending", key), written, flag=f"--{key}", typed=typed)

    return replace(
        pace,
        quota=read(sources, said("quota", sending.quota, overrides.quota), parse_quota, NO_QUOTA),
        windows=read(
            sources, said("window", sending.window, overrides.window), lambda text: parse_windows(text, zone), ALWAYS
        ),
        start=read(sources, said("start", sending.start, overrides.start), lambda text: parse_start(text, zone), None),
        ramp=read(sources, said("ramp", sending.ramp, overrides.ramp), parse_ramp, None),
        mailbox_providers=_providers(sources),
        breakers=_breakers(sources),
    )


def _providers(sources: Sources) -> MailboxProviders | None:
    table = sources.file.mailbox_providers
    if table is None:
        return None
    providers = replace(known_providers(), uses_presets=table.presets, by_exchanger=table.by_mx)
    for name, provider in table.named.items():
        if name == OTHER:
            if provider.domains or provider.exchangers:
                place = sources.place(("mailbox_providers", name))
                sources.problems.add(
                    f"{place}: is for the domains that no provider names", "give the provider a name of its own"
                )
            providers = replace(providers, other=_limits(sources, name, provider))
            continue
        if name not in providers.by_name and not provider.domains and not provider.exchangers:
            _tell_unknown(sources, name, providers)
        domains = _names(sources, ("mailbox_providers", name, "domains"), provider.domains)
        exchangers = _names(sources, ("mailbox_providers", name, "exchangers"), provider.exchangers)
        providers = providers.with_provider(
            MailboxProvider(name, domains, exchangers, limits=_limits(sources, name, provider))
        )
    return providers


def _tell_unknown(sources: Sources, name: str, providers: MailboxProviders) -> None:
    place = sources.place(("mailbox_providers", name))
    known = ", ".join(providers.by_name)
    sources.problems.add(
        f"{place}: is no provider that is known, and has no domains",
        f'write domains = ["example.com"] below it; known are {known}',
    )


def _limits(sources: Sources, name: str, provider: ProviderTable) -> ProviderLimits:
    def said(key: str, written: V | None) -> Said[V] | None:
        return sources.pick(("mailbox_providers", name, key), written)

    return ProviderLimits(
        rate=read(sources, said("rate", provider.rate), Rate.parse, None),
        connections=read(sources, said("connections", provider.connections), _at_least_one, None),
        messages_per_session=read(
            sources, said("messages_per_session", provider.messages_per_session), _at_least_one, None
        ),
    )


def _names(sources: Sources, key: KeyPath, names: list[str]) -> frozenset[str]:
    for number, name in enumerate(names):
        if not _DOMAIN.fullmatch(name):
            said = Said(name, sources.place((*key, number)), sources.home)
            sources.problems.add(f"{said}: is not a domain", 'write "example.com", or "example.*" for every country')
    return frozenset(name.lower() for name in names)


def _breakers(sources: Sources) -> BreakerLimits:
    table, usual = sources.file.breakers, BreakerLimits()
    sending, typed = sources.file.sending, sources.overrides.canary
    canary = sources.pick(("sending", "canary"), sending.canary, flag="--canary", typed=typed)

    def said(key: str, written: V | None) -> Said[V] | None:
        return sources.pick(("breakers", key), written)

    run = read(sources, said("policy_rejections", table.policy_rejections), _not_negative, usual.policy_run)
    return BreakerLimits(
        policy_run=run,
        policy_among=max(run * 5 // 2, 1),
        unknown_share=read(sources, said("unknown_users", table.unknown_users), parse_share, usual.unknown_share),
        unknown_after=read(
            sources, said("unknown_users_after", table.unknown_users_after), _at_least_one, usual.unknown_after
        ),
        canary=read(sources, canary, _not_negative, usual.canary),
        canary_share=read(sources, said("canary_rejections", table.canary_rejections), parse_share, usual.canary_share),
    )


def parse_share(text: str) -> float:
    """0 to 1 for `"0%"` to `"100%"`.  Raises `ConfigError`."""
    found = _PERCENT.fullmatch(text.strip())
    if not found or float(found[1]) > 100:
        raise ConfigError("is not a percentage", hint='write "10%", or "100%" to allow all')
    return float(found[1]) / 100


def _at_least_one(number: int) -> int:
    if number < 1:
        raise ConfigError("must be 1 or more", hint="write a whole number from 1")
    return number


def _not_negative(number: int) -> int:
    if number < 0:
        raise ConfigError("must be 0 or more", hint="write a whole number, 0 for never")
    return number
