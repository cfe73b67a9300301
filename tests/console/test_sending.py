"""From the checks to a run: nothing is sent for real without the number typed, and what is started is the command."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.console.asking import TOKEN, Asker
from tests.console.test_writing import campaign_of
from tests.e2e.commands import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def ended(console: Asker, path: str, word: str, seconds: float = 40) -> str:
    """The page as soon as it says `word`."""
    async with asyncio.timeout(seconds):
        while True:
            answer = await console.get(path)
            if word in answer.text:
                return answer.text
            await asyncio.sleep(0.1)


async def run_behind(console: Asker, target: str) -> str:
    """The page of the run; where the command takes long to begin, its own page comes first, and goes on there."""
    async with asyncio.timeout(40):
        while target.startswith("/j/"):
            target = (await console.get(target)).target or target
            await asyncio.sleep(0.1)
    return target


async def test_rehearsal_is_started_and_seen_to_its_report(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    page = await console.get(f"{spring}/start")
    assert "Rehearse</button>" in page.text
    assert "nothing to send for real yet" in page.text
    assert (await console.post(f"{spring}/send", {"confirm": "3", "expected": "3"})).status == 409
    started = await console.post(f"{spring}/rehearse", {"sample": ""})
    assert started.status == 303
    run = await run_behind(console, started.target)
    text = await ended(console, run, "finished")
    assert "Rehearsal: no mail to recipients" in text
    assert "100 %" in text
    assert "ann.li@example.com" in text
    for suffix, begins in (("csv", "\ufeff"), ("json", "{"), ("html", "<!doctype html>")):
        report = await console.get(f"{run}/report.{suffix}")
        assert report.status == 200
        assert report.headers["content-disposition"].startswith("attachment; ")
        assert report.text.lstrip("\ufeff")[:1] == begins.lstrip("\ufeff")[:1] or suffix == "csv"
        assert "hina.sato@example.org" in report.text
    assert (await console.get(f"{run}/report")).status == 200
    front = await console.get("/")
    assert "3 of 3 accepted" in front.text
    log = root / "spring" / "runs" / "spring.console.log"
    assert log.stat().st_mode & 0o777 == 0o600
    assert json.loads(log.read_text()[log.read_text().index("{") :])["exit_code"] == 0


async def test_stream_sends_each_part_once_and_again_only_when_it_changes(console: Asker) -> None:
    spring = await campaign_of(console)
    run = await run_behind(console, (await console.post(f"{spring}/rehearse")).target)
    text = await ended(console, run, "finished")
    events = re.search(r'data-events="([^"]+)"', text)
    assert events
    path, _, query = events[1].replace("&amp;", "&").partition("?")
    got = asyncio.Queue[bytes]()

    async def send(message: dict[str, bytes]) -> None:
        if message["type"] == "http.response.body":  # type: ignore[comparison-overlap]
            await got.put(message["body"])

    async def receive() -> dict[str, object]:
        if not asked:
            asked.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    asked: list[bool] = []
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": [(b"host", b"127.0.0.1:8026"), (b"cookie", f"bulkmail-8026={TOKEN}".encode())],
        "http_version": "1.1", "scheme": "http", "root_path": "", "server": ("127.0.0.1", 8026), "client": ("::1", 1),
    }  # fmt: skip
    task = asyncio.create_task(console.app(scope, receive, send))  # type: ignore[arg-type]
    try:
        pieces = [(await asyncio.wait_for(got.get(), 10)).decode() for _ in range(4)]
        assert pieces[0] == "retry: 2000\n\n"
        assert [json.loads(piece.split("data: ")[1])["id"] for piece in pieces[1:]] == ["figures", "plot", "words"]
        await asyncio.sleep(1.5)
        assert got.empty()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_checks_are_shown_with_their_fix(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    (root / "spring" / "people.csv").write_text("email,name,city\nann@example.org,Ann,Bern\nnot an address,Bob,Ulm\n")
    (root / "spring" / "message.txt").write_text("Dear {{ nmae }}\n")
    assert (await console.get(f"{spring}/check")).status == 200
    assert (await console.post(f"{spring}/check")).target == f"{spring}/check"
    text = await ended(console, f"{spring}/check", "Not ready to send")
    assert "Fix:" in text
    assert "message.txt:1" in text


async def test_real_sending_wants_the_number_typed(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    file = root / "spring" / "campaign.toml"
    # No one listens there: what would be sent is not.
    file.write_text(file.read_text().replace('"sandbox:"', '"smtp://me@127.0.0.1:9"'))
    page = await console.get(f"{spring}/start")
    assert "Count the recipients" in page.text
    assert (await console.post(f"{spring}/send", {"confirm": "3", "expected": "3"})).status == 409
    await console.post(f"{spring}/count")
    text = await ended(console, f"{spring}/start", "Send to 3 recipients")
    assert "bulkmail send spring --yes --expect 3" in text
    for typed in ("", "2", "33", "three", "-3"):
        refused = await console.post(f"{spring}/send", {"confirm": typed, "expected": "3"})
        assert refused.status == 400
        assert "Nothing was sent" in refused.text
    (root / "spring" / "people.csv").write_text("email,name,city\nann@example.org,Ann,Bern\n")
    changed = await console.post(f"{spring}/send", {"confirm": "3", "expected": "3"})
    assert changed.status == 409
    assert not (root / "spring" / "runs").exists()


async def test_command_that_fails_says_why(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    (root / "spring" / "message.txt").write_text("Dear {{ nmae }}\n")
    started = await console.post(f"{spring}/rehearse")
    assert started.target.startswith("/j/")
    text = await ended(console, started.target, "Ended with exit code")
    assert "exit code 2: nothing was sent" in text
    assert "message.txt:1" in text
    assert "Traceback" not in text


async def test_sample_is_a_number(console: Asker) -> None:
    spring = await campaign_of(console)
    for sample in ("x", "-1", "0", "1; id", "--relay"):
        assert (await console.post(f"{spring}/rehearse", {"sample": sample})).status == 400


async def test_message_written_here_and_sent_from_a_terminal_is_the_same_to_the_byte(
    console: Asker, root: Path, newsletter: Path
) -> None:
    """As one that was written in an editor; the settings differ in the line that was changed."""
    words = "Dear {{ name }},\r\n\r\nthe tulips — at last — are here.\r\n"
    made = (await console.post("/campaigns", {"name": "here", "from": "kind:newsletter"})).target.partition("?")[0]
    uploaded = await console.upload(
        f"{made}/list", "all.csv", LIST, {"digest": (await console.get(made)).field("digest")}
    )
    assert uploaded.status == 303
    fields = {"digest": (await console.get(made)).field("digest"), "subject": "Tulips, {{ name }}", "body-text": words}
    assert (await console.post(f"{made}/save", fields)).status == 303

    shutil.copytree(newsletter, root / "there")
    file = root / "there" / "campaign.toml"
    before = file.read_text()
    subject = re.findall(r"^subject = .*$", before, re.M)[0]
    file.write_text(before.replace(subject, 'subject = "Tulips, {{ name }}"').replace('"people.csv"', '"all.csv"'))
    (root / "there" / "message.txt").write_bytes(words.replace("\r\n", "\n").encode())
    (root / "there" / "all.csv").write_bytes(LIST)
    for name in ("campaign.toml", "message.txt", "message.html", "all.csv"):
        assert (root / "here" / name).read_bytes() == (root / "there" / name).read_bytes(), name

    messages = []
    for folder in ("here", "there"):
        assert (await run("send", folder, "--relay", "sandbox:", cwd=root)).code == 0
        kept = (root / folder / "runs").glob("*.inbox/new/*")
        messages.append(sorted(_NEW_EACH_TIME.sub(b"", path.read_bytes()) for path in kept))
    assert len(messages[0]) == 2
    assert messages[0] == messages[1]


LIST = "email,name,city\nann@example.org,Ann,Bern\nbj@example.org,Bjørn,Odense\n".encode()
_NEW_EACH_TIME = re.compile(
    rb"(?m)^(Date|Message-ID|Received|Content-Type: multipart.*|--[^\n]*)[^\n]*\n([ \t][^\n]*\n)*"
)
