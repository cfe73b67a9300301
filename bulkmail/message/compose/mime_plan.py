"""The shape of a campaign's messages: what is the same in all of them, with slots for what is not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from email.message import MIMEPart
from email.policy import SMTP
from enum import IntEnum
from hashlib import blake2b

from bulkmail.message.attachments.drawing import Drawn
from bulkmail.message.attachments.file_parts import file_fields
from bulkmail.message.compose.transfer_encoding import base64_lines
from bulkmail.message.header.headers import forbidden_in, name_character
from bulkmail.model.campaign import Attachment, Campaign, InlineImage
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern

IDENTITY_LENGTH = 32  # characters of the identity that boundaries are made of
_AS_WRITTEN = SMTP.clone(refold_source="none")  # the fields of files are folded already
_SHARED = 4096  # bytes from which a constant is a buffer of its own instead of being copied into each message
_CONTENT_TYPE = lazy_pattern(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")
# These must not be sent in base64 (RFC 2046 §5.2.1, RFC 2045 §6.4); as plain files they arrive as they were.
_COMPOSITE = ("message/", "multipart/")
_LONGEST_FILENAME = 255


class Slot(IntEnum):
    """What a message fills in.  The number is its place among the values of `MimePlan.fill`."""

    HEAD = 0
    IDENTITY = 1
    TEXT = 2
    HTML = 3
    CALENDAR = 4
    PICTURES = 5


@dataclass(frozen=True, slots=True)
class MimePlan:
    """The bytes of a message and, where it differs from the next, the numbers of slots.

    Each segment becomes one buffer; a segment that is bytes is shared by all messages.
    """

    segments: tuple[bytes | tuple[bytes | int, ...], ...]
    last: tuple[bytes | int, ...] = ()

    def fill(self, values: Sequence[bytes], enclosures: Iterable[bytes] = ()) -> tuple[bytes, ...]:
        """The buffers of one message, from the bytes for each `Slot` in turn.

        `enclosures` are the files of a row's own, whole parts with the delimiter lines before them; `last` is what
        comes after those.
        """
        buffers = [segment if isinstance(segment, bytes) else _joined(segment, values) for segment in self.segments]
        if self.last:
            buffers += enclosures
            buffers.append(_joined(self.last, values))
        return tuple(buffers)


def _joined(segment: tuple[bytes | int, ...], values: Sequence[bytes]) -> bytes:
    return b"".join([piece if isinstance(piece, bytes) else values[piece] for piece in segment])


def body_slot(encoding: bytes, body: bytes) -> bytes:
    """What goes into a TEXT or HTML slot."""
    return b"Content-Transfer-Encoding: %b\r\n\r\n%b" % (encoding, body)


def boundary_of(subtype: str, identity: str) -> str:
    """The boundary of the one `multipart/subtype` of a message.

    `=_` never occurs in quoted-printable or base64 (RFC 2045 §6.7), and our 7bit bodies have no `=`.
    """
    return f"=_{subtype[0]}_{identity}"


def make_plan(
    campaign: Campaign, *, images: Sequence[tuple[str, InlineImage]] = (), method: str = "", draws: bool = False
) -> MimePlan:
    """The plan for what `campaign` has.  If it `draws`, the HTML has a slot for the pictures of the row beside it.

    Text, HTML and calendar are alternatives, the HTML is related to its `images`, each with its Content-ID,
    attachments are mixed around them all, and what is alone stands alone.  `method` is what the calendar asks for
    (RFC 6047 §2.4).  Raises `ConfigError` for an attachment that cannot be one.
    """
    for name, content_type in _files(campaign):
        check_attachment(name, content_type)
    marks = _Marks(campaign)
    bodies = [_body_part(slot, marks, images=images, method=method, draws=draws) for slot in _bodies(campaign)]
    if not bodies:
        raise ConfigError(
            f"the campaign {campaign.name!r} has neither text nor HTML", hint="give it text, html or both"
        )
    part = bodies[0] if len(bodies) == 1 else _multipart("alternative", bodies, marks)
    enclosures = [_attachment_part(each, marks) for each in campaign.attachments]
    if campaign.calendar is not None:
        enclosures.append(_calendar_part(marks, method=method, disposition="attachment"))
    if enclosures or campaign.row_attachments:
        part = _multipart("mixed", [part, *enclosures], marks)
    skeleton = marks.head + b"MIME-Version: 1.0\r\n" + part.as_bytes(policy=_AS_WRITTEN)
    if draws:
        closing = f"\r\n--{boundary_of('related', marks.identity)}--".encode()
        skeleton = skeleton.replace(closing, marks.slot(Slot.PICTURES).encode() + closing)
    last = b""
    if campaign.row_attachments:
        end = skeleton.rindex(f"--{boundary_of('mixed', marks.identity)}--".encode())
        skeleton, last = skeleton[:end], skeleton[end:]
    return MimePlan(tuple(_segments(marks.cut(skeleton))), tuple(marks.cut(last)) if last else ())


def _files(campaign: Campaign) -> Iterator[tuple[str, str]]:
    """The names and types of what every message has enclosed."""
    yield from ((item.filename, item.content_type) for item in campaign.attachments)
    yield from ((image.filename, image.content_type) for image in campaign.images)


class _Marks:
    """Words that stand for slots and attachments while the `email` package lays the message out.

    They derive from what else is in the skeleton, so that no file name can hold one by accident or on purpose.
    """

    def __init__(self, campaign: Campaign) -> None:
        names = repr(list(_files(campaign)))
        self._stem = blake2b(names.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        self.head = self.slot(Slot.HEAD).encode()
        # As long as what comes in its place, because the package folds lines by their length.
        self.identity = self.slot(Slot.IDENTITY).ljust(IDENTITY_LENGTH, "0")
        self._constants: list[bytes] = []

    def slot(self, slot: Slot) -> str:
        return f"{self._stem}s{slot.value}"

    def constant(self, content: bytes) -> str:
        """A word for `content`, which is too long to be laid out with the rest."""
        self._constants.append(content)
        return f"{self._stem}c{len(self._constants) - 1}e"

    def cut(self, skeleton: bytes) -> Iterator[bytes | int]:
        """The skeleton's bytes in order, with what the words stand for in their place."""
        stem = self._stem.encode()
        pattern = (
            rb"%(stem)bs(?P<head>[05])"
            rb"|%(stem)bs(?P<identity>1)0*"
            rb"|Content-Transfer-Encoding: 7bit\r\n\r\n%(stem)bs(?P<body>\d)\r\n"
            rb"|%(stem)bc(?P<constant>\d+)e"
        ) % {b"stem": stem}
        end = 0
        for found in re.finditer(pattern, skeleton):
            yield skeleton[end : found.start()]
            end = found.end()
            if found["constant"] is not None:
                yield self._constants[int(found["constant"])]
            else:
                yield int(found["head"] or found["identity"] or found["body"])
        yield skeleton[end:]


def _segments(pieces: Iterable[bytes | int]) -> Iterator[bytes | tuple[bytes | int, ...]]:
    """Long constants by themselves; whatever lies between them together."""
    gathered: list[bytes | int] = []
    for piece in pieces:
        if isinstance(piece, int) or len(piece) < _SHARED:
            if isinstance(piece, bytes) and gathered and isinstance(gathered[-1], bytes):
                gathered[-1] += piece
            elif piece != b"":
                gathered.append(piece)
        else:
            yield tuple(gathered)
            yield piece
            gathered = []
    yield tuple(gathered)


def _bodies(campaign: Campaign) -> list[Slot]:
    """Text first, then what is better than text (RFC 2046 §5.1.4)."""
    html = campaign.html or campaign.markdown or campaign.mjml
    slots = [Slot.TEXT] if campaign.text or html else []
    slots += [Slot.HTML] if html else []
    slots += [Slot.CALENDAR] if slots and campaign.calendar else []
    return slots


def _body_part(
    slot: Slot, marks: _Marks, *, images: Sequence[tuple[str, InlineImage]], method: str, draws: bool
) -> MIMEPart:
    if slot is Slot.CALENDAR:
        return _calendar_part(marks, method=method)
    part = MIMEPart(policy=SMTP)
    subtype = "html" if slot is Slot.HTML else "plain"
    part.set_content(marks.slot(slot), subtype=subtype, charset="utf-8", cte="7bit")
    if slot is Slot.HTML and (images or draws):
        pictures = [_attachment_part(image, marks, content_id=content_id) for content_id, image in images]
        part = _multipart("related", [part, *pictures], marks)
        part.set_param("type", "text/html")  # RFC 2387 §3.1
    return part


def _calendar_part(marks: _Marks, *, method: str, disposition: str | None = None) -> MIMEPart:
    part = MIMEPart(policy=SMTP)
    part.set_content(
        marks.slot(Slot.CALENDAR),
        subtype="calendar",
        charset="utf-8",
        cte="7bit",
        disposition=disposition,
        filename="invite.ics" if disposition else None,
    )
    if method:
        part.set_param("method", method)
    encoding = part["Content-Transfer-Encoding"]  # the last: a slot begins with it
    del part["Content-Transfer-Encoding"]
    part["Content-Transfer-Encoding"] = encoding
    return part


def _multipart(subtype: str, parts: Sequence[MIMEPart], marks: _Marks) -> MIMEPart:
    part = MIMEPart(policy=SMTP)
    part["Content-Type"] = f"multipart/{subtype}"
    part.set_boundary(boundary_of(subtype, marks.identity))
    for each in parts:
        part.attach(each)
    return part


def _attachment_part(attachment: Attachment | InlineImage, marks: _Marks, *, content_id: str | None = None) -> MIMEPart:
    part = MIMEPart(policy=SMTP)
    _set_file(part, attachment.filename, attachment.content_type, content_id=content_id)
    part.set_payload(marks.constant(base64_lines(attachment.content)))
    return part


def _set_file(part: MIMEPart, filename: str, content_type: str, *, content_id: str | None = None) -> None:
    content_type = content_type.lower()
    if content_type.startswith(_COMPOSITE):
        content_type = "application/octet-stream"
    for name, value in file_fields(filename, content_type, content_id=content_id):
        part.set_raw(name, value)


def picture_parts(pictures: Iterable[Drawn], identity: str) -> bytes:
    """What goes into the slot PICTURES: a part for each picture, by its Content-ID, after its delimiter line."""
    delimiter = f"\r\n--{boundary_of('related', identity)}\r\n".encode("ascii")
    return b"".join(
        delimiter + file_head(each.filename, each.content_type, content_id=each.content_id) + each.encoded
        for each in pictures
    )


def file_head(filename: str, content_type: str, *, content_id: str | None = None) -> bytes:
    """The header of a part that holds a file in base64, with the empty line after it."""
    part = MIMEPart(policy=SMTP)
    _set_file(part, filename, content_type, content_id=content_id)
    return part.as_bytes(policy=_AS_WRITTEN).rstrip(b"\r\n") + b"\r\n\r\n"


def check_attachment(name: str, content_type: str) -> None:
    """Raises `ConfigError` for a file name or a type that no attachment can have."""
    if bad := forbidden_in(name) or ("\t" if "\t" in name else ""):
        raise ConfigError(f"the attachment name {name!r} holds {name_character(bad)}", hint="rename the file")
    if not name.strip() or "/" in name or "\\" in name or len(name.encode()) > _LONGEST_FILENAME:
        raise ConfigError(
            f"{name[:80]!r} is not a name for an attachment",
            hint=f"a name has 1 to {_LONGEST_FILENAME} bytes and no folder in it",
        )
    if "=?" in name and "?=" in name:
        raise ConfigError(
            f"the attachment name {name[:80]!r} looks like an encoded word: mail programs would show another name",
            hint="rename the file",
        )
    if not _CONTENT_TYPE.fullmatch(content_type):
        raise ConfigError(
            f"the attachment {name!r} has the type {content_type[:80]!r}",
            hint='a type looks like "application/pdf"',
        )
