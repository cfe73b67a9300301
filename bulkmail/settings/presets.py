"""The tables that come with the program: known relays, mailbox providers, and what servers say when it is too much."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.outcome import Reply, Stage
from bulkmail.model.rate import Rate
from bulkmail.model.route import MailboxProvider, MailboxProviders, ProviderLimits
from bulkmail.model.shaper import Feedback
from bulkmail.model.verdict import judge, rule_of
from bulkmail.settings.problems import show
from bulkmail.text import did_you_mean


@cache
def known_providers() -> MailboxProviders:
    """The providers of `data/mailbox_providers.toml`."""
    return MailboxProviders(
        {name: _provider(name, table) for name, table in read_table("mailbox_providers.toml").items()}
    )


@cache
def known_feedback() -> Feedback:
    """The judge with the rules of `data/replies.toml`, in their order."""
    judge(Reply(Stage.RCPT, 500, text="denied for an hour"))  # its patterns are compiled now, and not on a loop
    return Feedback(tuple(map(rule_of, read_table("replies.toml")["reply"])))


def read_table(name: str) -> dict[str, Any]:
    """A table of `data/`."""
    return tomllib.loads(files("bulkmail").joinpath("data", name).read_text("utf-8"))


def _provider(name: str, table: Mapping[str, Any]) -> MailboxProvider:
    preset = ProviderLimits(Rate.parse(table["rate"]), table["connections"], table["messages_per_session"])
    return MailboxProvider(
        name, frozenset(table.get("domains", ())), frozenset(table.get("exchangers", ())), preset=preset
    )


FROM = "from"
_LIMITS = ("quota", "rate", "connections")
_REGION = lazy_pattern(r"[a-z0-9][a-z0-9.-]{0,40}")
# What a URL begins with.
_SCHEMES = frozenset({"smtp", "smtps", "lmtp", "smtp+unix", "lmtp+unix", "sandbox", "maildir", "null"})


@dataclass(frozen=True, slots=True)
class RelayPreset:
    """What `data/relays.toml` says of a provider; `checked` is the day on which it was compared with `source`.

    `username` is `"from"` where the address of From logs in, a fixed name, or empty.  `limits` are options of the URL.
    """

    name: str
    title: str
    url: str
    username: str
    login: str
    password: str
    setup: str
    source: str
    noted: date
    checked: date | None = None
    regions: tuple[str, ...] = ()
    limits: tuple[tuple[str, str], ...] = ()


@cache
def relay_presets() -> Mapping[str, RelayPreset]:
    """All of them by name."""
    return {name: _preset(name, table) for name, table in read_table("relays.toml").items()}


def _preset(name: str, table: Mapping[str, Any]) -> RelayPreset:
    limits = tuple((key, str(table[key])) for key in _LIMITS if key in table)
    rest = {key: value for key, value in table.items() if key not in _LIMITS}
    return RelayPreset(name=name, limits=limits, **{**rest, "regions": tuple(table.get("regions", ()))})


def named_preset(text: str) -> RelayPreset | None:
    """The preset that `text` names, in any case; None for anything else.  Raises `ConfigError` for a misspelt name."""
    name = text.strip().partition(":")[0].lower()
    if "/" in text or "." in name or "@" in name or name in _SCHEMES:  # a URL, for which no file is read
        return None
    if name in relay_presets():
        return relay_presets()[name]
    if fix := did_you_mean(name, relay_presets()):
        raise ConfigError(f"{show(name)} is not a known relay", hint=fix)
    return None


def expanded(text: str, *, needs_user: bool = False) -> str:
    """The URL that a preset's name stands for, with its limits as options; any other text as it is.

    Raises `ConfigError` for a name of none, a region that is missing, and, if it `needs_user`, a missing user name.
    """
    preset = named_preset(text)
    if preset is None:
        return text
    rest = text.strip().partition(":")[2]
    region = ""
    if "{region}" in preset.url:
        region, _, rest = rest.partition(":")
        if not _REGION.fullmatch(region):
            examples = " or ".join(f'"{preset.name}:{each}"' for each in preset.regions[:2])
            raise ConfigError(f"{preset.name} does not say its region", hint=f"write relay = {examples}")
    if ":" in rest:
        raise ConfigError("a relay must not hold a password", hint="set BULKMAIL_PASSWORD, or let bulkmail ask for it")
    user = rest or ("" if preset.username == FROM else preset.username)
    if needs_user and not user:
        raise ConfigError(f"{preset.title} wants a login", hint=f'write "{text.strip()}:USER"; {say_login(preset)}')
    scheme, _, host = preset.url.replace("{region}", region).partition("://")
    at = f"{quote(user, safe='')}@" if user else ""
    return f"{scheme}://{at}{host}" + (f"?{urlencode(preset.limits)}" if preset.limits else "")


def say_login(preset: RelayPreset) -> str:
    """What logs in there, and where that is made."""
    return f"its password is {preset.password}: {preset.setup}"


def preset_at(host: str) -> RelayPreset | None:
    """The preset whose server is called `host`; the first of several."""
    for preset in relay_presets().values():
        name = re.escape(preset.url.partition("://")[2].rpartition(":")[0]).replace(r"\{region\}", "[a-z0-9.-]+")
        if re.fullmatch(name, host, re.IGNORECASE):
            return preset
    return None


def say_preset(preset: RelayPreset) -> str:
    """What is known of a provider: the login that it wants, what it lets an account do, and where it says so."""
    limits = ", ".join(f"{key} {value}" for key, value in preset.limits)
    known = f"{limits} ({preset.source}; {_said_day(preset)})" if limits else "it publishes no general limit"
    return f"{preset.title}: {say_login(preset)}\nLimits: {known}"


def presets_table() -> str:
    """The presets as a table in Markdown."""
    head = "| relay | is | user name | password | limits |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| `{preset.name}{':REGION' if preset.regions else ''}` | [{preset.title}]({preset.setup}) "
        f"| {_said_user(preset)} | {preset.password} | {_said_limits(preset)} |\n"
        for preset in relay_presets().values()
    )


def _said_user(preset: RelayPreset) -> str:
    if preset.username == FROM:
        return "the address of `from`"
    return f"`{preset.username}`" if preset.username else "yours"


def _said_limits(preset: RelayPreset) -> str:
    limits = ", ".join(f"{key} {value}" for key, value in preset.limits)
    return f"[{limits}]({preset.source}); {_said_day(preset)}" if limits else ""


def _said_day(preset: RelayPreset) -> str:
    return f"checked {preset.checked}" if preset.checked else f"noted {preset.noted}, page not compared yet"
