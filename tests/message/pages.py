"""What the tests of pages need: a composer of one page, and a row to fill it in."""

from __future__ import annotations

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

from bulkmail.message.compose.composer import Composer, Rendered
from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.recipient import Address, Place, Recipient


def campaign_of(**parts: object) -> Campaign:
    """A campaign with these parts; texts are templates named after the part."""
    made = {name: Template(f"message.{name}", part) if isinstance(part, str) else part for name, part in parts.items()}
    return Campaign("spring", Template("from", "Shop <shop@example.org>"), Template("subject", "News"), **made)


def row(**fields: object) -> Recipient:
    """Ann's row with these fields."""
    return Recipient(Address("ann", "example.com"), "Ann", {"email": "ann@example.com", **fields}, Place("list.csv", 2))


def rendered(fields: dict[str, object] | None = None, **parts: object) -> Rendered:
    """The message for a row."""
    return Composer(campaign_of(**parts), run_id="run").render(row(**fields or {}))


def composed(fields: dict[str, object] | None = None, **parts: object) -> EmailMessage:
    """The message for a row, as the standard library reads it."""
    composer = Composer(campaign_of(**parts), run_id="run")
    composer.check(row(**fields or {}))
    message = composer.compose(row(**fields or {}), row=1, forward_path="ann@example.com", date=0.0)
    read = message_from_bytes(b"".join(message.buffers), policy=default)
    assert all(not part.defects for part in read.walk())
    return read


def kinds(message: EmailMessage) -> list[str]:
    """The types of all parts, in order."""
    return [part.get_content_type() for part in message.walk()]
