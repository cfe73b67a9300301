"""What was found out about a relay, for people and for programs."""

from __future__ import annotations

import datetime
import json
import textwrap
from collections.abc import Iterator

from bulkmail.checks.relay_trouble import trouble_with
from bulkmail.model.outcome import Reply
from bulkmail.model.relay import Tls
from bulkmail.probe.certificate import Certificate
from bulkmail.probe.relay_probe import Login, RelayFacts
from bulkmail.smtp.peer_policy import Mode
from bulkmail.text import printable

WIDTH = 80  # columns
_LABEL = 13


def as_table(facts: RelayFacts) -> str:
    """One fact a line, its name in front, and the verdict below; at most 80 columns."""
    lines = [printable(str(facts.relay), WIDTH), ""]
    shown = ""
    for label, text in _facts(facts):
        lines += _row("" if label == shown else label, text)
        shown = label
    if shown:
        lines.append("")
    trouble = trouble_with(facts)
    if trouble is None:
        lines += textwrap.wrap(_praise(facts), WIDTH)
    else:
        lines += textwrap.wrap(f"Not usable: {trouble.what}", WIDTH)
        if trouble.words:
            lines += _indented(f"The server said: {trouble.words}")
        lines += _indented(trouble.fix, is_ours=True)
    return "\n".join(lines) + "\n"


def _row(label: str, text: str) -> list[str]:
    begin = f"{label:<{_LABEL}}"
    return textwrap.wrap(
        printable(text), WIDTH, initial_indent=begin, subsequent_indent=" " * _LABEL, break_on_hyphens=False
    )


def _indented(text: str, *, is_ours: bool = False) -> list[str]:
    # A URL or a command is to be copied: it is not broken.
    return textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
        break_on_hyphens=False,
        break_long_words=not is_ours,
    )


def _facts(facts: RelayFacts) -> Iterator[tuple[str, str]]:
    for tried in facts.addresses:
        yield "Address", tried.address + (f": {tried.error}" if tried.error else f" answered in {_ms(tried.seconds)}")
    if facts.capabilities is not None:
        yield "TLS", _tls(facts)
    if facts.certificate is not None:
        yield from _certificate(facts.certificate)
    if facts.capabilities is None:
        return
    if facts.server:
        yield "Server", facts.server
    yield "Offers", _offers(facts)
    yield "Login", _login(facts)
    yield from _bounds(facts)
    if facts.mode is not None:
        yield "Speed", _speed(facts)
    if facts.round_trip is not None:
        yield "Round trip", _ms(facts.round_trip)
    for label, reply in (("Sender", facts.sender), ("Recipient", facts.recipient)):
        if reply is not None:
            yield label, _answer(reply)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def _tls(facts: RelayFacts) -> str:
    if not facts.tls_version:
        return "none: everything is sent in clear text"
    how = "from the first byte" if facts.relay.tls is Tls.IMPLICIT else "by STARTTLS"
    return f"{facts.tls_version} {how}, {facts.cipher}"


def _certificate(certificate: Certificate) -> Iterator[tuple[str, str]]:
    yield "Certificate", f"for {', '.join(certificate.names) or certificate.subject}"
    yield "Certificate", "from itself" if certificate.is_self_signed else f"from {certificate.issuer}"
    days = (certificate.valid_until - datetime.datetime.now(datetime.UTC)).days
    left = f"{days} days" if days >= 0 else "over"
    yield "Certificate", f"valid until {certificate.valid_until:%Y-%m-%d} ({left})"


_WORDS = {
    "PIPELINING": "several commands at once",
    "CHUNKING": "messages in one block",
    "8BITMIME": "8-bit text",
    "SMTPUTF8": "internationalised addresses",
    "DSN": "delivery reports",
    "STARTTLS": "TLS on request",
    "ENHANCEDSTATUSCODES": "precise error codes",
    "REQUIRETLS": "TLS on the whole path",
    "BINARYMIME": "binary content",
    "VRFY": "",
    "ETRN": "",
    "HELP": "",
    "EXPN": "",
    "SIZE": "",  # these have lines of their own
    "AUTH": "",
    "LIMITS": "",
}


def _offers(facts: RelayFacts) -> str:
    words = []
    for line in facts.extensions:
        name = line.split(" ")[0].upper()
        if name.startswith("AUTH="):
            continue
        if meaning := _WORDS.get(name, name):
            words.append(f"{meaning} ({name})" if meaning != name else name)
    return ", ".join(dict.fromkeys(words)) or "nothing beyond plain SMTP"


def _login(facts: RelayFacts) -> str:
    offered = " ".join(facts.capabilities.auth_mechanisms) if facts.capabilities else ""
    match facts.login:
        case Login.NOT_WANTED:
            return "none: the URL names no user" + (f" (the server offers {offered})" if offered else "")
        case Login.WORKS:
            return f"as {facts.relay.username} by {facts.mechanism}: works"
        case Login.REFUSED:
            return f"as {facts.relay.username}" + (f" by {facts.mechanism}" if facts.mechanism else "") + ": refused"
        case Login.NO_PASSWORD:
            return f"as {facts.relay.username} by {facts.mechanism or 'nothing we know'}: not tried, no password"
        case _:
            return "not reached"


def _bounds(facts: RelayFacts) -> Iterator[tuple[str, str]]:
    size = facts.capabilities.size_limit if facts.capabilities else None
    if size:
        yield "Limits", f"size of a message: at most {size / 1_000_000:.1f} MB (SIZE)"
    names = {
        "MAILMAX": "messages a connection: at most {}",
        "RCPTMAX": "recipients a message: at most {}",
        "RCPTDOMAINMAX": "recipient domains a connection: at most {}",
    }
    for name, value in facts.limits:
        yield "Limits", names.get(name, f"{name} {{}}").replace("{}", value) + " (LIMITS)"


def _speed(facts: RelayFacts) -> str:
    depth = facts.relay.depth
    match facts.mode:
        case Mode.DEEP if facts.probe_passed:
            return f"CHUNKING, up to {depth} messages ahead of the replies; the probe passed"
        case Mode.DEEP:
            return f"CHUNKING, up to {depth} messages ahead of the replies if the probe passes (not tried)"
        case Mode.CHUNKING:
            return "CHUNKING: one round trip per message"
        case Mode.PIPELINING if facts.probe_passed is False:
            return "PIPELINING: one round trip per message; the probe for CHUNKING failed"
        case Mode.PIPELINING:
            return "PIPELINING: one round trip per message"
        case _:
            return "plain: one command at a time, four round trips per message"


def _answer(reply: Reply) -> str:
    return f"{'accepted' if reply.is_positive else 'refused'}: {reply}"


def _praise(facts: RelayFacts) -> str:
    hint = ""
    offered = facts.capabilities.auth_mechanisms if facts.capabilities else ()
    if facts.login is Login.NOT_WANTED and offered and facts.sender is None:
        hint = "  It may require a login before it accepts mail: smtp://USER@HOST, or try --from ADDRESS."
    return f"Usable.{hint}"


def to_json(facts: RelayFacts) -> str:
    """One object; what was not found out is null."""
    certificate, capabilities, trouble = facts.certificate, facts.capabilities, trouble_with(facts)
    found = {
        "relay": str(facts.relay),
        "usable": facts.is_usable,
        "trouble": trouble and {"what": trouble.what, "fix": trouble.fix, "reply": trouble.words or None},
        "addresses": [
            {"address": tried.address, "seconds": None if tried.error else tried.seconds, "error": tried.error or None}
            for tried in facts.addresses
        ],
        "connected_to": facts.connected_to or None,
        "tls": {"version": facts.tls_version, "cipher": facts.cipher} if facts.tls_version else None,
        "certificate": certificate
        and {
            "subject": certificate.subject,
            "names": certificate.names,
            "issuer": certificate.issuer,
            "valid_from": certificate.valid_from.isoformat(),
            "valid_until": certificate.valid_until.isoformat(),
        },
        "server": facts.server or None,
        "extensions": facts.extensions,
        "size_limit": capabilities.size_limit if capabilities else None,
        "limits": dict(facts.limits),
        "login": {"state": facts.login.value, "mechanism": facts.mechanism or None},
        "mode": facts.mode.name.lower() if facts.mode else None,
        "probe_passed": facts.probe_passed,
        "depth": facts.relay.depth,
        "round_trip": facts.round_trip,
        "sender": _json_reply(facts.sender),
        "recipient": _json_reply(facts.recipient),
    }
    return json.dumps(found, ensure_ascii=True, indent=2)


def _json_reply(reply: Reply | None) -> dict[str, object] | None:
    return None if reply is None else {"code": reply.code, "enhanced": reply.enhanced or None, "text": reply.text}
