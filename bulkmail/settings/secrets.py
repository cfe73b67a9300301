"""Where secrets come from: the environment, files, commands, the keyring or a prompt; never from arguments."""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bulkmail.model.campaign import NO_KEYS, Campaign, Keys
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import Breakage
from bulkmail.model.relay import Relay, Secret, SecretKind, SecretSource
from bulkmail.model.route import Route
from bulkmail.settings.problems import Said
from bulkmail.smtp.credentials import AccessToken, TokenError

if TYPE_CHECKING:
    from bulkmail.settings.key_types import Table
    from bulkmail.settings.layers import KeyPath, Sources

LONGEST_SECRET = 10_000  # characters; a token may be long, a wrong file is longer
COMMAND_TIMEOUT = 120.0  # seconds; it may ask a person to unlock something


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for: `noun` as settings begin with it, `whose` in full, and whether it has several lines."""

    noun: str
    whose: str
    has_lines: bool = False


def one_place(
    sources: Sources, path: KeyPath, table: Table, noun: str, *, is_needed: bool = False
) -> SecretSource | None:
    """The place that `noun_env`, `noun_file` or `noun_command` names, below `path`; two of them, or none where one
    `is_needed`, are reported.  Files start from the folder of the settings.
    """
    found = table.places_of(noun)
    words = noun.replace("_", " ")
    if len(found) > 1:
        first, second, *_ = found
        where = sources.place((*path, second))
        what = f"the {words} cannot come from two places, {first} and {second}"
        sources.problems.add(f"{where}: {what}", "keep one of them")
    elif not found and is_needed and not any(broken[: len(path)] == path for broken in sources.broken):
        fix = f"write {noun}_file, {noun}_env or {noun}_command"
        sources.problems.add(f"{sources.place(path)}: does not say where its {words} is", fix)
    source = next(iter(found.values()), None)
    if source is None or source.kind is not SecretKind.FILE:
        return source
    from bulkmail.settings.campaign_files import resolve

    return SecretSource(SecretKind.FILE, str(resolve(Said(source.where, noun, sources.home)).absolute()))


def secret_at(source: SecretSource, wanted: Wanted, *, environ: Mapping[str, str]) -> str:
    """What is in a variable, a file, or printed by a command.  Raises `ConfigError` that never says what it found."""
    if source.kind not in _PLACES:
        raise ConfigError(f"{wanted.whose} cannot come from {source.kind.value}:", hint="use env:, file: or command:")
    return _PLACES[source.kind](source.where, wanted, environ)


def _from_variable(name: str, wanted: Wanted, environ: Mapping[str, str]) -> str:
    value = environ.get(name, "")
    if not value:
        # A name in lower case may well be the secret itself, put there by mistake.
        shown = f"the environment variable {name}" if name.isupper() else f"the variable that {wanted.noun}_env names"
        raise ConfigError(
            f"{shown} is not set, and {wanted.whose} is to come from it", hint="set it, in this shell or service"
        )
    return value


def _from_file(name: str, wanted: Wanted, environ: Mapping[str, str]) -> str:
    noun = wanted.noun
    path = Path(name)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{path}: the {noun} file is not an ordinary file")
            if os.name == "posix" and mode & 0o077:
                raise ConfigError(
                    f"{path}: others on this machine may read the {noun} file (mode {stat.S_IMODE(mode):04o})",
                    hint=f"type: chmod 600 {shlex.quote(str(path))}",
                )
            data = file.read(LONGEST_SECRET * 4 + 3)
    except OSError as error:
        raise ConfigError(f"{path}: the {noun} file cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the name
        raise ConfigError(f"the name of the {noun} file cannot be read") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the {noun} file is not UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")


def _from_command(command: str, wanted: Wanted, environ: Mapping[str, str]) -> str:
    """What `command` prints, or its first line.  No shell reads it: quotes group words, nothing else is special."""
    import subprocess

    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"{wanted.noun}_command cannot be read: {str(error).lower()}") from None
    if not words:
        raise ConfigError(f"{wanted.noun}_command is empty")
    program = f"the {wanted.noun} command {words[0]}"
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command is what it is for
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{program} did not end within {COMMAND_TIMEOUT:.0f} s") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it has a NUL character"
        raise ConfigError(f"{program} cannot be run: {reason}", hint="no shell is used; name a program") from None
    if done.returncode:
        raise ConfigError(f"{program} ended with exit code {done.returncode}", hint="type it yourself to see why")
    try:
        text = done.stdout.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{program} printed something that is not UTF-8") from None
    return text.rstrip("\r\n") if wanted.has_lines else text.partition("\n")[0].removesuffix("\r")


_PLACES: dict[SecretKind, Callable[[str, Wanted, Mapping[str, str]], str]] = {
    SecretKind.ENV: _from_variable,
    SecretKind.FILE: _from_file,
    SecretKind.COMMAND: _from_command,
}

VARIABLE = "BULKMAIL_PASSWORD"

_WANTED = Wanted("password", whose="the relay's password")


def find_passwords(
    routes: Sequence[Route], *, ask: Callable[[str], str] | None, environ: Mapping[str, str] = os.environ
) -> list[Secret | None]:
    """The password for each of `routes`; see `find_password()`.

    `BULKMAIL_PASSWORD` counts where one relay alone could mean it: no server is shown the password of another.
    """
    lonely = [route for route in routes if route.relay.username and not route.relay.password_from]
    if len(lonely) > 1:
        if ask is None and environ.get(VARIABLE):
            raise ConfigError(
                f"{VARIABLE} cannot be for {' and '.join(route.label for route in lonely)} at the same time",
                hint="write password_env, password_file, password_command or keyring = true into each [[relay]]",
            )
        environ = {name: value for name, value in environ.items() if name != VARIABLE}
    return [find_password(route.relay, ask=ask, environ=environ) for route in routes]


def find_password(
    relay: Relay, *, ask: Callable[[str], str] | None, environ: Mapping[str, str] = os.environ
) -> Secret | None:
    """The password for `relay`, or None when it wants no login or an access token instead.

    The place that the relay names counts; then `BULKMAIL_PASSWORD`; then `ask`, which is given the question and is None
    when no user is present.  A keyring without an entry passes the question on; any other named place must answer.
    Raises `ConfigError` that says what to do, and never what the password is.
    """
    if not relay.username or relay.wants_token:
        return None
    source = SecretSource.parse(relay.password_from)
    kind = source.kind if source is not None else None
    if source is not None and source.kind in _NAMES:
        return as_password(secret_at(source, _WANTED, environ=environ), _NAMES[source.kind])
    if kind is SecretKind.KEYRING and (kept := _from_keyring(relay)):
        return as_password(kept, "the keyring's password")
    if environ.get(VARIABLE):
        return as_password(environ[VARIABLE], VARIABLE)
    if ask is None:
        raise ConfigError(f"{relay} needs a password, and none was found", hint=_where_to_put_it(relay, kind))
    return as_password(ask(f"Password for {relay}: "), "the password")


def as_password(password: str, what: str) -> Secret:
    """`password`, if it can be one.  Raises `ConfigError` that names `what` it is, and never the password."""
    if not password:
        raise ConfigError(f"{what} is empty")
    if len(password) > LONGEST_SECRET or any(character in password for character in "\0\r\n"):
        raise ConfigError(f"{what} is not one line of at most {LONGEST_SECRET:,} characters")
    return Secret(password)


_NAMES = {
    SecretKind.ENV: "the variable that password_env names",
    SecretKind.FILE: "the password file",
    SecretKind.COMMAND: "what the password command printed",
}


def _from_keyring(relay: Relay) -> str:
    """What the system's keyring has for this host and user; empty when it has nothing."""
    try:
        import keyring
        import keyring.errors
    except ImportError:
        raise ConfigError(
            "keyring = true needs the keyring package, which is not installed",
            hint="type: pip install 'bulkmail[keyring]'",
        ) from None
    try:
        return keyring.get_password(relay.host, relay.username) or ""
    except keyring.errors.KeyringError:
        raise ConfigError(
            "the system has no keyring that can be opened here",
            hint=f"use password_file or password_command instead, or set {VARIABLE}",
        ) from None


def _where_to_put_it(relay: Relay, kind: SecretKind | None) -> str:
    if kind is SecretKind.KEYRING:
        return f"type: keyring set {shlex.quote(relay.host)} {shlex.quote(relay.username)}"
    return f"set {VARIABLE}, or write password_file or password_command into [relay]"


log = logging.getLogger("bulkmail.relay")

_TOKEN = Wanted("token", whose="the relay's access token")
_REFRESH_TOKEN = Wanted("refresh_token", whose="the refresh token")
_CLIENT_SECRET = Wanted("client_secret", whose="the client secret")
_KEY_PASSWORD = Wanted("client_key_password", whose="the password of the client's key")

_PROXY_PASSWORD = Wanted("proxy_password", whose="the proxy's password")


def find_tokens(relay: Relay, *, environ: Mapping[str, str] = os.environ) -> Callable[[], AccessToken] | None:
    """What gets an access token for `relay`, blocking, each time it is called; None for a login by password.

    The secrets of a refresh grant are looked up now, a file or a command is read again for each token.  May wait for a
    command.  Raises `ConfigError`, which never says what a secret is.
    """
    if relay.wants_token and not relay.username:
        raise ConfigError(f"{relay}: whose access token this is, is not said", hint="say the username too")
    if relay.oauth is not None:
        from bulkmail.smtp.credentials import RefreshGrant

        source = SecretSource.parse(relay.oauth.refresh_token_from)
        refresh_token = _secret(source, _REFRESH_TOKEN, environ)
        if refresh_token is None:
            raise ConfigError(f"{relay}: nothing says where the refresh token is", hint="say refresh_token_from too")
        return RefreshGrant(
            relay.oauth,
            refresh_token=refresh_token,
            client_secret=_secret(SecretSource.parse(relay.oauth.client_secret_from), _CLIENT_SECRET, environ),
            keep=_keeper(Path(source.where)) if source and source.kind is SecretKind.FILE else None,
        )
    token = SecretSource.parse(relay.token_from)
    if token is None:
        return None

    def read() -> AccessToken:
        try:
            return AccessToken(_secret_at(token, _TOKEN, environ))
        except ConfigError as error:
            raise TokenError(Breakage.NO_TOKEN, str(error)) from None

    return read


def find_key_password(relay: Relay, *, environ: Mapping[str, str] = os.environ) -> Secret | None:
    """The password of the client certificate's key, None when no place is named for one.  Raises `ConfigError`."""
    return _secret(SecretSource.parse(relay.key_password_from), _KEY_PASSWORD, environ)


def find_proxy_password(relay: Relay, *, environ: Mapping[str, str] = os.environ) -> Secret | None:
    """The proxy's password, None when no place is named for one.  Raises `ConfigError`."""
    return _secret(SecretSource.parse(relay.proxy_password_from), _PROXY_PASSWORD, environ)


def _secret(source: SecretSource | None, wanted: Wanted, environ: Mapping[str, str]) -> Secret | None:
    return None if source is None else _secret_at(source, wanted, environ)


def _secret_at(source: SecretSource, wanted: Wanted, environ: Mapping[str, str]) -> Secret:
    text = secret_at(source, wanted, environ=environ)
    if wanted not in (_KEY_PASSWORD, _PROXY_PASSWORD):
        text = text.strip()
    if not text:
        raise ConfigError(f"{wanted.whose} is empty")
    if len(text) > LONGEST_SECRET or any(character in text for character in "\0\r\n"):
        raise ConfigError(f"{wanted.whose} is not one line of at most {LONGEST_SECRET:,} characters")
    return Secret(text)


def _keeper(path: Path) -> Callable[[Secret], None]:
    """Puts a new refresh token where the old one was, which the provider may have forgotten by now."""

    path = path.resolve()

    def keep(token: Secret) -> None:
        try:
            with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
                new = Path(file.name)  # mode 0600, as it was made
                try:
                    file.write(token.reveal() + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                except BaseException:
                    new.unlink()
                    raise
            new.replace(path)
        except OSError as error:
            log.warning("%s: the new refresh token cannot be written there: %s", path, error.strerror)

    return keep


def find_keys(
    campaign: Campaign | None, *, environ: Mapping[str, str] = os.environ, runs_commands: bool = True
) -> Keys:
    """The keys that `campaign` names the places of.  May wait for a command.

    Without `runs_commands`, for messages that are only looked at, a new key stands in for one that a command prints.
    Raises `ConfigError` that says what to do, and never what a key is.
    """
    if campaign is None or not (campaign.unsubscribe or campaign.dkim):
        return NO_KEYS
    unsubscribe = None
    if campaign.unsubscribe:
        wanted = Wanted("key", whose="the key that signs unsubscribe links")
        source = SecretSource.parse(campaign.unsubscribe.key_from)
        unsubscribe = (
            Secret(secrets.token_hex(32))
            if _is_stood_for(source, runs_commands)
            else _key(source, wanted, "[message.unsubscribe]", environ=environ)
        )
    dkim = tuple(
        _signing_key()
        if _is_stood_for(SecretSource.parse(each.key_from), runs_commands)
        else _key(
            SecretSource.parse(each.key_from),
            Wanted("key", whose=f"the DKIM key of {each.selector}._domainkey.{each.domain}", has_lines=True),
            "[message.dkim]",
            environ=environ,
        )
        for each in campaign.dkim
    )
    return Keys(unsubscribe, dkim)


def _is_stood_for(source: SecretSource | None, runs_commands: bool) -> bool:
    return source is not None and source.kind is SecretKind.COMMAND and not runs_commands


def _signing_key() -> Secret:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def _key(source: SecretSource | None, wanted: Wanted, table: str, *, environ: Mapping[str, str]) -> Secret:
    if source is None:
        raise ConfigError(
            f"nothing says where {wanted.whose} comes from",
            hint=f"write key_file, key_env or key_command below {table}",
        )
    key = secret_at(source, wanted, environ=environ).strip()
    if not key:
        raise ConfigError(f"{wanted.whose} is empty")
    if len(key) > LONGEST_SECRET or "\0" in key or ("\n" in key and not wanted.has_lines):
        lines = "a text" if wanted.has_lines else "one line"
        raise ConfigError(f"{wanted.whose} is not {lines} of at most {LONGEST_SECRET:,} characters")
    return Secret(key)
