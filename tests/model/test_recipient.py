"""Where a row came from, as errors say it."""

from __future__ import annotations

import pytest

from bulkmail.model.recipient import Address, BadRow, Place, Recipient


def test_place_reads_as_file_and_line() -> None:
    assert str(Place("people.csv", 871_223)) == "people.csv:871223"


@pytest.mark.parametrize(
    "row",
    [
        Recipient(Address("ann", "example.org"), "Ann", {"email": "ann@example.org"}, Place("people.csv", 2)),
        BadRow("has no @", {"email": "ann"}, Place("people.csv", 3)),
    ],
    ids=["recipient", "bad-row"],
)
def test_row_is_frozen(row: Recipient | BadRow) -> None:
    with pytest.raises(AttributeError):
        row.place = Place("other.csv", 1)  # type: ignore[misc]
