"""The server that takes the mail, and how to reach it, as said by a relay URL."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from bulkmail.model.address import has_control
from bulkmail.model.errors import ConfigError

EXAMPLES = 'write "smtp://user@mail.example.com:587", "smtps://mail.example.com", "sandbox:", "maildir:DIR" or "null:"'


class Kind(Enum):
    """What is at the other end."""

    SMTP = "smtp"
    SANDBOX = "sandbox"  # a real SMTP server of our own, on loopback
    MAILDIR = "maildir"  # files instead of a server
    NULL = "null"  # nothing at all

    @property
    def is_rehearsal(self) -> bool:
        """Whether nobody is written to."""
        return self is not Kind.SMTP


class Tls(Enum):
    """How the connection is secured."""

    IMPLICIT = "implicit"  # from the first octet, RFC 8314
    REQUIRED = "required"  # by STARTTLS, or not at all
    OPPORTUNISTIC = "opportunistic"  # by STARTTLS if offered; no login without it
    OFF = "off"


class Secret:
    """A password: shows itself to nobody but `reveal()`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The password itself.  For the login only."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not copied or stored")


@dataclass(frozen=True, slots=True)
class Oauth:
    """How an access token is got with a refresh token (RFC 6749 §6), without the secrets: only where they are.

    `client_secret_from` may be empty: a public client has none.  Raises `ConfigError` for a `token_url` that secrets
    must not be sent to: over https, or in clear text to this machine alone.
    """

    token_url: str
    client_id: str
    scope: str = ""
    client_secret_from: str = field(default="", repr=False)
    refresh_token_from: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not _keeps_secrets(self.token_url):
            raise ConfigError(
                "token_url is not an address that secrets may be sent to",
                hint='write "https://", the host and the path, as the provider gives it',
            )


def _keeps_secrets(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or parts.fragment or not url.isascii() or has_control(url) or " " in url:
        return False
    if parts.scheme != "http":
        return parts.scheme == "https"
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay without its password, so that it can be shown, logged and stored.

    `connections` is the most sessions at a time, 1 to 1000; `depth` the most messages under way on one of them, 1 to
    64, where the relay bears it.  `directory` is where `maildir:` (or the sandbox, if it
    says so) keeps mail.  `password_from` names where the password comes from: `"env:NAME"`, `"file:PATH"`,
    `"keyring:"`, `"command:…"`, or empty for the usual places.  A login by access token has `token_from`, `"file:PATH"`
    or `"command:…"`, or `oauth`, instead.  `client_certificate` and `client_key` are PEM files, the key also in the
    certificate's; `key_password_from` is where its password comes from, if it has one.
    `source_address` is the IP address of ours that connections come from; empty leaves that to the system.
    `proxy` is what they go through, a URL as `parse_proxy()` gives it, without the password that `proxy_password_from`
    says the place of.
    """

    kind: Kind
    host: str = ""
    port: int = 0
    username: str = ""
    tls: Tls = Tls.REQUIRED
    connections: int = 10
    depth: int = 8
    ca_file: str = ""
    directory: str = ""
    ehlo_name: str = ""
    plaintext_login: bool = False
    password_from: str = field(default="", repr=False)
    client_certificate: str = ""
    client_key: str = ""
    key_password_from: str = field(default="", repr=False)
    source_address: str = ""
    proxy: str = ""
    proxy_password_from: str = field(default="", repr=False)
    token_from: str = field(default="", repr=False)
    oauth: Oauth | None = None

    @property
    def wants_token(self) -> bool:
        """Whether the login is by access token and not by password."""
        return bool(self.token_from or self.oauth)

    def __str__(self) -> str:
        if self.kind is not Kind.SMTP:
            return f"{self.kind.value}:{self.directory}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.username}@" if self.username else ""
        return f"{'smtps' if self.tls is Tls.IMPLICIT else 'smtp'}://{user}{host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> Relay:
        """The relay a URL means.  Raises `ConfigError`, also for a password in it: that would be seen by everybody."""
        if has_control(unquote(url.strip())):
            raise ConfigError("the relay URL has a control character in it", hint=EXAMPLES)
        scheme, colon, rest = url.strip().partition(":")
        scheme = scheme.lower()
        if not colon:
            raise ConfigError(f"{url!r} is not a relay URL", hint=EXAMPLES)
        if scheme == "null":
            return cls(Kind.NULL)
        if scheme in ("sandbox", "maildir"):
            directory = unquote(rest.removeprefix("//"))
            if scheme == "maildir" and not directory:
                raise ConfigError("maildir: needs a folder", hint='write "maildir:out"')
            return cls(Kind(scheme), directory=directory)
        if scheme not in ("smtp", "smtps"):
            raise ConfigError(f"{scheme}: is not a kind of relay", hint=EXAMPLES)
        return _parse_smtp(scheme, url.strip())


_OPTIONS = {"connections", "depth", "tls", "ca_file", "ehlo", "auth", "source", "client_certificate", "client_key"}


def _parse_smtp(scheme: str, url: str) -> Relay:
    parts, host, port = _authority(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        if "@" in unknown[0]:
            raise _password_error()
        raise ConfigError(f"a relay URL has no option {unknown[0]!r}", hint=f"known are {', '.join(sorted(_OPTIONS))}")
    if options.get("auth", "plaintext") != "plaintext":
        raise ConfigError(f"auth={options['auth']!r} in the relay URL", hint='the only value is "plaintext"')
    return Relay(
        kind=Kind.SMTP,
        host=host,
        port=port or (465 if scheme == "smtps" else 587),
        username=unquote(parts.username or ""),
        tls=_tls(scheme, options),
        connections=parse_connections(options.get("connections", "10")),
        depth=_depth(options.get("depth", "8")),
        ca_file=options.get("ca_file", ""),
        ehlo_name=options.get("ehlo", ""),
        plaintext_login="auth" in options,
        source_address=parse_source(options.get("source", "")),
        client_certificate=options.get("client_certificate", ""),
        client_key=options.get("client_key", ""),
    )


def _authority(url: str) -> tuple[SplitResult, str, int]:
    """The parts of `url`, its host and its port (0 when it names none).  No error repeats a piece of a password."""
    authority = url.partition("//")[2]
    for end in "/?#":
        authority = authority.partition(end)[0]
    userinfo, at, place = authority.rpartition("@")
    if ":" in userinfo:
        raise _password_error()
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        port = 0
    if port == 0:
        if not at and "@" in url:  # a password with one of / ? # in it ends the authority early
            raise _password_error()
        raise ConfigError(f"cannot read {place!r} as the relay's host and port", hint=EXAMPLES)
    if not host:
        raise ConfigError("the relay URL names no host", hint=EXAMPLES)
    if parts.path not in ("", "/") or parts.fragment:
        if "@" in parts.path + parts.fragment:
            raise _password_error()
        raise ConfigError(f"the relay URL has {parts.path or '#'!r} after the host", hint=EXAMPLES)
    return parts, host, port or 0


def _password_error() -> ConfigError:
    return ConfigError(
        "a relay URL must not hold a password: it would be seen in the process list and in shell history",
        hint="leave it out and set BULKMAIL_PASSWORD, or let bulkmail ask for it",
    )


def _tls(scheme: str, options: dict[str, str]) -> Tls:
    if scheme == "smtps":
        if "tls" in options:
            raise ConfigError("smtps: has TLS from the first octet; tls= does not go with it", hint=EXAMPLES)
        return Tls.IMPLICIT
    try:
        tls = Tls(options.get("tls", "required"))
        if tls is Tls.IMPLICIT:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"tls={options['tls']!r} in the relay URL", hint="write tls=required, opportunistic or off"
        ) from None
    return tls


def _depth(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 2 or not 1 <= int(text) <= 64:
        raise ConfigError(f"depth={text[:20]!r}", hint="write a number from 1 to 64")
    return int(text)


def parse_connections(text: str) -> int:
    """How many sessions at a time, 1 to 1000.  Raises `ConfigError`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= 1000):
        raise ConfigError(f"connections={text!r}", hint="write a number from 1 to 1000")
    return int(text)


def parse_source(text: str) -> str:
    """The IP address that connections come from, or nothing.  Raises `ConfigError`."""
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError:
        raise ConfigError(
            f"source={text[:60]!r} is not an IP address", hint="write one of this computer's, such as 192.0.2.7"
        ) from None


def parse_proxy(text: str) -> str:
    """A proxy's URL, `socks5://user@host:1080`.  Raises `ConfigError`, also for a password in it; repeats no piece."""
    mend = 'write "socks5://host:1080", or "socks5://user@host:1080" for one that wants a login'
    if ":" in text.partition("//")[2].rpartition("@")[0]:
        raise ConfigError("must not hold a password", hint="write proxy_password_env, _file or _command into [relay]")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        port = None
    if not port or not parts.hostname or has_control(unquote(text)) or not text.isascii() or " " in text:
        raise ConfigError("is not the URL of a proxy", hint=mend)
    if parts.scheme != "socks5" or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError("is not the URL of a proxy", hint=mend)
    return text.rstrip("/")
