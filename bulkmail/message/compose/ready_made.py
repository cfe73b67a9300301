"""Messages that a program writes itself, or has its own hand on: made fit to be sent."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from copy import deepcopy
from email import message_from_bytes, message_from_string
from email.headerregistry import Address as StandardAddress
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8, EmailPolicy
from typing import Any, NamedTuple, cast

from bulkmail.message.compose.identity import date_value, identity_of
from bulkmail.message.compose.transfer_encoding import fault_in
from bulkmail.message.header.headers import name_character
from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.errors import AddressError, BulkmailError, ConfigError, TemplateError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import Address
from bulkmail.text import printable

_FORWARD = ("To", "Cc", "Bcc")
_ADDRESSED = ("From", "Sender", "Reply-To", "To", "Cc")


class TakenApart(NamedTuple):
    """What the line needs of a ready-made message: `content` as `Message` has it, `message_id` in angle brackets."""

    reverse_path: str
    forward_paths: tuple[Address, ...]
    content: bytes
    message_id: str


def take_apart(message: EmailMessage, *, run_id: str, number: int, date: float) -> TakenApart:
    """The paths and the bytes of `message`; the message itself stays as it is.

    The reverse path is the address of Sender, or else the first of From (RFC 5322 §3.6.2).  The forward paths are those
    of To, Cc and Bcc, each once, in this order.  The bytes have no Bcc, ASCII domains, no 8-bit body, and UTF-8 in
    headers only where a local part needs it.  A message without Message-ID gets one from the run and its `number` in
    it, one without Date gets `date` (wall clock).  Raises `ConfigError` when a path is missing or wrong, or when the
    message has what no server must be sent.
    """
    sender = next(iter(_addresses(message, "Sender") or _addresses(message, "From")), None)
    if sender is None:
        raise ConfigError("the message has no From", hint='set message["From"]')
    forward_paths: dict[str, Address] = {}
    for name in _FORWARD:
        for address in _addresses(message, name):
            forward_paths.setdefault(address.key, address)
    if not forward_paths:
        raise ConfigError("the message has no recipient", hint='set message["To"]')
    sent = deepcopy(message)  # writing sets boundaries, and more
    if "Date" not in sent:
        sent["Date"] = date_value(int(date))
    if not str(sent["Message-ID"] or "").strip():
        del sent["Message-ID"]
        sent["Message-ID"] = f"<{identity_of(run_id.encode(), number)}@{sender.domain}>"
    message_id = str(sent["Message-ID"]).strip()
    return TakenApart(sender.wire, tuple(forward_paths.values()), bytes_of(sent), message_id)


def message_of(content: bytes, *, envelope: Envelope, message_id: str) -> Message:
    """A message of bytes that `take_apart` has made.  Raises `ConfigError` when they are not fit for the line."""
    if fault := fault_in(content):
        raise ConfigError(f"the message cannot be sent: {fault}")
    is_8bit = not content.isascii()
    head = content.partition(b"\r\n\r\n")[0]
    paths = envelope.reverse_path + envelope.forward_path
    return Message(
        envelope,
        message_id,
        (content,),
        needs_smtputf8=not (head.isascii() and paths.isascii()),
        is_8bit=is_8bit,
    )


def bytes_of(message: EmailMessage) -> bytes:
    """The bytes of a message that this may change.  Raises `ConfigError` for what no server must be sent."""
    for name in ("Bcc", "Resent-Bcc"):
        del message[name]
    for name in _ADDRESSED:
        _use_ascii_domains(message, name)
    _check_headers(message)
    _divide(message)
    _check_charsets(message)
    needs_utf8 = any(address.needs_smtputf8 for name in _ADDRESSED for address in _addresses(message, name))
    policy = (SMTPUTF8 if needs_utf8 else SMTP).clone(cte_type="7bit")
    try:
        content = message.as_bytes(policy=policy)
    except (ValueError, TypeError, LookupError, AttributeError, IndexError) as error:  # what the package may raise
        raise ConfigError(f"the message cannot be written: {printable(str(error))}") from error
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    if fault := fault_in(content):
        raise ConfigError(
            f"the message cannot be sent: {fault}", hint="set the content by set_content(), which encodes long lines"
        )
    return content


def _check_headers(message: EmailMessage) -> None:
    """Raises `ConfigError` for a header that would not stay on its line: the package writes some (CVE-2024-6923)."""
    for part in message.walk():
        for name, value in part.raw_items():
            if bad := _BREAKING.search(_FOLD.sub("", f"{name}:{value}")):
                raise ConfigError(f"{printable(name, 80)} of the message holds {name_character(bad[0])}")


def _check_charsets(message: EmailMessage) -> None:
    """Raises `ConfigError` for 8-bit content that says nothing, or something wrong, of what its bytes mean."""
    for part in message.walk():
        payload, kind = part.get_payload(), printable(part.get_content_type(), 80)
        if not isinstance(payload, str) or payload.isascii():
            continue
        if part.get_content_maintype() != "text":
            raise ConfigError(
                f"the {kind} part of the message has bytes outside ASCII that are not encoded",
                hint="add it by add_attachment(), which encodes it",
            )
        charset = part.get_content_charset()
        try:
            if charset is None or codecs.lookup(charset).name == "ascii":
                raise ConfigError(
                    f"the {kind} part of the message has characters outside ASCII, and no charset that has them",
                    hint='set it by set_content(), or name the charset: "Content-Type: text/plain; charset=utf-8"',
                )
            raw = cast(bytes, part.get_payload(decode=True))
            raw.decode(charset)
        except LookupError:
            raise ConfigError(
                f"the {kind} part of the message names the charset {printable(str(charset), 40)!r}, which is not known",
                hint="name the one that its text is in, such as utf-8",
            ) from None
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"the {kind} part of the message is not in {charset}, as it says: byte {error.start + 1} of its text is"
                f" 0x{raw[error.start]:02X}",
                hint="name the charset that its text is in, or set it by set_content()",
            ) from None


def _divide(message: EmailMessage) -> None:
    """Makes parts of text that stands where parts belong: the package would write it as it is, line ends included.

    Raises `ConfigError` for text that has no such parts.
    """
    for part in message.walk():
        payload = part.get_payload()
        kind = part.get_content_type()
        if not isinstance(payload, str) or not kind.startswith(("multipart/", "message/")):
            continue
        head = f"Content-Type: {part['Content-Type']}\n\n".encode("utf-8", "surrogateescape")
        text = _LINE_END.sub("\n", payload)
        try:
            divided = message_from_bytes(head + text.encode("utf-8", "surrogateescape"), policy=part.policy)
        except ValueError as error:  # a surrogate that stands for no byte
            raise ConfigError(f"the message cannot be written: {printable(str(error))}") from None
        if not divided.is_multipart():
            boundary = part.get_boundary()
            lacks = f"with no line --{printable(boundary, 80)}" if boundary else "and names no boundary"
            raise ConfigError(
                f"Content-Type of the message says {printable(kind, 80)}, but its content is text {lacks}",
                hint="remove Content-Type and set the content by set_content() and add_attachment()",
            )
        part.set_payload(divided.get_payload())
        part.preamble, part.epilogue = divided.preamble, divided.epilogue


_LINE_END = lazy_pattern("\r\n?")
_BREAKING = lazy_pattern("[\0\r\n]")
_FOLD = lazy_pattern(r"\r?\n(?=[ \t]+[^ \t\r\n])")


def _use_ascii_domains(message: EmailMessage, name: str) -> None:
    """The package would make an encoded word of an international domain, which no server understands."""
    values = message.get_all(name, [])
    if all(str(value).isascii() for value in values):
        return
    headers = [_parsed(name, value) for value in values]
    if all(mailbox.domain.isascii() for header in headers for mailbox in header.addresses):
        return
    del message[name]
    for header in headers:
        message[name] = [
            _standard(mailbox.display_name, _checked(name, mailbox.addr_spec)) for mailbox in header.addresses
        ]


def _addresses(message: EmailMessage, name: str) -> list[Address]:
    return [
        _checked(name, mailbox.addr_spec)
        for value in message.get_all(name, [])
        for mailbox in _parsed(name, value).addresses
    ]


def _parsed(name: str, value: object) -> Any:
    """An address header as the package understands it, whichever policy the message was made under."""
    try:
        return EmailPolicy().header_factory(name, str(value))
    except (ValueError, IndexError, AttributeError) as error:  # what the package may raise
        raise ConfigError(f"{name} of the message cannot be read: {printable(str(value), 80)!r}") from error


def _checked(name: str, text: str) -> Address:
    try:
        return Address.parse(text)
    except AddressError as error:
        raise ConfigError(f"{name} of the message has {printable(text, 80)!r}, which {error}") from None


def _standard(display_name: str, address: Address) -> StandardAddress:
    # By parts, because from a whole address the package takes no local part outside ASCII.
    return StandardAddress(display_name, username=address.local, domain=address.domain)


Hook = Callable[[EmailMessage], EmailMessage]
"""Given a finished message, returns it or another.  Must do the same for the same message, whenever it is asked."""


def apply(hook: Hook, content: bytes, *, needs_smtputf8: bool) -> bytes:
    """The bytes of what `hook` makes of `content`.  Raises `TemplateError`, whatever goes wrong in it."""
    # By way of a text: of bytes the package would take a local part outside ASCII for damage.
    message = message_from_string(content.decode(), policy=SMTPUTF8 if needs_smtputf8 else SMTP)
    try:
        changed = hook(message)
        if not isinstance(changed, EmailMessage):
            raise TypeError(f"returned {type(changed).__name__}, not an EmailMessage")
        return bytes_of(changed)
    except BulkmailError as error:
        raise TemplateError(f"on_message: {error}", hint=error.hint) from error
    except Exception as error:
        raise TemplateError(f"on_message: {type(error).__name__}: {printable(str(error))}") from error
