"""The envelope of a message as commands, for the extensions that a server offers."""

from __future__ import annotations

import re
from hashlib import blake2b

from msgspec.structs import replace

from bulkmail.model.address import LONGEST_ADDRESS
from bulkmail.model.dsn import Dsn
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.message import Message
from bulkmail.model.reply import Breakage, Fault, Reply, Stage
from bulkmail.smtp.capabilities import Capabilities
from bulkmail.text import printable

# What would end the command or the path: the address parser should have refused it; this is the last check.
_UNSAFE = re.compile("[\x00-\x20\x7f<>\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of a server beside taking the message.  Only of one that offers it.

    `requires_tls`: that no server on the way hands it on in clear text (RFC 8689).
    """

    dsn: Dsn | None = None
    requires_tls: bool = False

    def are_refused_by(self, words: Reply) -> bool:
        """Whether `words` to MAIL or RCPT refuse a parameter of DSN, which says nothing of the message."""
        if self.dsn is None:
            return False
        return words.code in (504, 555) or (words.code == 501 and words.enhanced == "5.5.4")


NO_WISHES = Wishes()


def unsendable(message: Message, capabilities: Capabilities) -> Fault | None:
    """Why this message cannot go over this session at all, known without a word to the server; else None."""
    paths = message.envelope.forward_paths
    for path in (message.envelope.reverse_path, *paths):
        if not _is_writable(path):
            return _fault(f'"{printable(path, 80)}" cannot be written into a command to the server')
    if "" in paths:
        return _fault("the message has no recipient")
    if not capabilities.smtputf8 and _needs_smtputf8(message):
        return _fault("the address or a header needs SMTPUTF8, which the server does not offer")
    if message.is_8bit and not capabilities.eight_bit_mime:
        return _fault("the message has 8-bit content, and the server does not offer 8BITMIME")
    if capabilities.size_limit and message.size_bytes > capabilities.size_limit:
        return _fault(
            f"the message has {message.size_bytes:,} bytes, and the server takes at most {capabilities.size_limit:,}"
        )
    return None


def plain_envelope(message: Message, capabilities: Capabilities, wishes: Wishes) -> bytes:
    """MAIL, RCPT and DATA of a message to one ASCII path that asks nothing special of any server; else empty.

    What comes out is `mail_command()`, `rcpt_command()` and DATA, and such a message is never `unsendable()`.
    """
    envelope = message.envelope
    if message.needs_smtputf8 or message.is_8bit or envelope.copies or wishes is not NO_WISHES:
        return b""
    reverse, forward = envelope.reverse_path, envelope.forward_path
    if _is_plain(forward) is None or (reverse and _is_plain(reverse) is None):
        return b""
    if (limit := capabilities.size_limit) is None:
        return f"MAIL FROM:<{reverse}>\r\nRCPT TO:<{forward}>\r\nDATA\r\n".encode()
    size = sum(map(len, message.buffers))  # `message.size_bytes`, without another call a message
    if limit and size > limit:
        return b""
    return f"MAIL FROM:<{reverse}> SIZE={size}\r\nRCPT TO:<{forward}>\r\nDATA\r\n".encode()


_is_plain = re.compile(f"[!-;=?-~]{{1,{LONGEST_ADDRESS}}}").fullmatch


def joined(message: Message, other: Message) -> Message | None:
    """Both as one message to the forward paths of both, or None if one transaction cannot carry them.

    They must be the same to the byte, come from the same reverse path, and need the same of the server: a path that it
    cannot take must not keep the message from the others.
    """
    ours, theirs = message.envelope, other.envelope
    if (
        ours.reverse_path != theirs.reverse_path
        or (message.needs_smtputf8, message.is_8bit) != (other.needs_smtputf8, other.is_8bit)
        or not all(path and _is_writable(path) for path in (*ours.forward_paths, *theirs.forward_paths))
        or not _is_same(message, other)
    ):
        return None
    return replace(message, envelope=replace(ours, copies=(*ours.copies, *theirs.forward_paths)))


def _is_same(message: Message, other: Message) -> bool:
    ours, theirs = message.buffers, other.buffers
    return len(ours) == len(theirs) and all(a is b or a == b for a, b in zip(ours, theirs, strict=True))


def mail_command(message: Message, capabilities: Capabilities, wishes: Wishes = NO_WISHES) -> bytes:
    """MAIL with no more parameters than this message needs: each one may bounce at a later relay."""
    command = f"MAIL FROM:<{message.envelope.reverse_path}>"
    if capabilities.size_limit is not None:
        command += f" SIZE={message.size_bytes}"  # RFC 1870
    if message.is_8bit:
        command += " BODY=8BITMIME"  # RFC 6152
    if _needs_smtputf8(message):
        command += " SMTPUTF8"  # RFC 6531
    if wishes.requires_tls:
        command += " REQUIRETLS"  # RFC 8689
    if wishes.dsn is not None:
        command += f" RET={'FULL' if wishes.dsn.returns_full else 'HDRS'} ENVID={_envelope_id(message)}"
    return f"{command}\r\n".encode()


def rcpt_command(path: str, dsn: Dsn | None = None) -> bytes:
    """RCPT for one forward path."""
    command = f"RCPT TO:<{path}>"
    if dsn is not None:
        command += f" NOTIFY={','.join(dsn.events).upper() or 'NEVER'}"
        original = _original_recipient(path)
        if len(original) <= _LONGEST_ORIGINAL:
            command += f" ORCPT={original}"
    return f"{command}\r\n".encode()


_LONGEST_ENVELOPE_ID = 100  # characters, RFC 3461 §4.4
_LONGEST_ORIGINAL = 500  # characters, RFC 3461 §4.2
_NOT_XTEXT = re.compile("[^!-*,-<>-~]")  # RFC 3461 §4
_NOT_UTF8_XTEXT = re.compile(r"[^!-*,-<>-\[\]-~]")  # RFC 6533 §3: the backslash, too


def _envelope_id(message: Message) -> str:
    """What reports name the message by: its Message-ID, which comes from run and row, the same at each try."""
    identity = message.message_id.strip().removeprefix("<").removesuffix(">")
    if not identity or not identity.isascii() or len(text := _xtext(identity)) > _LONGEST_ENVELOPE_ID:
        return blake2b(message.message_id.encode("utf-8", "replace"), digest_size=20).hexdigest()
    return text


def _original_recipient(path: str) -> str:
    if path.isascii():
        return f"rfc822;{_xtext(path)}"
    # The 7-bit form: servers without SMTPUTF8 can pass it on.
    return "utf-8;" + _NOT_UTF8_XTEXT.sub(lambda found: f"\\x{{{ord(found[0]):X}}}", path)


def _xtext(text: str) -> str:
    return _NOT_XTEXT.sub(lambda found: f"+{ord(found[0]):02X}", text)


def _needs_smtputf8(message: Message) -> bool:
    envelope = message.envelope
    if message.needs_smtputf8 or not (envelope.forward_path.isascii() and envelope.reverse_path.isascii()):
        return True
    return bool(envelope.copies) and not all(path.isascii() for path in envelope.copies)


def _is_writable(path: str) -> bool:
    return len(path) <= LONGEST_ADDRESS and not _UNSAFE.search(path)


def _fault(what: str) -> Fault:
    return Fault(Stage.MAIL, Breakage.UNSENDABLE, what)
