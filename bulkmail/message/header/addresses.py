"""Who a message is from and to: the address of a row, its copies in To, Cc and Bcc, the reverse path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from bulkmail.message.compose.rendered import Field, mailbox_field
from bulkmail.message.template.environment import NO_VALUES
from bulkmail.message.template.rendering import Workshop
from bulkmail.message.verp import PLACEHOLDER, TOKEN, Pattern, parse_pattern
from bulkmail.model.campaign import Template, is_template
from bulkmail.model.errors import AddressError, ConfigError, TemplateError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import Address, parse_mailbox, parse_mailboxes, split_list
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


_COLUMN = lazy_pattern(
    r"\s*\{\{-?\s*(?:(?P<plain>[^\W\d]\w*)|row\[\s*(?P<quote>[\"'])(?P<quoted>[^\"']+)(?P=quote)\s*\])\s*-?\}\}\s*"
)


class RowAddress:
    """Makes the address of each row.  `column` is the one that it is in, or empty where it is made of more."""

    def __init__(self, template: Template, values: Mapping[str, object] = NO_VALUES) -> None:
        """`values` are those of the campaign.  Raises `TemplateError` with file and line for what Jinja cannot read."""
        self.column = column_of(template.text)
        self._workshop = Workshop(values=values)
        self._mailboxes = AddressList("To", template, self._workshop)

    def __call__(self, fields: Mapping[str, object]) -> Mailbox:
        """The display name and address of a row.  Raises `AddressError` for a row that has none."""
        try:
            found = self._mailboxes.mailboxes(self._workshop.variables(fields), fields)
        except TemplateError as error:
            raise AddressError(f"{error}; {error.hint}" if error.hint else str(error)) from None
        if not found:
            raise AddressError("there is no address: To is empty")
        return found[0]


def column_of(text: str) -> str:
    """The column that holds the whole address, or nothing."""
    found = _COLUMN.fullmatch(text)
    return (found["plain"] or found["quoted"]) if found else ""


def is_same_for_all(text: str) -> bool:
    """Whether no row has any part in the address."""
    return not is_template(text)


def with_others(text: str, others: str) -> str:
    """A list of addresses for `Campaign.to`: those that `text` may say beside the row's own, and `others`."""
    if column := column_of(text):
        # The heading may be written in another case, by which a variable is not found: such a row has no others.
        quote = '"' if "'" in column else "'"
        text = f"{{{{ row[{quote}{column}{quote}] | default('') }}}}"
    several = [piece for piece in pieces(text) if piece.strip()]
    if len(several) == 1 and not is_list(several[0]):
        text = ""
    return ", ".join(filter(None, [text, others]))


NAME = "campaign: reverse_path"


class ReversePath:
    """Where the bounces of one campaign go."""

    def __init__(self, text: str, workshop: Workshop) -> None:
        """`text` is `Campaign.reverse_path`.  Raises `ConfigError` or `TemplateError`."""
        self._field: Field | None = None
        self._fixed: str | Pattern = ""
        if is_template(text):
            self._field = Field("the reverse path", workshop.header(Template(NAME, text)), encode=mailbox_field)
        elif text:
            try:
                self._fixed = _parse(text)
            except AddressError as error:
                raise ConfigError(f"the reverse path {text!r} {error}", hint="write local@domain") from None

        self.has_token = TOKEN in text

    @property
    def is_by_row(self) -> bool:
        """Whether it is made by a template."""
        return self._field is not None

    def constant(self, sender: Address) -> str | None:
        """The path of all messages that `sender` sends; None where they differ."""
        is_one = self._field is None and not isinstance(self._fixed, Pattern)
        return self.of({}, {}, sender=sender, forward_path="") if is_one else None

    def of(
        self,
        variables: dict[str, object],
        fields: Mapping[str, object],
        *,
        sender: Address,
        forward_path: str,
        token: str = "",
    ) -> str:
        """The path of one message, `sender` being who sends it and `token` its own.  Raises `TemplateError`."""
        path = self._fixed
        if self._field is not None:
            value = self._field.value(variables, fields)
            try:
                path = _parse(value) if value else ""
            except AddressError as error:
                raise self._field.refuse(f"is {value!r}, which {error}") from None
        if isinstance(path, Pattern):
            return path.fill(forward_path, token)
        return path or sender.wire


@lru_cache(maxsize=1024)
def _parse(text: str) -> str | Pattern:
    return parse_pattern(text) if PLACEHOLDER in text or TOKEN in text else Address.parse(text).wire
