"""On a terminal: questions, a password without echo, Ctrl-C once and twice."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from pathlib import Path

import pytest
import trustme

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.testing import Hang, Late, ScriptedRelay
from tests.e2e.commands import environment, run, start, write_campaign

pytestmark = pytest.mark.slow

pty = pytest.importorskip("pty")

PEOPLE = [f"p{n}@example.com" for n in range(60)]


class Terminal:
    """bulkmail at a terminal of its own; what it shows is kept in `screen`."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process = process
        self.screen = ""
        self._master = master
        asyncio.get_running_loop().add_reader(master, self._read)

    @classmethod
    async def open(cls, *arguments: str | Path, cwd: Path, **env: str) -> Terminal:
        master, slave = pty.openpty()
        os.set_blocking(master, False)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bulkmail", *map(str, arguments), cwd=cwd,
            env=environment(**{"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", **env}),
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        return cls(process, master)

    def _read(self) -> None:
        try:
            self.screen += os.read(self._master, 65_536).decode(errors="replace")
        except BlockingIOError:
            return
        except OSError:  # the other side is closed
            asyncio.get_running_loop().remove_reader(self._master)

    async def sees(self, text: str) -> None:
        """Returns when `text` is on the screen."""
        while text not in self.screen:
            assert self.process.returncode is None, f"ended without {text!r}:\n{self.screen}"
            await asyncio.sleep(0.01)

    def types(self, text: str) -> None:
        os.write(self._master, f"{text}\n".encode())

    async def ends(self) -> int:
        """The exit code."""
        code = await self.process.wait()
        await asyncio.sleep(0.05)
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        return code


def statuses(campaign):
    with OutboxReader.open(campaign / "runs" / "spring.outbox") as reader:
        return reader.tally()


async def test_send_says_what_it_is_about_to_do_and_asks(tmp_path):
    async with ScriptedRelay() as relay:
        url = f"smtp://127.0.0.1:{relay.port}?tls=off"
        campaign = write_campaign(tmp_path / "spring", PEOPLE, relay=url, settings='rate = "500/s"')
        terminal = await Terminal.open("send", campaign, cwd=tmp_path)
        await terminal.sees("Send it?")
        for words in ("Shop <shop@example.com>", "60 recipients", f"smtp://127.0.0.1:{relay.port}", "500/s"):
            assert words in terminal.screen
        terminal.types("n")
        assert await terminal.ends() == 2
        assert relay.sessions == 0
        terminal = await Terminal.open("send", campaign, cwd=tmp_path)
        await terminal.sees("Send it?")
        terminal.types("y")
        assert await terminal.ends() == 0
    assert len(relay.messages) == 60
    assert "60 accepted" in terminal.screen


async def test_question_fits_on_one_screen_and_names_providers(tmp_path):
    domains = ["gmail.com"] * 5 + ["outlook.com"] * 2 + [f"shop{n}.example" for n in range(30)]
    people = [f"p{n}@{domain}" for n, domain in enumerate(domains)]
    async with ScriptedRelay() as relay:
        url = f"smtp://127.0.0.1:{relay.port}?tls=off"
        campaign = write_campaign(tmp_path / "spring", [*people, people[0]], relay=url, settings='rate = "2/s"')
        terminal = await Terminal.open("send", campaign, cwd=tmp_path)
        await terminal.sees("Send it?")
        terminal.types("n")
        assert await terminal.ends() == 2
    lines = terminal.screen.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80 + len(str(tmp_path))
    assert "Hello P0" in terminal.screen
    assert "google 5, microsoft 2, " in terminal.screen
    assert "28 other domains 28" in " ".join(terminal.screen.split())
    assert "1 duplicate" in terminal.screen
    assert "2/s: about 18 s" in terminal.screen


@pytest.mark.parametrize("columns", [40, 80, 120])
async def test_no_line_of_the_end_is_wider_than_the_terminal(tmp_path, columns):
    campaign = write_campaign(tmp_path / "spring", [*PEOPLE[:5], PEOPLE[0]], relay="sandbox:")
    terminal = await Terminal.open("send", "spring", "--yes", cwd=tmp_path, COLUMNS=str(columns))
    assert await terminal.ends() == 0, terminal.screen
    end = terminal.screen[terminal.screen.index("Rehearsal: ") :].splitlines()
    to_copy = ("    bulkmail ", f"    {campaign.name}/runs/")  # these are broken by no one, since people copy them
    assert [line for line in end if len(line) > columns and not line.startswith(to_copy)] == []
    assert "appears earlier in the list" in " ".join(" ".join(end).split())  # and nothing is cut off


@pytest.mark.parametrize(("expected", "code"), [("60", 0), ("61", 2)])
async def test_another_number_than_expected_is_refused(tmp_path, expected, code):
    async with ScriptedRelay() as relay:
        url = f"smtp://127.0.0.1:{relay.port}?tls=off"
        campaign = write_campaign(tmp_path / "spring", PEOPLE, relay=url)
        result = await run("send", campaign, "--yes", "--expect", expected, cwd=tmp_path)
    assert result.code == code
    assert len(relay.messages) == (60 if code == 0 else 0)
    if code:
        assert "this would be sent to 60 recipients, and 61 are expected" in result.err


@pytest.mark.parametrize("words", [["send", "--yes"], ["status"], ["report"], ["preview", "--sample"], ["check"]])
async def test_piped_output_has_no_escape_codes(tmp_path, words):
    campaign = write_campaign(tmp_path / "spring", PEOPLE[:5], relay="sandbox:")
    await run("send", campaign, "--yes", cwd=tmp_path)
    result = await run(*words[:1], campaign, *words[1:], cwd=tmp_path, TERM="xterm-256color", COLUMNS="40")
    assert result.code == 0, result.err
    assert "\x1b" not in result.out + result.err
    assert "\r" not in result.out + result.err


async def test_password_is_asked_for_without_echo(tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with ScriptedRelay(auth={"ann": "Canary-7"}, tls=context) as relay:
        url = f"smtp://ann@localhost:{relay.port}?ca_file={tmp_path / 'ca.pem'}"
        campaign = write_campaign(tmp_path / "spring", PEOPLE, relay=url)
        terminal = await Terminal.open("send", campaign, "--yes", cwd=tmp_path)
        await terminal.sees("assword")
        await asyncio.sleep(0.2)  # the echo is switched off after the question was written
        terminal.types("Canary-7")
        assert await terminal.ends() == 0, terminal.screen
    assert "Canary-7" not in terminal.screen
    assert len(relay.messages) == 60


async def test_no_relay_offers_the_sandbox(tmp_path):
    campaign = write_campaign(tmp_path / "spring", PEOPLE[:3], relay="sandbox:")
    file = campaign / "campaign.toml"
    file.write_text(file.read_text().replace('relay = "sandbox:"', ""))
    terminal = await Terminal.open("send", campaign, cwd=tmp_path)
    await terminal.sees("Rehearse with the sandbox?")
    terminal.types("y")
    assert await terminal.ends() == 0, terminal.screen
    assert "Rehearsal: no mail was sent to your recipients." in terminal.screen


async def interrupted(tmp_path, relay, *, signals, when):
    """Sends to 60 people and interrupts it `signals` times; what it said, and how the rows are."""
    url = f"smtp://127.0.0.1:{relay.port}?tls=off&connections=2"
    campaign = write_campaign(tmp_path / "spring", PEOPLE, relay=url)
    process = await start("send", campaign, "--yes", "--progress", "none", cwd=tmp_path)
    while not when():
        await asyncio.sleep(0.01)
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.2)
    out, err = await process.communicate()
    return process.returncode, out.decode() + err.decode(), statuses(campaign)


async def test_first_interrupt_finishes_what_is_under_way(tmp_path):
    async with ScriptedRelay(end=lambda path: Late(0.3, "250 2.0.0 ok")) as relay:
        code, said, tally = await interrupted(
            tmp_path, relay, signals=1, when=lambda: relay.open_sessions == 2 and len(relay.messages) >= 2
        )
    assert code == 3
    assert "Ctrl-C again" in said and "bulkmail resume" in said
    assert tally[Status.ACCEPTED] == len(relay.messages)
    assert tally[Status.IN_DOUBT] == 0
    assert tally[Status.PENDING] == 60 - len(relay.messages)
    assert sum(command == "QUIT" for command in relay.commands) == relay.sessions


async def test_second_interrupt_aborts_and_names_the_doubtful(tmp_path):
    async with ScriptedRelay(end=["250 ok"] * 4 + [Hang(keeps=True)] * 60) as relay:
        code, said, tally = await interrupted(tmp_path, relay, signals=2, when=lambda: len(relay.messages) >= 6)
    assert code == 3
    assert tally[Status.ACCEPTED] == 4
    assert tally[Status.IN_DOUBT] == 2
    assert tally[Status.PENDING] == 54
    assert "in doubt" in said
