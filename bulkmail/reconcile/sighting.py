"""A message seen by its Message-ID, somewhere behind the relay."""

from __future__ import annotations

import re
from email.message import Message

from bulkmail.model.lazy import dataclass

ENVELOPE_FIELDS = ("Delivered-To", "X-Original-To", "Envelope-To")
"""Where delivery agents write whom a copy was for."""

_ADDRESS = re.compile(r"[^\s<>,;]+@[^\s<>,;]+")


@dataclass(frozen=True, slots=True)
class Sighting:
    """`message_id` as it stands there, with its brackets; `place` says where, for people.

    `forward_paths` are whom this copy was for, in lower case; empty where that is not said.
    """

    message_id: str
    place: str
    forward_paths: frozenset[str] = frozenset()


def addresses_in(text: str) -> frozenset[str]:
    """Everything in `text` that looks like an address, in lower case."""
    return frozenset(found.casefold() for found in _ADDRESS.findall(text))


def sighted(header: Message, place: str) -> Sighting | None:
    """What the header of a message in a mail folder says; None without a Message-ID.

    Only the message's own: a bounce that brings the message along is no sign that it arrived.
    """
    message_id = str(header.get("Message-ID") or "").strip()
    if not message_id:
        return None
    said = " ".join(str(value) for name in ENVELOPE_FIELDS for value in header.get_all(name, ()))
    return Sighting(message_id, place, addresses_in(said))
