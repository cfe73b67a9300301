"""The server that takes the mail, and how to reach it, as a relay URL and the sources of its secrets say."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from dataclasses import field
from enum import Enum
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import has_control

# -- The places that a secret may come from, as settings and programs name them.


class SecretKind(Enum):
    """What kind of place it is; the value is what its name begins with."""

    ENV = "env"  # a variable of the environment
    FILE = "file"
    COMMAND = "command"  # what it prints
    KEYRING = "keyring"  # of the system, under the relay's host and user
    URL = "url"  # an address that is written down as it is: it may hold a secret, and need not


@dataclass(frozen=True, slots=True)
class SecretSource:
    """`"env:NAME"`, `"file:PATH"`, `"command:…"`, `"keyring:"` or `"url:https://…"`, taken apart."""

    kind: SecretKind
    where: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> SecretSource | None:
        """The place that `text` names; None if it is empty.  Raises `ConfigError` that does not repeat it."""
        if not text:
            return None
        kind, _, where = text.partition(":")
        try:
            return cls(SecretKind(kind), where)
        except ValueError:
            raise ConfigError(
                "that is no place a secret can come from", hint='write "env:NAME", "file:PATH" or "command:PROGRAM"'
            ) from None

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.where}"


def commands_of(*places: str) -> tuple[str, ...]:
    """The commands among `places`, each as it is named there."""
    sources = map(SecretSource.parse, places)
    return tuple(each.where for each in sources if each is not None and each.kind is SecretKind.COMMAND)


# -- What the relay is asked to report about a message's further way (RFC 3461).


EVENTS = ("success", "failure", "delay")


@dataclass(frozen=True, slots=True)
class Dsn:
    """Reports on these events, some of `EVENTS`, come to the reverse path; none of them: not even bounces.

    `returns_full`: a report of a failure brings back the whole message and not only its headers.
    """

    events: tuple[str, ...]
    returns_full: bool = False


def parse_dsn(text: str, *, returns: str = "headers") -> Dsn:
    """The reports in `"failure, delay"` or `"never"`; `returns` is `"headers"` or `"full"`.  Raises `ConfigError`."""
    if returns not in ("headers", "full"):
        raise ConfigError(f"dsn_return={returns[:40]!r}", hint="write headers or full")
    words = [word for word in re.split(r"[,\s]+", text.strip().lower()) if word]
    if words == ["never"]:
        return Dsn((), returns == "full")
    if not words or not set(words) <= set(EVENTS):
        raise ConfigError(
            f"dsn={text[:60]!r}", hint='write one or several of success, failure and delay, or "never" for no bounces'
        )
    return Dsn(tuple(event for event in EVENTS if event in words), returns == "full")


# -- The server that takes the mail, and how to reach it, as said by a relay URL.


EXAMPLES = 'write "smtp://user@mail.example.com:587", "smtps://mail.example.com", "sandbox:", "maildir:DIR" or "null:"'


class Kind(Enum):
    """What is at the other end."""

    SMTP = "smtp"
    SANDBOX = "sandbox"  # a real SMTP server of our own, on loopback
    MAILDIR = "maildir"  # files instead of a server
    NULL = "null"  # nothing at all

    @property
    def is_rehearsal(self) -> bool:
        """Whether no mail is delivered."""
        return self is not Kind.SMTP


class Tls(Enum):
    """How the connection is secured."""

    IMPLICIT = "implicit"  # from the first byte, RFC 8314
    REQUIRED = "required"  # by STARTTLS, or not at all
    OPPORTUNISTIC = "opportunistic"  # by STARTTLS if offered; no login without it
    OFF = "off"


class Secret:
    """A password that only `reveal()` shows."""

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


@dataclasses.dataclass(frozen=True, slots=True)
class Relay:
    """A relay without its password, so that it can be shown, logged and stored.

    `connections` is the most sessions at a time, 1 to 1000; `depth` the most messages under way on one of them, 1 to
    64, where the relay tolerates it.  `directory` is where `maildir:` (or the sandbox, if it
    says so) keeps mail.  `password_from` names where the password comes from: `"env:NAME"`, `"file:PATH"`,
    `"keyring:"`, `"command:…"`, or empty for the usual places.  A login by access token has `token_from`, `"file:PATH"`
    or `"command:…"`, or `oauth`, instead.  `client_certificate` and `client_key` are PEM files, the key also in the
    certificate's; `key_password_from` is where its password comes from, if it has one.
    `source_address` is the IP address of ours that connections come from; empty leaves that to the system.
    `proxy` is what they go through, a URL as `parse_proxy()` gives it, without the password that `proxy_password_from`
    says the place of.

    `is_lmtp`: it speaks LMTP (RFC 2033).  `socket_path` is a Unix socket's, absolute, in place of host and port.
    `dsn` is what it is asked to report, if it can.  `requires_tls`: no server may pass the message on in clear text; a
    relay that does not promise that (RFC 8689) is not used.
    It has more attributes than a class should: each is one part of the URL that it is read from.
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
    is_lmtp: bool = False
    socket_path: str = ""
    dsn: Dsn | None = None
    requires_tls: bool = False
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
        protocol = "lmtp" if self.is_lmtp else "smtp"
        if self.socket_path:
            return f"{protocol}+unix://{self.socket_path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.username}@" if self.username else ""
        return f"{'smtps' if self.tls is Tls.IMPLICIT else protocol}://{user}{host}:{self.port}"

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return f"the socket {self.socket_path}" if self.socket_path else f"{self.host} port {self.port}"

    @property
    def peer(self) -> str:
        """What it is called in a sentence about what it said."""
        return self.host or f"the server at {self.socket_path}"

    @classmethod
    def parse(cls, url: str) -> Relay:
        """The relay a URL means.  Raises `ConfigError`, also for a password in it: that would be seen by everyone."""
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
        if scheme in ("smtp+unix", "lmtp+unix") or (scheme == "lmtp" and rest.startswith("///")):
            return _parse_socket(scheme, url.strip())
        if scheme not in ("smtp", "smtps", "lmtp"):
            raise ConfigError(f"{scheme}: is not a kind of relay", hint=EXAMPLES)
        return _parse_smtp(scheme, url.strip())


_OPTIONS = {"connections", "depth", "tls", "ca_file", "ehlo", "auth", "dsn", "dsn_return", "requiretls"} | {
    "source",
    "client_certificate",
    "client_key",
}
_OVER_SOCKET = {"connections", "depth", "ehlo", "auth", "dsn", "dsn_return"}
_PORTS = {"smtp": 587, "smtps": 465, "lmtp": 24}
_LONGEST_SOCKET_PATH = 107  # bytes, as Linux has it


def _parse_socket(scheme: str, url: str) -> Relay:
    """`lmtp:///run/dovecot/lmtp`, `smtp+unix:///run/mta/smtp`."""
    path, _, query = url.partition(":")[2].partition("?")
    host, slash, rest = path.removeprefix("//").partition("/")
    path = unquote(slash + rest)
    if "@" in host:
        raise _password_error() if ":" in host else ConfigError("a Unix socket's URL has no user name", hint=EXAMPLES)
    if host or not path.strip("/") or "#" in path or len(path.encode()) > _LONGEST_SOCKET_PATH:
        raise ConfigError(
            f"{scheme}: needs the whole path of a Unix socket, of at most {_LONGEST_SOCKET_PATH} bytes",
            hint='write three slashes, as in "lmtp:///run/dovecot/lmtp"',
        )
    options = _read_options(query, known=_OVER_SOCKET)
    return Relay(
        kind=Kind.SMTP,
        tls=Tls.OFF,
        is_lmtp=scheme.startswith("lmtp"),
        socket_path=path,
        connections=parse_connections(options.get("connections", "10")),
        depth=_depth(options.get("depth", "8")),
        ehlo_name=options.get("ehlo", ""),
        plaintext_login=_plaintext_login(options),
        dsn=_dsn(options),
    )


def _read_options(query: str, *, known: set[str]) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(options.keys() - known)
    if unknown:
        if "@" in unknown[0]:
            raise _password_error()
        if unknown[0] in _OPTIONS:
            raise ConfigError(f"{unknown[0]}= does not go with a Unix socket", hint="leave it out")
        raise ConfigError(f"a relay URL has no option {unknown[0]!r}", hint=f"known are {', '.join(sorted(known))}")
    return options


def _parse_smtp(scheme: str, url: str) -> Relay:
    parts, host, port = _authority(url)
    options = _read_options(parts.query, known=_OPTIONS)
    tls = _tls(scheme, options, host=host)
    return Relay(
        kind=Kind.SMTP,
        host=host,
        port=port or _PORTS[scheme],
        username=unquote(parts.username or ""),
        tls=tls,
        connections=parse_connections(options.get("connections", "10")),
        depth=_depth(options.get("depth", "8")),
        ca_file=options.get("ca_file", ""),
        ehlo_name=options.get("ehlo", ""),
        plaintext_login=_plaintext_login(options),
        is_lmtp=scheme == "lmtp",
        dsn=_dsn(options),
        requires_tls=check_requiretls(options.get("requiretls", "no"), tls=tls),
        source_address=parse_source(options.get("source", "")),
        client_certificate=options.get("client_certificate", ""),
        client_key=options.get("client_key", ""),
    )


def _plaintext_login(options: dict[str, str]) -> bool:
    if options.get("auth", "plaintext") != "plaintext":
        raise ConfigError(f"auth={options['auth']!r} in the relay URL", hint='the only value is "plaintext"')
    return "auth" in options


def _dsn(options: dict[str, str]) -> Dsn | None:
    if "dsn" not in options:
        if "dsn_return" in options:
            raise ConfigError("dsn_return= says nothing without dsn=", hint="add dsn=failure, or leave it out")
        return None
    return parse_dsn(options["dsn"], returns=options.get("dsn_return", "headers"))


def check_requiretls(text: str, *, tls: Tls) -> bool:
    """Whether `"yes"` or `"no"` asks for REQUIRETLS.  Raises `ConfigError` where it could not be had."""
    if text not in ("yes", "no"):
        raise ConfigError(f"requiretls={text[:20]!r}", hint="write yes or no")
    if text == "yes" and tls not in (Tls.IMPLICIT, Tls.REQUIRED):
        raise ConfigError(
            "requiretls asks for TLS all the way, and this relay may be reached without",
            hint="leave tls= out of the relay URL, or write smtps://",
        )
    return text == "yes"


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


def _tls(scheme: str, options: dict[str, str], *, host: str) -> Tls:
    if scheme == "smtps":
        if "tls" in options:
            raise ConfigError("smtps: has TLS from the first byte; tls= does not go with it", hint=EXAMPLES)
        return Tls.IMPLICIT
    try:
        # LMTP is for local delivery: on this machine the connection cannot be intercepted.
        tls = Tls(options.get("tls", "off" if scheme == "lmtp" and is_this_machine(host) else "required"))
        if tls is Tls.IMPLICIT:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"tls={options['tls']!r} in the relay URL", hint="write tls=required, opportunistic or off"
        ) from None
    return tls


def is_this_machine(host: str) -> bool:
    """Whether a host's name is that of loopback; a name may lead there all the same."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None


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
    """A proxy's URL, `socks5://user@host:1080` or `http://user@host:3128`.

    Raises `ConfigError`, also for a password in it; repeats no piece.
    """
    fix = 'write "socks5://host:1080" or "http://host:3128", and "user@" before the host if it wants a login'
    if ":" in text.partition("//")[2].rpartition("@")[0]:
        raise ConfigError("must not hold a password", hint="write proxy_password_env, _file or _command into [relay]")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        port = None
    if not port or not parts.hostname or has_control(unquote(text)) or not text.isascii() or " " in text:
        raise ConfigError("is not the URL of a proxy", hint=fix)
    if parts.scheme not in ("socks5", "http") or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError("is not the URL of a proxy", hint=fix)
    return text.rstrip("/")
