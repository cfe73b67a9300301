"""The question before sending: what is about to happen, on one screen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import click

from bulkmail.cli.words import wrapped
from bulkmail.mailing.confirm import Outlook, audience_of, count_next, look_ahead
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.permits import demand_of, planned_now, say_plan
from bulkmail.model.errors import ConfigError
from bulkmail.model.quantities import say_duration
from bulkmail.model.route import Route
from bulkmail.model.tally import Status
from bulkmail.settings.presets import known_providers
from bulkmail.text import count, printable

_DONE = (Status.ACCEPTED, Status.REJECTED, Status.EXPIRED, Status.IN_DOUBT, Status.CANCELLED)
MOST_PROVIDERS = 4  # that the question names


def _number(mailing: Mailing) -> int:
    """How many recipients are about to be written to."""
    return count_next(mailing)[0]


def refuse_other(expected: int, mailing: Mailing) -> None:
    """Raises `ConfigError` unless there are exactly `expected` recipients."""
    number = _number(mailing)
    if number != expected:
        raise ConfigError(
            f"this would be sent to {count(number, 'recipient')}, and {expected:,} are expected",
            hint=f"check the list with bulkmail check; if it is right, use --expect {number}",
        )


def ask(mailing: Mailing, outlook: Outlook) -> None:
    """Says what is about to happen and asks; raises `ConfigError` when declined."""
    if not any(count_next(mailing)):
        return
    for label, said in _described_mailing(mailing, outlook):
        click.echo(wrapped(f"{label:<9} {said}", indent=10), err=True)
    if not click.confirm("Send it?", err=True):
        raise ConfigError("not sent, as you answered", hint="run the command again when you are ready")


def tell_plan(mailing: Mailing, outlook: Outlook) -> None:
    """The plan of a run without confirmation, unless all of it is sent at once."""
    planned = planned_now(mailing.outbox, outlook.now)
    if planned is not None and planned.later:
        click.echo(f"plan: {say_plan(planned, mailing.pace, outlook.now)}", err=True)
    elif outlook.total and not outlook.is_at_once:
        click.echo(f"plan: {plan(mailing, outlook)}", err=True)


def _described_mailing(mailing: Mailing, outlook: Outlook) -> Iterator[tuple[str, str]]:
    tally, pace, number, campaign = mailing.tally, mailing.pace, _number(mailing), mailing.outbox.campaign
    audience = audience_of(mailing, known_providers())
    if campaign is not None:
        yield "From", audience.sender or campaign.sender.text.strip()
        yield "Subject", audience.subject or campaign.subject.text.strip()
    source = printable(mailing.outbox.info.list_name) or "the command line"
    yield "To", f"{count(number, 'recipient')} of {source}"
    if len(audience.providers) > 1:
        yield "", _top(audience.providers)
    copies = count_next(mailing)[1] - number
    if copies > 0:
        yield "", f"and {count(copies, 'copy', 'copies')} (To, Cc, Bcc)"
    if number < tally.open_rows:
        yield "Later", f"{tally.open_rows - number:,} stay pending ({'--only' if mailing.wants else '--limit'})"
    skipped = [f"{tally[status]:,} {status.value}" for status in Status if tally[status] and not status.is_eligible]
    if skipped:
        yield "Left out", ", ".join(skipped)
    done = [f"{tally[status]:,} {status.value.replace('_', ' ')}" for status in _DONE if tally[status]]
    if done:
        yield "Done", f"{', '.join(done)} before"
    for route in mailing.routes:
        yield "Relay", _described(route, is_alone=len(mailing.routes) == 1)
    if outlook.per_second:
        yield "Rate", f"{pace.rate or 'that of the relay'}: about {say_duration(number / outlook.per_second)}"
    else:
        yield "Rate", "as fast as the relay accepts it (limit it with --rate)"
    if planned := planned_now(mailing.outbox, outlook.now):
        yield "When", say_plan(planned, pace, outlook.now)
    if not (outlook.is_at_once or planned):
        yield "Plan", plan(mailing, outlook)
    elif not outlook.is_at_once:
        yield "Plan", printable(outlook.sentence())
    if pace.breakers.canary:
        yield "Canary", f"the first {pace.breakers.canary:,}; the rest only if those succeed"


def _top(providers: Sequence[tuple[str, int]]) -> str:
    """The largest, and how many others there are."""
    said = [f"{printable(name, 40)} {number:,}" for name, number in providers[:MOST_PROVIDERS]]
    rest = providers[MOST_PROVIDERS:]
    if rest:
        said.append(f"{count(len(rest), 'other domain')} {sum(number for _, number in rest):,}")
    return ", ".join(said)


def _described(route: Route, *, is_alone: bool) -> str:
    """A relay in a line; among others with its share."""
    said = [f"{route.name}: {route.relay}" if route.name else str(route.relay)]
    said.append(f"{count(route.relay.connections, 'connection')} at most")
    if route.rate:
        said.append(str(route.rate))
    if route.quota:
        said.append(f"at most {route.quota}")
    if not is_alone:
        said.append(f"priority {route.priority}")
        said += [f"weight {route.weight}"] if route.weight is not None else []
    said += [f"from {domain}" for domain in route.senders] + [f"to {domain}" for domain in route.recipients]
    return ", ".join(said)


def look_ahead_of(mailing: Mailing) -> Outlook:
    """When how many of those go that this run may write to."""
    total = count_next(mailing)[1]  # quotas count addresses
    is_practice = mailing.outbox.is_rehearsal
    # A choice of a few, or a limit, is not what the plan is about.
    is_whole = mailing.wants is None and mailing.pace.limit is None
    demand = demand_of(mailing.outbox, time.time()) if is_whole else []
    return look_ahead(
        mailing.routes, mailing.pace, total, run_id=mailing.outbox.run_id, is_rehearsal=is_practice, demand=demand
    )


def plan(mailing: Mailing, outlook: Outlook) -> str:
    """How many are sent when, and what the user must do for that."""
    said, wait = printable(outlook.sentence()), mailing.pace.wait
    if mailing.pace.waits_for_all:
        return f"{said}; bulkmail waits in between"
    return f"{said}; run the command again for each, or add --wait forever (it waits {say_duration(wait)} at most)"
