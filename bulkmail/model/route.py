"""Which mail goes where: the mailbox providers of recipients, and the relays that may take their mail."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from itertools import combinations, product
from urllib.parse import parse_qsl, urlencode

from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.quota import Quota, parse_quota
from bulkmail.model.rate import Rate
from bulkmail.model.recipient import Address
from bulkmail.model.relay import Relay

# -- Recipients grouped by who takes their mail in: which domains and mail exchangers belong to which provider.


@dataclass(frozen=True, slots=True)
class ProviderLimits:
    """How one provider may be used; None: as the relay is."""

    rate: Rate | None = None
    connections: int | None = None
    messages_per_session: int | None = None

    def over(self, other: ProviderLimits) -> ProviderLimits:
        """These, and where they say nothing the `other`'s."""
        return ProviderLimits(
            rate=other.rate if self.rate is None else self.rate,
            connections=other.connections if self.connections is None else self.connections,
            messages_per_session=(
                other.messages_per_session if self.messages_per_session is None else self.messages_per_session
            ),
        )


NO_LIMITS = ProviderLimits()


@dataclass(frozen=True, slots=True)
class MailboxProvider:
    """One provider.

    `domains` are what follows the @, in lower case, `"yahoo.*"` below any top-level domain or national suffix
    (`yahoo.fr`, `yahoo.co.uk`); `exchangers` are the ends of the names of its mail exchangers.
    `preset` is the table's, `limits` are what the user wrote.
    """

    name: str
    domains: frozenset[str] = frozenset()
    exchangers: frozenset[str] = frozenset()
    preset: ProviderLimits = NO_LIMITS
    limits: ProviderLimits = NO_LIMITS


# What countries have their names registered below, as "co" in co.uk (publicsuffix.org has them all, and takes 0.1 s).
_SECOND_LEVEL = frozenset(
    (
        *("ac", "asso", "biz", "co", "com", "edu", "gen", "go", "gob", "gouv", "gov", "gv", "id", "in", "inf", "info"),
        *("ltd", "me", "mil", "ne", "net", "nic", "nom", "or", "org", "plc", "sch", "web"),
    )
)


def _is_suffix(rest: str) -> bool:
    """Whether names are registered right below `rest`: a top-level domain, or a national one such as `co.uk`.

    So `yahoo.*` is yahoo.com, yahoo.fr and yahoo.co.uk, and not yahoo.example.com, which belongs to example.com.
    """
    below, _, top = rest.rpartition(".")
    return bool(top) and (not below or (len(top) == 2 and below in _SECOND_LEVEL))


@dataclass(frozen=True, slots=True)
class MailboxProviders:
    """All providers by name, and `other`: the limits of a domain without a known provider, which is its own provider.

    `uses_presets`: the presets apply; None: not set, see `for_relay()`.  Most campaigns go through a relay that spreads
    mail over days if necessary; what a provider tolerates from that relay is not our concern.
    """

    by_name: Mapping[str, MailboxProvider] = field(default_factory=dict)
    other: ProviderLimits = NO_LIMITS
    uses_presets: bool | None = None
    by_exchanger: bool = False
    _by_domain: Mapping[str, str] = field(init=False, repr=False, compare=False, default_factory=dict)
    _by_end: Mapping[str, str] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        providers = self.by_name.values()
        # What a user wrote stands last, and wins over the table's own.
        object.__setattr__(
            self, "_by_domain", {domain: provider.name for provider in providers for domain in provider.domains}
        )
        object.__setattr__(
            self, "_by_end", {end: provider.name for provider in providers for end in provider.exchangers}
        )

    @property
    def has_limits(self) -> bool:
        """Whether any provider may not be used as freely as the relay."""
        return self.other != NO_LIMITS or any(self.limits(name) != NO_LIMITS for name in self.by_name)

    def of(self, domain: str) -> str:
        """The provider of a recipient's domain, in A-labels or not; the domain itself when its provider is unknown."""
        domain = domain.rstrip(".").lower()
        if domain in self._by_domain:
            return self._by_domain[domain]
        first, _, rest = domain.partition(".")
        if f"{first}.*" in self._by_domain and _is_suffix(rest):
            return self._by_domain[f"{first}.*"]
        return domain

    def of_exchangers(self, hosts: Iterable[str]) -> str | None:
        """The provider that the mail exchangers of a domain belong to, best first; None when it is unknown."""
        for host in hosts:
            labels = host.rstrip(".").lower().split(".")
            for start in range(len(labels)):
                name = self._by_end.get(".".join(labels[start:]))
                if name is not None:
                    return name
        return None

    def limits(self, name: str) -> ProviderLimits:
        """How the provider `name`, as `of()` calls it, may be used."""
        provider = self.by_name.get(name)
        if provider is None:
            return self.other
        return provider.limits.over(provider.preset) if self.uses_presets else provider.limits

    def with_provider(self, provider: MailboxProvider) -> MailboxProviders:
        """With `provider`, merged into one of the same name: domains are added, limits replaced where it has any."""
        old = self.by_name.get(provider.name, MailboxProvider(provider.name))
        merged = replace(
            old,
            domains=old.domains | provider.domains,
            exchangers=old.exchangers | provider.exchangers,
            limits=provider.limits.over(old.limits),
        )
        others = {name: each for name, each in self.by_name.items() if name != provider.name}
        return replace(self, by_name={**others, provider.name: merged})

    def for_relay(self, *, host: str, port: int) -> MailboxProviders:
        """With presets, unless the settings say otherwise, if the relay is one of a provider's own mail exchangers.

        Those listen at port 25.  A provider's submission server (587, 465) is called much like them, by other rules.
        """
        if self.uses_presets is None and port == 25 and self.of_exchangers([host]) is not None:
            return replace(self, uses_presets=True)
        return self


# -- Which mail goes through which relay, and which of several that could take it comes first.


ANY = "*"
MOST = 1000
LONGEST_NAME = 60  # characters

_NAME = lazy_pattern(r"[^\W_][\w .@:/\[\]-]*")
_OPTIONS = ("name", "weight", "priority", "rate", "quota", "senders", "recipients")


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """A relay among others.  Alone it takes everything; only `rate` and limits of a session count then.

    Mail goes through the relays that name it most closely by `senders` (the domain of From) and `recipients`: patterns
    `"example.com"`, `"*.example.com"` (any domain below it) or `"*"`; empty is the same as `"*"`.  Of those, the ones
    with the lowest `priority` (1 to 1000) take it as long as they can: each as much as it can, or, where one of them
    has a `weight` (1 to 1000), in such shares, those without one counting 1.  `rate` applies together with the
    campaign's, `quota` to its account instead of the campaign's.  None for a quota or a session limit is the pace's.
    """

    relay: Relay
    name: str = ""
    weight: int | None = None
    priority: int = 1
    rate: Rate | None = None
    quota: Quota | None = None
    messages_per_session: int | None = None
    session_age: float | None = None
    senders: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.name or str(self.relay)

    @classmethod
    def parse(cls, url: str) -> Route:
        """The relay that a URL means, with `name weight priority rate quota senders recipients` among its options.

        Raises `ConfigError`, never with a piece of a password.
        """
        rest, mine = split_url(url)
        return cls(
            relay=Relay.parse(rest),
            name=parse_name(mine["name"]) if "name" in mine else "",
            weight=parse_count(mine["weight"], "weight") if "weight" in mine else None,
            priority=parse_count(mine.get("priority", "1"), "priority"),
            rate=Rate.parse(mine["rate"]) if "rate" in mine else None,
            quota=parse_quota(mine["quota"]) if "quota" in mine else None,
            senders=parse_patterns(mine.get("senders", "").split(",")) if "senders" in mine else (),
            recipients=parse_patterns(mine.get("recipients", "").split(",")) if "recipients" in mine else (),
        )


def split_url(url: str) -> tuple[str, dict[str, str]]:
    """A relay's URL without the options that make it one among others, and those options."""
    server, _, query = url.strip().partition("?")
    if "@" in query or not server.lower().startswith(("smtp:", "smtps:")):  # @: there may be a password in it
        return url, {}
    pairs = parse_qsl(query, keep_blank_values=True)
    mine = {key: value for key, value in pairs if key in _OPTIONS}
    if not mine:
        return url, {}
    rest = urlencode([(key, value) for key, value in pairs if key not in _OPTIONS])
    return f"{server}?{rest}" if rest else server, mine


def parse_name(text: str) -> str:
    """A relay's name.  Raises `ConfigError`."""
    name = text.strip()
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        raise ConfigError("is not a name for a relay", hint='write a word such as "main"')
    return name


def parse_count(text: str, what: str) -> int:
    """A weight or a priority, 1 to 1000.  Raises `ConfigError`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MOST):
        fix = "; leave a relay out to send nothing through it" if what == "weight" else "; the lowest comes first"
        raise ConfigError(f"{what}={text[:20]!r}", hint=f"write a number from 1 to {MOST}{fix}")
    return int(text)


def parse_patterns(texts: Sequence[str]) -> tuple[str, ...]:
    """Domains, as they go on the wire.  Raises `ConfigError` for what is no domain and for one named twice."""
    found: list[str] = []
    for text in texts:
        pattern = _parse_pattern(text.strip())
        if pattern in found:
            raise ConfigError(f"{text.strip()[:60]!r} is listed twice", hint="keep one of them")
        found.append(pattern)
    if not found:
        raise ConfigError("names no domain", hint='write ["example.com", "*.example.com"], or leave it out')
    return tuple(found)


def _parse_pattern(text: str) -> str:
    if text == ANY:
        return text
    below, domain = ("*.", text[2:]) if text.startswith("*.") else ("", text.removeprefix("@"))
    try:
        return below + Address.parse(f"a@{domain}").domain
    except AddressError:
        raise ConfigError(f"{text[:60]!r} is not a domain", hint='write "example.com" or "*.example.com"') from None


def _fits(pattern: str, domain: str) -> bool:
    return pattern in (ANY, domain) or (pattern.startswith("*.") and domain.endswith(pattern[1:]))


def _closeness(pattern: str) -> tuple[bool, int]:
    """The greater, the more closely it names a domain: the domain itself, then the longest `*.` above it, then `*`."""
    return (not pattern.startswith("*"), 0 if pattern == ANY else len(pattern))


_Closeness = tuple[bool, int]


def serving(routes: Sequence[Route], *, sender: str, recipient: str) -> tuple[int, ...]:
    """The numbers of the routes that mail between these two domains may take; none at all is a fault of the routes."""
    found: dict[int, tuple[_Closeness, _Closeness]] = {}
    for number, route in enumerate(routes):
        by_sender = _closest(route.senders, sender)
        by_recipient = _closest(route.recipients, recipient)
        if by_sender is not None and by_recipient is not None:
            found[number] = (by_sender, by_recipient)
    return tuple(
        number
        for number, mine in found.items()
        if not any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in found.values())
    )


def _closest(patterns: tuple[str, ...], domain: str) -> _Closeness | None:
    return max((_closeness(pattern) for pattern in patterns or (ANY,) if _fits(pattern, domain)), default=None)


@dataclass(frozen=True, slots=True)
class Clash:
    """Two routes (by number) that cannot stand beside one another; `what` goes on from both their labels."""

    first: int
    second: int
    what: str
    fix: str


def clashes(routes: Sequence[Route]) -> list[Clash]:
    """What is wrong with `routes` as a whole: two of one name, a rehearsal among real ones, mail that fits two."""
    found: list[Clash] = []
    for (i, first), (j, second) in combinations(enumerate(routes), 2):
        if first.label.casefold() == second.label.casefold():
            found.append(Clash(i, j, f"are both called {second.label!r}", 'give each a name of its own: name = "main"'))
        if first.relay.kind.is_rehearsal is not second.relay.kind.is_rehearsal:
            found.append(Clash(i, j, "are a rehearsal and a real relay", "keep to one kind"))
        elif overlap := _overlap(first, second, routes):
            found.append(
                Clash(
                    i,
                    j,
                    f"overlap: mail from {overlap[0]} to {overlap[1]} fits one by its sender, the other by its "
                    "recipient, and it is not clear which relay applies",
                    f"name both at the relay that should send it: senders = [{overlap[0]!r}], "
                    f"recipients = [{overlap[1]!r}]".replace("'", '"'),
                )
            )
    return found


def _overlap(first: Route, second: Route, routes: Sequence[Route]) -> tuple[str, str] | None:
    """Sender and recipient pattern of mail that neither of two routes names more closely; None if there is none."""
    for one, other in product(_pairs(first), _pairs(second)):
        sender = _common(one[0], other[0])
        recipient = _common(one[1], other[1])
        if sender is None or recipient is None or (sender, recipient) in (one, other):
            continue
        if not any((sender, recipient) in _pairs(route) for route in routes):
            return sender, recipient
    return None


def _pairs(route: Route) -> list[tuple[str, str]]:
    return list(product(route.senders or (ANY,), route.recipients or (ANY,)))


def _common(one: str, other: str) -> str | None:
    """The pattern of what fits both; None when nothing does."""
    narrow, wide = sorted((one, other), key=_closeness, reverse=True)
    if wide == ANY or narrow == wide:
        return narrow
    return narrow if wide.startswith("*.") and narrow.removeprefix("*").endswith(wide[1:]) else None
