"""Judging a reply or a fault: what becomes of the mail, and whose doing it was.

One table of rules, the first that fits decides.  It follows RFC 5321 §4.2, what large providers are known to answer,
and who or what a refusal names (`wording`).  `data/replies.toml` adds rules of the same kind in front.  Text is read
only to soften a refusal (a quota is not a dead address), never to find success in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import (
    Breakage,
    Effect,
    Fault,
    Outcome,
    Reason,
    Reply,
    Scope,
    Stage,
    Verdict,
    deferred,
    quota,
    rejected,
    session_full,
    stop,
    throttle,
)
from bulkmail.model.quantities import parse_duration
from bulkmail.model.quota import DAY, HOUR
from bulkmail.model.wording import Meaning, Span, Subject, read

__all__ = [
    "ACCEPTED",
    "Effect",
    "Outcome",
    "Reason",
    "ReplyRule",
    "Rule",
    "Scope",
    "Verdict",
    "enhanced_pattern",
    "judge",
]


V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Rule(Generic[V]):
    """Which replies a verdict is for, in our own sessions or in a report of another server.  Empty means any.

    `codes` are beginnings of reply codes, `enhanced` patterns of enhanced status codes, of which an empty one is a
    reply without; with one of `unless` it is not for the reply, and not with `but_not` in its text.  `about` and
    `spans` are what the words mean.  Without a `verdict` the rule says that the reply is about `subject`, and leaves
    the rest to those behind it.  `examples` are texts that it is for.
    """

    codes: tuple[str, ...]
    verdict: V | None
    stages: frozenset[Stage] = frozenset()
    enhanced: tuple[re.Pattern[str], ...] = ()
    text: re.Pattern[str] | None = None
    about: frozenset[Subject] = frozenset()
    spans: frozenset[Span | None] = frozenset()
    subject: Subject = Subject.RECIPIENT
    unless: tuple[re.Pattern[str], ...] = ()
    but_not: re.Pattern[str] | None = None
    examples: tuple[str, ...] = ()

    def fits(self, reply: Reply, meaning: Meaning) -> bool:
        """Whether it is for `reply`, which means that."""
        return (
            str(reply.code).startswith(self.codes)
            and (not self.stages or reply.stage in self.stages)
            and (not self.about or meaning.subject in self.about)
            and (not self.spans or meaning.span in self.spans)
            and self.fits_words(reply.text, reply.enhanced)
        )

    def fits_words(self, text: str, enhanced: str) -> bool:
        """Whether it is for these words with that enhanced code, wherever they come from."""
        return (
            (not self.enhanced or any(pattern.fullmatch(enhanced) for pattern in self.enhanced))
            and not any(pattern.fullmatch(enhanced) for pattern in self.unless)
            and (self.but_not is None or self.but_not.search(text) is None)
            and (self.text is None or self.text.search(text) is not None)
        )


ReplyRule = Rule[Verdict]
"""A rule for what servers answer in our own sessions."""

ACCEPTED = Verdict(Outcome.ACCEPTED, Scope.RECIPIENT, Reason.ACCEPTED)
"""The verdict on every positive reply to the end of a message."""


def judge(event: Reply | Fault, rules: Sequence[ReplyRule] = ()) -> Verdict:
    """The verdict on how an attempt ended; `rules` come before the built-in ones."""
    return _judge_fault(event) if isinstance(event, Fault) else _judge_reply(event, rules)


def rule_of(table: Mapping[str, Any]) -> ReplyRule:
    """An entry of `data/replies.toml`, which says what its keys mean."""
    return Rule(
        codes=tuple(table["codes"].split()),
        verdict=_verdict_of(table),
        stages=frozenset(Stage(name) for name in table.get("stages", ())),
        enhanced=tuple(enhanced_pattern(text) for text in table.get("enhanced", "").split()),
        text=re.compile(table["text"], re.IGNORECASE) if "text" in table else None,
        subject=Subject[table.get("about", "recipient").upper().replace(" ", "_")],
    )


def _verdict_of(table: Mapping[str, Any]) -> Verdict | None:
    match table.get("scope"):
        case None:
            return None
        case "account":
            return quota(parse_duration(table["pause"]), label=table["name"])
        case scope:
            effects = [Effect(name) for name in table["effects"]]
            suspend = parse_duration(table.get("suspend", "0"))
            return throttle(_SCOPES[scope], *effects, label=table["name"], suspend=suspend)


_SCOPES = {"provider": Scope.PROVIDER, "relay": Scope.RELAY}


def enhanced_pattern(text: str) -> re.Pattern[str]:
    """`"4.7.5??"` as a pattern: `?` is any digit, `*` any number."""
    return re.compile(re.escape(text).replace(r"\?", "[0-9]").replace(r"\*", "[0-9]+"))


def _judge_fault(fault: Fault) -> Verdict:
    if fault.stage is Stage.END:
        return _IN_DOUBT  # whatever broke: the server may have the message
    what = fault.kind.value
    match fault.kind:
        case Breakage.UNTRUSTED | Breakage.WRONG_NAME | Breakage.NO_TLS | Breakage.NO_LOGIN | Breakage.NO_REQUIRETLS:
            return stop(Scope.RELAY, Reason.FAULT, label=what)
        case Breakage.NO_TOKEN | Breakage.IMPOSTOR | Breakage.WRONG_TLS:
            return stop(Scope.RELAY, Reason.FAULT, label=what)
        case Breakage.UNSENDABLE:
            return rejected(Scope.MESSAGE, Reason.UNSENDABLE)
        case Breakage.STOPPED:
            return deferred(Scope.SESSION, Reason.STOPPED, counts=False, drops=True)
    if fault.stage in _OPENING:
        return deferred(Scope.RELAY, Reason.FAULT, counts=False, drops=True, label=what)
    # A message whose content makes the server hang up must not be tried for ever: what breaks in the body counts.
    return deferred(Scope.SESSION, Reason.FAULT, counts=fault.stage is Stage.BODY, drops=True, label=what)


def _judge_reply(reply: Reply, rules: Sequence[ReplyRule]) -> Verdict:
    if reply.is_positive:
        return ACCEPTED if reply.stage is Stage.END else _desync(reply)
    if reply.code < 400:
        return _desync(reply)
    meaning = read(reply)
    for rule in (*rules, *_RULES) if reply.stage is not Stage.AUTH else _LOGIN_RULES:
        if rule.fits(reply, meaning):
            if rule.verdict is not None:
                return _at_stage(rule.verdict, reply)
            meaning = Meaning(rule.subject)
    raise AssertionError(f"no rule fits {reply}")  # the last ones are by digit


def _at_stage(verdict: Verdict, reply: Reply) -> Verdict:
    """A reply before a recipient was named cannot mean that recipient's provider, and 421 ends the session."""
    if verdict.scope is Scope.PROVIDER and reply.stage not in _AFTER_RECIPIENT:
        verdict = replace(verdict, scope=Scope.RELAY)
    ends_session = reply.code in (421, 432) or reply.stage in _OPENING
    if ends_session and not verdict.drops and verdict.scope in (Scope.PROVIDER, Scope.RELAY, Scope.SENDER):
        return replace(verdict, drops=True)
    return verdict


def _desync(reply: Reply) -> Verdict:
    """A 2xx or 3xx where it makes no sense; after the terminator even that leaves the message in doubt."""
    if reply.stage is Stage.END:
        return _IN_DOUBT
    return deferred(Scope.SESSION, Reason.DESYNC, counts=False, drops=True)


def _codes(codes: str, verdict: Verdict | None, **more: Any) -> ReplyRule:
    """A rule for these beginnings of codes, `"550 45"`; `enhanced` is written in one string, `"4.7.5?? 4.7.6??"`."""
    if (enhanced := more.pop("enhanced", None)) is not None:
        more["enhanced"] = tuple(enhanced_pattern(each) for each in enhanced.split(" "))
    if (words := more.pop("text", None)) is not None:
        more["text"] = re.compile(words, re.IGNORECASE)
    return Rule(tuple(codes.split()), verdict, **more)


_MAIL = frozenset({Stage.MAIL})
_RCPT = frozenset({Stage.RCPT})
_ENVELOPE = frozenset({Stage.MAIL, Stage.RCPT, Stage.DATA})
_CONTENT = frozenset({Stage.DATA, Stage.BODY, Stage.END})
_OPENING = frozenset({Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.AUTH})
_AFTER_RECIPIENT = _RCPT | _CONTENT
_BEFORE_RECIPIENT = _MAIL | _OPENING

_IN_DOUBT = Verdict(Outcome.IN_DOUBT, Scope.SESSION, Reason.IN_DOUBT, drops=True)
_FEWER = throttle(Scope.RELAY, Effect.FEWER)
_SLOWER = throttle(Scope.RELAY, Effect.SLOWER, label="too fast")
_FULL = deferred(Scope.RECIPIENT, Reason.MAILBOX_FULL)

_CONNECTIONS = (
    r"(too many|maximum number of|exceed(s|ed|ing)?)( [\w-]+){0,4} (connections|sessions|threads?)\b"
    r"|\b(connections?|sessions?|threads?)\b.{0,30}\b(limit|quota)\b.{0,20}(exceeded|reached)"
    r"|\b(concurrency|connections?|sessions?)\b.{0,20}\blimit|\bconcurrency\b.{0,40}\btoo high|(maximum"
    r"|max)\b.{0,20}\bconnections?\b"
)
_MESSAGES_OF_SESSION = (
    r"too many (messages|mails|emails|e-mails|transactions)\b.{0,20}\b(session|connection)\b"
    r"|(messages|transactions|mails|emails) per (session|connection)"
)
_TOO_MANY_ERRORS = (
    r"\berror limit\b|\btoo many (errors|syntax|non-?mail|unrecogni[sz]ed|"
    r"(bad|failed|invalid|refused|unknown) (address|command|rcpt|recipient|user))"
)
_OF_NO_TIME = r"^(?!.*\b(rate|hour|day|daily|minute|second|today|time))"  # else it is a limit on sending
_NO_SPACE = "mailbox.{0,20}full|over.?quota|quota exceeded|insufficient (system )?storage|exceed.{0,20}(quota|storage)"
_NO_USER = "(unknown|no such|invalid|not exist|does not exist).{0,30}|user.{0,20}(unknown|not found)"

_OTHER_LOGIN = "application-specific|app(lication)?[- ]password|BadCredentials|InvalidSecondFactor"
_TOO_MANY_LOGINS = r"\btoo many\b|\blogin (attempts|rate)\b"

# Login: one refusal is enough; another try could lock the account.
_LOGIN_RULES = (
    _codes("432", stop(Scope.RELAY, Reason.NEW_PASSWORD)),  # RFC 4954 §6; elsewhere 432 is a throttle
    _codes(
        "4 5",
        stop(Scope.RELAY, Reason.CREDITS_USED_UP),
        text=r"\bcredits?\b.{0,20}\b(exceeded|exhausted|used)|out of credits",
    ),
    _codes(
        "5",
        stop(Scope.RELAY, Reason.LOGIN_DISABLED),
        text=r"authentication is disabled|auth\w* (is |has been )?disabled",
    ),
    _codes("5", stop(Scope.RELAY, Reason.APP_PASSWORD_NEEDED), text=_OTHER_LOGIN),
    _codes("5", stop(Scope.RELAY, Reason.BROWSER_LOGIN_NEEDED), text=r"web ?browser|WebLoginRequired"),
    _codes("4", deferred(Scope.RELAY, Reason.TOO_MANY_LOGINS, counts=False, drops=True), text=_TOO_MANY_LOGINS),
    _codes("5", stop(Scope.RELAY, Reason.TOO_MANY_LOGINS), text=_TOO_MANY_LOGINS),
    _codes("4", deferred(Scope.RELAY, Reason.LOGIN_LATER, counts=False, drops=True)),
    _codes("5", stop(Scope.RELAY, Reason.LOGIN_REFUSED)),
)


def _about_us() -> Iterator[ReplyRule]:
    """What names us: 5xx strike, and stop at once before a recipient is named; 4xx pause the relay."""
    for subject, scope, reason in (
        (Subject.SENDER, Scope.SENDER, Reason.SENDER_REFUSED),
        (Subject.VERIFICATION, Scope.SENDER, Reason.NOT_VERIFIED),
        (Subject.ACCOUNT, Scope.SENDER, Reason.ACCOUNT_REFUSED),
        (Subject.CLIENT, Scope.RELAY, Reason.CLIENT_REFUSED),
        (Subject.LOGIN, Scope.RELAY, Reason.LOGIN_REQUIRED),
        (Subject.RELAYING, Scope.RELAY, Reason.RELAYING_DENIED),
        (Subject.BLOCK_LIST, Scope.RELAY, Reason.BLOCK_LISTED),
        (Subject.AUTHENTICATION, Scope.SENDER, Reason.UNAUTHENTICATED),
    ):
        about = frozenset({subject})
        later = deferred(scope=Scope.RELAY, reason=reason, counts=False)
        yield _codes("4", replace(later, probes=True), about=about)
        yield _codes("5", stop(scope, reason), about=about, stages=_BEFORE_RECIPIENT)
        yield _codes("5", replace(later, scope=scope, strikes=True), about=about)
    for subject, reason in ((Subject.HINTED, Reason.HINTED), (Subject.UNSTATED, Reason.UNSTATED_POLICY)):
        unstated = replace(deferred(Scope.RELAY, reason, counts=False), strikes=True)
        yield _codes("5", unstated, about=frozenset({subject}), stages=_AFTER_RECIPIENT)


def _limits() -> Iterator[ReplyRule]:
    """Limits on sending: no address is at fault."""
    for span, verdict in (
        (Span.HOUR, quota(HOUR, label="hourly sending quota used up")),
        (Span.DAY, quota(DAY, label="daily sending quota used up")),
        (Span.SHORT, _SLOWER),
    ):
        yield _codes("4 5", verdict, about=_LIMITS, spans=frozenset({span}))
    yield _codes("4", _SLOWER, about=_LIMITS)
    yield _codes("5", quota(DAY), about=_LIMITS)


_LIMITS = frozenset({Subject.SENDING})
_NAMES_LOGIN = frozenset({Subject.LOGIN, Subject.RELAYING})
_UNKNOWN = frozenset({Subject.UNKNOWN, Subject.HINTED, Subject.UNSTATED})
_RECIPIENTS = frozenset({Subject.RECIPIENT})
_NOT_THE_RECIPIENT = frozenset(Subject) - _RECIPIENTS

_RULES = (
    # What concerns connections and sessions.
    _codes("432", _FEWER, about=_NOT_THE_RECIPIENT),
    _codes("4 5", _FEWER, about=_NOT_THE_RECIPIENT, text=_CONNECTIONS),
    _codes("4", session_full(), text=_MESSAGES_OF_SESSION),
    # Servers end sessions after several refusals; the reply that says so hits whichever command comes next.
    _codes(
        "45 55",
        deferred(Scope.SESSION, Reason.SESSION_SPENT, counts=False, drops=True),
        stages=_ENVELOPE,
        text=_TOO_MANY_ERRORS,
    ),
    _codes("530", stop(Scope.RELAY, Reason.LOGIN_REQUIRED)),
    _codes(
        "503", replace(deferred(Scope.RELAY, Reason.LOGIN_REQUIRED, counts=False), strikes=True), about=_NAMES_LOGIN
    ),
    _codes("503", deferred(Scope.SESSION, Reason.OUT_OF_STEP, counts=False, drops=True)),
    _codes("523", rejected(Scope.MESSAGE, Reason.TOO_BIG)),
    _codes("552 554", rejected(Scope.MESSAGE, Reason.TOO_BIG), enhanced="5.2.3 5.3.4"),
    _codes(
        "452 552",
        deferred(Scope.SESSION, Reason.TOO_MANY_RECIPIENTS, counts=False, drops=True),
        stages=_RCPT,
        enhanced="4.5.3",
        text=_OF_NO_TIME,
    ),
    _codes(
        "452 552",
        deferred(Scope.SESSION, Reason.TOO_MANY_RECIPIENTS, counts=False, drops=True),
        stages=_RCPT,
        text=_OF_NO_TIME + r".*too many recipients\b",
    ),
    # Before anyone is named it is the relay that is busy; afterwards it may be the recipient's provider.
    _codes("421 45", deferred(Scope.PROVIDER, Reason.THROTTLED, counts=False), enhanced="4.7.28 4.7.5?? 4.7.6??"),
    _codes("421 45", deferred(Scope.PROVIDER, Reason.THROTTLED, counts=False), text=r"\[TSS0"),
    # The sending account.
    _codes("550 552 554", quota(DAY, label="daily sending quota used up"), enhanced="5.4.5"),
    _codes("550 554", stop(Scope.SENDER, Reason.SENDER_BLOCKED), enhanced="5.2.251 5.2.252 5.2.253 5.2.254 5.2.255"),
    _codes("554", stop(Scope.SENDER, Reason.SENDER_FULL), text=r"STOREDRV(?!\.Deliver).*(?<!Submission)Quota"),
    *_limits(),
    _codes("450 451", deferred(Scope.RECIPIENT, Reason.GREYLISTED), stages=_AFTER_RECIPIENT, text="gr[ea]y.?list"),
    *_about_us(),
    # A wait of some seconds is no greylisting.
    _codes("4", _SLOWER, about=_UNKNOWN, text=r"\b(again|retry|wait|back)\b[^.;\d]{0,20}\b\d{1,2} ?s(ec(onds?|s)?)?\b"),
    # The relay itself will not talk now, or at all.
    _codes("421", deferred(Scope.RELAY, Reason.UNAVAILABLE, counts=False, drops=True)),
    _codes("4", deferred(Scope.RELAY, Reason.NOT_READY, counts=False, drops=True), stages=_OPENING),
    _codes("5", stop(Scope.RELAY, Reason.TURNED_AWAY), stages=_OPENING),
    # The envelope sender, and the parameters of MAIL: SIZE, BODY, SMTPUTF8.  The session has already tried without.
    _codes("552", rejected(Scope.MESSAGE, Reason.TOO_BIG), stages=_MAIL),
    _codes("452", deferred(Scope.RELAY, Reason.NO_ROOM, counts=False), stages=_MAIL | _CONTENT, enhanced="4.3.1"),
    _codes("4", deferred(Scope.RELAY, Reason.NOT_NOW, counts=False), stages=_MAIL),
    _codes("500 502 504 555", stop(Scope.RELAY, Reason.NOT_SUPPORTED), stages=_MAIL),
    _codes("5", stop(Scope.SENDER, Reason.SENDER_REFUSED), stages=_MAIL),
    # The recipient.
    _codes("452 552", _FULL, enhanced="4.2.2 5.2.2"),
    _codes(
        "452 552",
        _FULL,
        stages=_RCPT,
        text=_NO_SPACE,
    ),
    _codes("552", _FULL, stages=_RCPT, enhanced=""),  # bare, RFC 5321 §4.5.3.1.10
    _codes("4", deferred(Scope.RECIPIENT, Reason.NOT_NOW)),
    _codes("551", rejected(Scope.RECIPIENT, Reason.MOVED), stages=_RCPT),
    _codes(
        "55",
        rejected(Scope.RECIPIENT, Reason.UNKNOWN_USER),
        stages=_RCPT,
        enhanced="5.1.1 5.1.2 5.1.3 5.1.6 5.1.10 5.2.1 5.7.17 5.7.18",
    ),
    _codes(
        "55", rejected(Scope.RECIPIENT, Reason.UNKNOWN_USER), stages=_CONTENT, enhanced="5.1.1 5.1.2 5.1.6 5.1.10 5.2.1"
    ),
    _codes("5", rejected(Scope.RECIPIENT, Reason.RECIPIENT_RULE), enhanced="5.7.*", about=_RECIPIENTS),
    _codes("5", rejected(Scope.RECIPIENT, Reason.POLICY), stages=_RCPT, enhanced="5.7.*"),
    _codes("55", rejected(Scope.RECIPIENT, Reason.UNKNOWN_USER), stages=_RCPT, text=_NO_USER),
    _codes("501 553", rejected(Scope.RECIPIENT, Reason.ADDRESS_REFUSED), stages=_RCPT),
    _codes("5", rejected(Scope.RECIPIENT, Reason.RECIPIENT_RULE), stages=_CONTENT, about=_RECIPIENTS),
    _codes("5", rejected(Scope.RECIPIENT, Reason.REFUSED), stages=_RCPT),
    # The content.
    _codes("552", rejected(Scope.MESSAGE, Reason.TOO_BIG), stages=_CONTENT),
    _codes("5", rejected(Scope.MESSAGE, Reason.POLICY), enhanced="5.7.*"),
    _codes("5", rejected(Scope.MESSAGE, Reason.CONTENT_REFUSED)),
)
