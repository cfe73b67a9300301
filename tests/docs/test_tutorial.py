"""docs/tutorial.md is what happens: its files are written, its commands run in order, its output compared.

A block with the title of a file is that file, or of `diff` a line of it that is changed; `console` are commands and
what they say, with the title "second terminal" a server that runs until `^C`.  A question is answered as on the page.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.commands import environment
from tests.servers.programs import free_port

pty = pytest.importorskip("pty")

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
PORT = "2525"  # on the page; the test takes one that is free
_BLOCK = re.compile(
    r"^```(?P<language>\w+)(?: title=\"(?P<about>[^\"]*)\")?\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
_ANSWER = re.compile(r"\[y/N\]: (\w+)$", re.MULTILINE)
# What may differ from one run to the next, and nothing else.
_CHANCES = (
    (re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000"), "DATE"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?"), "TIME"),
    (re.compile(r"\d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"finished after [\d.]+ s, [\d.]+ messages a second"), "finished after SECONDS"),
    (re.compile(r"(: about) [\d.]+ m?s\b"), r"\1 SECONDS"),
    (re.compile(r"<[0-9a-f]{32}@"), "<ID@"),
)
_KEPT = re.compile(r"^ +\d+  (\S+@.*)$")  # a line of an inbox; in which order mail came is chance
_PASSING = re.compile(r"^(waiting until|sent \d+ of) ")  # told while it goes on, depending on how long that takes


def plain(text: str) -> list[str]:
    """The lines of `text` without what is chance."""
    for pattern, name in _CHANCES:
        text = pattern.sub(name, text)
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not _PASSING.match(line)]
    kept = iter(sorted(found[1] for line in lines if (found := _KEPT.match(line))))
    return [next(kept) if _KEPT.match(line) else line for line in lines]


def commands_of(body: str) -> Iterator[tuple[str, str]]:
    """Each command of a block, with what is shown below it."""
    for said in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, _, output = said.partition("\n")
        yield command, output


@dataclass
class Shop:
    """A folder in which someone types what the page says."""

    folder: Path
    port: int = field(default_factory=free_port)
    server: subprocess.Popen[str] | None = None

    def environment(self) -> dict[str, str]:
        programs = self.folder.parent / "programs"
        if not programs.exists():
            programs.mkdir()
            program = programs / "bulkmail"
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bulkmail "$@"\n')
            program.chmod(0o755)
        path = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
        return environment(PATH=path, TERM="dumb", NO_COLOR="1", COLUMNS="80", PYTHONUTF8="1", TZ="UTC")

    def says(self, command: str, *, answer: str = "") -> str:
        """What `command` says, to someone at a terminal if there is something to answer."""
        command = command.replace(f":{PORT}", f":{self.port}")
        if answer:
            said = self._asked(command, answer)
        else:
            done = subprocess.run(
                ["sh", "-c", command], cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", timeout=30,
            )  # fmt: skip
            said = done.stdout
        return said.replace(f":{self.port}", f":{PORT}")

    def _asked(self, command: str, answer: str) -> str:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            ["sh", "-c", command], cwd=self.folder, env=self.environment(), stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        said = b""
        try:
            while True:
                said += (piece := os.read(ours, 65_536))
                if b"[y/N]: " in piece:
                    os.write(ours, f"{answer}\n".encode())
                if not piece:
                    break
        except OSError:  # the other side is closed
            pass
        finally:
            os.close(ours)
            process.wait(10)
        return said.decode().replace("\r\n", "\n")

    def opens(self, command: str, *, until: str) -> str:
        """Starts a server, and returns what it says until it has said `until`."""
        self.server = subprocess.Popen(
            ["sh", "-c", f"exec {command} --port {self.port}"], cwd=self.folder, env=self.environment(),
            stdout=subprocess.PIPE, text=True, encoding="utf-8",
        )  # fmt: skip
        assert self.server.stdout is not None
        said = ""
        while until not in said:
            line = self.server.stdout.readline()
            assert line, said
            said += line.replace(str(self.port), PORT)
        return said

    def interrupts(self) -> str:
        """Ends the server as Ctrl-C does, and returns what it still says."""
        assert self.server is not None
        self.server.send_signal(signal.SIGINT)
        said, _ = self.server.communicate(timeout=10)
        self.server = None
        return said


def write(path: Path, body: str, *, is_change: bool) -> None:
    if is_change:
        old, new = body.splitlines()
        assert old.startswith("-") and new.startswith("+")
        text = path.read_text(encoding="utf-8")
        assert text.count(old[1:]) == 1, f"{path.name} has no line {old[1:]!r}"
        body = text.replace(old[1:], new[1:])
    path.write_text(body, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_tutorial_is_what_happens(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    shop.folder.mkdir()
    try:
        blocks = list(_BLOCK.finditer(TUTORIAL.read_text(encoding="utf-8")))
        assert len(blocks) > 10
        for block in blocks:
            language, about, body = block["language"], block["about"], block["body"]
            if language != "console" and about:
                write(shop.folder / about, body, is_change=language == "diff")
            elif language == "console" and body.startswith("^C\n"):
                assert plain(shop.interrupts())[-len(plain(body)) + 1 :] == plain(body)[1:]
            elif language == "console":
                for command, shown in commands_of(body):
                    if about:
                        said = shop.opens(command, until=shown.splitlines()[-1])
                    else:
                        answers = _ANSWER.findall(shown)
                        said = shop.says(command, answer=answers[0] if answers else "")
                    assert plain(said) == plain(shown), f"$ {command}\n{said}"
    finally:
        if shop.server is not None:
            shop.server.kill()
            shop.server.communicate()
