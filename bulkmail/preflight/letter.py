"""Checks on the letter against the list, row by row and as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bulkmail.model.errors import TemplateError
from bulkmail.model.recipient import Recipient
from bulkmail.model.units import count
from bulkmail.preflight.finding import Finding, Severity

SHOWN = 5  # rows named in one finding


@dataclass(slots=True)
class LetterCheck:
    """Renders row after row and remembers what failed and what was blank.

    `check` renders one recipient strictly and raises `TemplateError`; `names` are those the letter takes from the row.
    """

    check: Callable[[Recipient], None]
    names: frozenset[str]
    rows: int = 0
    failed: int = 0
    _reasons: Counter[str] = field(default_factory=Counter)
    _first_at: dict[str, list[str]] = field(default_factory=dict)
    _blank: dict[str, list[str]] = field(default_factory=dict)
    _blanks: Counter[str] = field(default_factory=Counter)

    def bad_rows(self, rows: Iterable[tuple[int, Recipient]]) -> list[tuple[int, str]]:
        """The numbers of those rows that do not render, each with the reason."""
        bad = []
        for number, recipient in rows:
            self.rows += 1
            try:
                self.check(recipient)
            except TemplateError as error:
                bad.append((number, str(error)))
                self._note_failure(str(error), recipient)
                continue
            for name in self.names:
                if name in recipient.fields and recipient.fields[name] in ("", None):
                    self._blanks[name] += 1
                    _keep(self._blank.setdefault(name, []), str(recipient.place.line))
        self.failed += len(bad)
        return bad

    def _note_failure(self, reason: str, recipient: Recipient) -> None:
        if reason in self._reasons or len(self._reasons) < 1000:  # reasons may quote cells: keep memory flat
            self._reasons[reason] += 1
            _keep(self._first_at.setdefault(reason, []), str(recipient.place))

    def findings(self) -> list[Finding]:
        """What was found so far.  An error only if no row at all can be sent."""
        severity = Severity.ERROR if self.rows and self.failed == self.rows else Severity.WARNING
        found = [
            Finding(
                "row-does-not-render",
                severity,
                f"{reason} in {count(times, 'row')}",
                where=", ".join(self._first_at[reason]),
                mend="correct the name in the letter or the column in the list; "
                "{{ name | default('…') }} says what to write instead",
            )
            for reason, times in self._reasons.most_common(SHOWN)
        ]
        found += [
            Finding(
                "blank-field",
                Severity.WARNING,
                f"{name!r} is empty in {count(times, 'row')}: line {', '.join(self._blank[name])}"
                + (", …" if times > SHOWN else ""),
                where=f"column {name}",
                mend=f"fill it in, or write {{{{ {name} or '…' }}}} in the letter",
            )
            for name, times in self._blanks.most_common()
        ]
        return found


def _keep(places: list[str], place: str) -> None:
    if len(places) < SHOWN:
        places.append(place)
