"""Follow-ups over the wire: they answer the message that each recipient got, and go to no one else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from email import message_from_bytes
from pathlib import Path

import pytest
from anyio import to_thread

import bulkmail
from bulkmail.mailing.following import MOST_REFERENCES, parse_unless, with_thread
from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, Proof
from bulkmail.model.recipient import Address
from bulkmail.model.suppression import SuppressionReason
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.report.report import Report
from bulkmail.suppression.file import SqliteSuppressions
from bulkmail.suppression.ports import Addition
from bulkmail.testing import Drop, ScriptedRelay
from tests.e2e.commands import run, write_campaign

PEOPLE = ["ann@example.com", "bob@example.com", "cy@example.com", "di@example.com"]
REFUSED = {"cy@example.com": "550 5.1.1 unknown"}


def make(name: str, subject: str = "Offer for {{ name }}") -> bulkmail.Campaign:
    return bulkmail.compose(from_="Shop <shop@shop.example>", subject=subject, text="Hello {{ name }}\n", name=name)


def rows(people: Iterable[str] = PEOPLE) -> list[dict[str, str]]:
    return [{"email": one, "name": one.partition("@")[0].title()} for one in people]


def mailer(relay: ScriptedRelay, suppressions: Path | None = None) -> bulkmail.Mailer:
    pace = bulkmail.Pace(wait=0)
    return bulkmail.Mailer(f"smtp://{relay.host}:{relay.port}?tls=off", pace=pace, suppressions=suppressions)


def threads(relay: ScriptedRelay) -> dict[str, list[tuple[str, str, str]]]:
    """Message-ID, In-Reply-To and References of each message, by recipient, in order."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for taken in relay.messages:
        message = message_from_bytes(taken.content)
        ids = (str(message["Message-ID"]), str(message["In-Reply-To"]), " ".join(str(message["References"]).split()))
        found.setdefault(taken.forward_paths[0], []).append(ids)
    return found


@pytest.mark.slow
async def test_each_message_of_a_conversation_names_those_before_it(tmp_path: Path) -> None:
    async with ScriptedRelay(rcpt=lambda path: REFUSED.get(path, "250 ok")) as relay:
        send = mailer(relay).send
        await send(make("first"), rows(), outbox=tmp_path / "1.outbox")
        second = await send(make("second"), outbox=tmp_path / "2.outbox", follow_up=tmp_path / "1.outbox")
        third = await send(make("third"), outbox=tmp_path / "3.outbox", follow_up=tmp_path / "2.outbox")
    assert second.tally.by_status == {Status.ACCEPTED: 3, Status.FILTERED: 1}
    assert second.reasons_of[Status.FILTERED] == {"rejected in 1": 1}
    assert third.tally.by_status == {Status.ACCEPTED: 3}
    found = threads(relay)
    assert sorted(found) == ["ann@example.com", "bob@example.com", "di@example.com"]
    for (first_id, *none), (second_id, *answered), (_, *again) in found.values():
        assert none == ["None", "None"]
        assert answered == [first_id, first_id]
        assert again == [second_id, f"{first_id} {second_id}"]
    assert third.run.follows == (second.run.run_id, str(tmp_path / "2.outbox"))


@pytest.mark.slow
async def test_list_of_its_own_is_restricted_to_those_whom_the_run_reached(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:
        send = mailer(relay).send
        await send(make("first"), rows(), outbox=tmp_path / "1.outbox")
        report = await send(
            make("second"),
            rows(["new@example.com", "ann@EXAMPLE.com"]),
            outbox=tmp_path / "2.outbox",
            follow_up=tmp_path / "1.outbox",
        )
    assert report.tally.by_status == {Status.ACCEPTED: 1, Status.FILTERED: 1}
    assert report.reasons_of[Status.FILTERED] == {"not reached by 1": 1}
    (first_id, *_), (_, answered, _) = threads(relay)["ann@example.com"]
    assert answered == first_id


@pytest.mark.slow
async def test_row_in_doubt_gets_no_follow_up(tmp_path: Path) -> None:
    ends = iter([Drop()])
    async with ScriptedRelay(end=lambda path: next(ends, None)) as relay:
        send = mailer(relay).send
        first = await send(make("first"), rows(), outbox=tmp_path / "1.outbox")
        assert first.tally[Status.IN_DOUBT] == 1
        second = await send(make("second"), outbox=tmp_path / "2.outbox", follow_up=tmp_path / "1.outbox")
    assert second.tally.by_status == {Status.ACCEPTED: 3, Status.FILTERED: 1}
    assert second.reasons_of[Status.FILTERED] == {"in doubt in 1": 1}


@pytest.mark.slow
async def test_those_who_bounced_or_unsubscribed_since_are_left_out_if_asked_for(tmp_path: Path) -> None:
    kept = tmp_path / "list.sqlite"
    async with ScriptedRelay() as relay:
        send = mailer(relay).send
        first = await send(make("first"), rows(), outbox=tmp_path / "1.outbox")
        await to_thread.run_sync(come_back, kept, first.run.run_id)
        asked = mailer(relay, kept).send
        second = await asked(
            make("second"),
            outbox=tmp_path / "2.outbox",
            follow_up=tmp_path / "1.outbox",
            unless=["bounced", "unsubscribed"],
        )
        third = await asked(
            make("third"), outbox=tmp_path / "3.outbox", follow_up=tmp_path / "1.outbox", unless=["complained"]
        )
    assert second.reasons_of[Status.FILTERED] == {
        "bounced since 1 (--unless)": 1,
        "unsubscribed since 1 (--unless)": 1,
    }
    assert second.tally[Status.ACCEPTED] == 2
    assert third.tally[Status.FILTERED] == 0


def come_back(kept: Path, run_id: str) -> None:
    """Ann's message bounced softly, as another run's did for Di; Bob left another list."""
    with SqliteSuppressions(kept) as store:
        store.add([Addition("bob@example.com", SuppressionReason.UNSUBSCRIBE, scope="another list")])
        for number, (address, whose) in enumerate([("ann@example.com", run_id), ("di@example.com", "other")]):
            event = FeedbackEvent(
                kind=FeedbackKind.SOFT,
                at=1.0,
                proof=Proof.TOKEN,
                address=Address.parse(address),
                source_id=f"event {number}",
                run_id=whose,
            )
            store.record([event])


@pytest.mark.slow
async def test_what_cannot_be_followed_up_is_refused_in_a_sentence(tmp_path: Path) -> None:
    async with ScriptedRelay(rcpt="550 5.1.1 unknown") as relay:
        null = bulkmail.Mailer("null:", suppressions=None)
        await null.send(make("first"), rows(), outbox=tmp_path / "rehearsal.outbox")
        await mailer(relay).send(make("first"), rows(PEOPLE[:2]), outbox=tmp_path / "none.outbox")
        for name, fault in (
            ("rehearsal", "rehearsal, which reached no recipient: there is nothing to follow up"),
            ("none", "reached no recipient, so there is nothing to follow up"),
            ("gone", "there is no outbox at"),
        ):
            with pytest.raises(bulkmail.BulkmailError, match=fault):
                await mailer(relay).send(make("second"), follow_up=tmp_path / f"{name}.outbox")
        with pytest.raises(bulkmail.ConfigError, match="no recipients are given"):
            await mailer(relay).send(make("second"))
        with pytest.raises(bulkmail.ConfigError, match="unless is about the recipients of another run"):
            await mailer(relay).send(make("second"), rows(), unless=["bounced"])
    with pytest.raises(bulkmail.ConfigError, match="'replied': is nothing that bulkmail knows"):
        parse_unless("bounced,replied")


@pytest.mark.slow
async def test_outbox_is_for_the_run_that_it_follows_and_goes_on_without_it(tmp_path: Path) -> None:
    followed = tmp_path / "1.outbox"
    async with ScriptedRelay() as relay:
        whole = mailer(relay)
        await whole.send(make("first"), rows(), outbox=followed)
        part = mailer(relay)
        part.pace = replace(part.pace, limit=1)
        first = await part.send(make("second"), outbox=tmp_path / "2.outbox", follow_up=followed)
        assert first.tally.open == 3
        with pytest.raises(bulkmail.ConfigError, match="the message and the list changed"):
            await whole.send(make("second"), rows(), outbox=tmp_path / "2.outbox")
        followed.rename(tmp_path / "gone")
        resumed = await to_thread.run_sync(mailing_of, tmp_path / "2.outbox", whole)
        async with bulkmail_routes(whole) as connects:
            await resumed.send(connects)
        await to_thread.run_sync(resumed.close)
    found = threads(relay)
    assert len(found) == 4
    assert all(answer[1] == first[0] for first, answer in found.values())


def mailing_of(outbox: Path, whole: bulkmail.Mailer):  # type: ignore[no-untyped-def]
    from bulkmail.mailing.mailing import Mailing

    return Mailing.reopen(outbox, routes=whole.routes, pace=whole.pace)


def bulkmail_routes(whole: bulkmail.Mailer):  # type: ignore[no-untyped-def]
    from bulkmail.mailing.relays import open_routes

    return open_routes(whole.routes, [None], inbox=None)


@pytest.mark.slow
async def test_headers_of_the_conversation_cannot_be_set_by_the_campaign(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:
        await mailer(relay).send(make("first"), rows(), outbox=tmp_path / "1.outbox")
        campaign = bulkmail.compose(
            from_="a@shop.example", subject="Hi", text="Hi\n", headers={"References": "<a@b.example>"}
        )
        with pytest.raises(bulkmail.ConfigError, match="References is that of the message that is followed up"):
            await mailer(relay).send(campaign, follow_up=tmp_path / "1.outbox")


def test_follow_up_has_a_fingerprint_of_its_own() -> None:
    from bulkmail.mailing.following import Followed

    campaign = make("second")
    one, other = (Followed(Path("x"), run_id, (), frozenset(), None) for run_id in ("one", "other"))
    prints = {campaign.fingerprint, *(with_thread(campaign, each).fingerprint for each in (one, other))}
    assert len(prints) == 3


@pytest.mark.slow
async def test_long_conversation_names_its_first_and_its_last_messages(tmp_path: Path) -> None:
    ids = [f"<{number}@shop.example>" for number in range(30)]
    long = bulkmail.compose(from_="shop@shop.example", subject="Hi", text="Hi\n")
    fields = [{"email": "ann@example.com", "thread_references": " ".join(ids)}]
    async with ScriptedRelay() as relay:
        await mailer(relay).send(long, fields, outbox=tmp_path / "1.outbox")
        await mailer(relay).send(long, follow_up=tmp_path / "1.outbox")
    ((first_id, *_), (_, _, references)) = threads(relay)["ann@example.com"]
    assert references.split() == [ids[0], *ids[len(ids) - MOST_REFERENCES + 2 :], first_id]
    assert max(map(len, relay.messages[1].content.splitlines())) <= 998


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_follow_up_from_the_command_line_follows_all_passes_of_a_campaign(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off"
        first = write_campaign(tmp_path / "first", PEOPLE[:2], relay=url)
        assert (await run("send", first, "--yes", cwd=tmp_path)).code == 0
        write_campaign(first, PEOPLE, relay=url)
        assert (await run("send", first, "--yes", "--changed", cwd=tmp_path)).code == 0
        second = write_campaign(tmp_path / "second", [], relay=url)
        settings = (second / "campaign.toml").read_text()
        (second / "campaign.toml").write_text(settings.replace('recipients = "people.csv"\n', ""))
        other = await run("check", "second", "--follow-up", "first", "--subject", "Other", cwd=tmp_path)
        assert "Gmail shows a follow-up with another subject" in " ".join(other.out.split())
        shown = await run("preview", "second", "--follow-up", "first", "--address", PEOPLE[3], cwd=tmp_path)
        assert shown.code == 0, shown.err
        sent = await run("send", "second", "--follow-up", "first", "--yes", "--expect", "4", cwd=tmp_path)
        assert sent.code == 0, sent.err
        status = await run("status", "second", cwd=tmp_path)
        refused = await run("send", "second", "--unless", "bounced", "--yes", cwd=tmp_path)
    assert "a follow-up of first" in " ".join(sent.out.split())
    assert "a follow-up of first" in " ".join(status.out.split())
    assert refused.code == 2
    assert "add --follow-up RUN" in refused.err
    found = threads(relay)
    assert sorted(found) == sorted(PEOPLE)
    assert all(answer[1] == before[0] for before, answer in found.values())
    with OutboxReader.open(tmp_path / "second" / "runs" / "second.outbox") as reader:
        assert reader.campaign is not None
        assert reader.campaign.follows
    report = Report.read(tmp_path / "second" / "runs" / "second.outbox")
    assert report.run.follows == (reader.campaign.follows, str(tmp_path / "first" / "runs" / "first.outbox"))
