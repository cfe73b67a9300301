"""A file loaded by blocks leaves the outbox, the findings and the notices that loading it row by row leaves."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from anyio import to_thread

import bulkmail
from bulkmail.mailing.following import Followed, with_thread
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.rows import Selection
from bulkmail.model.pace import Pace
from bulkmail.model.recipient import Address, BadRow, Recipient
from bulkmail.model.relay import Relay
from bulkmail.model.route import Route
from bulkmail.model.schedule import Schedule
from bulkmail.recipients.list_source import RecipientList, open_list
from bulkmail.recipients.screening import Suppression

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


def follow_up() -> Followed:
    """Of a run that reached some of the list."""
    threads = {f"user{number}@example.org": f"<{number}@example.com>" for number in range(10)}
    others = {"user12@example.org": "rejected in first"}
    first = Path("first.outbox")
    return Followed(first, "r", (first,), frozenset(), None, threads=threads, others=others)


async def loaded(
    path: Path,
    *,
    by_row: bool,
    cc: str | None = None,
    selection: Selection = Selection(),  # noqa: B008 - frozen
    **more: object,
) -> tuple[object, ...]:
    campaign = bulkmail.compose(from_="shop@example.com", subject="To {{ town }}", text="Dear {{ name }}", cc=cc)
    if more.pop("has_variants", False):
        campaign = replace(campaign, variants=(("a", 1), ("b", 2)))
    if followed := more.get("followed"):
        campaign = with_thread(campaign, followed)
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
            **more,
        )
    with mailing.outbox.store.reading() as connection:
        tables = [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("row", "delivery")]  # noqa: S608
    mailing.abandon()
    return tables, mailing.findings, mailing.notices, reported[-1]


@pytest.mark.slow
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


MORE = [
    pytest.param({"schedule": Schedule("2026-12-24 09:00", "Europe/Vienna")}, id="planned"),
    pytest.param({"schedule": Schedule("column:town")}, id="planned-by-row"),
    pytest.param({"followed": follow_up()}, id="follow-up"),
    pytest.param({"has_variants": True}, id="variants"),
    pytest.param(
        {"has_variants": True, "followed": follow_up(), "selection": Selection(suppression=stopping())}, id="all"
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("more", MORE)
async def test_planned_followed_and_varied_lists_are_loaded_by_blocks(
    more: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "people.csv"
    times = [line.replace("Graz", "2026-12-24 09:00").replace("Linz", "2026-12-25") for line in LINES]
    path.write_text("\n".join(times), encoding="utf-8")
    monkeypatch.setattr("bulkmail.mailing.mailing.time.time", lambda: 1_797_000_000.0)
    by_row = await loaded(path, by_row=True, **dict(more))
    monkeypatch.setattr(RecipientList, "__iter__", lambda self: pytest.fail("read row by row"))
    assert await loaded(path, by_row=False, **dict(more)) == by_row


@pytest.mark.parametrize("selection", [Selection(), Selection(suppression=stopping())], ids=["all", "suppression"])
async def test_list_without_conditions_is_loaded_by_blocks(
    selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "people.csv"
    path.write_text("\n".join(LINES), encoding="utf-8")
    monkeypatch.setattr(RecipientList, "__iter__", lambda self: pytest.fail("read row by row"))
    await loaded(path, by_row=False, cc=None, selection=selection)
