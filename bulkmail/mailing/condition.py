"""The condition that chooses rows, and whether it made sense for any of them."""

from __future__ import annotations

from collections.abc import Mapping

from bulkmail.message.template.rendering import Condition
from bulkmail.model.errors import TemplateError
from bulkmail.model.lazy_dataclass import dataclass


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
