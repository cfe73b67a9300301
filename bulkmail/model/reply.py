"""What a relay answered, or what broke before it could."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.pattern import lazy_pattern
from bulkmail.text import LONGEST_TEXT, printable


class Stage(Enum):
    """How far a session or transaction had come.  END begins with the first byte of the terminator."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    END = "end"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply (RFC 5321 §4.2).  `enhanced` is its RFC 2034 code, `"5.1.1"`, or empty.

    `text` is safe to print and to store: one line, no control characters, at most 500 characters.
    """

    stage: Stage
    code: int
    enhanced: str = ""
    text: str = ""

    @property
    def is_positive(self) -> bool:
        """2xx: done (judged by the first digit, RFC 5321 §4.2.1)."""
        return 200 <= self.code < 300

    @property
    def is_intermediate(self) -> bool:
        """3xx: go on."""
        return 300 <= self.code < 400

    @property
    def is_transient(self) -> bool:
        """4xx: not now."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """5xx: not like this."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.code, self.enhanced, self.text) if part)


class Breakage(Enum):
    """What kind of thing broke, where no reply says it."""

    REFUSED = "refused"  # nothing listens there
    UNREACHABLE = "unreachable"  # no route, or no answer to the connection attempt
    NO_SUCH_HOST = "no such host"
    EXHAUSTED = "exhausted"  # this computer gives no more connections
    UNTRUSTED = "untrusted"  # the certificate does not verify
    WRONG_NAME = "wrong name"  # the certificate verifies, and is for another host
    NO_TLS = "no tls"  # TLS is required and not offered
    NO_LOGIN = "no login"  # no way to log in that both sides know and that is safe here
    NO_REQUIRETLS = "no requiretls"  # REQUIRETLS was asked for and is not offered
    NO_TOKEN = "no token"  # noqa: S105 - no access token to log in with is available
    IMPOSTOR = "impostor"  # the server could not prove that it knows the password
    WRONG_TLS = "wrong tls mode"  # TLS from the first byte where it comes later, or the reverse
    TLS = "tls"  # the handshake failed otherwise
    TIMEOUT = "timeout"
    LOST = "lost"  # the connection ended
    DESYNC = "desync"  # the server broke the protocol
    UNSENDABLE = "unsendable"  # this message cannot go over this session: size, SMTPUTF8
    STOPPED = "stopped"  # by us


@dataclass(frozen=True, slots=True)
class Fault:
    """Something broke at `stage`; `what` says it in words that are safe to print and to store."""

    stage: Stage
    kind: Breakage
    what: str

    def __str__(self) -> str:
        return self.what


# Some servers put punctuation right behind it; a fourth number makes it an IP address.
_ENHANCED = lazy_pattern(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?!\.?\w)[.:;,]?\s*")


def make_reply(stage: Stage, code: int, lines: Sequence[str]) -> Reply:
    """A `Reply` from its lines without their codes; an enhanced code counts only if its class is the reply's own.

    A multi-line reply repeats the enhanced code in each line (RFC 2034 §4): it is taken off each.
    """
    enhanced, text = _divided(lines[0], code) if lines else ("", "")
    if len(lines) > 1:
        others = [_divided(line, code) for line in lines[1:]]
        enhanced = enhanced or next((found for found, _ in others if found), "")
        text = " ".join([text, *(rest for _, rest in others)])
    return Reply(stage, code, enhanced, printable(text))


def make_acceptance(text: bytes) -> Reply:
    """The `Reply` to the end of a message that was accepted by `250` and one line of `text`."""
    found = _PLAIN_ACCEPTANCE.fullmatch(text) if len(text) <= LONGEST_TEXT else None
    if found is None:
        return make_reply(Stage.END, 250, (text.decode("utf-8", "replace"),))
    enhanced, words = found.groups()
    return Reply(_END, 250, enhanced.decode() if enhanced else "", words.decode())


# Printable ASCII with single spaces: what `printable()` would leave as it is.
_PLAIN_ACCEPTANCE = lazy_pattern(rb"(?:(2\.[0-9]{1,3}\.[0-9]{1,3}) )?(?!2\.[0-9])([!-~]+(?: [!-~]+)*)")
_END = Stage.END


def _divided(line: str, code: int) -> tuple[str, str]:
    found = _ENHANCED.match(line)
    if found is None or int(line[0]) != code // 100:
        return "", line
    return found[1], line[found.end() :]
