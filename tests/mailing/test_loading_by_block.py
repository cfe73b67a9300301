"""A file loaded by blocks leaves the outbox, the findings and the notices that loading it row by row leaves."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from anyio import to_thread

import bulkmail
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.selection import Selection
from bulkmail.model.address import Address
from bulkmail.model.pace import Pace
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.model.relay import Relay
from bulkmail.model.route import Route
from bulkmail.recipients.screening import Suppression
from bulkmail.recipients.source import RecipientList, open_list

LINES = [
    "email,name,town",
    *[f"user{number}@example.org,Ann,Graz" for number in range(20)],
    'quoted@example.org,"Ann, Jr",Graz',
    "no one,Ann,Graz",
    "USER3@example.org,Ann,Graz",
    "boss@example.org, Bob,",
    "stopped@example.org,Cy,Linz",
    "last@example.org,Di,Linz",
]


class ByRow:
    """An open list that has no blocks."""

    def __init__(self, rows: RecipientList) -> None:
        self._rows = rows
        self.columns, self.notices, self.repeated, self.remarks = (
            rows.columns,
            rows.notices,
            rows.repeated,
            rows.remarks,
        )

    def __iter__(self) -> Iterator[Recipient | BadRow]:
        return iter(self._rows)

    def close(self) -> None:
        self._rows.close()


def stopping() -> Suppression:
    found = Suppression()
    found.add_keys(["stopped@example.org", "user0@example.org", "user9@example.org"], name="stop.txt")
    found.add_pass(
        [("user5@example.org", "user5@example.org"), ("di@example.org", "user6@example.org")], name="earlier"
    )
    return found


def stopping_domain() -> Suppression:
    found = Suppression()
    found.add_keys(["@example.org"], name="stop.txt")
    return found


async def loaded(path: Path, *, by_row: bool, cc: str | None, selection: Selection) -> tuple[object, ...]:
    campaign = bulkmail.compose(from_="shop@example.com", subject="To {{ town }}", text="Dear {{ name }}", cc=cc)
    reported: list[int] = []
    with closing(await to_thread.run_sync(open_list, path)) as rows:
        mailing = await Mailing.prepare(
            None,
            campaign=campaign,
            rows=ByRow(rows) if by_row else rows,
            routes=[Route(Relay.parse("null:"))],
            pace=Pace(),
            selection=selection,
            told_loading=reported.append,
        )
    with mailing.outbox.store.reading() as connection:
        tables = [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("row", "delivery")]  # noqa: S608
    mailing.abandon()
    return tables, mailing.findings, mailing.notices, reported[-1]


@pytest.mark.parametrize(
    ("selection", "cc"),
    [
        pytest.param(Selection(), None, id="all"),
        pytest.param(Selection(allow_duplicates=True), None, id="duplicates"),
        pytest.param(Selection(where="town == 'Graz'"), None, id="where"),
        pytest.param(Selection(suppression=Suppression()), None, id="empty-suppression"),
        pytest.param(Selection(suppression=stopping()), None, id="suppression"),
        pytest.param(Selection(suppression=stopping_domain()), None, id="suppressed-domain"),
        pytest.param(Selection(only=frozenset({"user1@example.org"})), None, id="only"),
        pytest.param(Selection(redirect_to=Address("me", "example.com")), None, id="redirected"),
        pytest.param(Selection(), "boss@example.org", id="copies"),
    ],
)
async def test_list_loaded_by_blocks_is_the_list_loaded_by_rows(
    selection: Selection, cc: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "people.csv"
    path.write_text("\n".join(LINES), encoding="utf-8")
    by_block = await loaded(path, by_row=False, cc=cc, selection=selection)
    assert by_block == await loaded(path, by_row=True, cc=cc, selection=selection)
    assert by_block[-1] == len(LINES) - 1


@pytest.mark.parametrize("selection", [Selection(), Selection(suppression=stopping())], ids=["all", "suppression"])
async def test_list_without_conditions_is_loaded_by_blocks(
    selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "people.csv"
    path.write_text("\n".join(LINES), encoding="utf-8")
    monkeypatch.setattr(RecipientList, "__iter__", lambda self: pytest.fail("read row by row"))
    await loaded(path, by_row=False, cc=None, selection=selection)
