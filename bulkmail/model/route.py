"""Which mail goes through which relay, and which of several that could take it comes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from urllib.parse import parse_qsl, urlencode

from bulkmail.model.address import Address
from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.pattern import lazy_pattern
from bulkmail.model.quota import Quota, parse_quota
from bulkmail.model.rate import Rate
from bulkmail.model.relay import Relay

ANY = "*"
MOST = 1000
LONGEST_NAME = 60  # characters

_NAME = lazy_pattern(r"[^\W_][\w .@:/\[\]-]*")
_OPTIONS = ("name", "weight", "priority", "rate", "quota", "senders", "recipients")


@dataclass(frozen=True, slots=True)
class Route:
    """A relay among others.  Alone it takes everything, whatever stands here but `rate` and the limits of a session.

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
