"""Recipients grouped by who takes their mail in: which domains and mail exchangers belong to which provider."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, replace

from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.rate import Rate


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

    `domains` are what stands behind the @ in lower case, `"yahoo.*"` below any top-level domain or national suffix
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
