"""Why a relay cannot be used, in a sentence for a shop owner, with what to do next."""

from __future__ import annotations

import datetime
import re
from enum import Enum

from bulkmail.model.advice import ADVICE, advice
from bulkmail.model.feedback import Feedback
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.outcome import Reason
from bulkmail.model.pattern import lazy_pattern
from bulkmail.model.relay import Relay, Tls
from bulkmail.model.reply import Breakage, Fault, Reply, Stage
from bulkmail.probe.certificate import Certificate
from bulkmail.smtp.tls_mode import relay_url, wrong_mode


@dataclass(frozen=True, slots=True)
class Trouble:
    """`what` was found, and `fix`: what to do about it.  `words` are the server's own, if it said any."""

    what: str
    fix: str
    words: str = ""


class Clue(Enum):
    """What a port turned out to speak when it was looked at more closely."""

    NOTHING = "nothing"
    CLEAR = "SMTP that begins without TLS"
    TLS = "TLS from the first byte"
    IMAP = "IMAP"
    POP3 = "POP3"
    SSH = "SSH"
    OTHER = "something else"


def guess(first: bytes) -> Clue:
    """What speaks by its first bytes, before anything was said to it."""
    for start, clue in ((b"220", Clue.CLEAR), (b"* ", Clue.IMAP), (b"+OK", Clue.POP3), (b"SSH-", Clue.SSH)):
        if first.startswith(start):
            return clue
    # A TLS server that tires of waiting says so in an alert record: type 21, version 3.x (RFC 8446 §5.1).
    if re.match(rb"\x15\x03[\x00-\x04]", first):
        return Clue.TLS
    return Clue.OTHER if first else Clue.NOTHING


def explain(
    event: Reply | Fault,
    relay: Relay,
    *,
    feedback: Feedback,
    clue: Clue = Clue.NOTHING,
    certificate: Certificate | None = None,
    now: datetime.datetime | None = None,
) -> Trouble:
    """The trouble behind `event`.

    `feedback` judges it as in a run; `certificate` is what the server shows, and `now` the time to judge that by.
    """
    where = relay.place
    wrong_port = _wrong_port(relay, clue)
    if isinstance(event, Reply):
        what, fix = _reply_words(event, relay, feedback)
        return Trouble(what, fix, words=str(event))
    if wrong_port is not None:
        return wrong_port
    if event.stage is Stage.CONNECT and relay.socket_path:
        return Trouble(f"{event}.", "Check the path, that the server is running and that you may use its socket.")
    if event.kind is Breakage.NO_REQUIRETLS:
        return Trouble(f"{event}.", "Leave requiretls out to do without that promise, or use a relay that gives it.")
    if event.kind is Breakage.UNTRUSTED:
        return _untrusted(event, relay, certificate, now)
    if event.stage is Stage.CONNECT and event.kind in _NOBODY and not relay.proxy:
        what, fix = _NOBODY[event.kind]
        if event.kind is Breakage.TIMEOUT and relay.port == 25:
            return Trouble(
                f"{where} does not answer.  Most internet providers block port 25 for their customers.",
                f"Use port 587: {relay_url(relay, 587)}",
            )
        return Trouble(what.format(where=where, host=relay.host), fix)
    if event.kind is Breakage.NO_TLS:
        return Trouble(
            f"{where} offers no encryption (STARTTLS), so everything would go in clear text.",
            f"Try {relay_url(relay, 465, is_implicit=True)}, which begins with TLS; "
            "only for a server on this machine or in a trusted network add ?tls=off.",
        )
    if event.stage is Stage.AUTH and relay.wants_token and event.kind in _NO_TOKEN:
        return Trouble(
            f"There is no access token to log in with: {event}.",
            "See what [relay] says about the token, and whether the provider still allows this program.",
        )
    if event.kind is Breakage.IMPOSTOR:
        return Trouble(f"This is perhaps not your provider's server: {event}.", "Find out who answers there first.")
    if event.kind is Breakage.NO_LOGIN:
        return Trouble(
            f"There is no way to log in: {event}.",
            "Ask the provider which port (587 and 465 are usual) and which way of logging in it wants.",
        )
    if event.kind is Breakage.TIMEOUT:
        return Trouble(f"{event}.", "Try again in a minute; if it persists, ask the server's administrator.")
    return Trouble(f"{event}.", "Check host and port, and ask the server's administrator.")


_NO_TOKEN = {Breakage.NO_TOKEN, Breakage.UNREACHABLE}
_NOBODY = {
    Breakage.REFUSED: (
        "Nothing is listening at {where}: there is a machine, but no mail server at this port.",
        "Check the port: 587 and 465 are usual.",
    ),
    Breakage.NO_SUCH_HOST: (
        "There is no host of the name {host}.",
        "Check the spelling; the provider's help page names its SMTP server.",
    ),
    Breakage.UNREACHABLE: (
        "{where} cannot be reached from here.",
        "Check this computer's network, and whether a firewall is in between.",
    ),
    Breakage.TIMEOUT: (
        "{where} does not answer.",
        "Check host and port, and whether a firewall is in between; 587 and 465 are the usual ports.",
    ),
}


def _wrong_port(relay: Relay, clue: Clue) -> Trouble | None:
    where = relay.place
    if (clue is Clue.TLS and relay.tls is not Tls.IMPLICIT) or (clue is Clue.CLEAR and relay.tls is Tls.IMPLICIT):
        what, fix = wrong_mode(relay)
        return Trouble(f"{what}.", f"{fix[0].upper()}{fix[1:]}{'.' if relay.tls is Tls.IMPLICIT else ''}")
    if clue in (Clue.IMAP, Clue.POP3, Clue.SSH):
        return Trouble(
            f"{where} is no mail relay: it speaks {clue.value}.",
            "Mail is sent through another port of the provider: 587 or 465, at a host often called smtp. or mail.",
        )
    return None


def _untrusted(event: Fault, relay: Relay, certificate: Certificate | None, now: datetime.datetime | None) -> Trouble:
    if certificate is None:
        return Trouble(f"{event}.", "Ask the server's administrator.")
    if now is not None and certificate.valid_until < now:
        return Trouble(
            f"The certificate of {relay.host} expired on {certificate.valid_until:%Y-%m-%d}.",
            "The server's administrator must renew it; check that this computer's clock is right.",
        )
    if now is not None and certificate.valid_from > now:
        return Trouble(
            f"The certificate of {relay.host} is valid only from {certificate.valid_from:%Y-%m-%d} on.",
            "Check the clock of this computer.",
        )
    if certificate.is_self_signed and "another name" not in event.what:
        return Trouble(
            f"The certificate of {relay.host} is self-signed.",
            "If the server is yours, name its certificate: add ?ca_file=FILE to the URL; else do not use it.",
        )
    if "another name" in event.what:
        names = [name for name in certificate.names if not name.startswith("*")]
        shown = ", ".join(certificate.names[:3]) or certificate.subject
        return Trouble(
            f"The certificate that {relay.host} shows is for {shown}, not for {relay.host}.",
            f"If that is your provider, write its name into the URL: {names[0]}"
            if names
            else "Write a name that the certificate is for into the URL.",
        )
    return Trouble(
        f"The certificate of {relay.host} is from {certificate.issuer}, which is unknown on this computer.",
        "If that is your own authority, add ?ca_file=FILE to the URL.",
    )


# What providers mean by their refusals: by the text, since several share one code.
_LOGINS = (
    (
        lazy_pattern(
            r"application-specific|app(lication)?[- ]password|BadCredentials|InvalidSecondFactor", re.IGNORECASE
        ),
        "The provider wants an app password here, not the password of the account.",
        "Make one in the security settings of the account (at Google: myaccount.google.com/apppasswords), "
        "and use it as the password.",
    ),
    (
        lazy_pattern(r"basic authentication is disabled|SmtpClientAuthentication is disabled", re.IGNORECASE),
        "Microsoft has switched off passwords for SMTP in this account.",
        "Ask its administrator to allow authenticated SMTP for this mailbox (aka.ms/smtp_auth_disabled), "
        "or use another relay.",
    ),
    (
        lazy_pattern(r"web ?browser|WebLoginRequired", re.IGNORECASE),
        "The provider wants you to sign in with a browser first.",
        "Sign in there once and confirm that it was you; then try again.",
    ),
    (
        lazy_pattern(r"too many", re.IGNORECASE),
        "The provider has seen too many failed logins and takes none for now.",
        "Wait an hour; then try once with the right password.",
    ),
)


def _reply_words(reply: Reply, relay: Relay, feedback: Feedback) -> tuple[str, str]:
    reason = feedback.decide(reply).verdict.reason
    match reply.stage:
        case Stage.AUTH:
            return _login_words(reply, reason)
        case Stage.MAIL if reply.code in (530, 538):
            return "The server takes mail only after a login or TLS.", _WITH_USER
        case Stage.MAIL if reason is Reason.SENDER_REFUSED:
            return "The server refuses the sender.", _sentence(ADVICE[reason].fix)
        case Stage.MAIL if (found := advice(reason)) is not None:
            return f"The server {found.says}.", _sentence(found.fix)
        case Stage.MAIL:
            return "The server refuses the sender.", _sentence(ADVICE[Reason.SENDER_REFUSED].fix)
        case Stage.RCPT:
            what = "The server does not deliver to the recipient" + (" just now." if reply.is_transient else ".")
            return (
                what,
                _sentence((advice(reason) or ADVICE[Reason.RELAYING_DENIED]).fix),
            )
        case _ if reply.is_transient:
            return f"{relay.host} is there, but takes no mail at the moment.", "Try again in some minutes."
    return f"{relay.host} answers, but refuses to talk to us.", "Ask the server's administrator."


def _sentence(fix: str) -> str:
    return f"{fix[0].upper()}{fix[1:]}."


_WITH_USER = "Put the user name into the URL: smtp://USER@HOST"


def _login_words(reply: Reply, reason: Reason) -> tuple[str, str]:
    for pattern, what, fix in _LOGINS:
        if pattern.search(f"{reply.enhanced} {reply.text}"):
            return what, fix
    if reason is Reason.CREDITS_USED_UP:
        return f"The server {ADVICE[Reason.CREDITS_USED_UP].says}.", _sentence(ADVICE[Reason.CREDITS_USED_UP].fix)
    if reply.code == 534:
        return _LOGINS[0][1:]
    if reply.is_transient:
        return "The server cannot check the password at the moment.", "Try again in some minutes."
    return (
        "The server does not accept the user name or the password.",
        "Check both; the user name is often the whole address.  Some providers want an app password here.",
    )
