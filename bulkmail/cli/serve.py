"""`bulkmail serve`: the public side of the suppression list, until Ctrl-C."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from bulkmail.cli.bounces import source_of
from bulkmail.cli.notifying import say_fault
from bulkmail.cli.running import run_async
from bulkmail.cli.web_server import check_installed, make_server, run_server
from bulkmail.cli.which_list import list_options
from bulkmail.mailing.intake import Intake, Mailboxes, outbox_of
from bulkmail.mailing.suppression_list import open_settings, verifier_of
from bulkmail.model.errors import RelayError
from bulkmail.settings.suppressions import SuppressionSettings
from bulkmail.settings.user_tables import ServeSettings, load_mailboxes, load_serving
from bulkmail.suppression.stored_list import Suppressions
from bulkmail.text import count

if TYPE_CHECKING:
    from uvicorn import Server

    from bulkmail.serve.public_app import PublicSide

KILLED_LOOK = 60.0  # seconds between two looks for runs that were killed
SWITCH = 0.0005  # seconds for which reading mail may keep Python from answering a click
GRACE = 10  # seconds for requests under way, at the end
EPILOG = """\b
Examples:
  bulkmail serve
  bulkmail serve --listen 127.0.0.1:8025 --trust-proxy --metrics 9126

\b
In ~/.config/bulkmail/config.toml:
  [serve]
  keys = ["/home/shop/unsubscribe.key"]
"""


@click.command(epilog=EPILOG)
@click.option("--listen", default="", metavar="HOST:PORT", help="Where to listen.  [127.0.0.1:8025]")
@click.option("--trust-proxy", is_flag=True, help="Take the client's address from X-Forwarded-For.")
@click.option(
    "--config",
    "config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Settings with [serve] and [[webhook]].  [config.toml of the user]",
)
@list_options
@click.option(
    "--metrics",
    "metrics_port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Serve Prometheus metrics at http://127.0.0.1:PORT/metrics.",
)
def command(
    listen: str, trust_proxy: bool, config: Path | None, metrics_port: int | None, chosen: SuppressionSettings
) -> None:
    """Serve the unsubscribe page, one-click unsubscribe and webhooks, and read [[bounces]].

    Speaks plain HTTP: put a proxy with TLS in front of it. Links to unsubscribe
    lead to /u/TOKEN, so https = "https://HOST/u/{token}"; the webhooks of
    services are /hooks/ses, /hooks/mailgun, /hooks/postmark and
    /hooks/standard. GET never changes anything. The mailboxes of [[bounces]]
    are read as mail comes in; one that fails is tried again. Ctrl-C ends it.
    """
    settings = load_serving(config, listen=listen, trusts_proxy=trust_proxy)
    named = load_mailboxes(config)
    check_installed("serve", "python_multipart", "starlette", "uvicorn")
    sys.setswitchinterval(SWITCH)
    with ExitStack() as opened:
        store = opened.enter_context(open_settings(chosen))
        listener = opened.enter_context(_listening(settings))
        sources = [source_of(mailbox, store, is_dry=False) for mailbox in named]
        for source in sources:
            opened.callback(source.close)
        server, side = _make(settings, store)
        mailboxes = Mailboxes(
            sources, lambda: _intake(settings, store), reported=lambda said: click.echo(said, err=True)
        )
        opened.enter_context(_counted(side, store, mailboxes, metrics_port))
        name, port = listener.getsockname()[:2]
        what = [count(len(settings.keys), "key")] if settings.keys else []
        what += [hook.provider for hook in settings.hooks]
        what += [count(len(sources), "mailbox", "mailboxes")] if sources else []
        click.echo(f"Listening at {name} port {port} ({', '.join(what)}); Ctrl-C ends it.")
        sys.stdout.flush()
        run_async(lambda: run_server(server, listener, mailboxes.run, _notify_of_killed, log_level=logging.WARNING))


def _intake(settings: ServeSettings, store: Suppressions) -> Intake:
    intake = Intake(
        store,
        verify_unsubscribe=verifier_of(
            store.runs, lambda notice: intake.summary.note(notice), served=lambda: settings.keys
        ),
    )
    return intake


def _make(settings: ServeSettings, store: Suppressions) -> tuple[Server, PublicSide]:
    from bulkmail.feedback.matching import Arrived, Matcher
    from bulkmail.message.unsubscribe import read_unsubscribe
    from bulkmail.model.feedback_event import FeedbackEvent
    from bulkmail.model.recipient import Address
    from bulkmail.serve.proofs import Webhook
    from bulkmail.serve.public_app import PublicSide, make_app
    from bulkmail.serve.writer import Writer

    keys = [key.reveal() for key in settings.keys]

    def whose(token: str) -> tuple[Address, str] | None:
        found = read_unsubscribe(token, keys)
        return None if found is None else (found.address, found.list_id)

    def match(mails: Sequence[Arrived]) -> list[FeedbackEvent]:
        matcher = Matcher(store.runs(), store.token_key(), look_in=outbox_of, verify_unsubscribe=whose)
        return matcher.match(mails)

    writer = Writer(store, match)
    hooks = {hook.provider: Webhook(hook.provider, hook.secret, hook.topics) for hook in settings.hooks}
    side = PublicSide(writer, keys=settings.keys, hooks=hooks)
    server = make_server(make_app(side, writer), grace=GRACE, keep_alive=5, trusts_proxy=settings.trusts_proxy)
    return server, side


@contextmanager
def _listening(settings: ServeSettings) -> Iterator[socket.socket]:
    """A socket at the address to listen at.  Raises `RelayError` when it cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=256)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as of every connection it accepts
    except OSError as error:
        raise RelayError(
            f"cannot listen at {settings.host} port {settings.port}: {error.strerror or error}",
            hint="name another with --listen HOST:PORT",
        ) from None
    with listener:
        yield listener


async def _notify_of_killed() -> None:
    """Looks now and then for runs whose process is gone, and notifies of each once."""
    from bulkmail.mailing.run_watch import notify_of_all_killed

    while True:
        for fault in await notify_of_all_killed():
            say_fault(f"could not notify {fault}")
        await anyio.sleep(KILLED_LOOK)


def _counted(side: PublicSide, store: Suppressions, mailboxes: Mailboxes, port: int | None) -> Any:
    """Numbers for Prometheus as long as the context lasts; no port, no numbers."""
    if port is None:
        return nullcontext()
    from bulkmail.cli.metrics import collected

    class Numbers:
        """What was answered and read so far, and what has come back in all."""

        def collect(self) -> Iterator[Any]:
            from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

            returned = CounterMetricFamily(
                "bulkmail_feedback", "What came back, by campaign and kind", labels=["campaign", "kind"]
            )
            for (campaign, kind), number in store.count_returned().items():
                returned.add_metric([campaign, kind.value], number)
            yield returned
            unmatched = "Mails that came back and are matched to no message"
            yield GaugeMetricFamily("bulkmail_feedback_unmatched", unmatched, value=store.count_unmatched())
            read = GaugeMetricFamily(
                "bulkmail_intake_last_success_timestamp_seconds", "When a mailbox was last read", labels=["mailbox"]
            )
            failed = CounterMetricFamily(
                "bulkmail_intake_failures", "How often a mailbox could not be read", labels=["mailbox"]
            )
            for state in mailboxes.states:
                failed.add_metric([state.name], state.failures)
                if state.read_at is not None:
                    read.add_metric([state.name], state.read_at)
            yield from (read, failed)
            family = CounterMetricFamily(
                "bulkmail_web_answers", "Answers by route and status", labels=["route", "status"]
            )
            for (route, status), number in list(side.counts.items()):
                family.add_metric([route, str(status)], number)
            yield family

    return collected(Numbers(), port)
