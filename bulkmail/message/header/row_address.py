"""The address of a row that a template makes, as in `{{ login }}@school.example`: the first mailbox that it says."""

from __future__ import annotations

from collections.abc import Mapping

from bulkmail.message.header.copies import AddressList, Mailbox, is_list, pieces
from bulkmail.message.template.environment import NO_VALUES
from bulkmail.message.template.rendering import Workshop
from bulkmail.model.campaign import Template
from bulkmail.model.errors import AddressError, TemplateError
from bulkmail.model.pattern import lazy_pattern

_COLUMN = lazy_pattern(
    r"\s*\{\{-?\s*(?:(?P<plain>[^\W\d]\w*)|row\[\s*(?P<quote>[\"'])(?P<quoted>[^\"']+)(?P=quote)\s*\])\s*-?\}\}\s*"
)
_TAG = lazy_pattern(r"\{\{|\{%")


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
    return not _TAG.search(text)


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
