"""The message itself, as the first row that can have one would read it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bulkmail.message.compose.composer import Composer
from bulkmail.message.html.local_files import content_id
from bulkmail.model.campaign import Campaign, Keys
from bulkmail.model.errors import BulkmailError
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Address, Recipient
from bulkmail.model.relay import Secret
from bulkmail.outbox.entries import RowRecord

_MOST_TRIED = 100  # rows
_LARGEST_PAGE = 1_000_000  # characters, pictures included
# Links of a specimen lead nowhere: the report goes to people who should not unsubscribe others.
_NO_KEY = Secret("a specimen has no key of its own")


@dataclass(frozen=True, slots=True)
class Specimen:
    """`html` is a page of its own, for a frame that runs nothing; None where none can be shown."""

    subject: str
    sender: str
    to: str
    text: str | None
    html: str | None
    enclosures: tuple[str, ...]


def specimen_of(campaign: Campaign | None, rows: Iterable[RowRecord]) -> Specimen | None:
    """The message of the first row that it can be made for; None when there is none among the first hundred."""
    if campaign is None:
        return None
    enclosures = tuple(attachment.filename for attachment in campaign.attachments)
    try:
        bare = replace(campaign, dkim=(), attachments=(), row_attachments=())
        composer = Composer(bare, run_id="specimen", keys=Keys(unsubscribe=_NO_KEY))
    except BulkmailError:
        return None
    for _, record in zip(range(_MOST_TRIED), rows, strict=False):
        local, at, domain = record.address.rpartition("@")
        if not at:
            continue
        try:
            seen = composer.render(Recipient(Address(local, domain), record.name, record.fields, record.place))
        except BulkmailError:
            continue
        return Specimen(seen.subject, seen.sender, seen.to, seen.text, _page(seen.html, campaign), enclosures)
    return None


def _page(html: str | None, campaign: Campaign) -> str | None:
    """The page for the frame; None where there is none that can be shown."""
    if html is None or len(html) > _LARGEST_PAGE:
        return None
    from bulkmail.message.html.framed import Picture, framed  # late: a text alone needs no parser of HTML

    # Those that come with every message, by Content-ID.
    pictures = {content_id(image): Picture(image.content_type, image.content) for image in campaign.images}
    shown = framed(html, pictures)
    return shown[0] if shown is not None and len(shown[0]) <= _LARGEST_PAGE else None
