"""Where the password is looked for, and that no one sees it on the way."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Kind, Relay, Secret
from bulkmail.settings import secrets as places
from bulkmail.settings.secrets import find_password

PASSWORD = "hunter2 ⌘"
ENVIRON = {"BULKMAIL_PASSWORD": PASSWORD}


def relay_with(password_from: str = "", username: str = "ann@example.com") -> Relay:
    return Relay(Kind.SMTP, host="mail.example.com", port=587, username=username, password_from=password_from)


def found(secret: Secret | None) -> str:
    """What was found, which must not show itself."""
    assert secret is not None
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    return secret.reveal()


def refusal(relay: Relay, environ: dict[str, str] | None = None) -> tuple[str, str]:
    """What `find_password` says, which must not hold the password."""
    with pytest.raises(ConfigError) as caught:
        find_password(relay, ask=None, environ=environ or {})
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in f"{error} {getattr(error, 'hint', '')}" or error.__suppress_context__
        assert "hunter2" not in str(error)
        error = error.__cause__
    return str(caught.value), caught.value.hint


def never(question: str) -> str:
    raise AssertionError("no one is to be asked")


def install_keyring(
    monkeypatch: pytest.MonkeyPatch, entries: dict[tuple[str, str], str], *, broken: bool = False
) -> None:
    """A keyring package with these entries."""
    errors = types.ModuleType("keyring.errors")

    class KeyringError(Exception):
        pass

    def get_password(service: str, username: str) -> str | None:
        if broken:
            raise KeyringError("no backend: hunter2")
        return entries.get((service, username))

    errors.KeyringError = KeyringError  # type: ignore[attr-defined]
    package = types.ModuleType("keyring")
    package.get_password = get_password  # type: ignore[attr-defined]
    package.errors = errors  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", package)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)


def write_password(path: Path, content: bytes, mode: int = 0o600) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return f"file:{path}"


def test_no_user_name_needs_no_password() -> None:
    assert find_password(relay_with("env:SHOP", username=""), ask=never, environ=ENVIRON) is None


def test_password_comes_from_the_named_variable() -> None:
    environ = {"SHOP": PASSWORD, "BULKMAIL_PASSWORD": "other"}
    assert found(find_password(relay_with("env:SHOP"), ask=never, environ=environ)) == PASSWORD


def test_password_comes_from_the_usual_variable() -> None:
    assert found(find_password(relay_with(), ask=never, environ=ENVIRON)) == PASSWORD


def test_password_comes_from_the_real_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKMAIL_PASSWORD", PASSWORD)
    assert found(find_password(relay_with(), ask=never)) == PASSWORD


def test_password_is_asked_for_last() -> None:
    questions = []

    def ask(question: str) -> str:
        questions.append(question)
        return PASSWORD

    assert found(find_password(relay_with(), ask=ask, environ={"BULKMAIL_PASSWORD": ""})) == PASSWORD
    assert questions == ["Password for smtp://ann@example.com@mail.example.com:587: "]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_password_comes_from_a_file(tmp_path: Path, end: bytes) -> None:
    source = write_password(tmp_path / "password", PASSWORD.encode() + end)
    assert found(find_password(relay_with(source), ask=never, environ=ENVIRON | {})) == PASSWORD


def test_password_keeps_the_blanks_around_it(tmp_path: Path) -> None:
    source = write_password(tmp_path / "password", b" hunter2 \n")
    assert found(find_password(relay_with(source), ask=never, environ={})) == " hunter2 "


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize(("mode", "shown"), [(0o644, "0644"), (0o640, "0640"), (0o602, "0602")])
def test_password_file_that_others_may_read_is_refused(tmp_path: Path, mode: int, shown: str) -> None:
    path = tmp_path / "my password"
    assert refusal(relay_with(write_password(path, b"hunter2", mode))) == (
        f"{path}: others on this machine may read the password file (mode {shown})",
        f"type: chmod 600 '{path}'",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the password file is empty"),
        (b"\n", "the password file is empty"),
        (b"hunter2\nmore", "the password file is not one line of at most 10,000 characters"),
        (b"hunter2\0", "the password file is not one line of at most 10,000 characters"),
        (b"hunter2" * 2000, "the password file is not one line of at most 10,000 characters"),
        (b"hunter2\xff", "{path}: the password file is not UTF-8"),
    ],
)
def test_password_file_that_holds_no_password_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "password"
    assert refusal(relay_with(write_password(path, content))) == (message.format(path=path), "")


def test_password_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "password"
    message = f"{path}: the password file cannot be read: No such file or directory"
    assert refusal(relay_with(f"file:{path}"), ENVIRON) == (message, "")


def test_password_file_that_is_a_device_is_refused() -> None:
    assert refusal(relay_with("file:/dev/null")) == ("/dev/null: the password file is not an ordinary file", "")


def test_password_file_with_an_impossible_name_is_refused() -> None:
    assert refusal(relay_with("file:a\0b")) == ("the name of the password file cannot be read", "")


@pytest.mark.parametrize(
    ("script", "password"),
    [
        ("print('hunter2 ⌘')", PASSWORD),
        ("print('hunter2 ⌘'); print('login: ann')", PASSWORD),
        ("import sys; sys.stdout.buffer.write(b'hunter2\\r\\nx')", "hunter2"),
        ("import sys; print(repr(sys.stdin.read()))", "''"),
    ],
    ids=["a-line", "first-of-two-lines", "carriage-return", "no-standard-input"],
)
def test_password_comes_from_a_command(script: str, password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    source = f'command:{sys.executable} -c "{script}"'
    assert found(find_password(relay_with(source), ask=never, environ=ENVIRON)) == password


def test_password_command_is_read_by_no_shell(tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    script = "import sys; print(sys.argv[1:])"
    source = f'command:{sys.executable} -c "{script}" $(touch {evil}) ; touch {evil} | > `x`'
    words = found(find_password(relay_with(source), ask=never, environ={}))
    assert words == str(["$(touch", f"{evil})", ";", "touch", str(evil), "|", ">", "`x`"])
    assert not evil.exists()


@pytest.mark.parametrize(
    ("command", "message", "hint"),
    [
        ("", "password_command is empty", ""),
        ("echo 'hunter2", "password_command cannot be read: no closing quotation", ""),
        (
            "/no/such/program hunter2",
            "the password command /no/such/program cannot be run: No such file or directory",
            "no shell is used; name a program",
        ),
        (
            "echo a\0b",
            "the password command echo cannot be run: it has a NUL character",
            "no shell is used; name a program",
        ),
        (
            f"{sys.executable} -c \"print('hunter2'); exit(3)\"",
            f"the password command {sys.executable} ended with exit code 3",
            "type it yourself to see why",
        ),
        (f'{sys.executable} -c ""', "what the password command printed is empty", ""),
        (
            f"{sys.executable} -c \"import sys; sys.stdout.buffer.write(b'hunter2' + bytes([255]))\"",
            f"the password command {sys.executable} printed something that is not UTF-8",
            "",
        ),
    ],
    ids=["empty", "open-quote", "no-program", "nul", "exit-code", "silent", "not-utf-8"],
)
def test_password_command_that_fails_is_named(command: str, message: str, hint: str) -> None:
    assert refusal(relay_with(f"command:{command}"), ENVIRON) == (message, hint)


def test_password_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "COMMAND_TIMEOUT", 0.2)
    command = f'{sys.executable} -c "import time; time.sleep(30)"'
    message = f"the password command {sys.executable} did not end within 0 s"
    assert refusal(relay_with(f"command:{command}")) == (message, "")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("SHOP_PASSWORD", "the environment variable SHOP_PASSWORD"), ("hunter2", "the variable that password_env names")],
    ids=["a-name", "the-password-itself"],
)
def test_named_variable_that_is_not_set_is_not_replaced_by_another(name: str, shown: str) -> None:
    message = f"{shown} is not set, and the relay's password is to come from it"
    assert refusal(relay_with(f"env:{name}"), ENVIRON) == (message, "set it, in this shell or service")


def test_password_comes_from_the_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    install_keyring(monkeypatch, {("mail.example.com", "ann@example.com"): PASSWORD})
    assert found(find_password(relay_with("keyring:"), ask=never, environ={"BULKMAIL_PASSWORD": "x"})) == PASSWORD


def test_keyring_without_an_entry_passes_the_question_on(monkeypatch: pytest.MonkeyPatch) -> None:
    install_keyring(monkeypatch, {})
    assert found(find_password(relay_with("keyring:"), ask=never, environ=ENVIRON)) == PASSWORD
    assert found(find_password(relay_with("keyring:"), ask=lambda question: PASSWORD, environ={})) == PASSWORD
    assert refusal(relay_with("keyring:")) == (
        "smtp://ann@example.com@mail.example.com:587 needs a password, and none was found",
        "type: keyring set mail.example.com ann@example.com",
    )


def test_keyring_is_left_alone_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    install_keyring(monkeypatch, {}, broken=True)
    assert found(find_password(relay_with(), ask=never, environ=ENVIRON)) == PASSWORD


def test_keyring_that_cannot_be_opened_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    install_keyring(monkeypatch, {}, broken=True)
    assert refusal(relay_with("keyring:"), ENVIRON) == (
        "the system has no keyring that can be opened here",
        "use password_file or password_command instead, or set BULKMAIL_PASSWORD",
    )


def test_keyring_that_is_not_installed_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert refusal(relay_with("keyring:"), ENVIRON) == (
        "keyring = true needs the keyring package, which is not installed",
        "type: pip install 'bulkmail[keyring]'",
    )


def test_no_password_and_no_one_to_ask_is_refused() -> None:
    assert refusal(relay_with()) == (
        "smtp://ann@example.com@mail.example.com:587 needs a password, and none was found",
        "set BULKMAIL_PASSWORD, or write password_file or password_command into [relay]",
    )


@pytest.mark.parametrize(
    ("password", "message"),
    [
        ("", "the password is empty"),
        ("hunter2\r\nRSET", "the password is not one line of at most 10,000 characters"),
    ],
)
def test_typed_password_that_is_none_is_refused(password: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        find_password(relay_with(), ask=lambda question: password, environ={})
    assert "hunter2" not in str(caught.value)


@settings(deadline=None)  # a busy machine is no fault
@given(st.text(min_size=1, max_size=30), st.sampled_from(["environment", "prompt"]))
def test_password_is_taken_whole_or_refused_unseen(password: str, source: str) -> None:
    environ = {"BULKMAIL_PASSWORD": password} if source == "environment" else {}
    try:
        secret = find_password(relay_with(), ask=lambda question: password, environ=environ)
    except ConfigError as error:
        assert set(password) & set("\0\r\n")
        assert len(password) < 3 or password not in f"{error} {error.hint}"
    else:
        assert secret is not None
        assert secret.reveal() == password
