"""The parts of a message that are rendered: header fields and bodies, each from its template to its bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from bulkmail.message.compose.compiled import Part
from bulkmail.message.compose.mime_plan import body_slot
from bulkmail.message.compose.transfer_encoding import encode_text, forbidden_in_text, normalised
from bulkmail.message.header import headers
from bulkmail.message.html.scanner import elements
from bulkmail.message.template.rendering import Rendering
from bulkmail.message.template.template_errors import field_expression, place
from bulkmail.model.errors import AddressError, TemplateError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import Address, parse_mailbox
from bulkmail.text import printable

_LONGEST_SHOWN = 80

# Browsers pass over white space and controls in the name of the scheme.
_SKIPPED = "".join(map(chr, range(0x21)))
_SCRIPT = lazy_pattern(r"[\x00-\x20]*".join("javascript:"), re.IGNORECASE)
_VALUE = lazy_pattern(rf"=[\x00-\x20\"']*(?i:{_SCRIPT.pattern})")


class Field:
    """A header: its name, the template of its value, and how a value becomes bytes.

    `encode` raises `ValueError` (an `AddressError` is one) for a value that the header cannot have.
    """

    __slots__ = ("_constant", "_encode", "name", "rendering")

    def __init__(self, name: str, rendering: Rendering, *, encode: Callable[[str, str], bytes]) -> None:
        """Raises `TemplateError` when the value is the same for everyone and wrong."""
        self.name = name
        self.rendering = rendering
        self._encode = encode
        self._constant: tuple[str, bytes] | None = None
        if rendering.constant is not None:
            value = self.value({}, {})
            self._constant = value, self.to_bytes(value)

    def value(self, variables: dict[str, object], fields: Mapping[str, object]) -> str:
        """The value for one row, fit for a header.  Raises `TemplateError`, also for what would break out of it."""
        if self._constant is not None:
            return self._constant[0]
        value = self.rendering.render(variables)
        if not value.isprintable():  # nearly always it is
            value = value.replace("\t", " ")
            if bad := headers.forbidden_in(value):
                what = f"would hold {headers.name_character(bad)}{blame(fields, bad)}; a header is one line"
                raise self.refuse(what, hint=_one_line_fix(fields, bad))
        if len(value) > headers.LONGEST_VALUE:
            raise self.refuse(f"would be {len(value):,} characters long; {headers.LONGEST_VALUE:,} are allowed")
        return value.strip(" ")

    def to_bytes(self, value: str) -> bytes:
        """The whole field with its CRLF; nothing for an empty value.  Raises `TemplateError`."""
        if self._constant is not None and value == self._constant[0]:
            return self._constant[1]
        if not value:
            return b""
        try:
            return self._encode(self.name, value)
        except AddressError as error:
            raise self.refuse(f"is {printable(value, _LONGEST_SHOWN)!r}, which {error}") from None
        except ValueError as error:
            raise self.refuse(str(error)) from None

    def refuse(self, what: str, *, hint: str = "") -> TemplateError:
        """The error that says so of this header, beginning with the template's place."""
        return TemplateError(f"{place(self.rendering.name, 1)}: {self.name} {what}", hint=hint)


class Body:
    """A body of a message: text, HTML, calendar.  `finish` is what is done to it after it was rendered."""

    __slots__ = ("_constant", "_finish", "_is_html", "_rendering")

    def __init__(
        self, rendering: Rendering, *, is_html: bool = False, finish: Callable[[str], str] | None = None
    ) -> None:
        """Raises `TemplateError` when the body is the same for everyone and wrong."""
        self._rendering = rendering
        self._finish = finish
        self._is_html = is_html
        self._constant: tuple[str, bytes] | None = None
        if rendering.constant is not None:
            text = self.text({}, {})
            self._constant = text, self.to_bytes(text)

    def check(self, variables: dict[str, object], fields: Mapping[str, object]) -> None:
        """Raises the `TemplateError` that `text` would."""
        if self._constant is None:
            self._rendered(variables, fields)

    def text(self, variables: dict[str, object], fields: Mapping[str, object]) -> str:
        """The text for one row, with LF line ends and exactly one at its end.  Raises `TemplateError`."""
        if self._constant is not None:
            return self._constant[0]
        text = self._rendered(variables, fields)
        if self._finish is not None:
            try:
                text = self._finish(text)
            except RecursionError:
                raise TemplateError(f"{place(self._rendering.name, 1)}: is nested too deeply") from None
        return normalised(text)

    def _rendered(self, variables: dict[str, object], fields: Mapping[str, object]) -> str:
        text = self._rendering.render(variables)
        if bad := forbidden_in_text(text):
            what = f"would hold {headers.name_character(bad)}{blame(fields, bad)}; no mail can"
            raise TemplateError(f"{place(self._rendering.name, 1)}: the message {what}")
        # Escaping keeps a cell inside its attribute; what a link does when it is clicked it does not decide.
        if self._is_html and (at := _script_link(text)) >= 0:
            line = text.count("\n", 0, at) + 1
            raise TemplateError(
                f"{place(self._rendering.name, 1)}: a link in line {line} of the message would run a script",
                hint="a link begins with https: or mailto:",
            )
        return text

    def part(self) -> Part:
        """What a compiled message makes of it."""
        if self._constant is not None:
            return self._constant[1]
        if self._finish is None and self._rendering.pieces is not None:
            return self._rendering.pieces
        return lambda variables, fields: self.to_bytes(self.text(variables, fields))

    def to_bytes(self, text: str) -> bytes:
        """What goes into the plan's slot."""
        if self._constant is not None:
            return self._constant[1]
        return encoded_body(text)


def encoded_body(text: str) -> bytes:
    """A body as it goes into the plan's slot."""
    return body_slot(*encode_text(text))


def _script_link(html: str) -> int:
    """Where an attribute's value begins with `javascript:`; -1 when none does.  A text may speak of it."""
    if not any(_SCRIPT.match(html, at) for char in "jJ" for at in _places(html, char)):
        return -1
    last, seen, in_tag = -1, 0, False
    for found in _VALUE.finditer(html):
        last = found.start()
        opened, closed = html.rfind("<", seen, last), html.rfind(">", seen, last)
        in_tag = opened > closed if opened != closed else in_tag
        if in_tag:
            return last
        seen = last
    # A quoted value may hold a ">".
    values = (attribute.raw for element in elements(html) for attribute in element.attributes) if last >= 0 else ()
    return last if any(_SCRIPT.match(value.lstrip(_SKIPPED)) for value in values) else -1


def _places(text: str, char: str) -> Iterator[int]:
    """Where a message stands: ten times as fast as letting a pattern look for it."""
    at = text.find(char)
    while at >= 0:
        yield at
        at = text.find(char, at + 1)


def blame(fields: Mapping[str, object], character: str) -> str:
    """`", from the field 'company'"`: the first field that holds `character`; nothing when none does."""
    for name, value in fields.items():
        if isinstance(value, str) and character in value:
            return f", from the field {printable(name, _LONGEST_SHOWN)!r}"
    return ""


def _one_line_fix(fields: Mapping[str, object], character: str) -> str:
    """What to write where a cell of several lines stands in a header."""
    name = next((name for name, value in fields.items() if isinstance(value, str) and character in value), "")
    if not name or character not in "\r\n":
        return "take it out of the cell" if name else ""
    return f"write {{{{ {field_expression(name)} | replace('\\n', ' ') }}}} there, or write the cell in one line"


@lru_cache(maxsize=1024)
def mailbox(name: str, value: str) -> tuple[bytes, Address]:
    """The field `name` with the one mailbox in `value`, and its address.  Raises `AddressError`.

    Remembered, because nearly always it is the same for everyone.
    """
    display_name, address = parse_mailbox(value)
    return headers.address_field(name, [(display_name, address)]), address


def mailbox_field(name: str, value: str) -> bytes:
    """The bytes of `mailbox`."""
    return mailbox(name, value)[0]
