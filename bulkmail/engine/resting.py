"""What a sender does while hours and quotas let nothing begin: wait, leave it to other relays, or end the run."""

from __future__ import annotations

from bulkmail.engine.channel import Channel
from bulkmail.engine.contracts import Waiting
from bulkmail.engine.run import Run

LOOK = 60.0  # seconds after which the clock on the wall is looked at again: it may have been set, the machine asleep
SOON = 1.0  # seconds; whoever awaits an answer is woken by it.  Too short for a session to be closed meanwhile


def is_held(channel: Channel) -> bool:
    """Whether nothing may begin through `channel` just now."""
    return channel.permission.is_asking or channel.permission.rest() is not None


def wait_for_permit(run: Run, channel: Channel) -> float | None:
    """Seconds after which a sender of a channel that is held looks again; None when it is not needed any more."""
    rest = channel.permission.rest()
    if rest is None:
        return SOON
    if channel.senders > 1:
        return None  # one is enough to watch
    now = run.clock.now()
    due_at = _next_work(run, channel, now)
    if due_at is None:
        return SOON if run.work.in_hand else None
    ready_at = max(rest.until, due_at)
    if run.waits_until(ready_at):
        if not run.work.in_hand and not _others_go_on(run, channel):
            run.tell_waiting(Waiting(ready_at, rest.why))
        return min(LOOK, max(0.0, ready_at - now))
    if not run.waits_until(due_at):
        return None  # as without a rest
    if run.work.in_hand or _others_go_on(run, channel):
        return SOON
    run.rests(channel, rest)
    return None


def _next_work(run: Run, channel: Channel, now: float) -> float | None:
    """When there is something to do for `channel`, wall-clock seconds; None when there is nothing."""
    serves = run.serves(channel)
    return now if run.work.has_some(now, among=serves) else run.work.next_due(now, among=serves)


def _others_go_on(run: Run, channel: Channel) -> bool:
    """Whether another relay still has somebody at work."""
    return any(
        other is not channel and other.senders and not other.is_out and other.permission.rest() is None
        for other in run.channels
    )
