"""Which rows of a list are meant, and the condition that chooses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bulkmail.checks.row_checks import RowCheck
from bulkmail.message.template.rendering import Condition
from bulkmail.model.address import Address
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.model.status import Status
from bulkmail.model.tally import MOST_INVALID
from bulkmail.recipients.screening import Screened, Suppression, screen


@dataclass(slots=True)
class Where:
    """A condition that remembers whether it made sense for any row."""

    condition: Condition
    _answered: int = 0
    _error: TemplateError | None = None

    def __call__(self, fields: Mapping[str, object]) -> bool:
        try:
            holds = self.condition(fields)
        except TemplateError as error:
            self._error = self._error or error
            raise
        self._answered += 1
        return holds

    def refuse_senseless(self) -> None:
        """Raises the first `TemplateError` if there was nothing else: then the condition is at fault, and no row."""
        if self._error is not None and not self._answered:
            raise self._error


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of the list are meant: `where` is a Jinja expression over the row, empty for all.

    `own_columns` are those that settings name for addresses and names.  `only`, if not empty, are the keys of the
    addresses that a rehearsal is for.  More than the share `most_invalid` of the rows must not be
    invalid.  `address_column` is the column of the addresses, if settings name one.
    """

    where: str = ""
    suppression: Suppression | None = None
    allow_duplicates: bool = False
    redirect_to: Address | None = None
    sample: int | None = None
    own_columns: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()
    most_invalid: float = MOST_INVALID
    address_column: str = ""

    @property
    def takes_all(self) -> bool:
        """Whether every good row of the list, unless it is suppressed, is to be sent to its own address."""
        return not (self.where or self.redirect_to or self.only)

    def suppressed_copies(self, row: Recipient, paths: tuple[str, ...]) -> dict[str, str]:
        """The copies of `row` that are suppressed, with the reasons; `paths` are its own address and those copies."""
        if self.suppression is None:
            return {}
        found = {}
        for path in paths[1:]:
            local, _, domain = path.rpartition("@")
            if reason := self.suppression.matches_copy(Address(local, domain), of=row.address):
                found[path] = reason
        return found

    def screen(
        self,
        row: Recipient | BadRow,
        *,
        seen: RowCheck,
        where: Callable[[Mapping[str, object]], bool] | None,
        due_at: Callable[[Mapping[str, object]], float] | None = None,
        why_not: Callable[[str], str] | None = None,
    ) -> Screened:
        """What the row begins as; `where` is the condition, compiled, and `seen` takes a look at the row.

        `due_at` says when it may be tried first; a row that it raises `ConfigError` for is a bad one.
        `why_not` says why an `Address.key` is left out of a follow-up, empty if it is not.
        """
        screened = screen(row, suppression=self.suppression, where=where)
        if screened.status is Status.PENDING and isinstance(row, Recipient):
            if why_not is not None and (reason := why_not(row.address.key)):
                return Screened(row, Status.FILTERED, reason)
            if due_at is not None:
                screened = _planned(row, due_at)
        seen.note(screened.row)
        is_other = self.only and isinstance(row, Recipient) and row.address.key not in self.only
        if is_other and screened.status is Status.PENDING:
            return Screened(row, Status.FILTERED, "left out by --only")
        return screened


def _planned(row: Recipient, due_at: Callable[[Mapping[str, object]], float]) -> Screened:
    try:
        return Screened(row, Status.PENDING, "", due_at(row.fields))
    except ConfigError as error:
        reason = str(error)
        return Screened(BadRow(reason, row.fields, row.place), Status.INVALID, reason)
