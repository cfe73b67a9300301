"""What comes back after a campaign: sent by us, bounced, read by `bulkmail bounces`, and on the suppression list."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from bulkmail.message.unsubscribe import make_token
from bulkmail.model.recipient import Address
from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import Result, run, start, write_campaign
from tests.feedback import mails

pytestmark = pytest.mark.slow

PEOPLE = [f"p{n}@example.org" for n in range(6)]


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    for name in ("new", "cur", "tmp"):
        (tmp_path / "Maildir" / name).mkdir(parents=True)
    return tmp_path / "Maildir"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def send(
    folder: Path, state: Path, reverse_path: str = "bounces+{bounce}@shop.example"
) -> list[tuple[str, bytes]]:
    """A campaign to `PEOPLE`: each reverse path, and the content, in the order of the list."""
    async with ScriptedRelay() as relay:
        campaign = write_campaign(folder / "spring", PEOPLE, relay=f"smtp://{relay.host}:{relay.port}?tls=off")
        settings = campaign / "campaign.toml"
        text = settings.read_text().replace("[message]\n", f'[message]\nreverse_path = "{reverse_path}"\n')
        settings.write_text(text)
        sent = await run("send", campaign, "--yes", cwd=folder, BULKMAIL_STATE_DIR=str(state))
        assert sent.code == 0, sent.err
        found = sorted(relay.messages, key=lambda message: message.forward_paths[0])
        return [(message.reverse_path, message.content) for message in found]


def bounce(
    person: str, *, to: str, content: bytes | None = None, status: str = "5.1.1", words: str = "unknown user"
) -> bytes:
    quoted = "Subject: x\n"
    if content is not None:
        quoted = content.partition(b"\r\n\r\n")[0].decode().replace("\r\n", "\n") + "\n"
    return mails.dsn(
        recipient=person,
        status=status,
        diagnostic=f"smtp; 550 {status} {words}",
        headers=f"Delivered-To: {to}\n",
        quoted=quoted,
    ).replace(b"Tue, 3 Nov 2026 10:00:05 +0000", b"")


async def bounces(*arguments: str | Path, cwd: Path, state: Path, stdin: bytes | None = None) -> Result:
    return await run("bounces", *arguments, cwd=cwd, stdin=stdin, BULKMAIL_STATE_DIR=str(state))


def listed(state: Path) -> dict[str, str]:
    with sqlite3.connect(state / "suppressions.db") as connection:
        return dict(connection.execute("SELECT key, reason FROM entry"))


async def test_bounces_of_a_campaign_put_their_recipients_on_the_list(
    maildir: Path, tmp_path: Path, state: Path
) -> None:
    sent = await send(tmp_path, state)
    (maildir / "new" / "1").write_bytes(bounce(PEOPLE[0], to=sent[0][0]))  # by token alone
    (maildir / "new" / "2").write_bytes(
        bounce(PEOPLE[1], to="shop@shop.example", content=sent[1][1])
    )  # by what it quotes
    (maildir / "new" / "3").write_bytes(bounce(PEOPLE[2], to=sent[2][0], status="5.2.2", words="mailbox full"))
    (maildir / "new" / "4").write_bytes(
        bounce(PEOPLE[3], to=sent[3][0], status="5.7.1", words="blocked using a block list")
    )
    (maildir / "new" / "5").write_bytes(bounce(PEOPLE[4], to="shop@shop.example"))  # says nothing but the address
    (maildir / "new" / "6").write_bytes(mails.request(subject="A question"))
    first = await bounces("--maildir", maildir, "--json", cwd=tmp_path, state=state)
    assert first.code == 0, first.err
    result = json.loads(first.out)
    assert result["matched"] == {
        "hard": 2,
        "soft": 1,
        "blocked": 1,
        "delayed": 0,
        "spam_complaint": 0,
        "unsubscribe": 0,
        "auto_reply": 0,
        "delivered": 0,
        "unclear": 0,
    }
    assert (result["mails"], result["unproved"], result["unmatched"], result["new_events"]) == (6, 1, 1, 6)
    assert listed(state) == {PEOPLE[0]: "hard", PEOPLE[1]: "hard"}
    again = await bounces("--maildir", maildir, cwd=tmp_path, state=state)
    assert "0 events new." in again.out
    assert sorted(path.name for path in (maildir / "new").iterdir()) == ["1", "2", "3", "4", "5", "6"]


async def test_mail_is_moved_only_when_it_was_matched(maildir: Path, tmp_path: Path, state: Path) -> None:
    sent = await send(tmp_path, state)
    (maildir / "new" / "1").write_bytes(bounce(PEOPLE[0], to=sent[0][0]))
    (maildir / "new" / "2").write_bytes(mails.request(subject="A question"))
    result = await bounces("--maildir", maildir, "--then", "move=Done", cwd=tmp_path, state=state)
    assert result.code == 0, result.err
    assert [path.name for path in (maildir / "new").iterdir()] == ["2"]
    assert [path.name for path in (maildir / ".Done" / "cur").iterdir()] == ["1:2,S"]
    result = await bounces("--maildir", maildir, "--then", "delete", cwd=tmp_path, state=state)
    assert [path.name for path in (maildir / "new").iterdir()] == ["2"]


async def test_dry_run_stores_and_moves_nothing(maildir: Path, tmp_path: Path, state: Path) -> None:
    sent = await send(tmp_path, state)
    (maildir / "new" / "1").write_bytes(bounce(PEOPLE[0], to=sent[0][0]))
    result = await bounces("--maildir", maildir, "--then", "delete", "--dry-run", cwd=tmp_path, state=state)
    assert "1  hard bounces" in result.out and "dry run" in result.out
    assert [path.name for path in (maildir / "new").iterdir()] == ["1"]
    assert listed(state) == {}


async def test_mbox_and_standard_input_are_read_as_a_maildir_is(tmp_path: Path, state: Path) -> None:
    sent = await send(tmp_path, state)
    first, second = (bounce(PEOPLE[n], to=sent[n][0]) for n in (0, 1))
    (tmp_path / "mbox").write_bytes(b"From MAILER-DAEMON Tue Nov  3 10:00:05 2026\n" + first + b"\n")
    result = await bounces("--mbox", "mbox", cwd=tmp_path, state=state)
    assert result.code == 0, result.err
    piped = await bounces(
        "-", cwd=tmp_path, state=state, stdin=b"From MAILER-DAEMON Tue Nov  3 10:00:05 2026\n" + second
    )
    assert (piped.code, piped.out, piped.err) == (0, "", "")
    assert listed(state) == {PEOPLE[0]: "hard", PEOPLE[1]: "hard"}
    same = await bounces("-", "--json", cwd=tmp_path, state=state, stdin=first.replace(b"\n", b"\r\n"))
    assert json.loads(same.out)["new_events"] == 0


async def test_pipe_asks_the_mta_to_keep_the_mail_when_nothing_can_be_stored(tmp_path: Path, state: Path) -> None:
    await asyncio.to_thread(state.mkdir)
    (state / "suppressions.db").write_bytes(b"not a database, and long enough to be taken for one" * 40)
    result = await bounces("-", cwd=tmp_path, state=state, stdin=mails.dsn())
    assert result.code == 75
    assert "suppression list" in result.err


async def test_mailboxes_of_the_settings_are_read_when_none_is_named(
    maildir: Path, tmp_path: Path, state: Path
) -> None:
    """The way of the guide: a reverse path, a mailbox in three lines, two commands."""
    settings = tmp_path / "config" / "bulkmail" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'[[bounces]]\nmaildir = "{maildir}"\nthen = "move=Done"\n')
    sent = await send(tmp_path, state)
    (maildir / "new" / "1").write_bytes(bounce(PEOPLE[0], to=sent[0][0]))
    env = {"BULKMAIL_STATE_DIR": str(state), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    result = await run("bounces", cwd=tmp_path, **env)
    assert result.code == 0, result.err
    assert listed(state) == {PEOPLE[0]: "hard"}
    assert [path.name for path in (maildir / ".Done" / "cur").iterdir()] == ["1:2,S"]
    again = await run("check", "spring", "--json", cwd=tmp_path, **env)
    assert any(finding["code"] == "suppressed" for finding in json.loads(again.out)["findings"])


async def test_what_was_not_matched_can_be_listed_and_looked_at(tmp_path: Path, state: Path) -> None:
    hostile = mails.dsn(recipient="who@example.net", diagnostic="smtp; 550 \x1b[31munknown user")
    await bounces("-", cwd=tmp_path, state=state, stdin=hostile)
    listed = await bounces("--unmatched", cwd=tmp_path, state=state)
    assert "who@example.net" in listed.out and "\x1b" not in listed.out
    (event,) = json.loads((await bounces("--unmatched", "--json", cwd=tmp_path, state=state)).out)["unmatched"]
    assert (event["event"], event["kind"], event["address"]) == (1, "hard", "who@example.net")
    shown = await bounces("--show", "1", cwd=tmp_path, state=state)
    assert "Final-Recipient: rfc822; who@example.net" in shown.out and "\x1b" not in shown.out
    missing = await bounces("--show", "7", cwd=tmp_path, state=state)
    assert (missing.code, "there is no event 7" in missing.err) == (2, True)


@pytest.mark.parametrize("proof", ["token", "address"])
async def test_mail_that_is_matched_later_is_no_longer_listed_as_unmatched(
    maildir: Path, tmp_path: Path, state: Path, proof: str
) -> None:
    sent = await send(tmp_path, state)
    to = sent[0][0] if proof == "token" else "bounces@shop.example"
    (maildir / "new" / "1").write_bytes(bounce(PEOPLE[0], to=to))
    outbox = tmp_path / "spring" / "runs" / "spring.outbox"
    outbox.rename(tmp_path / "away")
    await bounces("--maildir", maildir, cwd=tmp_path, state=state)
    assert PEOPLE[0] in (await bounces("--unmatched", cwd=tmp_path, state=state)).out
    (tmp_path / "away").rename(outbox)
    again = json.loads((await bounces("--maildir", maildir, "--json", cwd=tmp_path, state=state)).out)
    assert (again["new_events"], again["unmatched"]) == (1, 0)
    assert json.loads((await bounces("--unmatched", "--json", cwd=tmp_path, state=state)).out)["unmatched"] == []


async def test_request_by_mail_is_verified_with_the_keys_that_serve_has(tmp_path: Path, state: Path) -> None:
    key, settings = "0123456789abcdef0123", tmp_path / "config" / "bulkmail" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'[serve]\nkey_command = "echo {key}"\n')
    token = make_token(Address("ann", "example.org"), key.encode())
    env = {"BULKMAIL_STATE_DIR": str(state), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    asked = await run("bounces", "-", stdin=mails.request(subject=f"unsubscribe {token}"), cwd=tmp_path, **env)
    assert (asked.code, asked.err) == (0, "")
    assert listed(state) == {"ann@example.org": "unsubscribe"}


async def test_mailbox_that_is_not_read_is_warned_of_and_refused_after_two_days(
    maildir: Path, tmp_path: Path, state: Path
) -> None:
    env = {"BULKMAIL_STATE_DIR": str(state)}
    async with ScriptedRelay() as relay:
        campaign = write_campaign(tmp_path / "news", PEOPLE, relay=f"smtp://{relay.host}:{relay.port}?tls=off")
        settings = campaign / "campaign.toml"
        listed = 'list_id = "News <news.shop.example>"\nreverse_path = "b+{bounce}@shop.example"\n'
        settings.write_text(settings.read_text().replace("[message]\n", f"[message]\n{listed}"))
        first = await run("send", campaign, "--yes", cwd=tmp_path, **env)
        assert "was not read" not in first.err

        async def codes(*flags: str) -> dict[str, str]:
            found = json.loads((await run("check", campaign, "--json", *flags, cwd=tmp_path, **env)).out)
            return {finding["code"]: finding["severity"] for finding in found["findings"]}

        def age(hours: float) -> None:
            with closing(sqlite3.connect(state / "suppressions.db")) as connection, connection:
                connection.execute("UPDATE run SET began_at = ?", (time.time() - hours * 3_600 - 60,))
                connection.execute("UPDATE intake SET at = ?", (time.time() - hours * 3_600 - 60,))

        assert "intake-stale" not in await codes()
        age(24)
        assert (await codes())["intake-stale"] == "warning"
        assert "was not read for 1 d" in (await run("status", campaign, cwd=tmp_path, **env)).out
        again = await run("send", campaign, "--new", "--yes", cwd=tmp_path, **env)
        assert (again.code, "was not read for 1 d" in again.err) == (0, True)
        age(48)
        assert (await codes())["intake-stale"] == "error"
        assert (await codes("--allow-stale-intake"))["intake-stale"] == "warning"
        assert (await bounces("--maildir", maildir, cwd=tmp_path, state=state)).code == 0
        assert "intake-stale" not in await codes()


async def test_run_without_a_token_is_matched_when_it_is_named(maildir: Path, tmp_path: Path, state: Path) -> None:
    sent = await send(tmp_path, state, reverse_path="bounces@shop.example")
    (maildir / "new" / "1").write_bytes(bounce(PEOPLE[0], to="bounces@shop.example", content=sent[0][1]))
    result = await bounces("--maildir", maildir, "--run", "spring", "--json", cwd=tmp_path, state=state)
    assert json.loads(result.out)["matched"]["hard"] == 1, result.err
    assert listed(state) == {PEOPLE[0]: "hard"}


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
async def test_watch_takes_mail_as_it_comes_until_it_is_interrupted(
    ending: signal.Signals, maildir: Path, tmp_path: Path, state: Path
) -> None:
    sent = await send(tmp_path, state)
    watching = await start("bounces", "--maildir", maildir, "--watch", cwd=tmp_path, BULKMAIL_STATE_DIR=str(state))
    try:
        for number in (0, 1):
            (maildir / "tmp" / str(number)).write_bytes(bounce(PEOPLE[number], to=sent[number][0]))
            (maildir / "tmp" / str(number)).rename(maildir / "new" / str(number))
            while len(listed(state)) <= number:
                await asyncio.sleep(0.05)
    finally:
        watching.send_signal(ending)
        out, err = await watching.communicate()
    assert (watching.returncode, err) == (0, b"")
    assert b"2  hard bounces" in out


async def test_forged_reports_suppress_no_one(tmp_path: Path, state: Path) -> None:
    await send(tmp_path, state)
    forged = []
    for number in range(1_000):
        person = PEOPLE[number % len(PEOPLE)]
        to = f"bounces+{'abcdefgh234567'[number % 14] * 15}@shop.example"
        kind = (
            bounce(person, to=to),
            mails.arf(fields=f"Original-Rcpt-To: {person}\n", quoted="Subject: x\n"),
            mails.request(subject=f"unsubscribe {'A' * 40}"),
        )[number % 3]
        forged.append(
            b"From x Tue Nov  3 10:00:05 2026\n" + kind.replace(b"<fbl-1@", b"<fbl-%d@" % number) + b"\n%d\n\n" % number
        )
    (tmp_path / "mbox").write_bytes(b"".join(forged))
    result = await bounces("--mbox", "mbox", "--json", cwd=tmp_path, state=state)
    assert result.code == 0, result.err
    assert json.loads(result.out)["mails"] == 1_000
    assert listed(state) == {}


async def test_resume_refuses_another_key_because_the_messages_would_change(tmp_path: Path, state: Path) -> None:
    await send(tmp_path, state)
    kept, away = state / "suppressions.db", state / "away.db"
    await asyncio.to_thread(kept.rename, away)
    gone = await run("resume", "spring", cwd=tmp_path, BULKMAIL_STATE_DIR=str(state))
    assert gone.code == 2
    assert "{bounce}" in gone.err and "is gone" in gone.err
    await run("suppress", "add", "x@example.org", cwd=tmp_path, BULKMAIL_STATE_DIR=str(state))
    other = await run("resume", "spring", cwd=tmp_path, BULKMAIL_STATE_DIR=str(state))
    assert other.code == 2
    assert "another key" in other.err
    await asyncio.to_thread(away.replace, kept)
    same = await run("resume", "spring", cwd=tmp_path, BULKMAIL_STATE_DIR=str(tmp_path / "elsewhere"))
    assert same.code == 0, same.err


async def test_run_that_took_the_place_of_another_is_not_taken_for_it(
    maildir: Path, tmp_path: Path, state: Path
) -> None:
    sent = await send(tmp_path, state)
    (maildir / "new" / "1").write_bytes(bounce(PEOPLE[0], to=sent[0][0]))
    outbox = tmp_path / "spring" / "runs" / "spring.outbox"
    await asyncio.to_thread(outbox.unlink)
    await send(tmp_path, state)
    result = await bounces("--maildir", maildir, "--json", cwd=tmp_path, state=state)
    assert json.loads(result.out)["matched"]["hard"] == 0
    assert listed(state) == {}


async def test_rehearsal_registers_no_run(tmp_path: Path, state: Path) -> None:
    async with ScriptedRelay() as relay:
        campaign = write_campaign(tmp_path / "spring", PEOPLE, relay=f"smtp://{relay.host}:{relay.port}?tls=off")
        settings = campaign / "campaign.toml"
        settings.write_text(
            settings.read_text().replace("[message]\n", '[message]\nreverse_path = "b+{bounce}@shop.example"\n')
        )
        done = await run("send", campaign, "--dry-run", cwd=tmp_path, BULKMAIL_STATE_DIR=str(state))
    assert done.code == 0, done.err
    assert not (state / "suppressions.db").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "no mailbox was given"),
        (("x",), "is not a place to read mail from"),
        (("--mbox", "missing"), "is no file"),
        (("--maildir", "."), "is no Maildir"),
        (("-", "--watch"), "alone"),
        (("--mbox", "x", "--folder", "INBOX"), "are for --imap"),
        (("--maildir", ".", "--then", "burn"), "is not known"),
        (("--imap", "imaps://user:secret@host"), "password does not belong"),
    ],
)
async def test_refusal_says_what_to_write(arguments: tuple[str, ...], why: str, tmp_path: Path, state: Path) -> None:
    result = await bounces(*arguments, cwd=tmp_path, state=state)
    assert result.code in (2, 75)
    assert why in result.err
