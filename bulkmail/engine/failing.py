"""What is said of a relay that fails, or does not answer, and when it is given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkmail.engine.relay_state import RelayState
from bulkmail.model.hold import Hold
from bulkmail.model.units import say_duration
from bulkmail.text import count

if TYPE_CHECKING:
    from bulkmail.engine.run import Run


def gives_up(run: Run, relay: RelayState) -> bool:
    """Whether patience with a relay that fails has ended; then it gets nothing more."""
    now = run.clock.monotonic()
    # With others there to do its work it may be tried as long as they have any.
    if relay.failure is None or not relay.health.is_hopeless(now) or not run.sharing.is_needed(relay, now):
        return False
    run.leave_out(relay, relay.failure, patience=run.plan.pace.patience)
    return True


def tell_wait(run: Run, relay: RelayState) -> None:
    """Says until when a relay that fails is left alone, if nothing else goes on meanwhile."""
    now, health = run.clock.monotonic(), relay.health
    wait = health.resume_at - now if health.open else health.wait(now)
    if wait > 0 and health.is_failing and not run.others_are_able(relay, now):
        until = run.clock.now() + wait
        why = f"{relay.name} fails, and is tried again then: {relay.failure}"
        run.tell_waiting(Hold(until, why, is_planned=False))


def tell_silence(run: Run) -> None:
    """Says which relays do not answer although it is their turn: after 10 s, then once a minute."""
    for relay in run.relays:
        if silence := relay.silence_to_tell(run.clock.monotonic()):
            run.tell(relay, f"{relay.name} has not answered for {say_duration(silence)}; waiting for it")


def is_dismissal(run: Run, relay: RelayState, messages: int) -> bool:
    """Whether a 421 on a session that had carried this many messages is about that session only."""
    most = relay.health.dismissed(run.clock.monotonic(), messages)
    if most and most < relay.messages_per_session:
        relay.messages_per_session = most
        run.tell(relay, f"{relay.name} ends a session after {count(most, 'message')}: it gets no more in one")
    return most is not None
