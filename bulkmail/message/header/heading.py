"""The header of a message: which fields it has, in which order, and what the row says in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bulkmail.message.compose.pieces import NotCompiled, Piece
from bulkmail.message.compose.rendered import Field, blame, mailbox, mailbox_field
from bulkmail.message.header import headers
from bulkmail.message.header.addresses import AddressList, Mailbox, distinct
from bulkmail.message.template.rendering import Workshop
from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.recipient import Address, Recipient


class EmptySubject(TemplateError):
    """A row's message would have no subject."""


class Copies(NamedTuple):
    """Who gets the message beside the recipient, each once: shown in To, shown in Cc, not shown."""

    to: list[Mailbox]
    cc: list[Mailbox]
    bcc: list[Mailbox]


class HeaderLines(NamedTuple):
    """The values of one message's header, checked and not yet encoded.  `others` goes with `Heading.others`."""

    sender: str
    sent_by: str
    subject: str
    to_name: str
    copies: Copies
    others: list[str]


_NO_COPIES = Copies([], [], [])


class Heading:
    """The header fields of one campaign's messages, but for those that the composer derives from run and row."""

    def __init__(self, campaign: Campaign, workshop: Workshop) -> None:
        """Raises `TemplateError` with file and line, or `ConfigError` for a header that cannot be."""
        self._sender = Field("From", workshop.header(campaign.sender), encode=mailbox_field)
        self._sent_by = _field("Sender", campaign.sent_by, workshop, mailbox_field)
        self._subject = Field("Subject", workshop.header(campaign.subject), encode=headers.text_field)
        self._has_subject = campaign.has_subject
        self._to_name = _field("To", campaign.to_name, workshop, headers.text_field)
        lists = (("To", campaign.to), ("Cc", campaign.cc), ("Bcc", campaign.bcc))
        self._lists = [template and AddressList(name, template, workshop) for name, template in lists]
        self.has_copies = any(self._lists)
        self.others = _other_fields(campaign, workshop)

    def lines(self, recipient: Recipient, variables: dict[str, object]) -> HeaderLines:
        """The values for one row.  Raises `TemplateError`."""
        fields = recipient.fields
        sender = self._sender.value(variables, fields)
        if not sender:
            raise self._sender.refuse("is empty", hint="write a name and an address: Ann Example <ann@example.com>")
        subject = self._subject.value(variables, fields)
        if self._has_subject and (not subject or subject.isspace()):
            hint = "give another: {{ … | default('News', true) }}"
            raise EmptySubject(str(self._subject.refuse("is empty")), hint=hint)
        return HeaderLines(
            sender=sender,
            sent_by=self._sent_by.value(variables, fields) if self._sent_by else "",
            subject=subject,
            to_name=self._to_name.value(variables, fields) if self._to_name else _checked_name(recipient),
            copies=self.copies(recipient, variables) if self.has_copies else _NO_COPIES,
            others=[field.value(variables, fields) for field in self.others],
        )

    def copies(self, recipient: Recipient, variables: dict[str, object]) -> Copies:
        """Who else gets the message of one row.  Raises `TemplateError`."""
        known = [recipient.address]
        found: list[list[Mailbox]] = []
        for each in self._lists:
            mailboxes = each.mailboxes(variables, recipient.fields) if each else []
            found.append(distinct(mailboxes, known=known))
            known += [address for _, address in found[-1]]
        return Copies(*found)

    def senders(self, lines: HeaderLines) -> tuple[bytes, Address, Address]:
        """From and, where it differs, Sender as bytes; the address of From; that of the sender.

        Raises `TemplateError`.
        """
        raw = self._sender.to_bytes(lines.sender)
        author = mailbox("From", lines.sender)[1]
        if not lines.sent_by or self._sent_by is None:
            return raw, author, author
        field = self._sent_by.to_bytes(lines.sent_by)
        agent = mailbox("Sender", lines.sent_by)[1]
        # RFC 5322 §3.6.2: a Sender that says the same as From should not be there.
        return (raw, author, author) if agent.key == author.key else (raw + field, author, agent)

    def receivers(self, lines: HeaderLines, recipient: Recipient) -> bytes:
        """To, Cc and Subject as bytes."""
        to = headers.address_field("To", [(lines.to_name, recipient.address), *lines.copies.to])
        if lines.copies.cc:
            to += headers.address_field("Cc", lines.copies.cc)
        return to + self._subject.to_bytes(lines.subject)

    def constants(self) -> tuple[bytes, Address, bytes]:
        """From, its address, and the fields that `rest` gives, where they are the same for every row.

        Raises `NotCompiled` where they are not, or where there is a Sender or copies.
        """
        fields = [self._sender, *self.others]
        values = [field.rendering.constant for field in fields]
        if self._sent_by or self.has_copies or None in values:
            raise NotCompiled
        sender, *others = [field.value({}, {}) for field in fields]
        author = mailbox("From", sender)[1]
        rest = [field.to_bytes(value) for field, value in zip(self.others, others, strict=True)]
        return self._sender.to_bytes(sender), author, b"".join(rest)

    def pieces(self) -> tuple[tuple[Piece, ...] | None, tuple[Piece, ...]]:
        """What the name in To, if it is set, and Subject are made of.  Raises `NotCompiled`."""
        to_name = self._to_name.rendering.pieces if self._to_name else None
        subject = self._subject.rendering.pieces
        if subject is None or (self._to_name and to_name is None):
            raise NotCompiled
        return to_name, subject

    def rest(self, lines: HeaderLines) -> list[bytes]:
        """The other fields as bytes.  Raises `TemplateError`."""
        return [field.to_bytes(value) for field, value in zip(self.others, lines.others, strict=True)]


def _field(
    name: str, template: Template | None, workshop: Workshop, encode: Callable[[str, str], bytes]
) -> Field | None:
    return None if template is None else Field(name, workshop.header(template), encode=encode)


def _other_fields(campaign: Campaign, workshop: Workshop) -> list[Field]:
    """Those that settings give, then the campaign's own.  Raises `ConfigError` for one that a campaign may not set."""
    settings = (
        ("Reply-To", campaign.reply_to, mailbox_field),
        ("List-Id", campaign.list_id, headers.list_id_field),
        ("Feedback-ID", campaign.feedback_id, headers.feedback_id_field),
    )
    fields = [Field(name, workshop.header(template), encode=encode) for name, template, encode in settings if template]
    seen = {field.name.lower() for field in fields}
    if campaign.sent_by:
        seen.add("sender")
    if campaign.unsubscribe:
        seen |= {"list-unsubscribe", "list-unsubscribe-post"}
    for name, template in campaign.headers:
        if fault := headers.field_name_fault(name):
            raise ConfigError(f"{template.name}: {fault}")
        if headers.is_single(name) and name.lower() in seen:
            raise ConfigError(f"{template.name}: the header {name} is set twice; a message has it once")
        seen.add(name.lower())
        fields.append(Field(name, workshop.header(template), encode=_encoding(name)))
    if (campaign.list_id or campaign.unsubscribe) and "precedence" not in seen:
        # Not in any RFC, and yet what keeps holiday replies away (RFC 3834 §2 tells responders to follow it).
        bulk = Template("precedence", "bulk")
        fields.append(Field("Precedence", workshop.header(bulk), encode=headers.plain_field))
    return fields


def _encoding(name: str) -> Callable[[str, str], bytes]:
    if headers.is_address_field(name):
        return mailbox_field
    if name.lower() == "list-id":
        return headers.list_id_field
    return headers.plain_field if headers.is_plain_field(name) else headers.text_field


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
