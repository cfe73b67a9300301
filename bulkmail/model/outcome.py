"""What an attempt comes to: the outcome for the mail, whose doing it was, why, and what is to be done about it."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, StrEnum

from bulkmail.model.lazy_dataclass import dataclass


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

    `stops`: no other row would fare better, so that the campaign stops and every row stays as it is.  `strikes`: a
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
