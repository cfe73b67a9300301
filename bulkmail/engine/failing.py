"""What is said of a relay that fails, or does not answer, and when it is given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkmail.engine.channel import Channel
from bulkmail.engine.contracts import Waiting
from bulkmail.model.units import say_duration
from bulkmail.text import count

if TYPE_CHECKING:
    from bulkmail.engine.run import Run


def gives_up(run: Run, channel: Channel) -> bool:
    """Whether patience with a relay that fails has ended; then it gets nothing more."""
    now = run.clock.monotonic()
    # With others there to do its work it may be tried as long as they have any.
    if channel.failure is None or not channel.health.is_hopeless(now) or not run.sharing.is_needed(channel, now):
        return False
    run.leave_out(channel, channel.failure, patience=run.plan.pace.patience)
    return True


def tell_wait(run: Run, channel: Channel) -> None:
    """Says until when a relay that fails is left alone, if nothing else goes on meanwhile."""
    now, health = run.clock.monotonic(), channel.health
    wait = health.resume_at - now if health.open else health.wait(now)
    if wait > 0 and health.is_failing and not run.others_are_able(channel, now):
        until = run.clock.now() + wait
        why = f"{channel.name} fails, and is tried again then: {channel.failure}"
        run.tell_waiting(Waiting(until, why, is_planned=False))


def tell_silence(run: Run) -> None:
    """Says which relays do not answer although it is their turn: after 10 s, then once a minute."""
    for channel in run.channels:
        if silence := channel.silence_to_tell(run.clock.monotonic()):
            run.tell(channel, f"{channel.name} has not answered for {say_duration(silence)}; waiting for it")


def is_dismissal(run: Run, channel: Channel, messages: int) -> bool:
    """Whether a 421 on a session that had carried so many messages is about that session only."""
    most = channel.health.dismissed(run.clock.monotonic(), messages)
    if most and most < channel.messages_per_session:
        channel.messages_per_session = most
        run.tell(channel, f"{channel.name} ends a session after {count(most, 'message')}: it gets no more in one")
    return most is not None
