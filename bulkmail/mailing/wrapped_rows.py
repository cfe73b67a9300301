"""Rows of a list with more fields than it has: what all ways of adding some have in common."""

from __future__ import annotations

from bulkmail.mailing.rows import Rows
from bulkmail.recipients.remarks import Remarks


class WrappedRows:
    """Says of the rows what their list says; `adds` are the fields that each row gets.  A subclass iterates."""

    def __init__(self, rows: Rows, *adds: str) -> None:
        self._rows = rows
        self._adds = adds
        self.close = rows.close

    @property
    def columns(self) -> list[str]:
        """The list's, and those that are added."""
        return list(dict.fromkeys([*self._rows.columns, *self._adds]))

    @property
    def notices(self) -> list[str]:
        """The list's."""
        return self._rows.notices

    @property
    def repeated(self) -> dict[str, list[str]]:
        """The list's."""
        return self._rows.repeated

    @property
    def remarks(self) -> Remarks:
        """The list's."""
        return self._rows.remarks
