"""`bulkmail serve` as a process: it listens, answers, and ends without losing what it took."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from click.testing import CliRunner

from bulkmail.cli import main
from bulkmail.mailing.run_watch import RunNote, keep_note
from bulkmail.message.unsubscribe import make_token
from bulkmail.model.campaign import Campaign
from bulkmail.model.notification import NotifySettings
from bulkmail.model.recipient import Address
from bulkmail.outbox.outbox import Outbox
from bulkmail.suppression.file import SqliteSuppressions
from bulkmail.suppression.ports import EntryQuery
from tests.e2e.commands import environment
from tests.feedback import mails

KEY = "0123456789abcdef0123"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MakeCampaign = Callable[..., Campaign]
Start = Callable[..., tuple[subprocess.Popen[str], int]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    key = tmp_path / "unsubscribe.key"
    key.write_text(KEY + "\n")
    key.chmod(0o600)
    file = tmp_path / "serve.toml"
    file.write_text('[serve]\nkeys = ["unsubscribe.key"]\n')
    return file


@pytest.fixture
def start(config: Path, tmp_path: Path) -> Iterator[Start]:
    processes = []

    def start(*words: str) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, "-m", "bulkmail", "serve", "--config", str(config), "--listen", "127.0.0.1:0", *words],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"port (\d+)", line)
        assert found, line + (process.stderr.read() if process.stderr else "")
        return process, int(found[1])

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def ask(port: int, method: str, path: str, body: str = "") -> tuple[int, dict[str, str], str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body.encode(), FORM if body else {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def path_of(name: str = "ann") -> str:
    return f"/u/{make_token(Address(name, 'example.org'), KEY.encode(), list_id='news')}"


@pytest.mark.slow
def test_serve_answers_and_ends_with_everything_on_the_disk(start: Start, state_folder: Path) -> None:
    process, port = start()
    status, headers, page = ask(port, "GET", path_of())
    assert status == 200 and "ann@example.org" in page
    assert "server" not in {name.lower() for name in headers}
    assert ask(port, "HEAD", path_of())[2] == ""
    assert ask(port, "POST", path_of(), "List-Unsubscribe=One-Click")[0] == 200
    assert ask(port, "POST", path_of("bob"), "List-Unsubscribe=One-Click")[0] == 200
    assert ask(port, "GET", "/u/nonsense")[0] == 404
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert path_of()[3:] not in out + err
    with SqliteSuppressions(state_folder / "suppressions.db") as store:
        assert {entry.key for entry in store.entries(EntryQuery())} == {"ann@example.org", "bob@example.org"}


@pytest.mark.slow
def test_serve_reads_the_mailboxes_of_its_settings_while_one_of_them_fails(
    start: Start, config: Path, tmp_path: Path, state_folder: Path
) -> None:
    maildir = tmp_path / "Maildir"
    for name in ("new", "cur", "tmp"):
        (maildir / name).mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = closed.getsockname()[1]
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o600)
    config.write_text(
        config.read_text()
        + f'[[bounces]]\nimap = "imap://me@127.0.0.1:{nowhere}?tls=off"\npassword_file = "password"\n'
        + '[[bounces]]\nmaildir = "Maildir"\nthen = "move=Done"\n'
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = free.getsockname()[1]
    process, port = start("--metrics", str(metrics))
    token = path_of("bob").removeprefix("/u/")
    (maildir / "new" / "1").write_bytes(mails.request(subject=f"unsubscribe {token}"))
    (maildir / "new" / "2").write_bytes(mails.request(subject="A question"))
    while not (maildir / ".Done" / "cur" / "1:2,S").exists():
        time.sleep(0.05)
    assert ask(port, "POST", path_of(), "List-Unsubscribe=One-Click")[0] == 200
    numbers = ask(metrics, "GET", "/metrics")[2]
    assert 'bulkmail_feedback_total{campaign="",kind="unsubscribe"} 2.0' in numbers
    assert "bulkmail_feedback_unmatched 1.0" in numbers
    assert f'bulkmail_intake_failures_total{{mailbox="imap me at 127.0.0.1:{nowhere}, INBOX"}}' in numbers
    assert f'bulkmail_intake_last_success_timestamp_seconds{{mailbox="maildir {maildir}"}}' in numbers
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "cannot be reached" in err and "bulkmail will retry" in err and token not in out + err
    with SqliteSuppressions(state_folder / "suppressions.db") as store:
        assert {entry.key for entry in store.entries(EntryQuery())} == {"ann@example.org", "bob@example.org"}


def serve(config: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["serve", "--config", str(config), *words], prog_name="bulkmail")
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("", "neither [serve] keys nor a [[webhook]] nor [[bounces]]"),
        ('[serve]\nkeys = ["other.key"]\n', "serve.toml:2"),
        ('[serve]\nlisten = "8025"\nkeys = ["unsubscribe.key"]\n', "is not an address to listen at"),
        ('[[webhook]]\nprovider = "mailgum"\n', 'did you mean "mailgun"?'),
        ('[[webhook]]\nprovider = "ses"\n', "without topics"),
        ('[[webhook]]\nprovider = "mailgun"\n', "secret_file, secret_env or secret_command"),
        ('[[webhook]]\nprovider = "mailgun"\nsecret = "x"\n', "[webhook] has no key"),
        ('[[webhook]]\nprovider = "postmark"\nsecret_env = "NOT_SET"\n', "NOT_SET is not set"),
    ],
    ids=["nothing", "no-key", "listen", "provider", "topics", "no-secret", "secret-in-file", "variable"],
)
def test_settings_that_cannot_be_served_are_refused(config: Path, toml: str, said: str) -> None:
    config.write_text(toml)
    code, output = serve(config)
    assert code == 2 and said in output


def test_key_that_others_may_read_is_refused(config: Path, tmp_path: Path) -> None:
    (tmp_path / "unsubscribe.key").chmod(0o644)
    code, output = serve(config)
    assert code == 2 and "chmod 600" in output and KEY not in output


def test_port_that_is_taken_is_reported(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, output = serve(config, "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert code == 3 and "cannot listen" in output


@pytest.mark.slow
def test_serve_notifies_of_a_run_that_was_killed(start: Start, tmp_path: Path, make_campaign: MakeCampaign) -> None:
    reported, path = tmp_path / "reported", tmp_path / "spring.outbox"
    with Outbox.create(path, campaign=make_campaign()) as outbox:
        outbox.finish_loading()
        run_id = outbox.run_id
    command = (sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())", str(reported))
    keep_note(RunNote(str(path), run_id, "spring", NotifySettings(command=command)))
    process, _ = start()
    until = time.monotonic() + 30
    while not reported.exists() or not reported.read_text():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    assert json.loads(reported.read_text())["data"]["name"] == "spring"
