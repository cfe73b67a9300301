"""What is known of a mailing when it is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from bulkmail.checks.check_finding import Finding, Hits, Severity
from bulkmail.checks.html_flaws import Flaw, look_over, merge
from bulkmail.checks.row_checks import Repeats, RowCheck
from bulkmail.checks.tried_messages import MessageCheck
from bulkmail.model.campaign import Campaign, is_template
from bulkmail.model.errors import AddressError
from bulkmail.model.feedback_event import MANY
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Address, Place, parse_mailbox
from bulkmail.model.tally import MOST_INVALID, Tally
from bulkmail.recipients.remarks import Remarks

if TYPE_CHECKING:
    from bulkmail.probe.dns_records import Records
    from bulkmail.probe.relay_probe import RelayFacts


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that checks look at.  `columns` are the list's, in order; `own_columns` those that address and name are in.

    `repeated` are the names that several columns have, each with what all but the first are called instead; `remarks`
    are what a sheet shows otherwise than its rows say.
    `mentioned` are the fields that templates and conditions speak of, None when they may read any.  `duplicates` and
    `suppressed` are rows that are left out, `repeats` those of the former that say something else; `suppressed_copies`
    are rows that are sent without a copy (To, Cc, Bcc), each as often as it has such copies;
    `suppression_faults` are the first entries of suppression lists that cannot be understood, of
    `suppression_fault_count`.  `most_invalid` is the share of the rows that may be invalid.  `relay_hosts` are the
    servers that mail goes through; `is_key_served` whether the unsubscribe key is among those of [serve], None where
    nothing is known of these; `intake_overdue` for how many seconds mail that came back was not read although it should
    have been; `relays` and `records` what they and the DNS say, if they were asked.
    """

    campaign: Campaign
    rows: RowCheck
    messages: MessageCheck
    tally: Tally
    columns: tuple[str, ...] = ()
    own_columns: frozenset[str] = frozenset()
    repeated: Mapping[str, Sequence[str]] = field(default_factory=dict)
    remarks: Remarks = field(default_factory=Remarks)
    mentioned: frozenset[str] | None = frozenset()
    required: frozenset[str] = frozenset()
    duplicates: Hits = field(default_factory=Hits)
    suppressed: Hits = field(default_factory=Hits)
    suppressed_copies: Hits = field(default_factory=Hits)
    repeats: Repeats = field(default_factory=Repeats)
    suppression_faults: tuple[tuple[Place, str], ...] = ()
    suppression_fault_count: int = 0
    relay_hosts: tuple[str, ...] = ()
    relays: tuple[RelayFacts, ...] = ()
    records: Records | None = None
    flaws: tuple[Flaw, ...] = ()
    most_invalid: float = MOST_INVALID
    is_key_served: bool | None = None
    intake_overdue: float = 0.0

    @property
    def is_big(self) -> bool:
        """Whether there are enough recipients for the providers' bulk sender rules to apply."""
        return self.tally.eligible >= MANY

    @property
    def is_bulk(self) -> bool:
        """Whether those rules should be kept: it is big, or says itself that it is a list."""
        return self.is_big or self.campaign.list_id is not None or self.has_header("list-id")

    def has_header(self, name: str) -> bool:
        """Whether the campaign sets a header of its own of that name, in lower case."""
        return any(each.lower() == name for each, _ in self.campaign.headers)

    @property
    def sender(self) -> Address | None:
        """The address of From in the first message; None if there is none."""
        for sample in self.messages.samples:
            try:
                return parse_mailbox(sample.message.sender)[1]
            except AddressError:
                continue
        return None

    @property
    def bounce_domain(self) -> str:
        """The domain of the reverse path; empty when the row decides."""
        if is_template(self.campaign.reverse_path):
            return ""
        if self.campaign.reverse_path:
            return self.campaign.reverse_path.rpartition("@")[2].lower()
        return self.sender.domain if self.sender is not None and self.campaign.sent_by is None else ""


def flaws_of(campaign: Campaign, messages: MessageCheck) -> tuple[Flaw, ...]:
    """What is wrong with templates and sampled messages, each flaw once."""
    found: list[Flaw] = []
    if campaign.html is not None:
        found += look_over(campaign.html, is_page=True)
    elif (other := campaign.markdown or campaign.mjml) is not None:
        found += look_over(other, is_page=False)
    if campaign.text is not None:
        found += look_over(campaign.text, is_page=False, is_plain=True)
    for partial in campaign.partials:
        found += look_over(partial, is_page=partial.name.lower().endswith((".html", ".htm")))
    for template in (campaign.preheader, campaign.subject, campaign.sender):
        if template is not None:
            found += look_over(template, is_page=False)
    name = next((each.name for each in (campaign.html, campaign.markdown, campaign.mjml) if each is not None), "")
    pages = [(sample.message.html, sample.place) for sample in messages.samples]
    return merge(found, pages, name=name, cells=[fault for _, fault in messages.dead_links])


@dataclass(frozen=True, slots=True)
class Found:
    """What a check found; what it leaves out is as the table of checks has it."""

    message: str
    where: str = ""
    fix: str = ""
    severity: Severity | None = None
    column: str = ""
    hits: Hits | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what it finds, why that matters, how it is fixed, and the function that looks."""

    code: str
    severity: Severity
    finds: str
    why: str
    fix: str
    look: Callable[[Evidence], Iterable[Found]]
    is_online: bool = False

    def findings(self, evidence: Evidence) -> list[Finding]:
        """What it finds, complete."""
        return [
            Finding(
                self.code,
                found.severity or self.severity,
                found.message,
                where=found.where,
                fix=found.fix or self.fix,
                why=self.why,
                column=found.column,
                lines=tuple(found.hits.first) if found.hits else (),
                times=found.hits.number if found.hits else 0,
            )
            for found in self.look(evidence)
        ]
