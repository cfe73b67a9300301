"""For whom a campaign writes dates and numbers: `locale` and `timezone` of `[message]`, as parts of a `Campaign`."""

from __future__ import annotations

from typing import Any

from bulkmail.message.template.locales import UnknownLocale, find_locale
from bulkmail.model.campaign import Template
from bulkmail.model.errors import ConfigError
from bulkmail.settings.lines import one_line
from bulkmail.settings.sources import Sources
from bulkmail.settings.zones import find_zone


def locality(sources: Sources) -> dict[str, Any]:
    """The parts of a `Campaign` that these settings make.  Faults are reported."""
    return {"locale": _locale(sources), "timezone": _timezone(sources)}


def _locale(sources: Sources) -> Template | None:
    written = sources.file.message.locale
    said = sources.pick(("message", "locale"), written)
    if said is None:
        return None
    is_by_row = "{{" in said.value or "{%" in said.value
    try:
        find_locale("en" if is_by_row else said.value)
    except UnknownLocale as error:
        sources.problems.add(f"{said}: {error}", 'write locale = "de_AT", or "{{ lang }}" for a column of the list')
    except ConfigError as error:
        sources.problems.add(f"{said}: {error}", error.hint)
    return one_line(sources, "locale", written)


def _timezone(sources: Sources) -> str:
    said = sources.pick(("message", "timezone"), sources.file.message.timezone)
    if said is None:
        return ""
    try:
        find_zone(said.value or "?")
    except ConfigError as error:
        sources.problems.add(f"{sources.place(('message', 'timezone'))}: {error}", error.hint)
    return said.value
