"""`bulkmail sandbox`: a mail server for trying things, until Ctrl-C."""

from __future__ import annotations

import signal
import sys
import time
from itertools import islice
from pathlib import Path

import anyio
import click

from bulkmail.cli.param_types import RATE, SHARE
from bulkmail.model.rate import Rate
from bulkmail.sandbox.faults import Faults
from bulkmail.sandbox.inbox import Inbox
from bulkmail.sandbox.server import Sandbox
from bulkmail.text import count

POLL = 0.2  # seconds between two looks at what arrived
MOST_LINES = 20  # that are printed at a time
EPILOG = """\b
Examples:
  bulkmail sandbox
  bulkmail sandbox --port 1025 --maildir /tmp/caught
  bulkmail send spring --relay 'smtp://127.0.0.1:2525?tls=off' \\
      --outbox trouble.outbox
  bulkmail sandbox --reject 5% --defer 10% --drop-after-dot 1% --seed 7
"""


@click.command(epilog=EPILOG)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=2525, metavar="PORT", show_default=True, help="0: any free one."
)
@click.option(
    "--maildir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/sandbox.inbox"),
    show_default=True,
    help="Store the mail here.",
)
@click.option("--reject", type=SHARE, default="0%", help='Reject this share of recipients permanently: "5%".')
@click.option("--defer", type=SHARE, default="0%", help="Defer this share of attempts: such mail is retried.")
@click.option("--throttle", type=RATE, help='Defer mail above this rate: "10/s".')
@click.option(
    "--drop-after-dot", type=SHARE, default="0%", help="Disconnect without a reply after this share of messages."
)
@click.option(
    "--seed",
    type=int,
    default=0,
    metavar="N",
    show_default=True,
    help="Random seed; the same seed hits the same addresses.",
)
def command(
    port: int, maildir: Path, reject: float, defer: float, throttle: Rate | None, drop_after_dot: float, seed: int
) -> None:
    """Run a local test mail server that keeps all mail and delivers none.

    Use it to test any program that sends mail; the flags simulate failures.
    Stop it with Ctrl-C.
    """
    faults = Faults(
        reject=reject,
        defer=defer,
        drop_after_dot=drop_after_dot,
        throttle=throttle,
        seed=seed,
    )
    kept, trouble = anyio.run(_serve, port, maildir, faults)
    if trouble:
        click.echo(f"Simulated failures: {', '.join(trouble)}.")
    if kept:
        click.echo(f"{count(kept, 'message')} kept; type: bulkmail inbox {maildir}")


async def _serve(port: int, maildir: Path, faults: Faults) -> tuple[int, list[str]]:
    async with Sandbox(maildir, port=port, faults=faults) as sandbox, anyio.create_task_group() as group:
        click.echo(f"Listening at {sandbox.host} port {sandbox.port}; mail is kept in {maildir}.  Ctrl-C ends it.")
        if faults:
            click.echo(f"Simulated failures: {faults}; seed {faults.seed}.")
        url = f"smtp://{sandbox.host}:{sandbox.port}?tls=off"
        # To bulkmail it is a relay like any other: without an outbox of its own this would count as the real run.
        click.echo(f"Send to it with: bulkmail send CAMPAIGN --relay '{url}' --outbox trouble.outbox")
        sys.stdout.flush()
        await group.start(_end_at_signal, group.cancel_scope)
        await _tell_arrivals(sandbox, maildir)
    return sandbox.kept, sandbox.trouble.summary()


async def _end_at_signal(
    scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    with anyio.open_signal_receiver(*(getattr(signal, name) for name in names if hasattr(signal, name))) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
            return


async def _tell_arrivals(sandbox: Sandbox, maildir: Path) -> None:
    reported = 0
    while True:
        await anyio.sleep(POLL)
        new = sandbox.kept - reported
        reported += new
        now = time.strftime("%H:%M:%S")
        if new > MOST_LINES:  # reading them all would slow down the server, which is on this loop
            click.echo(f"{now}  {count(new, 'message')}")
        elif new:
            for kept in reversed(list(islice(reversed(Inbox(maildir)), new))):
                click.echo(f"{now}  {kept.number:>5}  to {kept.forward_path}: {kept.subject}")
        sys.stdout.flush()
