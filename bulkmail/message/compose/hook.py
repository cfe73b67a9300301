"""A program's own hand on each message: S/MIME, house rules, whatever no setting knows."""

from __future__ import annotations

from collections.abc import Callable
from email import message_from_string
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8

from bulkmail.message.compose.ready_made import bytes_of
from bulkmail.model.errors import BulkmailError, TemplateError
from bulkmail.text import printable

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
