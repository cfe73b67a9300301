"""For whom a campaign writes: its locale, its time zone, and the moment that `now` and `today` name."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

from bulkmail.message.template.local_filters import Locality
from bulkmail.message.template.locales import UnknownLocale, find_locale, load
from bulkmail.model.campaign import Campaign, is_template
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.text import printable

if TYPE_CHECKING:
    from babel import Locale

_CLOCK = lazy_pattern(r"\b(?:now|today)\b")


def locality_of(campaign: Campaign) -> Locality:
    """Raises `ConfigError` for a locale or a time zone that there is not.

    The data of the locale is read here, from files, so that no message has to wait for them.
    """
    zone = _zone(campaign.timezone) if campaign.timezone else None
    now = datetime.fromisoformat(campaign.moment) if campaign.moment else datetime.now().astimezone()
    now = (now if zone is None else now.astimezone(zone)).replace(tzinfo=None)
    written = campaign.locale
    if written is None:
        return Locality(zone=zone, now=now)
    if is_template(written.text):
        load(find_locale("en"))
        return Locality(is_by_row=True, zone=zone, now=now)
    locale = locale_of(written.name, written.text)
    load(locale)
    return Locality(locale, zone=zone, now=now)


def locality_now() -> Locality:
    """That of conditions over rows, which write nothing."""
    return Locality(now=datetime.now())


def locale_of(name: str, value: str) -> Locale:
    """The locale that a setting called `name` gives.  Raises `TemplateError`."""
    if not value.strip():
        raise TemplateError(f"{name}: is empty", hint="write {{ lang | default('de_AT', true) }} for rows without one")
    try:
        return find_locale(value)
    except UnknownLocale as error:
        raise TemplateError(f"{name}: {printable(value, 40)!r} {error}") from None


def frozen(campaign: Campaign, now: float) -> Campaign:
    """The campaign as a run keeps it: where its templates ask for the time, that is `now` for good.

    `now` is wall-clock seconds.
    """
    if campaign.moment or not any(
        _CLOCK.search(template.text) for template in (*campaign.templates(), *campaign.partials)
    ):
        return campaign
    return replace(campaign, moment=datetime.fromtimestamp(now).astimezone().isoformat(timespec="seconds"))


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f"timezone: {printable(name, 40)!r} is not a time zone", hint="write one such as Europe/Vienna"
        ) from None
