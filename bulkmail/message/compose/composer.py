"""Composing: a campaign and a row of its list become one message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from msgspec.structs import replace

from bulkmail.message.attachments.enclosures import Enclosure, Pictures, RowFiles, Shelf, full_path
from bulkmail.message.compose.bodies import Bodies, Written, html_partials
from bulkmail.message.compose.compiled import Compiled, Parts, compile_message
from bulkmail.message.compose.identity import date_field, identity_of
from bulkmail.message.compose.mime_plan import MimePlan, make_plan, picture_parts
from bulkmail.message.compose.pieces import NotCompiled
from bulkmail.message.compose.ready_made import Hook, apply
from bulkmail.message.dkim import Signer, Signers
from bulkmail.message.header.addresses import ReversePath
from bulkmail.message.header.heading import HeaderLines, Heading
from bulkmail.message.template.constants import read_values
from bulkmail.message.template.field_names import refuse_rows_in_heading
from bulkmail.message.template.locality import locality_of
from bulkmail.message.template.rendering import Rendering, Workshop
from bulkmail.message.unsubscribe import Unsubscriber
from bulkmail.message.verp import BounceTokens
from bulkmail.model.campaign import NO_KEYS, BounceKey, Campaign, Keys
from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Address, Recipient
from bulkmail.model.relay import Secret
from bulkmail.model.suppression import campaign_scope, list_scope

log = logging.getLogger("bulkmail.message")

PROOFS = 20
"""Messages of a campaign that are made by both ways."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message as its reader will see it.

    `text` and `html` have LF line ends, one at the end; None where the campaign has none.  `headers` are Reply-To and
    the campaign's own, without those that came out empty.
    """

    subject: str
    sender: str
    to: str
    text: str | None
    html: str | None
    headers: tuple[tuple[str, str], ...] = ()


class TriedMessage(NamedTuple):
    """What trying a message showed: its subject, the bytes of the files that only this row has, those without any."""

    subject: str
    files_size: int = 0
    empty_files: tuple[str, ...] = ()


class _Written(NamedTuple):
    """Everything of one message that the row decides, checked and not yet encoded.

    `token` stands in its links to unsubscribe, if it has any; `variables` are what it was rendered with.
    """

    lines: HeaderLines
    bodies: Written
    enclosures: list[Enclosure]
    token: str
    variables: dict[str, object]


class Composer:
    """Writes the messages of one campaign; what does not depend on the row is done once, when it is made.

    A message depends on nothing but campaign, keys, run, numbers of row and delivery, recipient, forward path and
    date: a resend is the same to the byte.  (`now` and `today` are the campaign's `moment`; without one, that at which
    this is made.)  An `on_message` hook has to keep that promise itself.
    """

    def __init__(
        self,
        campaign: Campaign,
        *,
        run_id: str,
        keys: Keys = NO_KEYS,
        on_message: Hook | None = None,
        compiles: bool = True,
    ) -> None:
        """Raises `TemplateError` with file and line, or `ConfigError` for what cannot be: a header, a file, a key.

        Without `compiles` every message is made by the general way.  The two make the same bytes; the first messages
        are made by both to see that they do.
        """
        shelf = Shelf()
        self._pictures = Pictures(campaign.row_pictures, shelf) if campaign.row_pictures else None
        workshop = self._workshop = Workshop(
            campaign.partials,
            html_partials=lambda: html_partials(campaign),
            locality=locality_of(campaign),
            locale=campaign.locale,
            values=read_values(campaign.data),
            picture=self._pictures.picture if self._pictures else None,
        )
        self._run_id = run_id.encode()
        self.is_grouped = bool(campaign.group_by)
        self._heading = Heading(campaign, workshop)
        refuse_rows_in_heading(campaign)
        self._bodies = Bodies(campaign, workshop)
        self._files = RowFiles(campaign, workshop, shelf)
        self._plan = make_plan(
            campaign, images=self._bodies.images, method=self._bodies.method, draws=self._bodies.draws
        )
        self._reverse_path = ReversePath(campaign.reverse_path, workshop)
        self._tokens = BounceTokens(keys.bounce or _stand_in(run_id)) if self._reverse_path.has_token else None
        self._list_id = workshop.header(campaign.list_id) if campaign.list_id else None
        self._unsubscriber = _make_unsubscriber(campaign, keys, self._list_id) if campaign.unsubscribe else None
        self._signers = _make_signers(campaign, keys, self._plan)
        self._on_message = on_message
        self._only_path: str | None = None  # that of all messages
        self._compiled = self._compile() if compiles else None
        self._proofs = PROOFS

    def _compile(self) -> Compiled | None:
        """The functions that make nearly all messages of most campaigns; None where each needs the general way."""
        if self.is_grouped or self._on_message is not None or self._plan.last or self._reverse_path.is_by_row:
            return None
        row_locale = self._workshop.row_locale
        if row_locale is not None and row_locale.pieces is None:
            return None
        try:
            senders, self._author, rest = self._heading.constants()
            self._only_path = self._reverse_path.constant(self._author)
            to_name, subject = self._heading.pieces()
            if not (senders.isascii() and rest.isascii()):
                return None
            return compile_message(
                Parts(
                    self._run_id,
                    self._plan.segments,
                    senders=senders,
                    author=self._author,
                    to_name=to_name,
                    subject=subject,
                    rest=rest,
                    bodies=self._bodies.parts(),
                    check=self._bodies.check_general,
                    variables=self._variables_of,
                    unsubscriber=self._unsubscriber,
                    tokens=self._tokens,
                    locale=row_locale.pieces if row_locale is not None else None,
                    enter=self._workshop.enter,
                )
            )
        except NotCompiled:
            return None

    @property
    def has_copies(self) -> bool:
        """Whether a message may go to more than one address: see `forward_paths`."""
        return self._heading.has_copies

    def forward_paths(self, recipient: Recipient) -> tuple[str, ...]:
        """All addresses that the message of one row goes to, each once, the recipient's first.

        Raises `TemplateError` for one that is wrong.
        """
        if not self.has_copies:
            return (recipient.address.wire,)
        copies = self._heading.copies(recipient, self._variables(recipient)[0])
        return (recipient.address.wire, *[address.wire for each in copies for _, address in each])

    def author(self, recipient: Recipient) -> Address:
        """The address of From.  Raises `TemplateError`."""
        return self._heading.senders(self._heading.lines(recipient, self._variables(recipient)[0]))[1]

    @property
    def check_in_brief(self) -> Callable[[dict[str, object], str, str], str | None] | None:
        """Says what subject the message to a row has, by its fields, `Address.wire` and display name.

        None for a row that `check` has to look at; no function at all if that is each row.
        """
        return self._compiled.check_in_brief if self._compiled is not None else None

    def check(self, recipient: Recipient) -> TriedMessage:
        """Raises the `TemplateError` that `compose` would, without the work of encoding bodies and reading files.

        With a hook the message is composed whole and shown to it.
        """
        if self._compiled is not None and (subject := self._compiled.check(recipient)) is not None:
            return TriedMessage(subject)
        if self._on_message is not None:
            self.compose(recipient, row=1, forward_path=recipient.address.wire, date=0.0)
            return TriedMessage(self._message(recipient, write=self._bodies.check).lines.subject)
        message = self._message(recipient, write=self._bodies.check)
        _, _, sender = self._heading.senders(message.lines)
        self._heading.rest(message.lines)
        self._path(message, recipient, sender=sender, forward_path=recipient.address.wire)
        return TriedMessage(message.lines.subject, *self._files.check(message.enclosures))

    def render(self, recipient: Recipient) -> Rendered:
        """The message for a preview.  Raises `TemplateError`."""
        message = self._message(recipient, write=self._bodies.written)
        lines = message.lines
        own = [(lines.to_name, recipient.address)]
        named = [(field.name, value) for field, value in zip(self._heading.others, lines.others, strict=True)]
        shown = [("Sender", lines.sent_by), ("Cc", _readable(lines.copies.cc)), ("Bcc", _readable(lines.copies.bcc))]
        return Rendered(
            subject=lines.subject,
            sender=lines.sender,
            to=_readable(own + lines.copies.to),
            text=message.bodies.text,
            html=message.bodies.html,
            headers=tuple((name, value) for name, value in shown + named if value),
        )

    def compose(self, recipient: Recipient, *, row: int, forward_path: str, date: float, delivery: int = 0) -> Message:
        """The message for `row` (from 1).  `date` is wall-clock seconds.  Raises `TemplateError`, nothing else.

        `delivery` is the outbox' number of the forward path, which a `{bounce}` token names.
        """
        return self.sign(self.draft(recipient, row=row, forward_path=forward_path, date=date, delivery=delivery), date)

    def shared(self, least: int) -> list[bytes]:
        """The parts that all messages have in common and that are this long, in bytes: the same for every process."""
        return [part for part in self._plan.segments if isinstance(part, bytes) and len(part) >= least]

    @property
    def is_signed(self) -> bool:
        """Whether messages are signed, so that each is good for one date only."""
        return self._signers is not None

    @property
    def is_heavy(self) -> bool:
        """Whether a message takes so long to make that several processes are worth while."""
        return self.is_slow_to_sign or self._files.are_by_row or self._pictures is not None

    @property
    def is_slow_to_sign(self) -> bool:
        """Whether `sign` takes about a millisecond, most of it without the interpreter's lock: RSA."""
        return self._signers is not None and self._signers.are_slow

    def sign(self, message: Message, date: float) -> Message:
        """What `draft` made for this `date`, signed if the campaign signs.  May be called from any thread."""
        if self._signers is None:
            return message
        return replace(message, buffers=self._signers.sign(message.buffers, int(date)))

    def draft(self, recipient: Recipient, *, row: int, forward_path: str, date: float, delivery: int = 0) -> Message:
        """As `compose`, but not signed."""
        if self._compiled is not None and (made := self._compiled.compose(recipient, row, int(date))) is not None:
            buffers, message_id = made
            path = self._only_path
            if path is None:
                token = self._tokens.of_delivery(delivery) if self._tokens else ""
                path = self._reverse_path.of({}, {}, sender=self._author, forward_path=forward_path, token=token)
            is_foreign = not (path.isascii() and forward_path.isascii())
            message = Message(Envelope(path, forward_path), message_id, buffers, needs_smtputf8=is_foreign)
            if not self._proofs:
                return message
            self._proofs -= 1
            general = self._draft(recipient, row=row, forward_path=forward_path, date=date, delivery=delivery)
            if message != general:
                log.error("the compiled message differs from the general one", extra={"row": row})
                self._compiled = None
            return general
        return self._draft(recipient, row=row, forward_path=forward_path, date=date, delivery=delivery)

    def _draft(self, recipient: Recipient, *, row: int, forward_path: str, date: float, delivery: int) -> Message:
        """As `draft`, in the general way that suits every row."""
        message = self._message(recipient, write=self._bodies.written)
        senders, author, sender = self._heading.senders(message.lines)
        identity = identity_of(self._run_id, row)
        message_id = f"<{identity}@{author.domain}>"
        head = b"".join(
            [
                senders,
                self._heading.receivers(message.lines, recipient),
                date_field(int(date)),
                f"Message-ID: {message_id}\r\n".encode("ascii"),
                *self._heading.rest(message.lines),
            ]
        )
        if self._unsubscriber:
            head += self._unsubscriber.fields(message.token)
        if self._tokens:
            head += self._tokens.field(row)
        bounce = self._tokens.of_delivery(delivery) if self._tokens else ""
        reverse_path = self._path(message, recipient, sender=sender, forward_path=forward_path, bounce=bounce)
        # Header fields are ASCII but for the local part of an address, and only that asks for SMTPUTF8 (RFC 6531).
        is_8bit = not head.isascii()
        pictures = picture_parts(message.bodies.pictures, identity) if message.bodies.pictures else b""
        values = (head, identity.encode("ascii"), *self._bodies.to_bytes(message.bodies), pictures)
        buffers: Sequence[bytes] = self._plan.fill(values, self._files.buffers(message.enclosures, identity=identity))
        if self._on_message is not None:
            content = apply(self._on_message, b"".join(buffers), needs_smtputf8=is_8bit)
            buffers, is_8bit = (content,), not content.isascii()
        return Message(
            Envelope(reverse_path, forward_path),
            message_id,
            buffers,
            needs_smtputf8=is_8bit or not (reverse_path.isascii() and forward_path.isascii()),
            is_8bit=is_8bit,
        )

    def _message(
        self, recipient: Recipient, *, write: Callable[[dict[str, object], Mapping[str, object]], Written]
    ) -> _Written:
        fields = recipient.fields
        variables, token = self._variables(recipient)
        enclosures = self._files.named(variables, fields)
        if self._pictures is None:
            bodies = write(variables, fields)
        else:
            with self._pictures.attached(enclosures):
                bodies = write(variables, fields)
            if shown := {picture.attached for picture in bodies.pictures if picture.attached}:
                enclosures = [each for each in enclosures if full_path(each.source.folder, each.path) not in shown]
        return _Written(
            lines=self._heading.lines(recipient, variables),
            bodies=bodies,
            enclosures=enclosures,
            token=token,
            variables=variables,
        )

    def _variables(self, recipient: Recipient) -> tuple[dict[str, object], str]:
        """What the templates can use, and the token of the links to unsubscribe."""
        if not self._unsubscriber:
            return self._workshop.variables(recipient.fields, recipient.address, rows=recipient.rows), ""
        token = self._unsubscriber.token(recipient.address, self._list_of(recipient))
        url = self._unsubscriber.url(token)
        variables = self._workshop.variables(
            recipient.fields, recipient.address, unsubscribe_url=url, rows=recipient.rows
        )
        return variables, token

    def _list_of(self, recipient: Recipient) -> str | None:
        """The list of this row, which its token is for; None where it is that of all rows."""
        if self._list_id is None or self._list_id.constant is not None:
            return None
        variables = self._workshop.variables(recipient.fields, recipient.address)
        return list_scope(self._list_id.render(variables))

    def _variables_of(self, recipient: Recipient, unsubscribe_url: str) -> dict[str, object]:
        return self._workshop.variables(recipient.fields, recipient.address, unsubscribe_url=unsubscribe_url)

    def _path(
        self, message: _Written, recipient: Recipient, *, sender: Address, forward_path: str, bounce: str = ""
    ) -> str:
        fields = recipient.fields
        return self._reverse_path.of(message.variables, fields, sender=sender, forward_path=forward_path, token=bounce)


def _stand_in(run_id: str) -> BounceKey:
    """For messages that are only looked at, or not delivered: no register has a run with this number."""
    return BounceKey(0, Secret(sha256(b"bulkmail stand-in\0" + run_id.encode()).hexdigest()))


def _make_unsubscriber(campaign: Campaign, keys: Keys, list_id: Rendering | None) -> Unsubscriber | None:
    """Links whose tokens are for the campaign's list, or the campaign itself.  Raises `ConfigError`."""
    if campaign.unsubscribe is None:
        return None
    scope = campaign_scope(campaign.name) if list_id is None else list_scope(list_id.constant or "")
    return Unsubscriber(campaign.unsubscribe, keys.unsubscribe, list_id=scope)


def _make_signers(campaign: Campaign, keys: Keys, plan: MimePlan) -> Signers | None:
    """Raises `ConfigError` for a signature that cannot be made."""
    if not campaign.dkim:
        return None
    if len(keys.dkim) not in (0, len(campaign.dkim)):
        raise ConfigError(f"there are {len(keys.dkim)} DKIM keys for {len(campaign.dkim)} signatures")
    found = keys.dkim or (None,) * len(campaign.dkim)
    signers = [Signer(dkim, key) for dkim, key in zip(campaign.dkim, found, strict=True)]
    return Signers(signers, plan.segments)


def _readable(mailboxes: Sequence[tuple[str, Address]]) -> str:
    return ", ".join(f"{name} <{address.readable}>" if name else address.readable for name, address in mailboxes)
