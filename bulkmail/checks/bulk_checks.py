"""Checks for the bulk sender requirements of Gmail, Yahoo and Microsoft."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from bulkmail.checks.check_finding import Severity
from bulkmail.checks.evidence import Evidence, Found
from bulkmail.message.compose.composer import Rendered
from bulkmail.message.verp import TOKEN
from bulkmail.model.campaign import Unsubscribe
from bulkmail.model.feedback_event import REFUSE_AFTER, say_overdue
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.relay import is_this_machine
from bulkmail.probe.dns_records import is_aligned

# Their DMARC policy, or their rules, let no other server send for them.
_FREE = frozenset(
    [
        "aol.com",
        "comcast.net",
        "fastmail.com",
        "free.fr",
        "gmail.com",
        "gmx.at",
        "gmx.ch",
        "gmx.com",
        "gmx.de",
        "gmx.net",
        "googlemail.com",
        "hotmail.com",
        "hotmail.co.uk",
        "hotmail.de",
        "hotmail.fr",
        "icloud.com",
        "laposte.net",
        "libero.it",
        "live.com",
        "mac.com",
        "mail.com",
        "mail.ru",
        "me.com",
        "msn.com",
        "orange.fr",
        "outlook.com",
        "outlook.de",
        "proton.me",
        "protonmail.com",
        "qq.com",
        "rocketmail.com",
        "t-online.de",
        "verizon.net",
        "web.de",
        "yahoo.co.uk",
        "yahoo.com",
        "yahoo.de",
        "yahoo.fr",
        "yandex.ru",
        "ymail.com",
        "zoho.com",
    ]
)


def free_sender(evidence: Evidence) -> Iterator[Found]:
    """From at a free provider, sent through another server."""
    sender = evidence.sender
    if not evidence.is_bulk or sender is None or sender.domain not in _FREE:
        return
    name = sender.domain.partition(".")[0]
    if not any(name in host or (name == "gmail" and "google" in host) for host in evidence.relay_hosts):
        yield Found(f"From is at {sender.domain}, a free mailbox provider", evidence.campaign.sender.name)


# RFC 2606 and RFC 6761: reserved for examples and tests.
_MADE_UP = lazy_pattern(r"(^|\.)(example|test|invalid|localhost|example\.(com|net|org))$")


def made_up_domain(evidence: Evidence) -> Iterator[Found]:
    """Addresses of ours at domains for examples, through a server elsewhere."""
    if all(is_this_machine(host) for host in evidence.relay_hosts):
        return
    campaign, sender = evidence.campaign, evidence.sender
    unsubscribe = campaign.unsubscribe or Unsubscribe()
    domains = {
        "From": sender.domain if sender is not None else "",
        "bounces": evidence.bounce_domain,
        "unsubscribing on the web": (urlsplit(unsubscribe.https).hostname or "").lower(),
        "unsubscribing by mail": unsubscribe.mailto.partition("?")[0].rpartition("@")[2].lower(),
    }
    for name, template in campaign.headers:
        domains[name] = _made_up_in(_domains_in(template.text))
    linked = (domain for sample in evidence.messages.samples for domain in _linked_domains(sample.message))
    domains["a link"] = _made_up_in(linked)
    made_up = {what: domain for what, domain in domains.items() if _MADE_UP.search(domain)}
    if made_up:
        yield Found(
            ", ".join(f"{what} at {domain}" for what, domain in made_up.items()) + ": this is an example domain"
        )


_AT_DOMAIN = lazy_pattern(r"(?:@|https?://(?:[^\s/@<>\"']*@)?)([\w-]+(?:\.[\w-]+)+)", re.IGNORECASE)
_LINK = lazy_pattern(
    r"(?:\bhref|\bsrc)\s*=\s*[\"']?\s*(?:mailto:|https?://)[^\s\"'<>]+|https?://[^\s<>\"']+", re.IGNORECASE
)


def _made_up_in(domains: Iterable[str]) -> str:
    """The first of them that is reserved; empty if there is none."""
    return next((domain for domain in domains if _MADE_UP.search(domain)), "")


def _domains_in(text: str) -> list[str]:
    return [domain.lower() for domain in _AT_DOMAIN.findall(text)]


def _linked_domains(message: Rendered) -> Iterator[str]:
    """The domains that links and pictures of a message lead to."""
    for body in (message.html, message.text):
        for link in _LINK.findall(body or ""):
            yield from _domains_in(link)


def one_click(evidence: Evidence) -> Iterator[Found]:
    """No way to unsubscribe by one click."""
    campaign = evidence.campaign
    if not evidence.is_bulk or (campaign.unsubscribe is not None and campaign.unsubscribe.https):
        return
    if evidence.has_header("list-unsubscribe-post") and evidence.has_header("list-unsubscribe"):
        return
    has_some = campaign.unsubscribe is not None or evidence.has_header("list-unsubscribe")
    what = (
        "recipients can unsubscribe by mail, but not with one click"
        if has_some
        else "recipients cannot unsubscribe with one click"
    )
    yield Found(what, severity=None if evidence.is_big else Severity.NOTE)


def dkim_alignment(evidence: Evidence) -> Iterator[Found]:
    """No signature of From's own domain."""
    sender, signatures = evidence.sender, evidence.campaign.dkim
    if not evidence.is_bulk or sender is None:
        return
    if not signatures:
        if evidence.is_big:
            relay = "the relay must sign with DKIM, including the unsubscribe headers"
            yield Found(f"bulkmail does not sign these messages: {relay}", severity=Severity.NOTE)
    elif not any(is_aligned(each.domain, sender.domain) for each in signatures):
        domains = ", ".join(each.domain for each in signatures)
        yield Found(f"DKIM signs for {domains}, and From is at {sender.domain}", evidence.campaign.sender.name)


def reverse_path_alignment(evidence: Evidence) -> Iterator[Found]:
    """A reverse path at another organisation than From."""
    sender, bounces = evidence.sender, evidence.bounce_domain
    if not evidence.is_bulk or sender is None or not bounces or is_aligned(bounces, sender.domain):
        return
    signed = any(is_aligned(each.domain, sender.domain) for each in evidence.campaign.dkim)
    yield Found(
        f"bounces go to {bounces}, and From is at {sender.domain}",
        "campaign: reverse_path" if evidence.campaign.reverse_path else evidence.campaign.sender.name,
        severity=Severity.NOTE if signed else None,
    )


def bounce_token(evidence: Evidence) -> Iterator[Found]:
    """A reverse path that does not identify the bounced message."""
    campaign = evidence.campaign
    if evidence.is_bulk and TOKEN not in campaign.reverse_path:
        where = "campaign: reverse_path" if campaign.reverse_path else campaign.sender.name
        yield Found(f"bounces come back to an address without {TOKEN}", where)


def intake_stale(evidence: Evidence) -> Iterator[Found]:
    """Mail that came back and is not read."""
    if said := say_overdue(evidence.intake_overdue):
        yield Found(said, severity=None if evidence.intake_overdue >= REFUSE_AFTER else Severity.WARNING)


def key_served(evidence: Evidence) -> Iterator[Found]:
    """Unsubscribe links that the user's own `bulkmail serve` would not know."""
    if evidence.is_key_served is False:
        yield Found("the key of its unsubscribe links is not among [serve] keys", "campaign: unsubscribe")
