"""How fast, how patiently and when a campaign goes: `[sending]`, providers and `[breakers]`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from bulkmail.model.breaker import BreakerLimits
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.pace import Pace
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.route import MailboxProvider, MailboxProviders, ProviderLimits
from bulkmail.model.schedule import COLUMN, Schedule, column_of
from bulkmail.settings.layers import KeyPath, Sources, read_flags
from bulkmail.settings.overrides import FLAGS
from bulkmail.settings.parsers import at_least_one, find_zone
from bulkmail.settings.presets import known_providers
from bulkmail.settings.problems import Said, show

if TYPE_CHECKING:
    from bulkmail.settings.key_types import ProviderTable
    from bulkmail.settings.schema import SendingTable


OTHER = "other"
"""`[mailbox_providers.other]`: each domain that belongs to no provider."""

_DOMAIN = lazy_pattern(r"[^\s@*.]+(\.[^\s@*.]+)*(\.\*)?")
_MADE_OTHERWISE = frozenset({"rate", "retry", "mailbox_providers", "breakers"})


def build_pace(sources: Sources) -> Pace:
    """Speed, patience, hours and breakers; settings with a fault are reported and left at its default."""
    sending, pace = sources.file.sending, Pace()
    if sending.burst is not None and sending.rate is None and ("sending", "rate") not in sources.broken:
        said = Said(sending.burst, sources.place(("sending", "burst")), sources.home)
        sources.problems.add(f"{said}: has no effect without a rate", 'write rate = "50/s" as well')
    pace = replace(
        with_parts(pace, sending),
        retry=_retry(sending),
        relay_backoff=replace(pace.relay_backoff, schedule=sending.retry.relay or ()),
        provider_backoff=replace(pace.provider_backoff, schedule=sending.retry.mailbox_provider or ()),
        limit=_limit(sources),
        mailbox_providers=_providers(sources),
        breakers=_breakers(sources),
    )
    # A written schedule is kept to its end unless set otherwise.
    if sending.patience is None and sending.retry.relay:
        pace = replace(pace, patience=sum(sending.retry.relay))
    return pace


def with_flags(pace: Pace, typed: Mapping[str, str | int]) -> Pace:
    """`pace` with what was typed of the flags of `[sending]`, the rest as it was.  Raises `ConfigError` for the first
    that cannot be read.
    """
    files, faults = read_flags(typed)
    for _, mistake in faults:
        raise ConfigError(mistake.text, hint=mistake.fix)
    for flag, file in files.items():
        assert FLAGS[flag][0] == "sending"  # noqa: S101
        pace = with_parts(pace, file.sending)
        if file.sending.canary is not None:
            pace = replace(pace, breakers=replace(pace.breakers, canary=file.sending.canary))
    return pace


def with_parts(pace: Pace, sending: SendingTable) -> Pace:
    """The keys that are parts of a `Pace` by their names, and the rate with its burst."""
    parts = {part.name for part in fields(pace)} - _MADE_OTHERWISE
    given: dict[str, Any] = {name: value for name, value in sending.given().items() if name in parts}
    if sending.rate is not None:
        given["rate"] = sending.rate if sending.burst is None else replace(sending.rate, burst=sending.burst)
    return replace(pace, **given)


def _retry(sending: SendingTable) -> RetryPolicy:
    """A written schedule is kept to its end unless `max_attempts` or `max_age` say otherwise."""
    schedule, usual = sending.retry.recipient or (), RetryPolicy()
    return RetryPolicy(
        schedule=schedule,
        max_attempts=sending.max_attempts or (len(schedule) + 1 if schedule else usual.max_attempts),
        max_age=sending.max_age or max(usual.max_age, 2 * sum(schedule)),
    )


def _limit(sources: Sources) -> int | None:
    limit = sources.overrides.limit
    try:
        return None if limit is None else at_least_one(limit)
    except ConfigError as error:
        sources.problems.add(f"--limit {show(limit or 0)}: {error}", error.hint)
        return None


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
            providers = replace(providers, other=_limits(provider))
            continue
        if name not in providers.by_name and not provider.domains and not provider.exchangers:
            place, known = sources.place(("mailbox_providers", name)), ", ".join(providers.by_name)
            sources.problems.add(
                f"{place}: is no provider that is known, and has no domains",
                f'write domains = ["example.com"] below it; known are {known}',
            )
        domains = _names(sources, ("mailbox_providers", name, "domains"), provider.domains)
        exchangers = _names(sources, ("mailbox_providers", name, "exchangers"), provider.exchangers)
        providers = providers.with_provider(MailboxProvider(name, domains, exchangers, limits=_limits(provider)))
    return providers


def _limits(provider: ProviderTable) -> ProviderLimits:
    return ProviderLimits(provider.rate, provider.connections, provider.messages_per_session)


def _names(sources: Sources, key: KeyPath, names: list[str]) -> frozenset[str]:
    for number, name in enumerate(names):
        if not _DOMAIN.fullmatch(name):
            said = Said(name, sources.place((*key, number)), sources.home)
            sources.problems.add(f"{said}: is not a domain", 'write "example.com", or "example.*" for every country')
    return frozenset(name.lower() for name in names)


def _breakers(sources: Sources) -> BreakerLimits:
    table, usual, canary = sources.file.breakers, BreakerLimits(), sources.file.sending.canary
    run = usual.policy_run if table.policy_rejections is None else table.policy_rejections
    return BreakerLimits(
        policy_run=run,
        policy_among=max(run * 5 // 2, 1),
        unknown_share=usual.unknown_share if table.unknown_users is None else table.unknown_users,
        unknown_after=table.unknown_users_after or usual.unknown_after,
        canary=usual.canary if canary is None else canary,
        canary_share=usual.canary_share if table.canary_rejections is None else table.canary_rejections,
    )


def build_schedule(sources: Sources) -> Schedule | None:
    """None without `send_at`.  Faults are reported; whether a time has passed is checked when the list is loaded."""
    sending = sources.file.sending
    send_at = sources.pick(("sending", "send_at"), sending.send_at)
    timezone = sources.pick(("sending", "timezone"), sending.timezone)
    if send_at is None:
        if timezone is not None and ("sending", "send_at") not in sources.broken:
            sources.problems.add(
                f"{timezone}: has no effect without send_at",
                'write send_at = "09:00" as well; the zone of `now` in a message is timezone below [message]',
            )
        return None
    schedule = Schedule(
        send_at.value.strip(), timezone.value.strip() if timezone else "", sources.file.message.timezone or ""
    )

    def zone(name: str) -> tzinfo:
        return find_zone(name, environ=sources.environ)

    for said in (send_at, timezone):
        if said is not None and (said.value.strip() == COLUMN or not said.value.strip()):
            sources.problems.add(f"{said}: names no column", f'write "{COLUMN}NAME" with the name of a column')
            return None
    try:
        if not schedule.zone_column:
            zone(schedule.timezone or schedule.fallback)
    except ConfigError as error:
        sources.problems.add(f"{timezone or send_at}: {error}", error.hint)
        return None
    if not column_of(schedule.send_at):
        try:
            fixed = Schedule(schedule.send_at, "UTC" if schedule.zone_column else schedule.timezone, schedule.fallback)
            fixed.moment({}, zone, now=time.time())
        except ConfigError as error:
            sources.problems.add(f"{sources.place(('sending', 'send_at'))}: {error}", error.hint)
            return None
    return schedule
