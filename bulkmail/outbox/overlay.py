"""What the journal of turns says beyond the tables, for readers that may not fold it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from bulkmail.model.delivery import Status
from bulkmail.model.tally import Tally
from bulkmail.outbox.encoding import IS_COPY
from bulkmail.outbox.entries import AttemptRecord
from bulkmail.outbox.finding import FoundDelivery
from bulkmail.outbox.turns import Outcome, Turns

_OUTCOME_OF = 22  # the column of the reader's query for records that has the delivery whose outcome it gives

_IS_COPY = f"SELECT {IS_COPY.format('d')} FROM delivery AS d WHERE d.id = ?"  # noqa: S608 (our own words only)
_SHARING = f"""
    SELECT count(*) FROM part WHERE message = (
        SELECT d.row FROM delivery AS d WHERE d.id = ? AND NOT {IS_COPY.format("d")}
    )
"""  # noqa: S608 (our own words only)
_ROW = (
    "SELECT row.number, row.address, delivery.forward_path FROM delivery JOIN row ON row.number = delivery.row"
    " WHERE delivery.id = ?"
)


class Overlay:
    """The acceptances, each with its mark, that a run has committed and not folded; `has_marks`: there are others."""

    def __init__(self, turns: Turns) -> None:
        self._outcomes = turns.outcomes
        self._marks = turns.marks
        self.has_marks = bool(turns.marks)

    def __bool__(self) -> bool:
        return bool(self._outcomes)

    @property
    def accepted(self) -> Mapping[int, Outcome]:
        """The acceptances that the tables do not know of, by delivery, in their order."""
        return self._outcomes

    def tallied(self, connection: sqlite3.Connection, tally: Tally) -> Tally:
        """The tally of the tables with these acceptances."""
        counts = Counter(tally.by_status), Counter(tally.copies)
        for number in self._outcomes:
            (is_copy,) = connection.execute(_IS_COPY, (number,)).fetchone()
            counts[is_copy][Status.PENDING] -= 1
            counts[is_copy][Status.ACCEPTED] += 1
        by_status, copies = ({status: n for status, n in each.items() if n} for each in counts)
        return replace(tally, by_status=by_status, copies=copies)

    def tallied_by_row(self, connection: sqlite3.Connection, tally: Tally) -> Tally:
        """The tally by row that the tables give, with these acceptances and the rows that share them."""
        counts = Counter(self.tallied(connection, tally).by_status)
        for number in self._outcomes:
            (sharing,) = connection.execute(_SHARING, (number,)).fetchone()
            counts[Status.PENDING] -= sharing
            counts[Status.ACCEPTED] += sharing
        return replace(self.tallied(connection, tally), by_status={status: n for status, n in counts.items() if n})

    def attempts(self, connection: sqlite3.Connection) -> list[AttemptRecord]:
        """The tries that the tables do not know of, in the order in which they ended."""
        return [
            AttemptRecord(
                row, path, a.at, a.took, a.relay, a.code, a.enhanced, Status.ACCEPTED.value, Status.ACCEPTED.value
            )
            for (_, a), (row, _, path) in self._with_rows(connection)
        ]

    def reached(self, connection: sqlite3.Connection) -> list[tuple[int, str, str]]:
        """Delivery, the row's own address and forward path of each acceptance."""
        return [(mark.id, own, path) for (mark, _), (_, own, path) in self._with_rows(connection)]

    def deliveries_with(self, message_ids: Collection[str]) -> list[int]:
        """The deliveries whose message has one of these Message-IDs, which only the journal knows."""
        wanted = frozenset(message_ids)
        marks = (*self._marks.values(), *(mark for mark, _ in self._outcomes.values()))
        return [mark.id for mark in marks if mark.message_id in wanted] if wanted else []

    def found(self, delivery: FoundDelivery) -> FoundDelivery:
        """The same as it will be found once the journal is folded."""
        outcome = self._outcomes.get(delivery.id)
        mark = outcome.mark if outcome is not None else self._marks.get(delivery.id)
        if mark is None:
            return delivery
        return delivery._replace(
            message_id=delivery.message_id or mark.message_id,
            was_sent=delivery.was_sent or outcome is not None,
            first_at=mark.first_at,
        )

    def _with_rows(self, connection: sqlite3.Connection) -> list[tuple[Outcome, tuple[int, str, str]]]:
        return [(each, connection.execute(_ROW, (number,)).fetchone()) for number, each in self._outcomes.items()]

    def laid_over(self, columns: tuple[Any, ...]) -> tuple[Any, ...]:
        """A row of the reader's query for records, as it will be once the journal is folded."""
        outcome = self._outcomes.get(columns[_OUTCOME_OF])
        if outcome is None:
            return columns
        mark, accepted = outcome
        ready_id = columns[14]
        return (
            *columns[:8],
            Status.ACCEPTED.value,
            columns[9],
            1,
            mark.first_at,
            columns[12],
            mark.message_id,
            ready_id,
            accepted.at + accepted.took,
            accepted.relay,
            accepted.code,
            accepted.enhanced,
            accepted.text,
            None,
            Status.ACCEPTED.value,
            *columns[_OUTCOME_OF:],
        )
