"""Commands that a folder or an outbox names run only after its user has allowed them."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bulkmail.cli import init as init_module
from bulkmail.cli import main
from bulkmail.model.campaign import Campaign, Dkim, Template, Unsubscribe
from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Kind, Oauth, Relay
from bulkmail.model.route import Route
from bulkmail.outbox.ledger import state_folder
from bulkmail.settings.allowed_commands import VARIABLE, allow, commands_in, refuse_unallowed

MESSAGE = """
recipients = "people.csv"
[message]
from = "a@shop.test"
subject = "hi"
text = { inline = "hello" }
"""
KEYS = """
[message.unsubscribe]
mailto = "u+{token}@shop.test"
key_command = "COMMAND"
[[message.dkim]]
domain = "shop.test"
selector = "s1"
key_command = "COMMAND"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


def command_that(folder: Path) -> str:
    """A command that leaves `ran` in `folder` and prints a key."""
    return f"sh -c 'touch {folder}/ran; echo 0123456789abcdef0123456789abcdef'"


def make(folder: Path, text: str, *, command: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "people.csv").write_text("email\na@b.test\n")
    (folder / "campaign.toml").write_text(text.replace("COMMAND", command or command_that(folder)))
    return folder


def unsubscribing(folder: Path, *, command: str = "") -> Path:
    return make(folder, 'relay = "sandbox:"' + MESSAGE + KEYS.partition("[[")[0], command=command)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def has_run(folder: Path) -> bool:
    return (folder / "ran").exists()


@pytest.mark.parametrize("command", ["check", "preview"])
def test_looking_at_a_campaign_runs_none_of_its_commands(here: Path, command: str) -> None:
    folder = make(here / "evil", 'relay = "sandbox:"' + MESSAGE + KEYS)
    result = run(command, folder)
    assert result.exit_code == 0, result.output
    assert not has_run(folder)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["send"], ["send", "--dry-run"], ["check", "--online"]])
def test_command_of_a_foreign_folder_is_refused_until_it_is_allowed(here: Path, arguments: list[str]) -> None:
    folder = unsubscribing(here / "evil")
    refused = run(*arguments, folder)
    assert refused.exit_code == 2
    assert not has_run(folder)
    assert f"would run `{command_that(folder)}`, and you have not allowed that" in refused.output
    assert f"bulkmail allow {folder}" in refused.output
    assert f"{VARIABLE}={folder}" in refused.output
    allowed = run("allow", folder)
    assert allowed.exit_code == 0
    assert command_that(folder) in allowed.output
    assert not has_run(folder)
    assert run(*arguments, folder).exit_code == 0
    assert has_run(folder)


@pytest.mark.parametrize("way", ["password_command", "token_command", "client_key_password_command"])
def test_command_of_a_relay_is_refused(here: Path, way: str) -> None:
    relay = f'[relay]\nurl = "smtp://me@127.0.0.1:1"\n{way} = "COMMAND"\n'
    if way.startswith("client_key"):
        relay += 'client_certificate = "cert.pem"\nclient_key = "key.pem"\n'
    folder = make(here / "evil", MESSAGE + relay)
    for name in ("cert.pem", "key.pem"):
        (folder / name).touch(mode=0o600)
    for arguments in (["relay", folder], ["send", folder, "--yes"]):
        refused = run(*arguments)
        assert refused.exit_code == 2
        assert "you have not allowed that" in refused.output, refused.output
    assert not has_run(folder)


@pytest.mark.slow
def test_permission_is_for_the_commands_and_not_for_message_or_list(here: Path) -> None:
    folder = unsubscribing(here / "mine")
    run("allow", folder)
    (folder / "people.csv").write_text("email\nc@d.test\n")
    file = folder / "campaign.toml"
    file.write_text(file.read_text().replace("hello", "good bye"))
    assert run("send", folder).exit_code == 0
    unsubscribing(folder, command="sh -c 'touch other'")
    refused = run("send", folder)
    assert refused.exit_code == 2
    assert "would run `sh -c 'touch other'`" in refused.output


def test_permission_of_a_folder_is_not_that_of_its_copy(here: Path) -> None:
    command = command_that(here)
    run("allow", unsubscribing(here / "mine", command=command))
    refused = run("send", unsubscribing(here / "copy", command=command))
    assert refused.exit_code == 2
    assert not has_run(here)


@pytest.mark.slow
def test_permission_holds_by_whatever_path_the_folder_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unsubscribing(here / "mine")
    (here / "link").symlink_to(folder)
    run("allow", "link")
    monkeypatch.chdir(folder)
    assert run("send").exit_code == 0


def test_permission_can_be_taken_back(here: Path) -> None:
    folder = unsubscribing(here / "mine")
    run("allow", folder)
    assert "nothing is allowed any more" in run("allow", folder, "--forget").output
    assert "nothing was allowed" in run("allow", folder, "--forget").output
    assert run("send", folder).exit_code == 2


@pytest.mark.slow
def test_variable_names_the_places_that_may_run_theirs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, evil = unsubscribing(here / "mine"), unsubscribing(here / "evil")
    monkeypatch.setenv(VARIABLE, f"/nowhere{os.pathsep}{mine}")
    assert run("send", mine).exit_code == 0
    assert run("send", evil).exit_code == 2
    assert (has_run(mine), has_run(evil)) == (True, False)


@pytest.mark.slow
def test_outbox_of_someone_else_runs_nothing(here: Path) -> None:
    mine = unsubscribing(here / "mine")
    run("allow", mine)
    outbox = here / "foreign.outbox"
    assert run("send", mine, "--outbox", here / "own.outbox").exit_code == 0
    shutil.copy(here / "own.outbox", outbox)
    (mine / "ran").unlink()
    refused = run("resume", outbox, "--relay", "null:")
    assert refused.exit_code == 2
    assert f"bulkmail allow {outbox}" in refused.output
    assert not has_run(mine)
    assert command_that(mine) in run("allow", outbox).output
    assert "you have not allowed that" not in run("resume", outbox, "--relay", "null:").output


def test_outboxes_of_an_allowed_campaign_are_allowed(here: Path) -> None:
    folder = here / "mine"
    (here / "disk").mkdir()
    (folder / "runs").parent.mkdir()
    (folder / "runs").symlink_to(here / "disk")
    allow(folder, ["pass show mail"])
    allow(here / "lone.outbox", ["pass show mail"])
    for name in ("mine/runs/a.outbox", "lone.outbox"):
        (here / name).touch()
        refuse_unallowed(here / name, ["pass show mail"])
    (here / "disk" / "b.outbox").touch()
    with pytest.raises(ConfigError):
        refuse_unallowed(here / "disk" / "b.outbox", ["pass show mail"])


def test_permissions_are_kept_where_only_their_user_reads_and_writes(here: Path) -> None:
    allow(here, ["pass show mail"])
    (file,) = (state_folder() / "allowed").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    allow(here, ["pass show list"])
    refuse_unallowed(here, ["pass show mail", "pass show list"])
    file.chmod(0o666)
    with pytest.raises(ConfigError):
        refuse_unallowed(here, ["pass show mail"])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"path": 7}', "[" * 100_000])
def test_damaged_permission_is_none(here: Path, content: str) -> None:
    allow(here, ["pass show mail"])
    (file,) = (state_folder() / "allowed").iterdir()
    file.write_text(content)
    with pytest.raises(ConfigError):
        refuse_unallowed(here, ["pass show mail"])


def test_init_allows_the_commands_of_its_own_templates(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unsubscribing(here / "templates", command="pass show key").rename(here / "newsletter")
    monkeypatch.setattr(init_module, "templates_folder", lambda: here)
    assert run("init", "spring").exit_code == 0
    refuse_unallowed(here / "spring", ["pass show key"])


def test_every_command_that_could_run_is_found() -> None:
    relay = Relay(
        Kind.SMTP,
        host="mail.test",
        username="me",
        password_from="command:a",
        key_password_from="command:b",
        proxy_password_from="command:c",
        token_from="command:d",
        oauth=Oauth(
            "https://login.test", "id", client_secret_from="command:e", refresh_token_from="command:f"
        ),
    )  # fmt: skip
    campaign = Campaign(
        name="x",
        sender=Template("sender", "a@b.test"),
        subject=Template("subject", "x"),
        text=Template("text", "x"),
        html=None,
        unsubscribe=Unsubscribe("https://b.test/{token}", key_from="command:g"),
        dkim=(Dkim("b.test", "s", key_from="command:h"), Dkim("b.test", "t", key_from="file:/k")),
    )
    assert sorted(commands_in(campaign, [Route(relay)])) == list("abcdefgh")
    assert commands_in(None, []) == ()
