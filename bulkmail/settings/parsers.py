"""How each value is read that settings, flags and resumed runs write: one parser a concept."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bulkmail.model.campaign import is_template
from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.pace import Durability
from bulkmail.model.quantities import parse_duration, parse_share
from bulkmail.model.quota import DAY
from bulkmail.model.recipient import Address, has_control, parse_mailbox
from bulkmail.model.relay import Dsn, SecretKind, SecretSource, Tls, parse_dsn, parse_source
from bulkmail.model.retry import parse_schedule
from bulkmail.model.schedule import FindZone
from bulkmail.model.suppression import SuppressionReason
from bulkmail.settings.problems import show
from bulkmail.text import did_you_mean

if TYPE_CHECKING:
    from bulkmail.mailbox.imap import Mailbox

KEY = "{key}"
"""In the hint of a fault: the key that the value was written for."""


def parse_wait(text: str) -> float:
    """Seconds in `"10m"`, `"forever"` (infinity) or `"0"`.  Raises `ConfigError`."""
    if text.strip().lower() == "forever":
        return math.inf
    try:
        return parse_duration(text)
    except ConfigError as error:
        raise ConfigError(str(error), hint='write "10m", "forever" or "0"') from None


def parse_positive(text: str) -> float:
    """Seconds, more than none.  Raises `ConfigError`."""
    seconds = parse_duration(text)
    if not seconds:
        raise ConfigError("must be longer than nothing", hint='write "30s", "10m", "2h" or "5d"')
    return seconds


SHORTEST_STILLNESS = 60.0  # seconds; retries and slow relays make shorter pauses in every run


def parse_stillness(text: str) -> float:
    """Seconds after which a run that does not move counts as stalled.  Raises `ConfigError`."""
    seconds = parse_duration(text)
    if seconds < SHORTEST_STILLNESS:
        raise ConfigError("is shorter than a minute", hint='write after = "30min"')
    return seconds


def parse_rests(text: str) -> tuple[float, ...]:
    """A schedule for a relay or a provider: shorter waits would bother it, longer ones are no waits."""
    steps = parse_schedule(text)
    if not all(1 <= step <= DAY for step in steps):
        raise ConfigError("each wait must be a second at least and a day at most", hint='write "30s, 1m, 5m*3"')
    return steps


def parse_durability(text: str) -> Durability:
    """`"process"` or `"power"`.  Raises `ConfigError`."""
    try:
        return Durability(text)
    except ValueError:
        raise ConfigError(
            "is not a kind of durability", hint='write "process" (survives kill -9) or "power" (survives a power cut)'
        ) from None


def parse_percentage(text: str) -> float:
    """The share in `"10%"`, 0 to 1.  Raises `ConfigError`."""
    try:
        return parse_share(text)
    except ConfigError:
        raise ConfigError("is not a percentage", hint='write "10%", or "100%" to allow all') from None


def parse_processes(text: str) -> int:
    """How many processes, 0 for `"auto"`.  Raises `ConfigError`."""
    if text == "auto":
        return 0
    try:
        return at_least_one(int(text))
    except (ConfigError, ValueError):
        raise ConfigError("is no number of processes", hint='write "auto", or a whole number from 1') from None


def at_least_one(number: int) -> int:
    """`number` if it is 1 or more.  Raises `ConfigError`."""
    if number < 1:
        raise ConfigError("must be 1 or more", hint="write a whole number from 1")
    return number


def not_negative(number: int) -> int:
    """`number` if it is 0 or more.  Raises `ConfigError`."""
    if number < 0:
        raise ConfigError("must be 0 or more", hint="write a whole number, 0 for never")
    return number


# Secrets: no fault of these says what was written.

_VARIABLE_NAME = lazy_pattern(r"[A-Za-z_][A-Za-z0-9_]*")
_PLACES = {
    SecretKind.ENV: "the name of an environment variable",
    SecretKind.FILE: "the name of a file",
    SecretKind.COMMAND: "a command",
}


def parse_place(kind: SecretKind, text: str, *, key: str) -> SecretSource:
    """The variable, file or command that `key` names.  Raises `ConfigError`."""
    if text.strip() and "\0" not in text and (kind is not SecretKind.ENV or _VARIABLE_NAME.fullmatch(text)):
        return SecretSource(kind, text)
    is_variable = kind is SecretKind.ENV
    hint = f'write {key} = "SHOP_MAIL_{key.removesuffix("_env").upper()}"' if is_variable else ""
    raise ConfigError(f"is not {_PLACES[kind]}", hint=hint or f"fill it in, or leave {key} out")


def parse_webhook(text: str) -> str:
    """The https address of a webhook.  Raises `ConfigError`."""
    url = text.strip()
    hint = 'write webhook = "https://hooks.example.com/bulkmail"'
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("is not an address", hint=hint) from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("holds a password that others may read", hint="leave it out; secret_env signs the call")
    is_plain = url.isascii() and url.isprintable() and " " not in url and port != 0
    if parts.scheme != "https" or not parts.hostname or not is_plain:
        raise ConfigError("is not an https address", hint=hint)
    return url


_MOST_WORDS = 100


def parse_program(words: Sequence[str]) -> tuple[str, ...]:
    """A program with its arguments.  Raises `ConfigError`."""
    if not words or not words[0].strip() or any("\0" in word for word in words) or len(words) > _MOST_WORDS:
        raise ConfigError(
            "is not a program with its arguments", hint='write command = ["notify-send", "bulkmail", "{text}"]'
        )
    return tuple(words)


# Relays

_EHLO_NAME = lazy_pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,253}|\[(?:IPv6:)?[0-9A-Fa-f:.]+\]")


def parse_ehlo(text: str) -> str:
    """The name that we greet with; empty: the usual one.  Raises `ConfigError`."""
    if text and not _EHLO_NAME.fullmatch(text):
        raise ConfigError("is not a host name", hint='write for example "mail.example.com", or leave it out')
    return text


def parse_user_name(text: str) -> str:
    """The user of a login.  Raises `ConfigError`."""
    if has_control(text):
        raise ConfigError("the user name holds a control character", hint="type it again")
    return text


def parse_tls(text: str) -> Tls:
    """How a connection is secured.  Raises `ConfigError`."""
    try:
        return Tls(text)
    except ValueError:
        raise ConfigError("is not a kind of TLS", hint='write "required", "opportunistic" or "off"') from None


def parse_dsn_events(text: str) -> Dsn:
    """The reports in `"failure, delay"` or `"never"`.  Raises `ConfigError`."""
    try:
        return parse_dsn(text)
    except ConfigError as error:
        raise ConfigError("names no events to be reported", hint=error.hint) from None


def parse_dsn_return(text: str) -> bool:
    """Whether reports bring back the whole message.  Raises `ConfigError`."""
    if text not in ("headers", "full"):
        raise ConfigError("is not what a report may bring back", hint='write "headers" or "full"')
    return text == "full"


def parse_source_address(text: str) -> str:
    """The IP address that connections come from.  Raises `ConfigError`."""
    try:
        return parse_source(text)
    except ConfigError as error:
        raise ConfigError("is not an IP address", hint=error.hint) from None


# Messages

EXAMPLE_SENDER = "Corner Shop <hello@shop.example>"


def parse_word(text: str) -> str:
    """A text without control characters.  Raises `ConfigError`."""
    if has_control(text):
        raise ConfigError("holds a control character", hint="type it again")
    return text


def parse_one_line(text: str) -> str:
    """A text, mostly a template, that a header can hold: line ends are made into spaces later on."""
    parse_word(re.sub(r"[\t\r\n]", " ", text))
    return text


def parse_address_option(text: str) -> str:
    """An address with its name.  It is checked now if it is the same for all, and else when it is rendered."""
    parse_one_line(text)
    if not text.strip():
        raise ConfigError("is empty", hint=f'write {KEY} = "{EXAMPLE_SENDER}"')
    if not is_template(text) and not has_control(text):
        try:
            parse_mailbox(text)
        except AddressError as error:
            raise ConfigError(str(error), hint=f'write it as "{EXAMPLE_SENDER}"') from None
    return text


def parse_mail_address(text: str) -> str:
    """The bare address in `"Me <me@shop.example>"`.  Raises `ConfigError`."""
    try:
        return parse_mailbox(text)[1].readable
    except AddressError as error:
        raise ConfigError(str(error), hint=f'write {KEY} = "me@shop.example"') from None


def parse_reverse_path(text: str) -> str:
    """An address, or what becomes one when a row is filled in.  Raises `ConfigError`."""
    text = parse_one_line(text.strip())
    if is_template(text):
        return text
    try:
        # What stands for the recipient is checked when the message is.
        filled = Address.parse(text.replace("{verp}", "a").replace("{bounce}", "a"))
    except AddressError as error:
        raise ConfigError(str(error), hint='write reverse_path = "bounces@shop.example", or leave it out') from None
    return text if "{verp}" in text or "{bounce}" in text else filled.wire


def parse_locale(text: str) -> str:
    """A locale, or the template that makes each row's.  Raises `ConfigError`."""
    from bulkmail.message.template.locales import UnknownLocale, find_locale

    try:
        find_locale("en" if is_template(text) else text)
    except UnknownLocale as error:
        raise ConfigError(str(error), hint='write locale = "de_AT", or "{{ lang }}" for a column of the list') from None
    return parse_one_line(text)


def parse_zone(text: str, find: FindZone) -> str:
    """The name of a time zone.  Raises `ConfigError`."""
    find(text or "?")
    return text


CONTENT_TYPE = lazy_pattern(
    r"(?!multipart/|message/)[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}", re.I
)


def parse_content_type(text: str) -> str:
    """The type of a file.  Raises `ConfigError`."""
    if not CONTENT_TYPE.fullmatch(text):
        raise ConfigError("is not a content type", hint='write type = "application/pdf"')
    return text


def parse_dkim_preset(text: str) -> str:
    """A relay whose habits signatures allow for.  Raises `ConfigError`."""
    from bulkmail.message.dkim import PRESETS

    return _known(text, PRESETS, "is not a relay with habits to be minded") if text else text


# Lists


def parse_encoding(text: str) -> str:
    """The name of an encoding.  Raises `ConfigError`."""
    try:
        "".encode(text)
    except (LookupError, ValueError):
        raise ConfigError("is not an encoding", hint="write utf-8, cp1252, iso-8859-15 or utf-16") from None
    return text


def parse_row_number(number: int) -> int:
    """The number of a row, from 1.  Raises `ConfigError`."""
    if number < 1:
        raise ConfigError("is not the number of a row", hint="write 1 for the first row, 2 for the second")
    return number


def parse_columns(names: Sequence[str]) -> list[str]:
    """Names of columns, each once.  Raises `ConfigError`."""
    columns = [name.strip() for name in names]
    if "" in columns or len(set(columns)) < len(columns):
        what = "is empty" if "" in columns else "names a column twice"
        raise ConfigError(what, hint='write the name of a column: group_by = "email"')
    return columns


def parse_expression(text: str) -> str:
    """A condition in Jinja; empty: none.  Raises `ConfigError`."""
    if not text.strip():
        return ""
    if fault := _expression_fault(text):
        raise ConfigError(f"cannot be read: {fault}", hint="write for example country == 'AT' and age|int > 17")
    return text


def _expression_fault(text: str) -> str:
    """What Jinja says against `text`.  Only parses: compiling would work out constants, and `9**9**9` takes ages."""
    from jinja2 import Environment, TemplateSyntaxError
    from jinja2.parser import Parser

    try:
        parser = Parser(Environment(autoescape=True), text, state="variable")
        parser.parse_expression()
    except TemplateSyntaxError as error:
        return error.message or "it is not an expression"
    except RecursionError:
        return "it is nested too deeply"
    return "" if parser.stream.eos else "there is something after its end"


# What came back

SERVICES = ("ses", "mailgun", "postmark", "standard")
LISTEN = "127.0.0.1:8025"
_UNSIGNED = {"soft": True, "ignore": False}


def parse_reasons(names: Sequence[str]) -> frozenset[SuppressionReason]:
    """Reasons to suppress an address.  Raises `ConfigError`."""
    known = {reason.value: reason for reason in SuppressionReason}
    for name in names:
        if name not in known:
            fix = did_you_mean(name, known) or f"known are {', '.join(known)}"
            raise ConfigError(f"{show(name)} is not a reason to suppress an address", hint=fix)
    return frozenset(known[name] for name in names)


def parse_bounces(number: int) -> int:
    """How many bounces suppress an address.  Raises `ConfigError`."""
    if not 0 <= number <= 100:
        raise ConfigError("is no number of bounces", hint="write 1, a number up to 100, or 0 for never")
    return number


def parse_unsigned(text: str) -> bool:
    """Whether reports that anyone may have written count.  Raises `ConfigError`."""
    if text not in _UNSIGNED:
        raise ConfigError("is not known", hint='write unsigned = "soft", or "ignore"')
    return _UNSIGNED[text]


def parse_service(text: str) -> str:
    """A service whose reports can be read.  Raises `ConfigError`."""
    return _known(text, SERVICES, "is no service whose reports can be read")


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port in `"127.0.0.1:8025"`.  Raises `ConfigError`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 <= int(port) < 65_536:
        raise ConfigError("is not an address to listen at", hint=f"write {LISTEN}")
    return host.strip("[]"), int(port)


def parse_imap(text: str) -> Mailbox:
    """A login on an IMAP server.  Raises `ConfigError` that does not repeat it."""
    from bulkmail.mailbox.imap import Mailbox

    return Mailbox.parse(text)


def _known(name: str, names: Mapping[str, object] | Sequence[str], what: str) -> str:
    """`name`, if it is one of `names`.  Raises `ConfigError` with the nearest, or all of them."""
    if name in names:
        return name
    known = ", ".join(show(each) for each in names if each)
    raise ConfigError(what, hint=did_you_mean(name, names) or f"known are {known}")


LOCAL_TIME = Path("/etc/localtime")
_WRITE = "write the zone behind the hours, for example Europe/Vienna"


def find_zone(name: str, *, environ: Mapping[str, str] = os.environ, local_time: Path = LOCAL_TIME) -> tzinfo:
    """The zone of `name` (`"Europe/Vienna"`, `"UTC"`), of this machine when it is empty.  Raises `ConfigError`."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    wanted = name or environ.get("TZ", "").removeprefix(":") or _linked(local_time)
    if not wanted:
        raise ConfigError("this machine does not say which time zone it is in", hint=_WRITE)
    if wanted.upper() in ("UTC", "GMT", "Z"):
        return UTC
    try:
        return ZoneInfo(wanted)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # unknown; not a name but a path; a folder of zones
        raise _unknown(wanted, is_ours=not name) from None


def _linked(local_time: Path) -> str:
    """The name that a link such as `/usr/share/zoneinfo/Europe/Vienna` ends with; empty when it is no link."""
    try:
        target = os.readlink(local_time)
    except OSError:
        return ""
    _, found, name = target.replace("\\", "/").partition("zoneinfo/")
    return name if found else ""


def _unknown(name: str, *, is_ours: bool) -> ConfigError:
    from zoneinfo import available_timezones

    if is_ours:
        return ConfigError(f"this machine's time zone, {show(name)}, is none that is known", hint=_WRITE)
    known = available_timezones()
    if not known:
        return ConfigError(
            f"no time zone is known on this machine, so neither is {show(name)}",
            hint="install the time zone data: pip install tzdata",
        )
    return ConfigError(f"{show(name)} is not a time zone", hint=did_you_mean(name, sorted(known)) or _WRITE)
