"""`send_at` and `timezone` of `[sending]`: when each recipient is sent to."""

from __future__ import annotations

import time
from datetime import tzinfo

from bulkmail.model.errors import ConfigError
from bulkmail.model.schedule import COLUMN, Schedule, column_of
from bulkmail.settings.sources import Sources
from bulkmail.settings.zones import find_zone


def build_schedule(sources: Sources) -> Schedule | None:
    """None without `send_at`.  Faults are reported; whether a time has passed is checked when the list is loaded."""
    sending, overrides = sources.file.sending, sources.overrides
    send_at = sources.pick(("sending", "send_at"), sending.send_at, flag="--send-at", typed=overrides.send_at)
    timezone = sources.pick(("sending", "timezone"), sending.timezone, flag="--timezone", typed=overrides.timezone)
    if send_at is None:
        if timezone is not None and ("sending", "send_at") not in sources.broken:
            sources.problems.add(
                f"{timezone}: has no effect without send_at",
                'write send_at = "09:00" as well; the zone of `now` in a message is timezone below [message]',
            )
        return None
    schedule = Schedule(
        send_at.value.strip(), timezone.value.strip() if timezone else "", sources.file.message.timezone or ""
    )

    def zone(name: str) -> tzinfo:
        return find_zone(name, environ=sources.environ)

    for said in (send_at, timezone):
        if said is not None and (said.value.strip() == COLUMN or not said.value.strip()):
            sources.problems.add(f"{said}: names no column", f'write "{COLUMN}NAME" with the name of a column')
            return None
    try:
        if not schedule.zone_column:
            zone(schedule.timezone or schedule.fallback)
    except ConfigError as error:
        sources.problems.add(f"{timezone or send_at}: {error}", error.hint)
        return None
    if not column_of(schedule.send_at):
        try:
            fixed = Schedule(schedule.send_at, "UTC" if schedule.zone_column else schedule.timezone, schedule.fallback)
            fixed.moment({}, zone, now=time.time())
        except ConfigError as error:
            place = sources.place(("sending", "send_at")) if overrides.send_at is None else "--send-at"
            sources.problems.add(f"{place}: {error}", error.hint)
            return None
    return schedule
