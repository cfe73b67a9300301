"""What the DNS says of sender and recipients: SPF, DKIM, DMARC, mail exchangers, who belongs together."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import field
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from bulkmail.model.lazy import dataclass, lazy_pattern

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList


Ask = Callable[[str, str], Awaitable[tuple[str, ...]]]
"""The records of a name and a type (TXT, MX, A, AAAA) as texts, none if there are none.  Raises `Unanswered`."""

TIMEOUT = 5.0  # seconds for one question
PATIENCE = 60.0  # seconds for all about the sender, and again for the domains of all recipients
MOST_AT_ONCE = 20
MOST_DOMAINS = 500  # of recipients that are asked about, those with most recipients first
MOST_LOOKUPS = 10  # RFC 7208 §4.6.4
_COUNTED_TO = 25
_MECHANISM = lazy_pattern(r"[+?~-]?(include|a|mx|ptr|exists)(?:[:/](.*))?", re.IGNORECASE)


class Unanswered(Exception):
    """No name server said anything of use."""


class KeyState(Enum):
    """How a published DKIM key compares with the one that signs."""

    MATCHES = "matches"
    DIFFERS = "differs"
    MISSING = "missing"
    REVOKED = "revoked"
    UNANSWERED = "unanswered"


class NoMail(Enum):
    """Why a domain takes no mail."""

    NULL_MX = "says that it takes no mail (null MX)"
    NO_SERVER = "has no mail server, and may not exist"


@dataclass(frozen=True, slots=True)
class Spf:
    """The SPF record of `domain`, empty if there is none.  `lookups` are those that evaluating it can take in total.

    `missing` are names that it includes and that have no record.
    """

    domain: str
    records: tuple[str, ...] = ()
    lookups: int = 0
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Records:
    """What was found out.  `policy` is DMARC's `none`, `quarantine` or `reject`, empty if there is no record.

    `keys` are by the name of their record.  `no_mail` are domains of recipients that take no mail, and why;
    `asked` of `domains` were asked about.  `unanswered` are queries without an answer.
    """

    spf: Spf | None = None
    keys: Mapping[str, KeyState] = field(default_factory=dict)
    dmarc_domain: str = ""
    policy: str | None = None
    no_mail: tuple[tuple[str, NoMail], ...] = ()
    asked: int = 0
    domains: int = 0
    unanswered: tuple[str, ...] = ()


class Questions:
    """Queries with limited concurrency and time, and remembers what went unanswered."""

    def __init__(self, ask: Ask, *, timeout: float = TIMEOUT) -> None:
        self._ask = ask
        self._timeout = timeout
        self._few = anyio.CapacityLimiter(MOST_AT_ONCE)
        self.unanswered: list[str] = []

    async def of(self, name: str, kind: str) -> tuple[str, ...] | None:
        """The records, or None without an answer."""
        async with self._few:
            with anyio.move_on_after(self._timeout):
                try:
                    return await self._ask(name, kind)
                except Unanswered:
                    pass
        self.unanswered.append(f"{name} {kind}")
        return None


async def find_records(
    ask: Ask,
    *,
    sender_domain: str,
    bounce_domain: str,
    keys: Mapping[str, str],
    recipients: Mapping[str, int],
    most_domains: int | None = MOST_DOMAINS,
    patience: float = TIMEOUT,
) -> Records:
    """Asks for everything.  `keys` are what DKIM records must hold (`p=`), by the record's name.

    `recipients` are the rows by domain; at most `most_domains` are asked about, those with most rows, None for all.
    Never raises.

    `patience` are the seconds that one question may take.
    """
    questions = Questions(ask, timeout=patience)
    chosen = sorted(recipients, key=lambda domain: -recipients[domain])[:most_domains]
    reasons: dict[str, NoMail] = {}
    done: list[str] = []

    async def look(domain: str) -> None:
        if (reason := await _why_no_mail(questions, domain)) is not None:
            reasons[domain] = reason
        done.append(domain)

    spf: Spf | None = None
    states: dict[str, KeyState] = {}
    dmarc_domain, policy = "", None
    with anyio.move_on_after(PATIENCE):  # a record that includes many silent ones could take minutes
        for name, key in keys.items():
            states[name] = await _key_state(questions, name, key)
        if sender_domain:
            dmarc_domain, policy = await _policy(questions, sender_domain)
        if bounce_domain:
            spf = await _spf(questions, bounce_domain)
    with anyio.move_on_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for domain in chosen:
                group.start_soon(look, domain)
    return Records(
        spf,
        states,
        dmarc_domain,
        policy,
        tuple((domain, reasons[domain]) for domain in chosen if domain in reasons),
        len(done),
        len(recipients),
        tuple(questions.unanswered),
    )


async def _why_no_mail(questions: Questions, domain: str) -> NoMail | None:
    exchangers = await questions.of(domain, "MX")
    if exchangers is None:
        return None
    if any(record.split()[-1:] in (["."], []) for record in exchangers):
        return NoMail.NULL_MX
    if exchangers:
        return None
    for kind in ("A", "AAAA"):  # RFC 5321 §5.1: without MX the host itself
        hosts = await questions.of(domain, kind)
        if hosts is None or hosts:
            return None
    return NoMail.NO_SERVER


async def _spf(questions: Questions, domain: str) -> Spf | None:
    found = await _spf_records(questions, domain)
    if found is None:
        return None
    if len(found) != 1:
        return Spf(domain, found)
    missing: list[str] = []
    lookups = await _lookups(questions, found[0], missing, budget=_COUNTED_TO)
    return Spf(domain, found, lookups, tuple(missing))


async def _spf_records(questions: Questions, domain: str) -> tuple[str, ...] | None:
    texts = await questions.of(domain, "TXT")
    if texts is None:
        return None
    return tuple(text for text in texts if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 "))


async def _lookups(questions: Questions, record: str, missing: list[str], *, budget: int) -> int:
    """The questions to the DNS that judging `record` can take, counted up to `budget`."""
    spent = 0
    for term in record.split()[1:]:
        redirect = term[9:] if term.lower().startswith("redirect=") else ""
        mechanism = _MECHANISM.fullmatch(term)
        if not (redirect or mechanism):
            continue
        spent += 1
        included = redirect or (mechanism[2] if mechanism and mechanism[1].lower() == "include" else "") or ""
        if spent >= budget:
            return spent
        if included and "%" not in included:  # a macro depends on the message
            below = await _spf_records(questions, included)
            if below is not None and len(below) != 1:
                missing.append(included)
            elif below:
                spent += await _lookups(questions, below[0], missing, budget=budget - spent)
        if spent >= budget:
            return spent
    return spent


async def _key_state(questions: Questions, name: str, key: str) -> KeyState:
    texts = await questions.of(name, "TXT")
    if texts is None:
        return KeyState.UNANSWERED
    published = [tags["p"] for text in texts if "p" in (tags := _tags(text))]
    if not published:
        return KeyState.MISSING
    if key in published:
        return KeyState.MATCHES
    return KeyState.REVOKED if not any(published) else KeyState.DIFFERS


async def _policy(questions: Questions, domain: str) -> tuple[str, str | None]:
    """The domain whose DMARC record holds, and its policy; None without an answer."""
    above = await anyio.to_thread.run_sync(organization, domain)
    for each in dict.fromkeys((domain, above)):
        texts = await questions.of(f"_dmarc.{each}", "TXT")
        if texts is None:
            return each, None
        for text in texts:
            tags = _tags(text)
            if tags.get("v", "").upper() == "DMARC1":
                inherited = each != domain and "sp" in tags
                return each, tags["sp" if inherited else "p"].lower() if "p" in tags or inherited else "none"
    return domain, ""


def _tags(text: str) -> dict[str, str]:
    """`v=DMARC1; p=none` as a mapping; white space counts for nothing (RFC 6376 §3.2)."""
    pairs: Iterable[Sequence[str]] = (part.partition("=") for part in text.split(";"))
    return {name.strip().lower(): re.sub(r"\s+", "", value) for name, equals, value in pairs if equals}


async def ask_dns(name: str, kind: str) -> tuple[str, ...]:
    """Asks the resolver of this machine.  Raises `Unanswered`."""
    import dns.asyncresolver
    import dns.exception
    import dns.resolver
    from dns.rdtypes.txtbase import TXTBase

    try:
        answer = await dns.asyncresolver.resolve(name, kind, lifetime=TIMEOUT)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return ()
    except (dns.exception.DNSException, OSError, ValueError) as error:
        raise Unanswered(str(error)) from None
    return tuple(
        b"".join(record.strings).decode("utf-8", "replace") if isinstance(record, TXTBase) else record.to_text()
        for record in answer
    )


def organization(domain: str) -> str:
    """The organisational domain (RFC 7489 §3.2), in A-labels: the public suffix and the label before it.

    A public suffix itself and an address literal are their own.  The first call may take a tenth of a second.
    """
    domain = _ascii(domain)
    if domain.count(".") < 2 or domain.startswith("["):
        return domain  # two labels are the least that an organisation has below a suffix
    return _list().privatesuffix(domain) or domain


def is_aligned(one: str, other: str) -> bool:
    """Whether two domains are of one organisation (RFC 7489 §3.1, relaxed)."""
    one, other = _ascii(one), _ascii(other)
    if one == other:
        return True
    # Domains of one organisation end in the same two labels: most questions need no list.
    return one.rsplit(".", 2)[-2:] == other.rsplit(".", 2)[-2:] and organization(one) == organization(other)


def _ascii(domain: str) -> str:
    """In lower case and A-labels, without the dot of the root; as it is if it is no domain."""
    domain = domain.lower().removesuffix(".")
    if domain.isascii():
        return domain
    import idna

    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        return domain


@lru_cache(maxsize=1)
def _list() -> PublicSuffixList:
    """Read when it is first needed: 10,000 rules."""
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()
