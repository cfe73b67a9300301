"""Composing: a campaign and a row of its list become one message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from bulkmail.message import headers
from bulkmail.message.bodies import Bodies, Written, html_partials
from bulkmail.message.enclosures import Enclosure, RowFiles
from bulkmail.message.fields import Field, blame, mailbox, mailbox_field
from bulkmail.message.plan import make_plan
from bulkmail.message.templates import Workshop
from bulkmail.model.address import Address
from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import AddressError, ConfigError, TemplateError
from bulkmail.model.message import Envelope, Message
from bulkmail.model.recipient import Recipient


@dataclass(frozen=True, slots=True)
class Rendered:
    """A letter as its reader will see it.

    `text` and `html` have LF line ends, one at the end; None where the campaign has none.  `headers` are Reply-To and
    the campaign's own, without those that came out empty.
    """

    subject: str
    sender: str
    to: str
    text: str | None
    html: str | None
    headers: tuple[tuple[str, str], ...] = ()


class _Letter(NamedTuple):
    """Everything of one message that the row decides, checked and not yet encoded.  `others` goes with `_others`."""

    sender: str
    subject: str
    to_name: str
    others: list[str]
    bodies: Written
    enclosures: list[Enclosure]


class Composer:
    """Writes the letters of one campaign; what does not depend on the row is done once, when it is made.

    A message depends on nothing but campaign, run, row number, recipient, forward path and date: a resend is the same
    to the octet.
    """

    def __init__(self, campaign: Campaign, *, run_id: str) -> None:
        """Raises `TemplateError` with file and line, or `ConfigError` for a header or attachment that cannot be."""
        workshop = self._workshop = Workshop(campaign.partials, html_partials=lambda: html_partials(campaign))
        self._run_id = run_id.encode()
        self._sender = Field("From", workshop.header(campaign.sender), encode=mailbox_field)
        self._subject = Field("Subject", workshop.header(campaign.subject), encode=headers.text_field)
        self._to_name = campaign.to_name and Field("To", workshop.header(campaign.to_name), encode=headers.text_field)
        self._others = _other_fields(campaign, workshop)
        self._bodies = Bodies(campaign, workshop)
        self._files = RowFiles(campaign, workshop)
        self._plan = make_plan(campaign, images=self._bodies.images, method=self._bodies.method)
        self._reverse_path = _parse_reverse_path(campaign)

    def check(self, recipient: Recipient) -> None:
        """Raises the `TemplateError` that `compose` would, without the work of encoding bodies and reading files."""
        letter = self._letter(recipient, write=self._bodies.check)
        self._sender.octets(letter.sender)
        for field, value in zip(self._others, letter.others, strict=True):
            field.octets(value)
        self._files.check(letter.enclosures)

    def render(self, recipient: Recipient) -> Rendered:
        """The letter for a preview.  Raises `TemplateError`."""
        letter = self._letter(recipient, write=self._bodies.written)
        address = recipient.address.readable
        named = zip((field.name for field in self._others), letter.others, strict=True)
        return Rendered(
            subject=letter.subject,
            sender=letter.sender,
            to=f"{letter.to_name} <{address}>" if letter.to_name else address,
            text=letter.bodies.text,
            html=letter.bodies.html,
            headers=tuple((name, value) for name, value in named if value),
        )

    def compose(self, recipient: Recipient, *, row: int, forward_path: str, date: float) -> Message:
        """The message for `row` (from 1).  `date` is wall-clock seconds.  Raises `TemplateError`, nothing else."""
        letter = self._letter(recipient, write=self._bodies.written)
        sender_field = self._sender.octets(letter.sender)
        sender = mailbox("From", letter.sender)[1]
        identity = _identity(self._run_id, row)
        message_id = f"<{identity}@{sender.domain}>"
        head = b"".join(
            [
                sender_field,
                headers.address_field("To", [(letter.to_name, recipient.address)]),
                self._subject.octets(letter.subject),
                _date_field(int(date)),
                f"Message-ID: {message_id}\r\n".encode("ascii"),
                *[field.octets(value) for field, value in zip(self._others, letter.others, strict=True)],
            ]
        )
        bodies = self._bodies.octets(letter.bodies)
        reverse_path = self._reverse_path or sender.wire
        # Header fields are ASCII but for the local part of an address, and only that asks for SMTPUTF8 (RFC 6531).
        is_8bit = not head.isascii()
        return Message(
            Envelope(reverse_path, forward_path),
            message_id,
            self._plan.fill(
                (head, identity.encode("ascii"), *bodies), self._files.buffers(letter.enclosures, identity=identity)
            ),
            needs_smtputf8=is_8bit or not (reverse_path.isascii() and forward_path.isascii()),
            is_8bit=is_8bit,
        )

    def _letter(
        self, recipient: Recipient, *, write: Callable[[dict[str, object], Mapping[str, object]], Written]
    ) -> _Letter:
        fields = recipient.fields
        variables = self._workshop.variables(fields, recipient.address)
        sender = self._sender.value(variables, fields)
        if not sender:
            raise self._sender.refuse("is empty", hint="write a name and an address: Ann Example <ann@example.com>")
        subject = self._subject.value(variables, fields)
        if not subject or subject.isspace():
            raise self._subject.refuse("is empty", hint="give another: {{ … | default('News', true) }}")
        return _Letter(
            sender=sender,
            subject=subject,
            to_name=self._to_name.value(variables, fields) if self._to_name else _checked_name(recipient),
            others=[field.value(variables, fields) for field in self._others],
            bodies=write(variables, fields),
            enclosures=self._files.named(variables, fields),
        )


def _other_fields(campaign: Campaign, workshop: Workshop) -> list[Field]:
    """Reply-To and the campaign's own headers.  Raises `ConfigError` for one that a campaign may not set."""
    fields: list[Field] = []
    if campaign.reply_to:
        fields.append(Field("Reply-To", workshop.header(campaign.reply_to), encode=mailbox_field))
    seen: set[str] = set()
    for name, template in campaign.headers:
        if fault := headers.field_name_fault(name):
            raise ConfigError(f"{template.name}: {fault}")
        is_special = headers.is_address_field(name) or headers.is_plain_field(name)
        if is_special and name.lower() in seen:
            raise ConfigError(f"{template.name}: the header {name} is set twice; a message has it once")
        seen.add(name.lower())
        encode = headers.plain_field if headers.is_plain_field(name) else headers.text_field
        encode = mailbox_field if headers.is_address_field(name) else encode
        fields.append(Field(name, workshop.header(template), encode=encode))
    return fields


def _parse_reverse_path(campaign: Campaign) -> str:
    if not campaign.reverse_path:
        return ""
    try:
        return Address.parse(campaign.reverse_path).wire
    except AddressError as error:
        raise ConfigError(f"the reverse path {campaign.reverse_path!r} {error}", hint="write local@domain") from None


def _checked_name(recipient: Recipient) -> str:
    name = recipient.name
    if not name.isprintable():
        name = name.replace("\t", " ")
        if bad := headers.forbidden_in(name):
            what = f"{headers.name_character(bad)}{blame(recipient.fields, bad)}"
            raise TemplateError(f"To: the recipient's name holds {what}; a header is one line")
    if len(name) > headers.LONGEST_VALUE:
        raise TemplateError(f"To: the recipient's name is {len(name):,} characters long")
    return name.strip(" ")


_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_BASE32_PAIRS = [high + low for high in _BASE32 for low in _BASE32]
_SHIFTS = range(150, -1, -10)


def _identity(run_id: bytes, row: int) -> str:
    """32 characters that no other row of any run has: 160 bits in base32, lower case."""
    digest = blake2b(b"%b\0%d" % (run_id, row), digest_size=20).digest()
    number = int.from_bytes(digest, "big")
    return "".join([_BASE32_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


@lru_cache(maxsize=256)
def _date_field(seconds: int) -> bytes:
    return f"Date: {format_datetime(datetime.fromtimestamp(seconds, UTC))}\r\n".encode("ascii")
