"""Judging a reply or a fault: what becomes of the mail, and whose doing it was.

The table follows RFC 5321 §4.2 and what large providers are known to answer; the first rule that fits decides.  Text is
read only to soften a refusal (a quota is not a dead address), never to find success in one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from bulkmail.model.reply import Breakage, Fault, Reply, Stage


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
    LANE = "lane"  # slow or suspend the recipient's provider
    RELAY = "relay"  # slow or suspend the relay; repeated, stop the campaign
    SENDER = "sender"  # stop the campaign


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is a word or three for grouping, `"unknown user"`.  `counts`: whether the try counts against the row.

    `stops`: no other row would fare better, so that the campaign stops and every row stays as it is.
    `drops`: the session cannot be used again.
    """

    outcome: Outcome
    scope: Scope
    reason: str
    counts: bool = True
    stops: bool = False
    drops: bool = False


def judge(event: Reply | Fault) -> Verdict:
    """The verdict on how an attempt ended."""
    return _judge_fault(event) if isinstance(event, Fault) else _judge_reply(event)


_ACCEPTED = Verdict(Outcome.ACCEPTED, Scope.RECIPIENT, "accepted")
_IN_DOUBT = Verdict(Outcome.IN_DOUBT, Scope.SESSION, "no answer to the end of the message", drops=True)


def _deferred(scope: Scope, reason: str, *, counts: bool = True, drops: bool = False) -> Verdict:
    return Verdict(Outcome.DEFERRED, scope, reason, counts=counts, drops=drops)


def _rejected(scope: Scope, reason: str) -> Verdict:
    return Verdict(Outcome.REJECTED, scope, reason)


def _stop(scope: Scope, reason: str, *, drops: bool = True) -> Verdict:
    return Verdict(Outcome.DEFERRED, scope, reason, counts=False, stops=True, drops=drops)


def _judge_fault(fault: Fault) -> Verdict:
    if fault.stage is Stage.END:
        return _IN_DOUBT  # whatever broke: the server may have the message
    match fault.kind:
        case Breakage.UNTRUSTED | Breakage.NO_TLS | Breakage.NO_LOGIN | Breakage.NO_REQUIRETLS:
            return _stop(Scope.RELAY, fault.kind.value)
        case Breakage.NO_TOKEN | Breakage.IMPOSTOR | Breakage.WRONG_TLS:
            return _stop(Scope.RELAY, fault.kind.value)
        case Breakage.UNSENDABLE:
            return _rejected(Scope.MESSAGE, "cannot be sent through this relay")
        case Breakage.STOPPED:
            return _deferred(Scope.SESSION, "stopped", counts=False, drops=True)
    if fault.stage in _OPENING:
        return _deferred(Scope.RELAY, fault.kind.value, counts=False, drops=True)
    # A message whose content makes the server hang up must not be tried for ever: what breaks in the body counts.
    return _deferred(Scope.SESSION, fault.kind.value, counts=fault.stage is Stage.BODY, drops=True)


_OPENING = {Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.AUTH}


def _judge_reply(reply: Reply) -> Verdict:
    if reply.is_positive:
        return _ACCEPTED if reply.stage is Stage.END else _desync(reply)
    if reply.is_intermediate:
        return _desync(reply)
    for rule in _RULES:
        if rule.fits(reply):
            return rule.verdict
    raise AssertionError(f"no rule fits {reply}")  # the last ones are by digit


def _desync(reply: Reply) -> Verdict:
    """A 2xx or 3xx where it makes no sense; after the terminator even that leaves the message in doubt."""
    if reply.stage is Stage.END:
        return _IN_DOUBT
    return _deferred(Scope.SESSION, "the server broke the protocol", counts=False, drops=True)


@dataclass(frozen=True, slots=True)
class _Rule:
    """Fits a reply by code (`"550"`, `"4"` for any 4xx), stage, enhanced code and text; empty means any."""

    codes: str
    verdict: Verdict
    stages: frozenset[Stage] = frozenset()
    enhanced: str = ""
    text: re.Pattern[str] | None = None

    def fits(self, reply: Reply) -> bool:
        return (
            any(str(reply.code).startswith(code) for code in self.codes.split())
            and (not self.stages or reply.stage in self.stages)
            and (not self.enhanced or reply.enhanced in self.enhanced.split())
            and (self.text is None or self.text.search(f"{reply.enhanced} {reply.text}") is not None)
        )


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_AUTH = frozenset({Stage.AUTH})
_MAIL = frozenset({Stage.MAIL})
_RCPT = frozenset({Stage.RCPT})
_ENVELOPE = frozenset({Stage.MAIL, Stage.RCPT, Stage.DATA})
_CONTENT = frozenset({Stage.DATA, Stage.BODY, Stage.END})
_OPENING_STAGES = frozenset(_OPENING)

_TOO_MANY_ERRORS = _words(
    r"\berror limit\b|\btoo many (errors|syntax|non-?mail|unrecogni[sz]ed|"
    r"(bad|failed|invalid|refused|unknown) (address|command|rcpt|recipient|user))"
)
# The sending account's own; "message size limit exceeded" and a mailbox's "quota exceeded" are not.
_QUOTA = _words(
    r"\b(sending|submission|relay)\b.{0,20}\b(quota|limit)\b.{0,30}\b(exceeded|reached)"
    r"|\bexceeded\b.{0,30}\bsending (quota|limit)|\bdaily message quota\b"
    r"|\b(messages|e?mails|recipients)( per |/|s? an? )(hour|day)\b.{0,40}\b(exceeded|reached|allowed)"
)
# By enhanced code only where it stands in front: further on, the same digits are somebody's IP address.
_PROVIDER_THROTTLE = _words(r"^4\.7\.(28|5\d\d|6\d\d)\b|\[TSS0")
_FULL = _words(
    r"mailbox.{0,20}full|over.?quota|quota exceeded|insufficient (system )?storage|exceed.{0,20}(quota|storage)"
)

_RULES = (
    # Login: one refusal is enough; another try could lock the account.
    _Rule("432", _stop(Scope.RELAY, "new password needed"), _AUTH),  # RFC 4954 §6; elsewhere 432 is a throttle
    _Rule("45", _stop(Scope.RELAY, "credits used up"), _AUTH, text=_words(r"\bcredits? (exceeded|exhausted|used up)")),
    _Rule("4", _deferred(Scope.RELAY, "login not possible now", counts=False, drops=True), _AUTH),
    _Rule(
        "5",
        _stop(Scope.RELAY, "password login switched off"),
        _AUTH,
        text=_words(r"^5\.7\.139\b|basic auth\w* is disabled|SmtpClientAuthentication is disabled"),
    ),
    _Rule("5", _stop(Scope.RELAY, "login refused"), _AUTH),
    # The relay itself will not talk now, or at all.
    _Rule("421", _deferred(Scope.RELAY, "service not available", counts=False, drops=True)),
    _Rule("432", _deferred(Scope.RELAY, "too many connections", counts=False, drops=True)),
    _Rule(
        "5",
        _deferred(Scope.RELAY, "too many connections", counts=False, drops=True),
        _OPENING_STAGES,
        text=_words("too many .{0,30}(connection|session)"),
    ),
    _Rule(
        "5",
        _deferred(Scope.RELAY, "too many connections", counts=False, drops=True),
        text=_words(r"too many (\w+ ){0,3}(connections|sessions)\b"),
    ),
    _Rule("4", _deferred(Scope.RELAY, "relay not ready", counts=False, drops=True), _OPENING_STAGES),
    _Rule("5", _stop(Scope.RELAY, "relay refuses the connection"), _OPENING_STAGES),
    # Throttles and quotas of the sending account: nobody's address is at fault.
    _Rule("454", _stop(Scope.SENDER, "sending quota used up"), text=_words(r"\bdaily\b.{0,20}\bquota\b")),
    _Rule("454", _deferred(Scope.RELAY, "throttled", counts=False), text=_words(r"throttl|\brate\b")),
    _Rule("45", _deferred(Scope.RELAY, "throttled", counts=False), text=_QUOTA),
    _Rule("550 552 554", _stop(Scope.SENDER, "sending quota used up"), enhanced="5.4.5"),
    _Rule("550 554", _stop(Scope.SENDER, "sender blocked"), enhanced="5.2.251 5.2.252 5.2.253 5.2.254 5.2.255"),
    _Rule("554", _stop(Scope.SENDER, "sender's mailbox full"), text=_words("STOREDRV.*Quota|SubmissionQuota")),
    _Rule("550 552 554", _stop(Scope.SENDER, "sending quota used up"), text=_QUOTA),
    # Before anybody is named it is the relay that is busy; afterwards it may be the recipient's provider.
    _Rule("45", _deferred(Scope.RELAY, "throttled", counts=False), _MAIL, text=_PROVIDER_THROTTLE),
    _Rule("45", _deferred(Scope.LANE, "throttled", counts=False), text=_PROVIDER_THROTTLE),
    # Servers end sessions after several refusals; the reply that says so hits whichever command comes next.
    _Rule(
        "45 55",
        _deferred(Scope.SESSION, "too many refusals in one session", counts=False, drops=True),
        _ENVELOPE,
        text=_TOO_MANY_ERRORS,
    ),
    # The envelope sender.
    _Rule("530", _stop(Scope.RELAY, "login or TLS required")),
    _Rule("503", _deferred(Scope.SESSION, "out of step", counts=False, drops=True)),
    _Rule("523", _rejected(Scope.MESSAGE, "too big")),
    _Rule("552 554", _rejected(Scope.MESSAGE, "too big"), enhanced="5.2.3 5.3.4"),
    _Rule("552", _rejected(Scope.MESSAGE, "too big"), _MAIL),
    _Rule("452", _deferred(Scope.RELAY, "relay out of room", counts=False), _MAIL | _CONTENT, enhanced="4.3.1"),
    _Rule("4", _deferred(Scope.RELAY, "not now", counts=False), _MAIL),
    # What MAIL carries besides the sender: SIZE, BODY, SMTPUTF8.  The session has already tried without.
    _Rule("500 502 504 555", _stop(Scope.RELAY, "command or parameter not supported"), _MAIL),
    _Rule("5", _stop(Scope.SENDER, "sender refused"), _MAIL),
    # The recipient.
    _Rule(
        "452",
        _deferred(Scope.SESSION, "too many recipients", counts=False, drops=True),
        _RCPT,
        enhanced="4.5.3",
    ),
    _Rule("452 552", _deferred(Scope.RECIPIENT, "mailbox full"), _RCPT | _CONTENT, enhanced="4.2.2 5.2.2"),
    _Rule("452 552", _deferred(Scope.RECIPIENT, "mailbox full"), _RCPT, text=_FULL),
    _Rule("552", _deferred(Scope.RECIPIENT, "mailbox full"), _RCPT, text=_words("^ ")),  # bare, RFC 5321 §4.5.3.1.10
    _Rule("450 451", _deferred(Scope.RECIPIENT, "greylisted"), text=_words("gr[ea]y.?list")),
    _Rule("4", _deferred(Scope.RECIPIENT, "not now"), _RCPT),
    _Rule("551", _rejected(Scope.RECIPIENT, "moved"), _RCPT),
    _Rule(
        "55",
        _rejected(Scope.RECIPIENT, "unknown user"),
        _RCPT,
        enhanced="5.1.1 5.1.2 5.1.3 5.1.6 5.1.10 5.2.1 5.7.17 5.7.18",
    ),
    _Rule("5", _rejected(Scope.RECIPIENT, "policy"), _RCPT, text=_words(r"^5\.7\.")),
    _Rule(
        "55",
        _rejected(Scope.RECIPIENT, "unknown user"),
        _RCPT,
        text=_words("(unknown|no such|invalid|not exist|does not exist).{0,30}|user.{0,20}(unknown|not found)"),
    ),
    _Rule("501 553", _rejected(Scope.RECIPIENT, "address refused"), _RCPT),
    _Rule("5", _rejected(Scope.RECIPIENT, "refused"), _RCPT),
    # The content.
    _Rule("552", _rejected(Scope.MESSAGE, "too big"), _CONTENT),
    _Rule("4", _deferred(Scope.RECIPIENT, "not now"), _CONTENT),
    _Rule("5", _rejected(Scope.MESSAGE, "policy"), _CONTENT, text=_words(r"^5\.7\.")),
    _Rule("5", _rejected(Scope.MESSAGE, "content refused"), _CONTENT),
)
