"""Why a relay cannot be used, in a sentence for a shop owner, with what to do next."""

from __future__ import annotations

import datetime

from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import ADVICE, Breakage, Fault, Reason, Reply, Stage, advice
from bulkmail.model.relay import Relay, Tls
from bulkmail.probe.certificate import Certificate
from bulkmail.probe.relay_probe import Clue, Login, RelayFacts
from bulkmail.smtp.opening import relay_url, wrong_mode


@dataclass(frozen=True, slots=True)
class RelayTrouble:
    """`what` was found, and `fix`: what to do about it.  `words` are the server's own, if it said any."""

    what: str
    fix: str
    words: str = ""


def trouble_with(facts: RelayFacts) -> RelayTrouble | None:
    """Why mail cannot be sent through this relay; None if nothing is known to stand in the way."""
    if facts.obstacle is None:
        if facts.login is not Login.NO_PASSWORD:
            return None
        return RelayTrouble(
            "No password was found, so the login was not tried.",
            "Set BULKMAIL_PASSWORD, or write password_file or password_command into [relay].",
        )
    obstacle = facts.obstacle
    return explain(
        obstacle.event,
        facts.relay,
        reason=obstacle.reason,
        clue=obstacle.clue,
        certificate=facts.certificate,
        now=obstacle.seen_at,
    )


def explain(
    event: Reply | Fault,
    relay: Relay,
    *,
    reason: Reason,
    clue: Clue = Clue.NOTHING,
    certificate: Certificate | None = None,
    now: datetime.datetime | None = None,
) -> RelayTrouble:
    """The trouble behind `event`.

    `reason` is the judge's, as in a run; `certificate` is what the server shows, and `now` the time to judge that by.
    """
    where = relay.place
    wrong_port = _wrong_port(relay, clue)
    if isinstance(event, Reply):
        what, fix = _reply_words(event, relay, reason)
        return RelayTrouble(what, fix, words=str(event))
    if wrong_port is not None:
        return wrong_port
    if event.stage is Stage.CONNECT and relay.socket_path:
        return RelayTrouble(f"{event}.", "Check the path, that the server is running and that you may use its socket.")
    if event.kind is Breakage.NO_REQUIRETLS:
        return RelayTrouble(f"{event}.", "Leave requiretls out to do without that promise, or use another relay.")
    if event.kind in (Breakage.UNTRUSTED, Breakage.WRONG_NAME):
        return _untrusted(event, relay, certificate, now)
    if event.stage is Stage.CONNECT and event.kind in _NO_ONE and not relay.proxy:
        what, fix = _NO_ONE[event.kind]
        if event.kind is Breakage.TIMEOUT and relay.port == 25:
            return RelayTrouble(
                f"{where} does not answer.  Most internet providers block port 25 for their customers.",
                f"Use port 587: {relay_url(relay, 587)}",
            )
        return RelayTrouble(what.format(where=where, host=relay.host), fix)
    if event.kind is Breakage.NO_TLS:
        return RelayTrouble(
            f"{where} offers no encryption (STARTTLS), so everything would go in clear text.",
            f"Try {relay_url(relay, 465, is_implicit=True)}, which begins with TLS; "
            "only for a server on this machine or in a trusted network add ?tls=off.",
        )
    if event.stage is Stage.AUTH and relay.wants_token and event.kind in _NO_TOKEN:
        return RelayTrouble(
            f"There is no access token to log in with: {event}.",
            "See what [relay] says about the token, and whether the provider still allows this program.",
        )
    if event.kind is Breakage.IMPOSTOR:
        return RelayTrouble(
            f"This is perhaps not your provider's server: {event}.", "Check which server answers there first."
        )
    if event.kind is Breakage.NO_LOGIN:
        return RelayTrouble(
            f"There is no way to log in: {event}.",
            "Ask the provider for the port (587 and 465 are usual) and the login method.",
        )
    if event.kind is Breakage.TIMEOUT:
        return RelayTrouble(f"{event}.", "Try again in a minute; if it persists, ask the server's administrator.")
    return RelayTrouble(f"{event}.", "Check host and port, and ask the server's administrator.")


_NO_TOKEN = {Breakage.NO_TOKEN, Breakage.UNREACHABLE}
_NO_ONE = {
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


def _wrong_port(relay: Relay, clue: Clue) -> RelayTrouble | None:
    where = relay.place
    if (clue is Clue.TLS and relay.tls is not Tls.IMPLICIT) or (clue is Clue.CLEAR and relay.tls is Tls.IMPLICIT):
        what, fix = wrong_mode(relay)
        return RelayTrouble(f"{what}.", f"{fix[0].upper()}{fix[1:]}{'.' if relay.tls is Tls.IMPLICIT else ''}")
    if clue in (Clue.IMAP, Clue.POP3, Clue.SSH):
        return RelayTrouble(
            f"{where} is not a mail relay: it speaks {clue.value}.",
            "Mail is sent through another port of the provider: 587 or 465, at a host often called smtp. or mail.",
        )
    return None


def _untrusted(
    event: Fault, relay: Relay, certificate: Certificate | None, now: datetime.datetime | None
) -> RelayTrouble:
    if certificate is None:
        return RelayTrouble(f"{event}.", "Ask the server's administrator.")
    if now is not None and certificate.valid_until < now:
        return RelayTrouble(
            f"The certificate of {relay.host} expired on {certificate.valid_until:%Y-%m-%d}.",
            "The server's administrator must renew it; check that this computer's clock is right.",
        )
    if now is not None and certificate.valid_from > now:
        return RelayTrouble(
            f"The certificate of {relay.host} is valid only from {certificate.valid_from:%Y-%m-%d} on.",
            "Check the clock of this computer.",
        )
    if certificate.is_self_signed and event.kind is not Breakage.WRONG_NAME:
        return RelayTrouble(
            f"The certificate of {relay.host} is self-signed.",
            "If the server is yours, name its certificate: add ?ca_file=FILE to the URL; else do not use it.",
        )
    if event.kind is Breakage.WRONG_NAME:
        names = [name for name in certificate.names if not name.startswith("*")]
        shown = ", ".join(certificate.names[:3]) or certificate.subject
        return RelayTrouble(
            f"The certificate that {relay.host} shows is for {shown}, not for {relay.host}.",
            f"If that is your provider, write its name into the URL: {names[0]}"
            if names
            else "Write a name that the certificate is for into the URL.",
        )
    return RelayTrouble(
        f"The certificate of {relay.host} is from {certificate.issuer}, which is unknown on this computer.",
        "If that is your own authority, add ?ca_file=FILE to the URL.",
    )


def _reply_words(reply: Reply, relay: Relay, reason: Reason) -> tuple[str, str]:
    match reply.stage:
        case Stage.AUTH:
            login = ADVICE.get(reason, ADVICE[Reason.LOGIN_REFUSED])
            return f"The server {login.says}.", _sentence(login.fix)
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
