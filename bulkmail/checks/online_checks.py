"""Checks on what relays and the DNS say, for `--online`."""

from __future__ import annotations

from collections.abc import Iterator

from bulkmail.checks.check_finding import Severity
from bulkmail.checks.evidence import Evidence, Found
from bulkmail.probe.dns_records import MOST_LOOKUPS, KeyState
from bulkmail.text import count, printable

MOST = 10


def relay_unusable(evidence: Evidence) -> Iterator[Found]:
    """Relays that take no mail from us."""
    for facts in evidence.relays:
        from bulkmail.checks.relay_trouble import trouble_with  # late: only who has facts has imported what it needs

        trouble = trouble_with(facts)
        if trouble is not None:
            words = f" (the server said: {trouble.words})" if trouble.words else ""
            yield Found(f"{printable(trouble.what)}{printable(words)}", str(facts.relay), trouble.fix)


def relay_login_untried(evidence: Evidence) -> Iterator[Found]:
    """Logins that no password was there for."""
    for facts in evidence.relays:
        from bulkmail.probe.relay_probe import Login  # late: it is large, and only needed with facts

        if facts.login is Login.NO_PASSWORD:
            yield Found("the login was not tried: no password is available", str(facts.relay))


def spf_missing(evidence: Evidence) -> Iterator[Found]:
    """A reverse path without SPF."""
    spf = evidence.records and evidence.records.spf
    if spf and not spf.records:
        yield Found(f"{spf.domain} has no SPF record", spf.domain)


def spf_broken(evidence: Evidence) -> Iterator[Found]:
    """SPF records that fail for all servers, or pass for all."""
    spf = evidence.records and evidence.records.spf
    if not spf or not spf.records:
        return
    if len(spf.records) > 1:
        yield Found(f"{spf.domain} has {len(spf.records)} SPF records", spf.domain, "merge them into one")
        return
    if spf.lookups > MOST_LOOKUPS:
        yield Found(
            f"judging the SPF record of {spf.domain} takes {spf.lookups} look-ups or more; {MOST_LOOKUPS} are allowed",
            spf.domain,
            "remove services that no longer send for you, or use addresses (ip4:) instead of names",
        )
    for name in spf.missing:
        fix = f"take include:{printable(name, 100)} out, or correct it"
        yield Found(f"the SPF record of {spf.domain} includes {printable(name, 100)}, which has none", spf.domain, fix)
    if {"+all", "all"} & set(spf.records[0].lower().split()):
        fix = "write ~all or -all at its end"
        yield Found(f"the SPF record of {spf.domain} lets any server send for it (+all)", spf.domain, fix)


_KEY_FAULTS = {
    KeyState.MISSING: "there is no DKIM key",
    KeyState.REVOKED: "the DKIM key is revoked (p= is empty)",
    KeyState.DIFFERS: "the DKIM key is not the one that signs",
}


def dkim_key(evidence: Evidence) -> Iterator[Found]:
    """Public keys that do not fit the one that signs."""
    for name, state in evidence.records.keys.items() if evidence.records else ():
        if state in _KEY_FAULTS:
            yield Found(f"{_KEY_FAULTS[state]} at {name}", name)


def dmarc(evidence: Evidence) -> Iterator[Found]:
    """No DMARC record for From, or one that asks for nothing."""
    records = evidence.records
    if records is None or records.policy is None or not records.dmarc_domain:
        return
    name = f"_dmarc.{records.dmarc_domain}"
    if not records.policy:
        yield Found(
            f"{records.dmarc_domain} has no DMARC record", name, severity=None if evidence.is_bulk else Severity.NOTE
        )
    elif records.policy == "none":
        yield Found(
            f"the DMARC policy of {records.dmarc_domain} is none: receivers are not asked to reject forged mail",
            name,
            "when the reports show that all your mail passes, write p=quarantine or p=reject",
            severity=Severity.NOTE,
        )


def domain_without_mail(evidence: Evidence) -> Iterator[Found]:
    """Domains of recipients that take no mail."""
    if evidence.records is None:
        return
    for domain, reason in evidence.records.no_mail[:MOST]:
        hits = evidence.messages.domains[domain]
        yield Found(f"{domain} {reason.value}: {count(hits.number, 'row')}, {hits}", hits=hits)
    if len(evidence.records.no_mail) > MOST:
        yield Found(f"{count(len(evidence.records.no_mail) - MOST, 'more domain')} take no mail")


def dns_unanswered(evidence: Evidence) -> Iterator[Found]:
    """Questions that went unanswered, and domains that were not asked about."""
    records = evidence.records
    if records is None:
        return
    if records.unanswered:
        names = ", ".join(records.unanswered[:3])
        more = " …" if len(records.unanswered) > 3 else ""
        yield Found(f"{count(len(records.unanswered), 'question')} to the DNS went unanswered: {names}{more}")
    if records.asked < records.domains:
        yield Found(
            f"{records.asked:,} of {records.domains:,} recipient domains were looked up, the most frequent first",
            fix="--all-domains looks up all of them",
        )
