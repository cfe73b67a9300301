"""The table of verdicts, row by row, and what holds of every verdict whatever a server says."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.outcome import Breakage, Fault, Outcome, Reason, Reply, Scope, Stage, Verdict
from bulkmail.model.verdict import judge
from tests.cases import every

OPENING = (Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.AUTH)


class Gist(NamedTuple):
    """What the table says of a verdict; how much is lowered, and for how long, is told elsewhere."""

    outcome: Outcome
    scope: Scope
    reason: str
    counts: bool = True
    stops: bool = False
    drops: bool = False
    strikes: bool = False
    probes: bool = False


def gist(verdict: Verdict) -> Gist:
    reason = verdict.label if verdict.reason is Reason.FAULT else verdict.reason.value
    flags = (verdict.counts, verdict.stops, verdict.drops, verdict.strikes, verdict.probes)
    return Gist(verdict.outcome, verdict.scope, reason, *flags)


ACCEPTED = Gist(Outcome.ACCEPTED, Scope.RECIPIENT, "accepted")
IN_DOUBT = Gist(Outcome.IN_DOUBT, Scope.SESSION, "no answer to the end of the message", drops=True)


def later(scope: Scope, reason: str, *, counts: bool = False, drops: bool = False) -> Gist:
    """To be tried again; not the row's fault unless `counts`."""
    return Gist(Outcome.DEFERRED, scope, reason, counts=counts, drops=drops)


def strike(scope: Scope, reason: str) -> Gist:
    """A refusal of us for good: the row stays as it is, and a few in a row stop the campaign."""
    return Gist(Outcome.DEFERRED, scope, reason, counts=False, strikes=True)


def probe(reason: str, *, drops: bool = False) -> Gist:
    """A refusal of us for now: the relay is left alone, and one message tries again."""
    return Gist(Outcome.DEFERRED, Scope.RELAY, reason, counts=False, drops=drops, probes=True)


def retry(reason: str) -> Gist:
    """To be tried again, and one try of this recipient is used up."""
    return later(Scope.RECIPIENT, reason, counts=True)


def stop(scope: Scope, reason: str) -> Gist:
    """The campaign stops; the row stays as it is."""
    return Gist(Outcome.DEFERRED, scope, reason, counts=False, stops=True, drops=True)


def no(reason: str) -> Gist:
    return Gist(Outcome.REJECTED, Scope.RECIPIENT, reason)


def no_message(reason: str) -> Gist:
    return Gist(Outcome.REJECTED, Scope.MESSAGE, reason)


DESYNC = later(Scope.SESSION, "the server broke the protocol", drops=True)
SHUTDOWN = later(Scope.RELAY, "service not available", drops=True)
TOO_MANY_CONNECTIONS = later(Scope.RELAY, "too many connections", drops=True)
NOT_READY = later(Scope.RELAY, "relay not ready", drops=True)
NO_ROOM = later(Scope.RELAY, "relay out of room")
RELAY_THROTTLE = later(Scope.RELAY, "throttled")
PROVIDER_THROTTLE = later(Scope.PROVIDER, "throttled")
OUT_OF_STEP = later(Scope.SESSION, "out of step", drops=True)
SESSION_SPENT = later(Scope.SESSION, "too many refusals in one session", drops=True)
LOGIN_LATER = later(Scope.RELAY, "login not possible now", drops=True)
NO_LOGIN = stop(Scope.RELAY, "login refused")
TURNED_AWAY = stop(Scope.RELAY, "relay refuses the connection")
LOGIN_REQUIRED = stop(Scope.RELAY, "login or TLS required")
PARAMETER = stop(Scope.RELAY, "command or parameter not supported")
NO_SENDER = stop(Scope.SENDER, "sender refused")
QUOTA = stop(Scope.SENDER, "sending quota used up")
BLOCKED = stop(Scope.SENDER, "sender blocked")
OWN_MAILBOX = stop(Scope.SENDER, "sender's mailbox full")
UNAUTHENTICATED = strike(Scope.SENDER, "SPF, DKIM or DMARC of our domain refused")

# stage, reply, verdict: every row of the table of replies, then every provider's own words.
TABLE: list[tuple[Stage, str, Gist]] = [
    # 2xx: success by the first digit, once the message has ended
    (Stage.END, "250 2.0.0 queued as 1234", ACCEPTED),
    (Stage.END, "250", ACCEPTED),
    (Stage.END, "251", ACCEPTED),
    (Stage.END, "252 2.5.0", ACCEPTED),
    (Stage.END, "299", ACCEPTED),
    (Stage.MAIL, "250 2.1.0", DESYNC),
    (Stage.RCPT, "251", DESYNC),
    (Stage.DATA, "250 2.0.0", DESYNC),
    (Stage.BODY, "250 2.0.0", DESYNC),
    # 3xx where none belongs
    (Stage.GREETING, "354", DESYNC),
    (Stage.MAIL, "354", DESYNC),
    (Stage.RCPT, "334", DESYNC),
    (Stage.BODY, "354", DESYNC),
    (Stage.END, "354", IN_DOUBT),
    # 421 at any stage but login
    (Stage.GREETING, "421 4.7.0 too many connections", TOO_MANY_CONNECTIONS),
    (Stage.EHLO, "421", SHUTDOWN),
    (Stage.STARTTLS, "421", SHUTDOWN),
    (Stage.AUTH, "421 4.7.0 try again later", LOGIN_LATER),
    (Stage.MAIL, "421 4.0.0", SHUTDOWN),
    (Stage.RCPT, "421 4.7.0", SHUTDOWN),
    (Stage.DATA, "421 4.3.2", SHUTDOWN),
    (Stage.END, "421 4.4.2", SHUTDOWN),
    (Stage.RCPT, "554 5.7.0 too many connections from 192.0.2.1", TOO_MANY_CONNECTIONS),
    (Stage.END, "550 Domain example.com has exceeded the max emails per hour (150/150) allowed", QUOTA),
    (Stage.RCPT, "451 too many recipients per day, limit reached", QUOTA),
    # 432
    (Stage.GREETING, "432 4.3.2 Concurrent connections limit exceeded", TOO_MANY_CONNECTIONS),
    (Stage.MAIL, "432 4.3.2", TOO_MANY_CONNECTIONS),
    (Stage.END, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", TOO_MANY_CONNECTIONS),
    (Stage.AUTH, "432 4.7.12 A password transition is needed", stop(Scope.RELAY, "new password needed")),
    # 450, 451
    (Stage.RCPT, "450 4.2.0 Recipient address rejected: Greylisted, see http://example.org", retry("greylisted")),
    (Stage.RCPT, "450 4.2.1", retry("not now")),
    (Stage.RCPT, "451 4.7.1 Greylisting in action, please try again later", retry("greylisted")),
    (Stage.DATA, "451 4.7.1 graylisted", retry("greylisted")),
    (Stage.END, "450 4.7.1 grey-listed", retry("greylisted")),
    (Stage.RCPT, "451", retry("not now")),
    (Stage.RCPT, "451 4.3.0", retry("not now")),
    (Stage.MAIL, "451 4.7.1 greylisted", later(Scope.RELAY, "not now")),
    (Stage.MAIL, "451 4.7.500 Server busy. Please try again later", RELAY_THROTTLE),
    (Stage.RCPT, "451 4.7.500", PROVIDER_THROTTLE),
    (Stage.RCPT, "451 4.7.699", PROVIDER_THROTTLE),
    (Stage.END, "451 4.7.650 The mail server has been temporarily rate limited", PROVIDER_THROTTLE),
    (Stage.RCPT, "451 4.7.700", retry("not now")),
    (Stage.RCPT, "451 4.3.0 host 10.4.7.28 is down", retry("not now")),
    # 452
    (Stage.RCPT, "452 4.5.3", later(Scope.SESSION, "too many recipients", drops=True)),
    (Stage.RCPT, "452 4.2.2 over quota", retry("mailbox full")),
    (Stage.RCPT, "452 mailbox of ann is full", retry("mailbox full")),
    (Stage.RCPT, "452", retry("not now")),
    (Stage.MAIL, "452 4.3.1", NO_ROOM),
    (Stage.END, "452 4.3.1 Insufficient system storage", NO_ROOM),
    (Stage.DATA, "452 4.3.1", NO_ROOM),
    (Stage.END, "452", retry("not now")),
    (Stage.END, "452 4.2.2", retry("mailbox full")),
    # 454
    (Stage.STARTTLS, "454 TLS not available due to temporary reason", NOT_READY),
    (Stage.AUTH, "454 4.7.0 Temporary authentication failure", LOGIN_LATER),
    (Stage.MAIL, "454 Throttling failure: Maximum sending rate exceeded.", RELAY_THROTTLE),
    (Stage.END, "454 Throttling failure: Maximum sending rate exceeded.", RELAY_THROTTLE),
    (Stage.MAIL, "454 Throttling failure: Daily message quota exceeded.", QUOTA),
    (Stage.END, "454 Throttling failure: Daily message quota exceeded.", QUOTA),
    (Stage.RCPT, "454 4.7.1 Relay access denied, temporarily", probe("relaying denied")),
    (Stage.RCPT, "454 4.3.0 cannot operate now", retry("not now")),
    # 455
    (Stage.MAIL, "455", later(Scope.RELAY, "not now")),
    (Stage.RCPT, "455", retry("not now")),
    # 500, 502, 504, 555
    (Stage.EHLO, "500", TURNED_AWAY),
    (Stage.EHLO, "502 5.5.1", TURNED_AWAY),
    (Stage.STARTTLS, "502", TURNED_AWAY),
    (Stage.MAIL, "500 5.5.2", PARAMETER),
    (Stage.MAIL, "502", PARAMETER),
    (Stage.MAIL, "504", PARAMETER),
    (Stage.MAIL, "555 5.5.4 Unsupported option: SIZE=1", PARAMETER),
    # 501, 553
    (Stage.RCPT, "501 5.1.3", no("address refused")),
    (Stage.RCPT, "553", no("address refused")),
    (Stage.RCPT, "553 5.1.3", no("unknown user")),
    (Stage.MAIL, "501 5.1.7", NO_SENDER),
    (Stage.MAIL, "553 5.1.8", NO_SENDER),
    # 503
    (Stage.MAIL, "503 5.5.1 nested MAIL command", OUT_OF_STEP),
    (Stage.RCPT, "503 5.5.1", OUT_OF_STEP),
    (Stage.DATA, "503 5.5.1", OUT_OF_STEP),
    (Stage.END, "503", OUT_OF_STEP),
    # the greeting refuses
    (Stage.GREETING, "521", TURNED_AWAY),
    (Stage.GREETING, "554 5.7.1 go away", TURNED_AWAY),
    (Stage.GREETING, "554 5.7.1 Too many concurrent connections from your host", TOO_MANY_CONNECTIONS),
    (Stage.GREETING, "450 4.3.2", NOT_READY),
    # login
    (Stage.MAIL, "530 5.7.0 Authentication required", LOGIN_REQUIRED),
    (Stage.RCPT, "530 5.7.1", LOGIN_REQUIRED),
    (Stage.END, "530 5.7.57 Client was not authenticated", LOGIN_REQUIRED),
    (
        Stage.AUTH,
        "451 Authentication failed: Maximum credits exceeded",
        stop(Scope.RELAY, Reason.CREDITS_USED_UP.value),
    ),
    (
        Stage.AUTH,
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant",
        stop(Scope.RELAY, Reason.LOGIN_DISABLED.value),
    ),
    (
        Stage.AUTH,
        "535 5.7.3 Authentication unsuccessful, basic authentication is disabled",
        stop(Scope.RELAY, Reason.LOGIN_DISABLED.value),
    ),
    (Stage.AUTH, "534 5.7.9", NO_LOGIN),
    (Stage.AUTH, "538 5.7.11", NO_LOGIN),
    (Stage.AUTH, "535 5.7.8", NO_LOGIN),
    (Stage.AUTH, "535 5.7.3 Authentication unsuccessful", NO_LOGIN),
    (Stage.AUTH, "503", NO_LOGIN),
    # 550 of an address
    (Stage.RCPT, "550 5.1.1", no("unknown user")),
    (Stage.RCPT, "550 5.1.10", no("unknown user")),
    (Stage.RCPT, "550 5.1.2", no("unknown user")),
    (Stage.RCPT, "550 5.1.6", no("unknown user")),
    (Stage.RCPT, "550 5.2.1", no("unknown user")),
    (Stage.RCPT, "550 no such user here", no("unknown user")),
    (Stage.RCPT, "550 User ann@example.org not found", no("unknown user")),
    (Stage.RCPT, "550 mailbox does not exist", no("unknown user")),
    (Stage.RCPT, "550", no("refused")),
    # 550 of the sending account
    (Stage.MAIL, "550 5.4.5 Daily user sending limit exceeded.", QUOTA),
    (Stage.RCPT, "550 5.4.5 Daily user sending quota exceeded", QUOTA),
    (Stage.END, "550 5.4.5", QUOTA),
    (Stage.RCPT, "550 User shop@example.org has exceeded its 24-hour sending limit", QUOTA),
    (Stage.MAIL, "550 5.2.251", BLOCKED),
    (Stage.RCPT, "550 5.2.255", BLOCKED),
    (Stage.END, "554 5.2.252", BLOCKED),
    (Stage.RCPT, "550 5.2.250", no("refused")),
    (Stage.RCPT, "550 5.7.1 195.2.251.9 is listed, so is 10.5.2.251", strike(Scope.RELAY, "on a block list")),
    (Stage.END, "554 5.2.2 mailbox full; STOREDRV.Submission; QuotaExceededException", OWN_MAILBOX),
    (Stage.END, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException", QUOTA),
    # policy
    (Stage.RCPT, "550 5.7.1 blocked", strike(Scope.RELAY, "refused by a policy that is not stated")),
    (Stage.RCPT, "554 5.7.1 Client host rejected", strike(Scope.RELAY, "our host or IP address refused")),
    (Stage.END, "550 5.7.26 This message does not pass authentication", UNAUTHENTICATED),
    (Stage.END, "554 5.7.1 Spam", no_message("policy")),
    # 551
    (Stage.RCPT, "551 User not local; please try <ann@example.net>", no("moved")),
    (Stage.RCPT, "551 5.1.6 user unknown here", no("moved")),
    # 552 and size
    (Stage.RCPT, "552 5.2.2", retry("mailbox full")),
    (Stage.RCPT, "552", retry("mailbox full")),
    (Stage.RCPT, "552 5.3.0 quota exceeded for ann", retry("mailbox full")),
    (Stage.RCPT, "552 5.3.4 message size exceeds mail storage", no_message("too big")),
    (Stage.RCPT, "552 5.7.0", strike(Scope.RELAY, "refused by a policy that is not stated")),
    (Stage.RCPT, "552 5.6.0", no("refused")),
    (Stage.MAIL, "552 5.3.4 Message size exceeds fixed limit", no_message("too big")),
    (Stage.MAIL, "552", no_message("too big")),
    (Stage.DATA, "552", no_message("too big")),
    (Stage.END, "552 5.3.4 Message size limit exceeded", no_message("too big")),
    (Stage.END, "552 5.2.2 Quota exceeded (mailbox for user is full)", retry("mailbox full")),
    (Stage.MAIL, "523", no_message("too big")),
    (Stage.RCPT, "523 5.3.4", no_message("too big")),
    (Stage.END, "523", no_message("too big")),
    (Stage.MAIL, "554 5.3.4", no_message("too big")),
    (Stage.RCPT, "554 5.2.3", no_message("too big")),
    (Stage.END, "554 5.2.3", no_message("too big")),
    # 556
    (Stage.RCPT, "556 5.1.10 Recipient address has null MX", no("unknown user")),
    # everything else, by digit
    (Stage.RCPT, "499", retry("not now")),
    (Stage.RCPT, "599", no("refused")),
    (Stage.MAIL, "499", later(Scope.RELAY, "not now")),
    (Stage.MAIL, "550 5.7.60", NO_SENDER),
    (Stage.DATA, "451", retry("not now")),
    (Stage.BODY, "451", retry("not now")),
    (Stage.END, "499", retry("not now")),
    (Stage.DATA, "554", no_message("content refused")),
    (Stage.BODY, "550", no_message("content refused")),
    (Stage.END, "554 5.6.0", no_message("content refused")),
    # sessions that servers end after several refusals: the reply hits an innocent command
    (Stage.RCPT, "550 too many invalid recipients", SESSION_SPENT),
    (Stage.RCPT, "451 4.7.1 error limit reached", SESSION_SPENT),
    (Stage.MAIL, "554 Too many nonmail commands", SESSION_SPENT),
    (Stage.MAIL, "554 Too many syntax or protocol errors", SESSION_SPENT),
    (Stage.DATA, "554 5.7.0 too many unknown recipients", SESSION_SPENT),
    (Stage.RCPT, "503 too many errors", OUT_OF_STEP),
    # Gmail
    (
        Stage.MAIL,
        "421 4.7.0 unusual rate of unsolicited mail originating from your IP address",
        later(Scope.RELAY, "throttled", drops=True),
    ),
    (Stage.GREETING, "421 4.4.5 Server busy, try again later", SHUTDOWN),
    (Stage.MAIL, "421 4.7.0 TLS required for RCPT domain", probe("login or TLS required", drops=True)),
    (Stage.RCPT, "450 4.2.1 The user you are trying to contact is receiving mail too quickly", retry("not now")),
    (Stage.END, "421 4.7.28 rate limited", later(Scope.PROVIDER, "throttled", drops=True)),
    (Stage.END, "450 4.7.28 rate limited", PROVIDER_THROTTLE),
    (Stage.RCPT, "450 4.2.1 Peak SMTP relay limit exceeded for customer", RELAY_THROTTLE),
    (Stage.MAIL, "450 4.2.1 Peak SMTP relay limit exceeded for customer", RELAY_THROTTLE),
    (
        Stage.AUTH,
        "454 4.7.0 Too many login attempts, please try again later",
        later(Scope.RELAY, Reason.TOO_MANY_LOGINS.value, drops=True),
    ),
    (Stage.AUTH, "534 5.7.9 Application-specific password required", stop(Scope.RELAY, "app password needed")),
    (Stage.AUTH, "534 5.7.14 Please log in via your web browser", stop(Scope.RELAY, "login with a browser needed")),
    (Stage.AUTH, "535 5.7.8 too many bad attempts", stop(Scope.RELAY, Reason.TOO_MANY_LOGINS.value)),
    # Yahoo
    (
        Stage.MAIL,
        "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred",
        later(Scope.RELAY, "throttled", drops=True),
    ),
    (Stage.MAIL, "451 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred", RELAY_THROTTLE),
    (Stage.END, "451 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred", PROVIDER_THROTTLE),
    # Outlook
    (Stage.RCPT, "451 4.7.500 Server busy. Please try again later from 192.0.2.1 (S77719)", PROVIDER_THROTTLE),
]


def reply_of(stage: Stage, line: str) -> Reply:
    code, _, rest = line.partition(" ")
    first, _, after = rest.partition(" ")
    if first.count(".") == 2 and first.replace(".", "").isdigit():
        return Reply(stage, int(code), first, after)
    return Reply(stage, int(code), "", rest)


def case_id(stage: Stage, line: str) -> str:
    reply = reply_of(stage, line)
    words = "-".join("".join(c if c.isalnum() else " " for c in reply.text).split()[:6]).lower()
    return "-".join(part for part in (stage.value, str(reply.code), reply.enhanced, words) if part)


@pytest.mark.parametrize(
    ("stage", "line", "verdict"), [pytest.param(*row, id=case_id(row[0], row[1])) for row in TABLE]
)
def test_verdict_follows_the_table(stage: Stage, line: str, verdict: Gist) -> None:
    assert gist(judge(reply_of(stage, line))) == verdict


FAULTS: list[tuple[Stage, Breakage, Gist]] = [
    (Stage.CONNECT, Breakage.REFUSED, later(Scope.RELAY, "refused", drops=True)),
    (Stage.CONNECT, Breakage.UNREACHABLE, later(Scope.RELAY, "unreachable", drops=True)),
    (Stage.CONNECT, Breakage.NO_SUCH_HOST, later(Scope.RELAY, "no such host", drops=True)),
    (Stage.CONNECT, Breakage.TIMEOUT, later(Scope.RELAY, "timeout", drops=True)),
    (Stage.GREETING, Breakage.TIMEOUT, later(Scope.RELAY, "timeout", drops=True)),
    (Stage.GREETING, Breakage.LOST, later(Scope.RELAY, "lost", drops=True)),
    (Stage.EHLO, Breakage.DESYNC, later(Scope.RELAY, "desync", drops=True)),
    (Stage.STARTTLS, Breakage.TLS, later(Scope.RELAY, "tls", drops=True)),
    (Stage.AUTH, Breakage.LOST, later(Scope.RELAY, "lost", drops=True)),
    (Stage.CONNECT, Breakage.UNTRUSTED, stop(Scope.RELAY, "untrusted")),
    (Stage.STARTTLS, Breakage.UNTRUSTED, stop(Scope.RELAY, "untrusted")),
    (Stage.CONNECT, Breakage.WRONG_NAME, stop(Scope.RELAY, "wrong name")),
    (Stage.STARTTLS, Breakage.NO_TLS, stop(Scope.RELAY, "no tls")),
    (Stage.AUTH, Breakage.NO_LOGIN, stop(Scope.RELAY, "no login")),
    (Stage.EHLO, Breakage.NO_REQUIRETLS, stop(Scope.RELAY, "no requiretls")),
    (Stage.MAIL, Breakage.LOST, later(Scope.SESSION, "lost", drops=True)),
    (Stage.RCPT, Breakage.TIMEOUT, later(Scope.SESSION, "timeout", drops=True)),
    (Stage.DATA, Breakage.DESYNC, later(Scope.SESSION, "desync", drops=True)),
    (Stage.BODY, Breakage.LOST, later(Scope.SESSION, "lost", counts=True, drops=True)),
    (Stage.BODY, Breakage.TIMEOUT, later(Scope.SESSION, "timeout", counts=True, drops=True)),
    (Stage.MAIL, Breakage.UNSENDABLE, no_message("cannot be sent through this relay")),
    (Stage.CONNECT, Breakage.STOPPED, later(Scope.SESSION, "stopped", drops=True)),
    (Stage.MAIL, Breakage.STOPPED, later(Scope.SESSION, "stopped", drops=True)),
    (Stage.BODY, Breakage.STOPPED, later(Scope.SESSION, "stopped", drops=True)),
    (Stage.END, Breakage.STOPPED, IN_DOUBT),
    (Stage.END, Breakage.LOST, IN_DOUBT),
    (Stage.END, Breakage.TIMEOUT, IN_DOUBT),
    (Stage.END, Breakage.DESYNC, IN_DOUBT),
]


@pytest.mark.parametrize(
    ("stage", "kind", "verdict"),
    [pytest.param(*row, id=f"{row[0].value}-{row[1].value.replace(' ', '-')}") for row in FAULTS],
)
def test_verdict_on_a_fault_follows_the_table(stage: Stage, kind: Breakage, verdict: Gist) -> None:
    assert gist(judge(Fault(stage, kind, "what broke"))) == verdict


# --- what holds of all of them ---------------------------------------------------------------------------------------

ENHANCED = st.one_of(
    st.just(""),
    st.from_regex(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True),
    st.sampled_from(
        ["5.1.1", "5.4.5", "5.2.2", "5.2.3", "5.3.4", "5.7.1", "5.2.251", "4.2.2", "4.3.1", "4.5.3", "4.7.28"]
    ),
)
# Words that rules look for, among words that they do not: Hypothesis alone would never write "quota exceeded".
PHRASES = st.sampled_from(
    [
        *("accepted", "ok queued as 1234", "250 2.0.0", "5.1.1", "5.4.5", "4.7.28", "5.7.1", "[TSS04]", "greylisted"),
        *("mailbox full", "quota exceeded", "daily sending limit exceeded", "unknown user", "too many errors"),
        *("throttling", "rate", "STOREDRV", "SubmissionQuota", "relay limit exceeded", "too many connections"),
    ]
)
TEXT = st.one_of(st.text(max_size=60), st.lists(PHRASES, max_size=5).map(" ".join))
REPLIES = st.builds(Reply, st.sampled_from(Stage), st.integers(200, 599), ENHANCED, TEXT)
FAULTS_OF_ANY_KIND = st.builds(Fault, st.sampled_from(Stage), st.sampled_from(Breakage), TEXT)
EVENTS = st.one_of(REPLIES, FAULTS_OF_ANY_KIND)


@given(REPLIES)
def test_verdict_on_a_reply_finds_success_and_refusal_by_digit_alone(reply: Reply) -> None:
    outcome = judge(reply).outcome
    at_the_end = reply.stage is Stage.END
    assert (outcome is Outcome.ACCEPTED) == (at_the_end and reply.is_positive)
    assert (outcome is Outcome.IN_DOUBT) == (at_the_end and reply.is_intermediate)
    assert outcome is not Outcome.REJECTED or reply.is_permanent


@given(FAULTS_OF_ANY_KIND)
def test_verdict_on_a_fault_is_in_doubt_exactly_at_the_end(fault: Fault) -> None:
    outcome = judge(fault).outcome
    assert (outcome is Outcome.IN_DOUBT) == (fault.stage is Stage.END)
    assert outcome is not Outcome.ACCEPTED


@given(EVENTS)
def test_verdict_blames_no_one_for_what_he_could_not_have_caused(event: Reply | Fault) -> None:
    verdict = judge(event)
    if event.stage in (*OPENING, Stage.MAIL):
        assert (verdict.outcome, verdict.scope) != (Outcome.REJECTED, Scope.RECIPIENT)
    if event.stage in OPENING and isinstance(event, Reply):
        assert verdict.outcome is Outcome.DEFERRED
    if verdict.outcome is Outcome.DEFERRED and verdict.counts:
        assert event.stage in (Stage.RCPT, Stage.DATA, Stage.BODY, Stage.END)
    if verdict.stops:
        assert (verdict.outcome, verdict.counts) == (Outcome.DEFERRED, False)
        assert verdict.scope in (Scope.RELAY, Scope.SENDER)


@given(EVENTS)
def test_verdict_drops_the_session_when_the_session_is_at_fault(event: Reply | Fault) -> None:
    verdict = judge(event)
    is_unsendable = isinstance(event, Fault) and event.kind is Breakage.UNSENDABLE
    if verdict.scope is Scope.SESSION or (event.stage in OPENING and not is_unsendable):
        assert verdict.drops
    if verdict.scope in (Scope.RECIPIENT, Scope.MESSAGE):
        assert not verdict.drops


@given(EVENTS)
def test_verdict_is_the_same_each_time_and_gives_a_short_reason(event: Reply | Fault) -> None:
    assert judge(event) == judge(event)
    assert 1 <= len(judge(event).reason.split()) <= 8


@every((str(code), (code,)) for code in range(200, 600))
def test_verdict_on_a_bare_code_goes_by_its_digit(code: int) -> None:
    """But for 503 (out of step), 530, 534, 535, 538 (login required) and 552 at RCPT (perhaps a full mailbox)."""
    at_rcpt, at_end = judge(Reply(Stage.RCPT, code)), judge(Reply(Stage.END, code))
    by_digit = {2: Outcome.ACCEPTED, 3: Outcome.IN_DOUBT, 4: Outcome.DEFERRED, 5: Outcome.REJECTED}[code // 100]
    assert at_end.outcome is (Outcome.DEFERRED if code in (503, 530, 534, 535, 538) else by_digit)
    assert at_rcpt.outcome is (Outcome.DEFERRED if code < 500 or code in (503, 530, 534, 535, 538, 552) else by_digit)
