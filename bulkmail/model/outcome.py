"""What an attempt comes to: reply or fault, outcome for the mail, whose doing it was, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum, StrEnum
from typing import NamedTuple

from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.text import LONGEST_TEXT, printable

# -- What a relay answered, or what broke before it could.


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


# -- What an attempt comes to: the outcome for the mail, whose doing it was, why, and what is to be done about it.


class Outcome(Enum):
    """What becomes of the mail."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    REJECTED = "rejected"
    IN_DOUBT = "in_doubt"


class Scope(Enum):
    """Whose doing it was: decides what happens to the session and to the campaign."""

    RECIPIENT = "recipient"  # keep the session
    MESSAGE = "message"  # keep the session
    SESSION = "session"  # drop it
    PROVIDER = "provider"  # slow or suspend the recipient's provider
    RELAY = "relay"  # slow or suspend the relay; repeated, stop the campaign
    SENDER = "sender"  # stop the campaign


class Effect(Enum):
    """What a throttling reply lowers."""

    SLOWER = "slower"  # the rate
    FEWER = "fewer"  # the connections


class Reason(StrEnum):
    """Why, in a few words: what code compares, and what reports group by where a rule has no label of its own."""

    ACCEPTED = "accepted"
    IN_DOUBT = "no answer to the end of the message"
    STOPPED = "stopped"
    DESYNC = "the server broke the protocol"
    OUT_OF_STEP = "out of step"
    FAULT = "fault"
    UNSENDABLE = "cannot be sent through this relay"
    # us
    NEW_PASSWORD = "new password needed"  # noqa: S105 - what a server said
    LOGIN_LATER = "login not possible now"
    TOO_MANY_LOGINS = "too many logins"
    APP_PASSWORD_NEEDED = "app password needed"  # noqa: S105
    BROWSER_LOGIN_NEEDED = "login with a browser needed"
    LOGIN_REFUSED = "login refused"
    LOGIN_DISABLED = "login with a password is switched off"
    LOGIN_REQUIRED = "login or TLS required"
    CREDITS_USED_UP = "credits used up"
    UNAVAILABLE = "service not available"
    NOT_READY = "relay not ready"
    TURNED_AWAY = "relay refuses the connection"
    NO_ROOM = "relay out of room"
    NOT_SUPPORTED = "command or parameter not supported"
    TOO_MANY_CONNECTIONS = "too many connections"
    SESSION_SPENT = "too many refusals in one session"
    SESSION_FULL = "enough messages in one session"
    TOO_MANY_RECIPIENTS = "too many recipients"
    THROTTLED = "throttled"
    QUOTA = "sending quota used up"
    SENDER_REFUSED = "sender refused"
    SENDER_BLOCKED = "sender blocked"
    SENDER_FULL = "sender's mailbox full"
    NOT_VERIFIED = "sender or account not verified"
    ACCOUNT_REFUSED = "account refused"
    CLIENT_REFUSED = "our host or IP address refused"
    BLOCK_LISTED = "on a block list"
    UNAUTHENTICATED = "SPF, DKIM or DMARC of our domain refused"
    RELAYING_DENIED = "relaying denied"
    HINTED = "refused because of us, by a hint"
    UNSTATED_POLICY = "refused by a policy that is not stated"
    # the recipient
    GREYLISTED = "greylisted"
    MAILBOX_FULL = "mailbox full"
    NOT_NOW = "not now"
    MOVED = "moved"
    UNKNOWN_USER = "unknown user"
    ADDRESS_REFUSED = "address refused"
    RECIPIENT_RULE = "refused for this recipient"
    REFUSED = "refused"
    # the message
    TOO_BIG = "too big"
    POLICY = "policy"
    CONTENT_REFUSED = "content refused"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`label` is what reports call it where that is more than the `reason`.  `counts`: the try counts against the row.

    `stops`: no other row would succeed, so that the campaign stops and every row stays as it is.  `strikes`: a
    permanent refusal of us that leaves the row as it is; a few in a row stop the campaign.  `probes`: a temporary one;
    one message at a time tries again.  `drops`: the session cannot be used again.
    `suspend` is how long the provider or relay is paused and `pause` how long the account, in seconds.
    """

    outcome: Outcome
    scope: Scope
    reason: Reason
    counts: bool = True
    stops: bool = False
    drops: bool = False
    label: str = ""
    strikes: bool = False
    probes: bool = False
    effects: frozenset[Effect] = frozenset()
    suspend: float = 0.0
    pause: float = 0.0

    @property
    def says(self) -> str:
        """The reason in the words of the report."""
        return self.label or self.reason.value


def deferred(scope: Scope, reason: Reason, *, counts: bool = True, drops: bool = False, label: str = "") -> Verdict:
    """To be tried again."""
    return Verdict(Outcome.DEFERRED, scope, reason, counts=counts, drops=drops, label=label)


def rejected(scope: Scope, reason: Reason) -> Verdict:
    """Never to be tried again."""
    return Verdict(Outcome.REJECTED, scope, reason)


def stop(scope: Scope, reason: Reason, *, label: str = "") -> Verdict:
    """The campaign stops, and the row stays as it is."""
    return Verdict(Outcome.DEFERRED, scope, reason, counts=False, stops=True, drops=True, label=label)


def throttle(scope: Scope, *effects: Effect, label: str = "", suspend: float = 0.0) -> Verdict:
    """To be sent again, more slowly or over fewer sessions."""
    is_connections = effects == (Effect.FEWER,)
    return Verdict(
        Outcome.DEFERRED,
        scope,
        Reason.TOO_MANY_CONNECTIONS if is_connections else Reason.THROTTLED,
        counts=False,
        drops=is_connections,
        label=label,
        effects=frozenset(effects),
        suspend=suspend,
    )


def quota(pause: float, *, label: str = "") -> Verdict:
    """The account has used up its quota, and is paused for `pause` seconds."""
    return replace(stop(Scope.SENDER, Reason.QUOTA, label=label), pause=pause)


def session_full(label: str = "") -> Verdict:
    """The message goes over another session."""
    return deferred(Scope.SESSION, Reason.SESSION_FULL, counts=False, drops=True, label=label)


# -- What to do about a refusal that is about us: one sentence for each reason, wherever it is shown.


class Advice(NamedTuple):
    """`says` follows the name of the server: "refused the login".  `fix` is what to do, without a capital."""

    says: str
    fix: str


_WITH_USER = "put the user name into the relay URL: smtp://user@host"
_OWN_ADDRESS = "send from an address that this account may use; providers have a list of verified senders"
_QUOTA = "wait until the provider's quota is free again"

ADVICE: dict[Reason, Advice] = {
    Reason.LOGIN_REFUSED: Advice(
        "refused the login",
        "check user name and password; the name is often the whole address, and some providers want an app password",
    ),
    Reason.LOGIN_DISABLED: Advice(
        "has switched off logins with a password for this account",
        "log in with a token (see OAuth in the guide), or ask the account's administrator to allow SMTP logins "
        "(at Microsoft: aka.ms/smtp_auth_disabled)",
    ),
    Reason.LOGIN_LATER: Advice("cannot check the password at the moment", "try again in some minutes"),
    Reason.TOO_MANY_LOGINS: Advice(
        "has seen too many logins and takes none for now", "wait an hour, then try once with the right password"
    ),
    Reason.APP_PASSWORD_NEEDED: Advice(
        "wants an app password here, not the password of the account",
        "make one in the security settings of the account (at Google: myaccount.google.com/apppasswords), "
        "and use it as the password",
    ),
    Reason.BROWSER_LOGIN_NEEDED: Advice(
        "wants you to sign in with a browser first", "sign in there once and confirm that it was you; then try again"
    ),
    Reason.CREDITS_USED_UP: Advice("says that the account's credits are used up", "buy more at the provider"),
    Reason.LOGIN_REQUIRED: Advice("wants a login or TLS first", _WITH_USER),
    Reason.RELAYING_DENIED: Advice(
        "does not relay this mail for us",
        "without a login most servers take mail for their own people only; check user name and address",
    ),
    Reason.SENDER_REFUSED: Advice("refused the sender", _OWN_ADDRESS),
    Reason.SENDER_BLOCKED: Advice("blocked the sender", "ask the provider why"),
    Reason.SENDER_FULL: Advice("says that the sender's own mailbox is full", "make room in it"),
    Reason.NOT_VERIFIED: Advice(
        "says that the sender or the account is not verified",
        "verify the sender address, the domain or the account there",
    ),
    Reason.ACCOUNT_REFUSED: Advice("refuses this account", "ask the provider what is wrong with the account"),
    Reason.CLIENT_REFUSED: Advice(
        "refuses this computer's address or name",
        "send through a relay that you have a login for, or have the address and its reverse DNS name permitted there",
    ),
    Reason.BLOCK_LISTED: Advice(
        "says that this address is on a block list",
        "have it removed from the list that the reply names, or send through another relay",
    ),
    Reason.UNAUTHENTICATED: Advice(
        "refuses mail whose SPF, DKIM or DMARC check fails",
        "let the SPF and DKIM records of the sender's domain cover this server; check --online shows what is missing",
    ),
    Reason.HINTED: Advice(
        "refuses something about us and does not say what",
        "look up what the reply names, or ask the server's postmaster; usual causes are sender, login and IP address",
    ),
    Reason.UNSTATED_POLICY: Advice(
        "refuses by a policy and does not say of whom",
        "look up what the reply names, or ask the server's postmaster; usual causes are sender, login and IP address",
    ),
    Reason.QUOTA: Advice("says that the sending quota is used up", _QUOTA),
    Reason.THROTTLED: Advice("asks for fewer messages", "lower rate or connections"),
    Reason.POLICY: Advice(
        "refused the message", "fix what the server complains of: links, attachments, wording of the message"
    ),
}


def advice(reason: Reason) -> Advice | None:
    """What to do about `reason`, None where it is not for us to do anything."""
    return ADVICE.get(reason)
