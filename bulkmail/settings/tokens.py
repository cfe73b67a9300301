"""Where a relay's access tokens come from: a file, a command, or a refresh grant."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Relay, Secret
from bulkmail.model.reply import Breakage
from bulkmail.settings.places import LONGEST_SECRET, Wanted, secret_at
from bulkmail.smtp.credentials import AccessToken, TokenError

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
        from bulkmail.smtp.refresh import RefreshGrant

        place = relay.oauth.refresh_token_from
        return RefreshGrant(
            relay.oauth,
            refresh_token=_secret(place, _REFRESH_TOKEN, environ),
            client_secret=(
                _secret(relay.oauth.client_secret_from, _CLIENT_SECRET, environ)
                if relay.oauth.client_secret_from
                else None
            ),
            keep=_keeper(Path(place.partition(":")[2])) if place.startswith("file:") else None,
        )
    if not relay.token_from:
        return None

    def read() -> AccessToken:
        try:
            return AccessToken(_secret(relay.token_from, _TOKEN, environ))
        except ConfigError as error:
            raise TokenError(Breakage.NO_TOKEN, str(error)) from None

    return read


def find_key_password(relay: Relay, *, environ: Mapping[str, str] = os.environ) -> Secret | None:
    """The password of the client certificate's key, None when no place is named for one.  Raises `ConfigError`."""
    return _secret(relay.key_password_from, _KEY_PASSWORD, environ) if relay.key_password_from else None


def find_proxy_password(relay: Relay, *, environ: Mapping[str, str] = os.environ) -> Secret | None:
    """The proxy's password, None when no place is named for one.  Raises `ConfigError`."""
    return _secret(relay.proxy_password_from, _PROXY_PASSWORD, environ) if relay.proxy_password_from else None


def _secret(place: str, wanted: Wanted, environ: Mapping[str, str]) -> Secret:
    text = secret_at(place, wanted, environ=environ)
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
