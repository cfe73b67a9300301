"""The form and campaign.toml: one line changes, comments stay, and nothing becomes a shell."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from bulkmail.console.document import (
    ChangedOnDisk,
    TypedDocument,
    check_change,
    draft_of,
    is_locked,
    read_document,
    save,
)
from bulkmail.model.errors import ConfigError
from bulkmail.settings import schema

TOML = """# A note above.
relay = "smtp://ann@mail.example.com"  # the shop's
recipients = "people.csv"

[message]
from = "Shop <shop@example.com>"   # who
subject = "Spring"
text = "message.txt"   # the words
html = { inline = "<p>Hello</p>" }
attachments = ["menu.pdf"]

[message.dkim]
domain = "example.com"
selector = "s1"
key_command = "pass dkim"

[sending]
rate = "5/s"  # slowly
"""


def inside(path: Path) -> bool:
    return True


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "campaign.toml").write_text(TOML)
    (tmp_path / "message.txt").write_text("Dear {{ name }},\n")
    return tmp_path / "campaign.toml"


def changed(file: Path, **fields: str) -> str:
    document = read_document(file, inside)
    form = {name.replace("_", "-") if name.startswith("body") else name: value for name, value in fields.items()}
    save(file, draft_of(document, form), digest=document.digest, inside=inside)
    return file.read_text()


@pytest.mark.parametrize(
    ("field", "value", "before", "after"),
    [
        ("subject", "Summer", 'subject = "Spring"', 'subject = "Summer"'),
        ("from", 'A "B" <a@b.example>', 'from = "Shop <shop@example.com>"', "from = 'A \"B\" <a@b.example>'"),
        ("rate", "7/s", 'rate = "5/s"', 'rate = "7/s"'),
        ("list", "others.csv", 'recipients = "people.csv"', 'recipients = "others.csv"'),
        ("relay", "sandbox:", 'relay = "smtp://ann@mail.example.com"', 'relay = "sandbox:"'),
    ],
)
def test_change_is_one_line_and_keeps_its_comment(file: Path, field: str, value: str, before: str, after: str) -> None:
    text = changed(file, **{field: value})
    assert tomllib.loads(text)
    lines = [pair for pair in zip(TOML.split("\n"), text.split("\n"), strict=True) if pair[0] != pair[1]]
    assert len(lines) == 1
    assert lines[0][0].startswith(before)
    assert tomllib.loads(lines[0][1]) == tomllib.loads(after)
    assert lines[0][0].partition("#")[1:] == lines[0][1].partition("#")[1:]


def test_saving_what_was_shown_changes_no_byte(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + TOML.replace("\n", "\r\n").encode())
    (file.parent / "message.txt").write_bytes(b"Dear {{ name }},\r\n")
    before = file.read_bytes(), (file.parent / "message.txt").read_bytes()
    fields = {"subject": "Spring", "body-text": "Dear {{ name }},\r\n", "body-html": "<p>Hello</p>", "quota": ""}
    document = read_document(file, inside)
    save(file, draft_of(document, fields), digest=document.digest, inside=inside)
    assert (file.read_bytes(), (file.parent / "message.txt").read_bytes()) == before


def test_bodies_go_where_they_were_and_keep_line_ends(file: Path) -> None:
    (file.parent / "message.txt").write_bytes(b"one\r\ntwo\r\n")
    document = read_document(file, inside)
    form = {"body-text": "one\r\nthree\r\n", "body-html": '<p>"""</p>\r\n'}
    save(file, draft_of(document, form), digest=document.digest, inside=inside)
    assert (file.parent / "message.txt").read_bytes() == b"one\r\nthree\r\n"
    assert tomllib.loads(file.read_text())["message"]["html"]["inline"] == '<p>"""</p>\n'


def test_key_that_is_emptied_goes_and_new_ones_come_in_their_table(file: Path) -> None:
    data = tomllib.loads(changed(file, rate="", reply_to="me@example.com", quota="9/day"))
    assert data["sending"] == {"quota": "9/day"}
    assert data["message"]["reply_to"] == "me@example.com"
    file.write_text('[message]\nsubject = "x"\n')
    data = tomllib.loads(changed(file, relay="sandbox:", list="people.csv", rate="1/s"))
    assert data["relay"] == {"url": "sandbox:"}
    assert data["recipients"] == {"file": "people.csv"}
    assert data["sending"] == {"rate": "1/s"}


def test_part_is_added_as_a_file(file: Path) -> None:
    file.write_text('[message]\nsubject = "x"\n')
    changed(file, add="markdown")
    assert tomllib.loads(file.read_text())["message"]["markdown"] == "message.md"


def test_attachments_come_and_go(file: Path) -> None:
    assert tomllib.loads(changed(file, attach="map.pdf"))["message"]["attachments"] == ["menu.pdf", "map.pdf"]
    assert tomllib.loads(changed(file, remove="menu.pdf"))["message"]["attachments"] == ["map.pdf"]


def test_change_on_disk_meanwhile_is_never_overwritten(file: Path) -> None:
    document = read_document(file, inside)
    (file.parent / "message.txt").write_text("By someone else\n")
    with pytest.raises(ChangedOnDisk):
        save(file, draft_of(document, {"subject": "Mine"}), digest=document.digest, inside=inside)
    assert file.read_text() == TOML


def tables(table: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every key of the settings, with the tables it is in."""
    for name, found in table.model_fields.items():
        key = found.alias or name
        yield path, key
        for inner in _inner(found.annotation):
            yield from tables(inner, (*path, key))


def _inner(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _inner(each)


_SECRETS = ("command", "password", "secret", "token", "_env", "key", "_root", "webhook", "proxy", "on_message")


def test_every_key_that_names_a_command_a_secret_or_a_hook_is_locked(tmp_path: Path) -> None:
    keys = list(tables(schema.CampaignFile))
    assert len(keys) > 100
    guarded = [(path, key) for path, key in keys if any(word in key for word in _SECRETS)]
    assert len(guarded) > 25
    for path, key in guarded:
        assert is_locked((*path, key)), (path, key)
        after: Any = {key: "x"}
        for step in reversed(path):
            after = {step: after}
        with pytest.raises(ConfigError, match="cannot be changed in the console"):
            check_change({}, after, home=tmp_path, inside=inside)
        with pytest.raises(ConfigError, match="cannot be changed in the console"):
            check_change(after, {}, home=tmp_path, inside=inside)
        check_change(after, after, home=tmp_path, inside=inside)


def test_settings_with_a_changed_command_are_not_saved(file: Path) -> None:
    document = read_document(file, inside)
    for evil in (TOML.replace("pass dkim", "rm -rf /"), TOML + '[notify]\ncommand = ["sh", "-c", "id"]\n'):
        with pytest.raises(ConfigError, match="cannot be changed in the console"):
            save(file, TypedDocument(evil, {}), digest=document.digest, inside=inside)
    assert file.read_text() == TOML


def test_own_words_may_be_named_like_a_secret(tmp_path: Path) -> None:
    check_change({}, {"data": {"command": "x"}, "message": {"headers": {"X-token": "1"}}}, home=tmp_path, inside=inside)


@pytest.mark.parametrize(
    "data",
    [
        {"recipients": "/etc/passwd"},
        {"recipients": {"file": "../others/people.csv"}},
        {"recipients": {"suppress": ["~/stop.txt"]}},
        {"message": {"text": "/etc/passwd"}},
        {"message": {"html": {"file": "../x.html"}}},
        {"message": {"attachments": ["/etc/passwd"]}},
        {"message": {"attachments": [{"file": "/etc/passwd"}]}},
        {"data": "/etc/passwd"},
    ],
    ids=str,
)
def test_file_outside_is_refused(tmp_path: Path, data: dict[str, Any]) -> None:
    def below(path: Path) -> bool:
        return path.resolve().is_relative_to(tmp_path)

    with pytest.raises(ConfigError, match="outside the folders"):
        check_change({}, data, home=tmp_path, inside=below)
    check_change(data, data, home=tmp_path, inside=below)  # what a text editor wrote stays
