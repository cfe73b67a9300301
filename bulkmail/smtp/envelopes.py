"""The envelope of a message as commands, for the extensions that a server offers."""

from __future__ import annotations

import re

from bulkmail.model.message import Message
from bulkmail.model.reply import Breakage, Fault, Stage, printable
from bulkmail.smtp.capabilities import Capabilities

# What would end the command or the path: whoever made the address should have refused it, and here it stops.
_UNSAFE = re.compile("[\x00-\x20\x7f<>\ud800-\udfff]")


def unsendable(message: Message, capabilities: Capabilities) -> Fault | None:
    """Why this message cannot go over this session at all, known without a word to the server; else None."""
    envelope = message.envelope
    for path in (envelope.reverse_path, envelope.forward_path):
        if _UNSAFE.search(path) or len(path) > 254:
            return _fault(f'"{printable(path, 80)}" cannot be written into a command to the server')
    if not envelope.forward_path:
        return _fault("the message names nobody to send it to")
    if _needs_smtputf8(message) and not capabilities.smtputf8:
        return _fault("the address or a header needs SMTPUTF8, which the server does not offer")
    if message.is_8bit and not capabilities.eight_bit_mime:
        return _fault("the message has 8-bit content, and the server does not offer 8BITMIME")
    if capabilities.size_limit and message.size_bytes > capabilities.size_limit:
        return _fault(
            f"the message has {message.size_bytes:,} octets, and the server takes at most {capabilities.size_limit:,}"
        )
    return None


def mail_command(message: Message, capabilities: Capabilities) -> bytes:
    """MAIL with no more parameters than this message needs: each one may bounce at a later relay."""
    command = f"MAIL FROM:<{message.envelope.reverse_path}>"
    if capabilities.size_limit is not None:
        command += f" SIZE={message.size_bytes}"  # RFC 1870
    if message.is_8bit:
        command += " BODY=8BITMIME"  # RFC 6152
    if _needs_smtputf8(message):
        command += " SMTPUTF8"  # RFC 6531
    return f"{command}\r\n".encode()


def rcpt_command(message: Message) -> bytes:
    """RCPT for the one forward path."""
    return f"RCPT TO:<{message.envelope.forward_path}>\r\n".encode()


def _needs_smtputf8(message: Message) -> bool:
    envelope = message.envelope
    return message.needs_smtputf8 or not (envelope.forward_path.isascii() and envelope.reverse_path.isascii())


def _fault(what: str) -> Fault:
    return Fault(Stage.MAIL, Breakage.UNSENDABLE, what)
