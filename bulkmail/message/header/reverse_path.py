"""The reverse path of a message: fixed, from a template, with the recipient or a token in it, or its sender's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from bulkmail.message.compose.rendered import Field, mailbox_field
from bulkmail.message.template.rendering import Workshop
from bulkmail.message.verp import PLACEHOLDER, TOKEN, Pattern, parse_pattern
from bulkmail.model.address import Address
from bulkmail.model.campaign import Template
from bulkmail.model.errors import AddressError, ConfigError

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


def is_template(text: str) -> bool:
    """Whether a reverse path has to be rendered."""
    return "{{" in text or "{%" in text


@lru_cache(maxsize=1024)
def _parse(text: str) -> str | Pattern:
    return parse_pattern(text) if PLACEHOLDER in text or TOKEN in text else Address.parse(text).wire
