"""Why a campaign had to stop, in words for the user, and what to try next."""

from __future__ import annotations

from bulkmail.model.errors import RelayError, SendingPaused
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage, advice
from bulkmail.model.quantities import say_duration
from bulkmail.model.schedule import say_until
from bulkmail.model.shaper import Feedback, Slowdown
from bulkmail.model.timing import Hold
from bulkmail.text import count

_AGAIN = "; then run the same command again: it continues where this one stopped"

_FIXES = {
    Breakage.REFUSED: "check host and port (587 and 465 are usual) and that the server is running",
    Breakage.NO_SUCH_HOST: "check the spelling of the host",
    Breakage.UNREACHABLE: "check host and port, and whether a firewall is in between",
    Breakage.EXHAUSTED: "set connections lower, or allow more with ulimit -n",
    Breakage.UNTRUSTED: "name the server's own authority with ?ca_file=FILE in the relay URL",
    Breakage.WRONG_NAME: "write the name that the certificate is for into the relay URL",
    Breakage.NO_TLS: "use smtps:// if the server has TLS from the start (port 465); only for a server on this machine "
    "or a trusted network add ?tls=off",
    Breakage.WRONG_TLS: "change the relay URL",
    Breakage.NO_REQUIRETLS: "leave requiretls out to do without that promise, or use a relay that gives it",
    Breakage.NO_LOGIN: "ask the provider for the port (587 and 465 are usual) and the login method",
    Breakage.NO_TOKEN: "see what [relay] says about the token, and whether the provider still allows this program",
    Breakage.IMPOSTOR: "check which server answers there before you try again",
}


def explain(event: Reply | Fault, *, relay: str, feedback: Feedback, patience: float | None = None) -> RelayError:
    """The error that ends a run because of `event`; with `patience` (seconds), because it went on for that long.

    `feedback` is the run's own judge, here and below.
    """
    message, fix = _reported(event, relay, feedback, patience)
    return RelayError(f"Sending stopped; no recipients were lost: {message}", hint=fix + _AGAIN)


def explain_left_out(event: Reply | Fault, *, relay: str, feedback: Feedback, patience: float | None = None) -> str:
    """Why one of several relays gets nothing more in this run, in a sentence that also says what to do."""
    message, fix = _reported(event, relay, feedback, patience)
    return f"{relay} is not used any more in this run, the other relays continue: {message}; {fix}"


def explain_failing(event: Reply | Fault, *, relay: str, feedback: Feedback) -> str:
    """Why one of several relays is not used at the moment, in a sentence."""
    message, _ = _reported(event, relay, feedback, None)
    return f"{relay} fails, and is retried from time to time; the other relays continue: {message}"


def _reported(event: Reply | Fault, relay: str, feedback: Feedback, patience: float | None) -> tuple[str, str]:
    """What happened, and what to do about it."""
    if isinstance(event, Fault):
        message, fix = str(event), _FIXES.get(event.kind, "check that the server is running and reachable")
        if event.stage is Stage.CONNECT and "+unix://" in relay:
            fix = "check the path of the socket, that its server is running and that this user may use it"
    else:
        message, fix = _refusal(event, relay, feedback)
    if patience is not None:
        message = f"{message}; this has lasted for {say_duration(patience)}"
    return message, fix


def say_slowed(slowdown: Slowdown, event: Reply | Fault, now: float) -> str:
    """The effect of a throttling reply, in a sentence; `now` is seconds of the slowdown's clock."""
    done = []
    if slowdown.is_left_alone(now):
        done.append(f"paused for {say_duration(slowdown.until - now)}")
    if (rate := slowdown.per_second(now)) is not None:
        done.append(f"slowed down to {rate:.3g} messages a second")
    if slowdown.connections is not None:
        done.append(f"limited to {count(slowdown.connections, 'connection')}")
    return f"{slowdown.provider or slowdown.relay} is {' and '.join(done) or 'slowed down'}: {event}"


def _refusal(reply: Reply, relay: str, feedback: Feedback) -> tuple[str, str]:
    words, fix = advice(feedback.decide(reply).verdict.reason) or ("", "")
    if not words and reply.is_permanent:
        words, fix = "refused", "ask the server's administrator"
    elif not words:
        words, fix = "is not ready to take mail", "wait a while"
    return f"{relay} {words}: {reply}", fix


def explain_rest(rest: Hold, now: float) -> SendingPaused:
    """The error that ends a run which does not wait for the end of `rest`."""
    return SendingPaused(
        f"Sending is paused until {say_until(rest.until, now)}: {rest.why}; no recipients were lost",
        hint="run the same command again then, by hand or from cron: it continues where this one stopped; "
        "with --wait forever, bulkmail waits by itself",
        hold=rest,
    )
