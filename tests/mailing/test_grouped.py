"""Rows that share a message: which do, what the message says, and what the report says of each row."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Sequence
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest
from click.testing import CliRunner

import bulkmail
from bulkmail.cli import main
from bulkmail.mailing.ordering import messages
from bulkmail.model.campaign import NO_KEYS
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.report.csv_report import write_csv
from bulkmail.report.json_report import write_json
from bulkmail.report.text_report import summary
from bulkmail.settings.settings import load
from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run
from tests.recipients.test_workbooks import workbook

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
TEXT = "{{ name }}:{% for item in rows %} {{ item.item }}{% endfor %} makes {{ rows | sum(attribute='price') }}\n"
ROWS = [
    {"email": "ann@example.com", "name": "Ann", "item": "pot", "price": "12.50"},
    {"email": "bob@example.com", "name": "Bob", "item": "cup", "price": "7"},
    {"email": "ann@EXAMPLE.com", "name": "Ann", "item": "tea", "price": "3.50"},
]


def campaign(group_by: str | Sequence[str] = "email", **more: str) -> bulkmail.Campaign:
    given = {"subject": "Order", "text": TEXT, **more}
    return bulkmail.compose(from_="Shop <shop@shop.example>", group_by=group_by, name="orders", **given)


async def sent(
    orders: bulkmail.Campaign, rows: object, relay: ScriptedRelay | None = None, **how: object
) -> tuple[list[tuple[tuple[str, ...], str]], bulkmail.Report]:
    """Who got which text, in order, and the report."""
    async with relay or ScriptedRelay() as server:
        url = f"smtp://{server.host}:{server.port}?tls=off"
        mailer = bulkmail.Mailer(url, suppressions=None)
        report = await mailer.send(orders, rows, max_invalid=1.0, allow_empty=True, **how)  # type: ignore[arg-type]
        found = [
            (tuple(message.forward_paths), message.content.partition(b"\r\n\r\n")[2].decode().strip())
            for message in server.messages
        ]
    return sorted(found), report


def statuses(report: bulkmail.Report) -> list[str]:
    return [row.status.value for row in report.rows()]


def write_list(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(list(rows)), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    else:
        path.write_bytes(workbook([list(rows[0]), *(list(row.values()) for row in rows)]))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".xlsx"])
async def test_rows_of_one_address_get_one_message_from_every_format(tmp_path: Path, suffix: str) -> None:
    found, report = await sent(campaign(), write_list(tmp_path / f"list{suffix}", ROWS))
    assert found == [
        (("ann@example.com",), "Ann: pot tea makes 16.00"),
        (("bob@example.com",), "Bob: cup makes 7"),
    ]
    assert (report.tally.rows, report.messages.messages, report.accepted) == (3, 2, 3)
    assert statuses(report) == ["accepted"] * 3


def test_report_gives_each_row_the_outcome_of_its_message(tmp_path: Path) -> None:
    relay = ScriptedRelay(rcpt=lambda path: "550 5.1.1 unknown" if path.startswith("ann") else "250 ok")
    outbox = tmp_path / "orders.outbox"
    _, report = asyncio.run(sent(campaign(), ROWS, relay, outbox=outbox))
    assert statuses(report) == ["rejected", "accepted", "rejected"]
    assert [row.shares for row in report.rows()] == [0, 0, 1]
    assert report.failed == [("ann@example.com", 550, "unknown")]
    assert (report.tally[Status.REJECTED], report.messages[Status.REJECTED]) == (2, 1)
    assert len(report.attention) == 1
    assert report.exit_code == 1
    assert sum(report.accepted_by_relay.values()) == 1
    assert len(list(report.accepted_replies())) == 1
    assert "orders: 3 rows in 2 messages" in summary(report)
    with report.source() as source:
        table, document = io.BytesIO(), io.BytesIO()
        write_csv(source, table)
        write_json(source, document)
    lines = list(csv.DictReader(io.StringIO(table.getvalue().decode())))
    assert [line["delivery_code"] for line in lines] == ["550", "250", "550"]
    assert lines[0]["delivery_message_id"] == lines[2]["delivery_message_id"] != lines[1]["delivery_message_id"]
    reported = json.loads(document.getvalue())
    assert (reported["totals"]["rejected"], reported["messages"]["rejected"], reported["messages"]["messages"]) == (
        2,
        1,
        2,
    )
    assert [row["shares"] for row in reported["rows"]] == [None, None, 1]


@pytest.mark.slow
async def test_report_of_a_run_under_way_adds_up_by_row_and_by_message(tmp_path: Path) -> None:
    rows = [{"email": f"p{n % 40}@example.com", "name": "N", "item": "x", "price": "1"} for n in range(120)]

    def look() -> tuple[Tally, Tally, list[Status]]:
        with OutboxReader.open(tmp_path / "o.outbox") as reader:
            return reader.tally_by_row(), reader.tally(), [row.status for row in reader.rows()]

    async with ScriptedRelay() as relay:
        mailer = bulkmail.Mailer(f"smtp://{relay.host}:{relay.port}?tls=off", suppressions=None)
        async with mailer.deliver(campaign(), rows, outbox=tmp_path / "o.outbox") as deliveries:
            async for _ in deliveries:
                by_row, by_message, listed = await asyncio.to_thread(look)
                assert by_row.adds_up
                assert by_message.adds_up
                assert by_row[Status.ACCEPTED] == 3 * by_message[Status.ACCEPTED] == listed.count(Status.ACCEPTED)
    assert deliveries.report is not None
    assert deliveries.report.accepted == 120
    assert len(relay.messages) == 40


@pytest.mark.slow
async def test_another_column_gives_one_recipient_several_messages() -> None:
    rows = [{**row, "order": order} for row, order in zip([*ROWS, ROWS[0]], ["7", "8", "9", "7"], strict=True)]
    found, report = await sent(campaign("order"), rows)
    assert [text for _, text in found] == ["Ann: pot pot makes 25.00", "Ann: tea makes 3.50", "Bob: cup makes 7"]
    assert report.messages.messages == 3
    found, _ = await sent(campaign(["order", "item"]), rows)
    assert len(found) == 3


async def test_message_is_not_sent_in_part_when_a_row_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,name,item,price\nann@example.com,A,x,1\nbob@example.com,B,y,2\nann@example.com,A,z,3,4,5\n")
    found, report = await sent(campaign(), path)
    assert [text for _, text in found] == ["B: y makes 2"]
    assert statuses(report) == ["invalid", "accepted", "invalid"]
    reasons = [reason for _, reason in report.invalid]
    assert reasons[0].startswith(f"not sent in part: nothing can be sent for {path}:4, a row of the same message: ")


async def test_cell_that_cannot_be_added_up_makes_all_rows_invalid_and_is_named() -> None:
    rows = [*ROWS, {**ROWS[0], "price": "x"}]
    found, report = await sent(campaign(), rows)
    assert [text for _, text in found] == ["Bob: cup makes 7"]
    assert statuses(report) == ["invalid", "accepted", "invalid", "invalid"]
    assert {reason for _, reason in report.invalid} == {
        "text:1: price in <rows>:4 is 'x', which is not a number",
    }


async def test_rows_of_one_message_must_have_one_address() -> None:
    rows = [{**row, "order": "7"} for row in ROWS]
    found, report = await sent(campaign("order"), rows)
    assert not found
    reasons = [reason for _, reason in report.invalid]
    assert reasons[0] == "other rows of the same message have another address"
    assert reasons[1] == "has another address than <rows>:1, a row of the same message"


async def test_row_that_does_not_say_its_message_is_invalid_alone() -> None:
    rows = [{**row, "order": order} for row, order in zip(ROWS, ["7", "", "7"], strict=True)]
    found, report = await sent(campaign("order"), rows)
    assert [text for _, text in found] == ["Ann: pot tea makes 16.00"]
    ((_, reason),) = report.invalid
    assert reason.startswith("the field 'order', by which rows are grouped, is empty")


@pytest.mark.slow
async def test_too_many_rows_for_one_message_are_invalid() -> None:
    rows = ({"email": "ann@example.com", "name": "A", "item": str(n), "price": "1"} for n in range(10_001))
    found, report = await sent(campaign(), rows)
    assert not found
    assert report.tally[Status.INVALID] == 10_001
    assert report.invalid[0][1] == "the message would have 10001 rows; 10000 are allowed"


async def test_condition_and_suppression_act_before_rows_are_grouped(tmp_path: Path) -> None:
    (tmp_path / "stop.txt").write_text("bob@example.com\n")
    found, report = await sent(campaign(), ROWS, where="item != 'pot'", suppress=[tmp_path / "stop.txt"])
    assert [text for _, text in found] == ["Ann: tea makes 3.50"]
    assert statuses(report) == ["filtered", "suppressed", "accepted"]


async def test_copies_go_with_the_message_once() -> None:
    found, report = await sent(campaign(cc="boss@example.com"), ROWS)
    assert sum(len(paths) for paths, _ in found) == 4
    assert (report.accepted, report.accepted_copies) == (3, 2)
    assert [len(row.copies) for row in report.rows()] == [1, 1, 0]


@pytest.mark.slow
async def test_what_failed_goes_again_with_the_same_bytes(tmp_path: Path) -> None:
    outbox, orders = tmp_path / "orders.outbox", campaign()
    contents: list[bytes] = []
    async with ScriptedRelay(body=["450 4.3.0 later", "450 4.3.0 later", "250 ok"]) as relay:
        mailer = bulkmail.Mailer(
            f"smtp://{relay.host}:{relay.port}?tls=off",
            suppressions=None,
            pace=bulkmail.Pace(bulkmail.Rate(1000.0), retry=RetryPolicy(schedule=(0.05,) * 5)),
        )
        report = await mailer.send(orders, ROWS[:1] + ROWS[2:], outbox=outbox)
        contents = [message.content for message in relay.messages]
    assert report.accepted == 2
    assert b"pot tea" in contents[-1]
    assert len(set(contents)) == 1


def test_templates_that_are_needed_row_by_row_cannot_use_rows() -> None:
    with pytest.raises(bulkmail.ConfigError, match="cc: cannot use rows"):
        asyncio.run(bulkmail.send(campaign(cc="{{ rows[0].email }}"), ROWS, relay="null:"))


def test_unknown_column_is_named_with_the_nearest() -> None:
    with pytest.raises(bulkmail.ConfigError, match="the list has no column 'itme'") as caught:
        asyncio.run(bulkmail.send(campaign("itme"), ROWS, relay="null:"))
    assert caught.value.hint == "did you mean 'item'?"


def test_a_changed_grouping_is_another_message() -> None:
    assert campaign("email").fingerprint != campaign("item").fingerprint != campaign(()).fingerprint


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example of the guide."""
    monkeypatch.chdir(tmp_path)
    section = GUIDE.partition("### One message for several rows\n")[2].partition("\n### ")[0]
    settings, rows, template, expected = re.findall(r"^```\w*\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    message = '[message]\nfrom = "Shop <shop@shop.example>"\nsubject = "Order"\ntext = "order.txt"\n'
    (tmp_path / "campaign.toml").write_text(f'relay = "sandbox:"\n{settings}{message}', encoding="utf-8")
    (tmp_path / "orders.csv").write_text(rows, encoding="utf-8")
    (tmp_path / "order.txt").write_text(template, encoding="utf-8")
    (tmp_path / "expected.txt").write_text(expected, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_example_of_the_guide_comes_out_as_it_says_in_preview_and_rehearsal(shop: Path) -> None:
    settings = load(str(shop))
    texts = []
    for _, _, orders in messages(settings, keys=NO_KEYS):
        assert not isinstance(orders, Exception)
        texts.append(message_from_bytes(b"".join(orders.buffers), policy=default).get_content().replace("\r\n", "\n"))
    assert texts[0] == (shop / "expected.txt").read_text(encoding="utf-8")
    assert len(texts) == 2
    (third,) = messages(settings, keys=NO_KEYS, row=3)
    assert third[0] == 1, "a row that shares a message shows that"
    result = CliRunner().invoke(main, ["send", ".", "--yes", "--expect", "2"])
    assert result.exit_code == 0, result.output
    assert "3 rows in 2 messages" in result.output
    assert {path.read_text().count("Teapot") for path in (shop / "runs").glob("*.inbox/new/*")} == {0, 1}


def test_check_names_rows_that_differ_in_what_the_message_has_once(shop: Path) -> None:
    rows = (shop / "orders.csv").read_text().replace("Ann@example.com,Ann,", "Ann@example.com,Anna,")
    (shop / "orders.csv").write_text(rows)
    reported = json.loads(CliRunner().invoke(main, ["check", ".", "--json"]).stdout)
    (finding,) = reported["findings"]
    assert finding["code"] == "grouped-differs"
    assert (
        finding["message"] == "lines 2, 4 of ann@example.com differ in 'name'; their message has the values of line 2"
    )


def test_check_looks_into_the_cells_of_every_row_of_a_message(shop: Path) -> None:
    rows = (shop / "orders.csv").read_text().replace("Green tea", "#N/A")
    (shop / "orders.csv").write_text(rows)
    reported = json.loads(CliRunner().invoke(main, ["check", ".", "--json"]).stdout)
    (finding,) = reported["findings"]
    assert (finding["code"], finding["column"], finding["rows"]) == ("dummy-cell", "item", [4])


def test_flag_and_message_file_group_too(shop: Path) -> None:
    (shop / "order.mail").write_text(
        "FROM: shop@shop.example\nSUBJECT: x\nGROUP-BY: email\n\n{{ rows | length }} {{ name }}\n"
    )
    flags = ["--recipients", "orders.csv", "--relay", "sandbox:"]
    reported = json.loads(CliRunner().invoke(main, ["check", "order.mail", *flags, "--json"]).stdout)
    assert reported["recipients"] == 2
    result = CliRunner().invoke(main, ["check", ".", "--group-by", "item", "--json"])
    assert json.loads(result.stdout)["recipients"] == 3
    result = CliRunner().invoke(main, ["check", ".", "--allow-duplicates"])
    assert "keep one of group_by and allow_duplicates" in result.output


def test_changed_is_refused_where_a_recipient_may_get_several_messages(shop: Path) -> None:
    result = CliRunner().invoke(main, ["send", ".", "--yes", "--group-by", "item", "--changed"])
    assert result.exit_code == 2
    assert "a recipient may get several messages" in result.output


def test_message_of_a_row_alone_is_a_message_of_one_row(tmp_path: Path) -> None:
    with Outbox.create(tmp_path / "o.outbox", campaign=campaign()) as outbox:
        outbox.finish_loading()
        assert outbox.message_of(5) == 5
        assert outbox.rows_of(5) == ()


@pytest.mark.slow
async def test_limit_and_only_and_status_count_messages(shop: Path) -> None:
    async with ScriptedRelay() as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off"
        common = ["send", ".", "--yes", "--progress", "none", "--relay", url]
        first = await run(*common, "--limit", "1", cwd=shop)
        assert first.code == 3, first.err
        status = await run("status", ".", cwd=shop)
        assert "3 rows in 2 messages" in status.out
        assert "1 pending     50.0%" in status.out
        second = await run(*common, "--only", "bob@example.com", cwd=shop)
        assert second.code == 0, second.err
    assert [message.forward_paths for message in relay.messages] == [("ann@example.com",), ("bob@example.com",)]
    reported = json.loads((await run("report", ".", "--format", "json", cwd=shop)).out)
    assert (reported["totals"]["accepted"], reported["messages"]["accepted"]) == (3, 2)


@pytest.mark.slow
async def test_suppression_on_resume_and_a_changed_list_reach_all_rows_of_a_message(shop: Path) -> None:
    refused = {"bob@example.com": "550 5.1.1 unknown"}
    async with ScriptedRelay(rcpt=lambda path: refused.get(path, "250 ok")) as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off"
        common = ["send", ".", "--yes", "--progress", "none", "--relay", url]
        await run(*common, "--only", "bob@example.com", cwd=shop)
        (shop / "stop.txt").write_text("ann@example.com\n")
        resumed = await run("resume", ".", "--yes", "--suppress", "stop.txt", cwd=shop)
        assert resumed.code == 1, resumed.err
        reported = json.loads((await run("report", ".", "--format", "json", cwd=shop)).out)
        assert [row["status"] for row in reported["rows"]] == ["suppressed", "rejected", "suppressed"]
        refused.clear()
        changed = await run(*common, "--changed", cwd=shop)
        assert changed.code == 0, changed.err
    assert sorted(message.forward_paths for message in relay.messages) == [("ann@example.com",), ("bob@example.com",)]
    (ann,) = [message for message in relay.messages if message.forward_paths == ("ann@example.com",)]
    assert b"Green tea" in ann.content
