"""What `bulkmail doctor` finds, and what it says is missing."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

import bulkmail
from bulkmail.cli import main
from bulkmail.mailing import doctor
from bulkmail.mailing.doctor import State, look_at_loopback

PROJECT = tomllib.loads((Path(bulkmail.__file__).parents[1] / "pyproject.toml").read_text())["project"]
REQUIRES = [
    "click>=8.2",
    "tzdata; sys_platform == 'nowhere'",
    "uvloop>=0.21; sys_platform != 'nowhere'",
    'segno>=1.6; extra == "qr"',
    "no-such-package>=3 ; extra == 'mjml'",
]


def test_every_extra_is_explained_or_not_for_users():
    extras = PROJECT["optional-dependencies"]
    aliases = {name for name, wanted in extras.items() if all(each.startswith("bulkmail[") for each in wanted)}
    assert set(extras) - aliases - {"test", "docs", "release", "keyring"} <= set(doctor.PURPOSES)


@pytest.fixture
def requires(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: REQUIRES)


def test_requirements_are_those_of_this_platform(requires):
    assert doctor.requirements_of("") == ["click", "uvloop"]
    assert doctor.requirements_of("qr") == ["segno"]


def test_extra_that_is_missing_comes_with_its_command(requires):
    found = {each.subject: each for each in doctor.look_at_extras()}
    assert list(found) == ["extra mjml", "extra qr"]
    assert (found["extra mjml"].state, found["extra mjml"].fix) == (State.OPTIONAL, "pip install 'bulkmail[mjml]'")


def test_package_that_is_missing_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["click", "no-such-package"])
    (found,) = [each for each in doctor.look_at_installation() if each.subject == "packages"]
    assert (found.state, found.found) == (State.PROBLEM, "no-such-package cannot be found")


@pytest.mark.parametrize(
    ("now", "synchronised", "state"),
    [(0.0, True, State.PROBLEM), (None, True, State.OK), (None, False, State.OPTIONAL), (None, None, State.OK)],
    ids=["long-ago", "kept-right", "not-kept-right", "not-known"],
)
def test_clock(monkeypatch, now, synchronised, state):
    monkeypatch.setattr(doctor, "is_synchronised", lambda: synchronised)
    assert doctor.look_at_clock(now).state is state


def test_state_folder_may_not_be_there_yet(tmp_path):
    found = next(doctor.look_at_state({"BULKMAIL_STATE_DIR": str(tmp_path / "new" / "one")}))
    assert (found.state, found.found.endswith("made when it is needed")) == (State.OK, True)
    assert not (tmp_path / "new").exists()


def test_full_disk_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_FREE", 1 << 80)
    assert next(doctor.look_at_state({"BULKMAIL_STATE_DIR": str(tmp_path)})).state is State.PROBLEM


def test_values_of_variables_are_not_shown():
    assert doctor.look_at_environment({"BULKMAIL_PASSWORD": "secret", "HOME": "/x"}).found == "BULKMAIL_PASSWORD"


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments])
    return ended.value.code, capsys.readouterr().out


def test_command_is_for_people_and_programs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out = run(capsys, "--offline")
    assert code == 0
    assert out.endswith("Nothing is wrong.\n")
    code, out = run(capsys, "--offline", "--json")
    checks = {each["subject"]: each for each in json.loads(out)["checks"]}
    assert checks["packages"]["state"] == "ok"
    assert {"clock", "state folder", "keyring", "python"} <= set(checks)


def test_relay_that_does_not_answer_is_a_problem(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out = run(capsys, "smtp://127.0.0.1:1?tls=off", "--json")
    (relay,) = [each for each in json.loads(out)["checks"] if each["subject"] == "relay"]
    assert (code, relay["state"]) == (1, "problem")
    assert "Nothing is listening" in relay["found"] and "port" in relay["fix"]


async def test_embedded_server_takes_a_message_of_another_client():
    found = await look_at_loopback()
    assert (found.state, found.fix) == (State.OK, "")


async def test_loopback_that_is_blocked_is_a_problem(monkeypatch):
    def refused(*arguments: object, **options: object) -> None:
        raise ConnectionRefusedError("blocked")

    monkeypatch.setattr("aiosmtplib.send", refused)
    found = await look_at_loopback()
    assert found.state is State.PROBLEM
    assert "ConnectionRefusedError" in found.found and "127.0.0.1" in found.fix
