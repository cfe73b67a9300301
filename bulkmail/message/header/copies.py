"""Who else gets a message: the lists of mailboxes in To, Cc and Bcc."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from bulkmail.message.compose.rendered import Field, mailbox_field
from bulkmail.message.template.rendering import Workshop
from bulkmail.model.address import Address, parse_mailbox, parse_mailboxes, split_list
from bulkmail.model.campaign import Template
from bulkmail.model.errors import AddressError
from bulkmail.model.pattern import lazy_pattern
from bulkmail.text import printable

Mailbox = tuple[str, Address]

_EXPRESSION = r"\{\{.*?\}\}|\{#.*?#\}"
_ALONE = lazy_pattern(r"\s*\{\{(?:(?!\}\}).)*\}\}\s*", re.DOTALL)


class AddressList:
    """A header of mailboxes.

    It is divided at its commas before it is rendered, so that a name in a cell never becomes an address; where an
    expression stands alone between two commas (or a statement builds the list) the cell may hold several.
    """

    __slots__ = ("_parts", "name")

    def __init__(self, name: str, template: Template, workshop: Workshop) -> None:
        """Raises `TemplateError`."""
        self.name = name
        self._parts = [
            (Field(name, workshop.header(Template(template.name, text)), encode=mailbox_field), is_list(text))
            for text in pieces(template.text)
        ]

    def mailboxes(self, variables: dict[str, object], fields: Mapping[str, object]) -> list[Mailbox]:
        """Those of one row; none for what comes out empty.  Raises `TemplateError`."""
        found: list[Mailbox] = []
        for field, may_be_several in self._parts:
            value = field.value(variables, fields)
            if not value:
                continue
            try:
                found += _several(value) if may_be_several else [_one(value)]
            except AddressError as error:
                raise field.refuse(str(error)) from None
        return found


def pieces(text: str) -> list[str]:
    """The template of a list, divided at its commas; whole where a statement builds the list."""
    return [text] if "{%" in text else split_list(text, kept=_EXPRESSION)


def is_list(piece: str) -> bool:
    """Whether one of the `pieces` may come to several addresses."""
    return "{%" in piece or _ALONE.fullmatch(piece) is not None


@lru_cache(maxsize=1024)
def _several(value: str) -> tuple[Mailbox, ...]:
    return tuple(parse_mailboxes(value))


@lru_cache(maxsize=1024)
def _one(value: str) -> Mailbox:
    try:
        return parse_mailbox(value)
    except AddressError as error:
        raise AddressError(f"has {printable(value, 80)!r}, which {error}") from None


def distinct(mailboxes: Iterable[Mailbox], *, known: Iterable[Address] = ()) -> list[Mailbox]:
    """Each address once, and none that is `known`."""
    seen = {address.key for address in known}
    found: list[Mailbox] = []
    for name, address in mailboxes:
        if address.key not in seen:
            seen.add(address.key)
            found.append((name, address))
    return found
