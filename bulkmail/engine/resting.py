"""What a sender does while hours and quotas let nothing begin: wait, leave it to other relays, or end the run."""

from __future__ import annotations

from bulkmail.engine.relay_state import RelayState
from bulkmail.engine.run import Run
from bulkmail.model.hold import Hold
from bulkmail.model.timing import QUOTA_ANSWER_CHECKED_AFTER, WALL_CLOCK_CHECKED_AFTER


def is_held(relay: RelayState) -> bool:
    """Whether nothing may begin through `relay` just now."""
    return relay.permission.is_asking or relay.permission.rest() is not None


def wait_for_permit(run: Run, relay: RelayState) -> float | None:
    """Seconds after which a sender of a relay that is held looks again; None when it is not needed any more."""
    rest = relay.permission.rest()
    if rest is None:
        return QUOTA_ANSWER_CHECKED_AFTER
    if relay.workers > 1:
        return None  # one is enough to watch
    now = run.clock.now()
    due_at = _next_work(run, relay, now)
    if due_at is None:
        return QUOTA_ANSWER_CHECKED_AFTER if run.work.in_hand else None
    ready_at = max(rest.until, due_at)
    if run.waits_until(ready_at):
        if not run.work.in_hand and not _others_go_on(run, relay):
            run.tell_waiting(Hold(ready_at, rest.why))
        return min(WALL_CLOCK_CHECKED_AFTER, max(0.0, ready_at - now))
    if not run.waits_until(due_at):
        return None  # as without a rest
    if run.work.in_hand or _others_go_on(run, relay):
        return QUOTA_ANSWER_CHECKED_AFTER
    run.rests(relay, rest)
    return None


def _next_work(run: Run, relay: RelayState, now: float) -> float | None:
    """When there is something to do for `relay`, wall-clock seconds; None when there is nothing."""
    serves = run.serves(relay)
    return now if run.work.has_some(now, among=serves) else run.work.next_due(now, among=serves)


def _others_go_on(run: Run, relay: RelayState) -> bool:
    """Whether another relay still has someone at work."""
    return any(
        other is not relay and other.workers and not other.is_out and other.permission.rest() is None
        for other in run.relays
    )
