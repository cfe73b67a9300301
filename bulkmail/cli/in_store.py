"""Campaigns in a store in PostgreSQL: what commands do with --store."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import anyio
import click
from anyio import to_thread
from click.core import ParameterSource

from bulkmail.cli.mishaps import tell as tell_mishap
from bulkmail.cli.passwords import passwords_for
from bulkmail.cli.program import note_result
from bulkmail.cli.progress import Progress
from bulkmail.cli.question import ask, look_ahead_of, refuse_other, tell_plan
from bulkmail.cli.running import (
    MOST_IN_ALL_FORMATS,
    abandoned_on_error,
    run_async,
    save_reports,
    show,
    tell,
    watch_signals,
)
from bulkmail.cli.words import step
from bulkmail.cluster import overruling, store_schema
from bulkmail.cluster.campaigns import (
    REHEARSAL,
    CampaignState,
    StoredCampaign,
    campaign_named,
    drop,
    find_campaign,
    senders,
    set_setting,
    set_state,
)
from bulkmail.cluster.database import STORE_VARIABLE, connect, saying, shown, store_url
from bulkmail.cluster.reader import read_tally
from bulkmail.cluster.session import Session
from bulkmail.engine.contracts import Ending
from bulkmail.mailing.operator import SERVER_TIMEOUT, Doubt, requested_here, stop_run
from bulkmail.mailing.ordering import Order, changes_since, is_rehearsal, order_mailing
from bulkmail.mailing.previous_run import Past, reports_beside
from bulkmail.mailing.relays import open_routes
from bulkmail.mailing.run_record import Targets
from bulkmail.mailing.store_list import list_of_store
from bulkmail.mailing.store_run import StoreControl, StoreRun, campaign_of, info_of, refuse_inactive, request_in
from bulkmail.mailing.store_transfer import copied, upload
from bulkmail.mailing.suppression_list import (
    ReadList,
    check_there,
    files_of_start,
    read_suppression,
    refuse_faults,
)
from bulkmail.model.campaign import Campaign, Keys
from bulkmail.model.errors import ConfigError, SendingPaused
from bulkmail.model.relay import Secret
from bulkmail.model.route import Route
from bulkmail.model.tally import EXIT_OK, EXIT_STOPPED, Status, Tally
from bulkmail.outbox.run_copy import CopiedReader
from bulkmail.outbox.run_info import RunInfo
from bulkmail.outbox.settling import dated
from bulkmail.outbox.sqlite_file import make_folder
from bulkmail.report.report import Report
from bulkmail.report.run_source import Source
from bulkmail.report.text_report import rows_and_copies, say_left
from bulkmail.settings.allowed_commands import commands_in
from bulkmail.settings.runs import campaign_name, run_path
from bulkmail.settings.secrets import find_keys
from bulkmail.settings.settings import Settings
from bulkmail.smtp.trace import Trace
from bulkmail.text import count, printable

if TYPE_CHECKING:
    from asyncpg import Connection

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_ENVIRONMENT = ""  # the value of --store without a URL
# What `send` does with a file of its own, and cannot do with a campaign that several machines send from.
_NOT_IN_A_STORE = ("limit", "only", "test_to", "outbox", "start_over", "only_unreached", "notify")


def store_option(function: F) -> F:
    """Adds `--store [URL]`: the value is None without it, and empty where the environment names the store."""
    return _store_option("RUN is a campaign in this store in PostgreSQL")(function)


def load_option(function: F) -> F:
    """Adds `--store [URL]` to a command that loads a campaign into the store."""
    return _store_option("Load the campaign into this store in PostgreSQL, from which many machines can send")(function)


def _store_option(what: str) -> Callable[[F], F]:
    return click.option(
        "--store",
        metavar="[URL]",
        is_flag=False,
        flag_value=_ENVIRONMENT,
        help=f"{what}.  Default URL: {STORE_VARIABLE}.",
    )


class StorePlace:
    """A store as a command was told of it: its URL, and how to name a campaign in it to the next command."""

    def __init__(self, given: str) -> None:
        self.url = store_url(given or None)
        self._flag = "--store" if not given else f"--store {shlex.quote(shown(self.url))}"

    def named(self, name: str) -> str:
        """What follows `bulkmail resume` for this campaign."""
        return f"{shlex.quote(name)} {self._flag}"

    @property
    def shown(self) -> str:
        """For people: the store without a password."""
        return printable(shown(self.url), 200)

    def where(self, name: str) -> str:
        """For people: the campaign and its store."""
        return f"{printable(name)} in {self.shown}"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Connection]:
        """A connection to a store that this bulkmail can work with.  Raises `StoreError`."""
        connection = await connect(self.url)
        try:
            with saying(self.url):
                await store_schema.require(connection, self.url)
            yield connection
        finally:
            with anyio.CancelScope(shield=True):
                await connection.close(timeout=5)


def refuse_flags_of_files(context: click.Context) -> None:
    """Raises `ConfigError` for flags that mean nothing beside --store."""
    flags = {option.name: option.opts[0] for option in context.command.params}
    for name in _NOT_IN_A_STORE:
        if name in flags and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ConfigError(
                f"{flags[name]} is for a run in a file, and --store sends from a store", hint=f"leave {flags[name]} out"
            )


def refuse_commands(name: str, campaign: Campaign, routes: Sequence[Route]) -> None:
    """Raises `ConfigError` for secrets that a command prints: who loads a campaign must not run programs elsewhere."""
    if commands := commands_in(campaign, routes):
        raise ConfigError(
            f"the campaign {name!r} gets a secret from the command {commands[0]!r}, which is not run for a campaign"
            " that comes out of a store",
            hint="name an environment variable, a file or the keyring in campaign.toml, and send it from there",
        )


# -- sending


async def send(
    place: StorePlace,
    settings: Settings,
    order: Order,
    *,
    keys: Keys,
    passwords: Sequence[Secret | None],
    progress: Progress,
    trace: Trace | None,
    is_asking: bool,
    expected: int | None,
    is_detached: bool,
) -> int:
    """Loads the campaign, unless it is in the store already, and sends it with this process as one of its workers."""
    rehearses = is_rehearsal(settings, order)
    name = settings.name + (REHEARSAL if rehearses else "")
    targets = order.reports or reports_beside(run_path(settings, rehearsal=rehearses), 1)
    if not order.reports:
        await to_thread.run_sync(make_folder, targets[0].parent)
    Targets(None, tuple(targets), order.trace, settings.inputs).check()
    async with place.opened() as connection:
        stored = await find_campaign(connection, place.url, name)
        if stored is not None and rehearses:  # a rehearsal always begins again
            if workers := await senders(connection, place.url, stored.id):
                raise ConfigError(f"{place.where(name)} is being sent by {workers[0]}", hint="wait for its end")
            await drop(connection, place.url, stored.id)
            stored = None
        if stored is None:
            asking = _Asking(is_asking, expected)
            await _load(place, connection, name, settings, order, keys=keys, progress=progress, asking=asking)
            stored = await campaign_named(connection, place.url, name)
        else:
            await _refuse_changed(place, stored, settings, order)
            stored = await _going_on(place, connection, stored)
    if is_detached:
        named = place.named(settings.name)
        if not note_result({"store": place.shown, "campaign": stored.name, "rows": stored.rows}):
            click.echo(f"{count(stored.rows, 'row')} of {place.where(stored.name)} are left to the workers.")
            for line in (
                *step("To add a worker", f"bulkmail worker {shlex.quote(shown(place.url))}"),
                *step("To watch them", f"bulkmail status {named} --watch"),
            ):
                click.echo(line)
        return EXIT_OK
    return await work(place, stored, keys=keys, passwords=passwords, progress=progress, trace=trace, targets=targets)


class _Asking(NamedTuple):
    """Whether a person is to confirm, and how many recipients there must be."""

    is_needed: bool
    expected: int | None


async def _load(
    place: StorePlace,
    connection: Connection,
    name: str,
    settings: Settings,
    order: Order,
    *,
    keys: Keys,
    progress: Progress,
    asking: _Asking,
) -> None:
    """Checks the campaign as for a file, asks, and copies it into the store."""
    settings = replace(settings, suppressions=await to_thread.run_sync(list_of_store, place.url, settings.suppressions))
    with tempfile.TemporaryDirectory(prefix="bulkmail-") as folder:
        with progress:
            mailing = await order_mailing(
                settings,
                replace(order, outbox=Path(folder) / "campaign.outbox"),
                keys=keys,
                reading=lambda rows: progress.step("reading", done=rows),
                checking=lambda rows: progress.step("checking", done=rows),
            )
        assert not isinstance(mailing, Past)  # noqa: S101 - the folder is empty
        with abandoned_on_error(mailing):
            tell(mailing)
            if asking.expected is not None:
                refuse_other(asking.expected, mailing)
            outlook = await to_thread.run_sync(look_ahead_of, mailing)
            if asking.is_needed:
                ask(mailing, outlook)
            else:
                tell_plan(mailing, outlook)
            await upload(connection, place.url, name, mailing)
        await to_thread.run_sync(mailing.abandon)
    click.echo(f"loaded {place.where(name)}", err=True)


async def _refuse_changed(place: StorePlace, stored: StoredCampaign, settings: Settings, order: Order) -> None:
    changed = await to_thread.run_sync(changes_since, settings, stored.fingerprint, info_of(stored), order.follow_up)
    if changed:
        raise ConfigError(
            f"{' and '.join(changed)} changed since {place.where(stored.name)} was loaded",
            hint=f"`bulkmail resume {place.named(stored.name)}` continues with the old message and list;"
            ' to send the new ones, give the campaign another name = "…"',
        )


async def _going_on(place: StorePlace, connection: Connection, stored: StoredCampaign) -> StoredCampaign:
    """The campaign, which is being sent from now on unless nothing of it is left.  Raises `ConfigError`."""
    refuse_inactive(stored)
    await _suppress(place, connection, stored, ())
    tally = await _tally(place, connection, stored)
    if tally.open and not stored.state.is_active:
        await set_state(connection, place.url, stored.id, CampaignState.SENDING)
        return await campaign_named(connection, place.url, stored.name)
    return stored


async def _suppress(place: StorePlace, connection: Connection, stored: StoredCampaign, given: Sequence[str]) -> None:
    """Skips open rows that the suppression files and the suppression list name by now."""
    files = await to_thread.run_sync(files_of_start, given, info_of(stored).suppress)
    suppression = await to_thread.run_sync(read_suppression, files)
    refuse_faults(suppression)
    kept = await to_thread.run_sync(ReadList.open, info_of(stored).suppression_list)
    try:
        if kept is not None:
            suppression.add_list(kept.reason)
        if suppression:
            found = await overruling.suppress(connection, place.url, stored.id, suppression.matches)
            if found.rows or found.copies:
                said = rows_and_copies(found.rows, found.copies)
                click.echo(f"note: skipped {said} of this campaign, now suppressed", err=True)
    finally:
        if kept is not None:
            kept.close()


async def _tally(place: StorePlace, connection: Connection, stored: StoredCampaign) -> Tally:
    with saying(place.url):
        return await read_tally(connection, stored.id)


async def work(
    place: StorePlace,
    stored: StoredCampaign,
    *,
    keys: Keys,
    passwords: Sequence[Secret | None],
    progress: Progress,
    trace: Trace | None,
    targets: Sequence[Path],
) -> int:
    """Sends from the campaign until nothing is left, says how it went, writes its reports; returns the exit code."""
    run = StoreRun.of(place.url, stored, keys=keys)
    ending = Ending(was_stopped=True)
    async with place.opened() as connection:
        tally = await _tally(place, connection, stored)
        if tally.open:
            with progress:
                async with anyio.create_task_group() as group:
                    await group.start(watch_signals, run, group.cancel_scope)
                    async with (
                        open_routes(run.routes, passwords, inbox=None, notify=progress.note, trace=trace) as connects,
                        Session(place.url) as session,
                    ):
                        progress.begin(tally.open)
                        ending = await run.send(session, connects, observe=progress.observe)
                    group.cancel_scope.cancel()
        stored = await campaign_named(connection, place.url, stored.name)
        async with _reported(place, connection, stored) as report:
            wanted = [
                target for target in targets if target.suffix == ".csv" or report.tally.rows <= MOST_IN_ALL_FORMATS
            ]
            unwritten = save_reports(report, wanted)
            missing = {failure.target for failure in unwritten}
            show(report, [target for target in wanted if target not in missing])
            for failure in unwritten:
                tell_mishap(failure)
    if tally.open and ending.error is not None:
        raise ending.error
    if tally.open and stored.state is CampaignState.STOPPED and request_in(stored.why) is None:
        raise SendingPaused(f"Sending stopped; no recipients were lost: {stored.why}")
    return EXIT_STOPPED if ending.was_stopped and report.tally.open else report.tally.exit_code


@asynccontextmanager
async def _copied(
    place: StorePlace, connection: Connection, stored: StoredCampaign
) -> AsyncIterator[tuple[CopiedReader, Source]]:
    """All that the store has of the campaign now."""
    found = await senders(connection, place.url, stored.id)
    async with copied(connection, place.url, stored) as path:
        with CopiedReader.open(path) as reader:
            reader.sender = (found[0].pid, found[0].host) if found else None
            source = Source.of(reader, path)
            named = place.named(stored.name.removesuffix(REHEARSAL))
            yield reader, replace(source, run=replace(source.run, named=named))


@asynccontextmanager
async def _reported(place: StorePlace, connection: Connection, stored: StoredCampaign) -> AsyncIterator[Report]:
    async with _copied(place, connection, stored) as (_, source):
        yield Report.of(source)


async def resume(
    place: StorePlace,
    argument: str,
    *,
    in_doubt: Doubt,
    again: Sequence[Status],
    suppress: Sequence[str],
    changed_pace: Callable[[Any], Any],
    from_stdin: bool,
    is_asking: Callable[[bool], bool],
    progress: Progress,
    trace: Trace | None,
    targets: Sequence[Path],
) -> int:
    """Goes on with a campaign as it was loaded, with this process as one of its workers."""
    async with place.opened() as connection:
        stored = await campaign_named(connection, place.url, campaign_name(argument))
        refuse_inactive(stored)
        check_there(info_of(stored).suppress)
        routes, pace = info_of(stored).read_sending(stored.name)
        campaign = campaign_of(stored)
        refuse_commands(stored.name, campaign, routes)
        if in_doubt is not Doubt.HOLD:
            wait = SERVER_TIMEOUT if in_doubt is Doubt.RETRY else 0.0
            said = dated(f"{in_doubt.status.value} by the operator's word")
            await overruling.move_all(
                connection, place.url, stored.id, Status.IN_DOUBT, in_doubt.status, reason=said, wait=wait
            )
        for status in again:
            number = await overruling.move_all(connection, place.url, stored.id, status, Status.PENDING)
            click.echo(f"{count(number, status.value + ' row')} go again", err=True)
        if (new := changed_pace(pace)) != pace:
            await set_setting(
                connection, place.url, stored.id, "sending", RunInfo.begun(routes, new).notes()["sending"]
            )
        await _suppress(place, connection, stored, suppress)
        tally = await _tally(place, connection, stored)
        if tally.open and is_asking(stored.is_rehearsal):
            click.confirm(f"Send to the {say_left(tally)} left?", abort=True, err=True)
        if tally.open:
            await set_state(connection, place.url, stored.id, CampaignState.SENDING)
        stored = await campaign_named(connection, place.url, stored.name)
    passwords = await to_thread.run_sync(lambda: passwords_for(routes, from_stdin=from_stdin))
    keys = await to_thread.run_sync(find_keys, campaign)
    return await work(place, stored, keys=keys, passwords=passwords, progress=progress, trace=trace, targets=targets)


# -- looking and stopping


def in_store(place: StorePlace, argument: str, use: Callable[[Connection, StoredCampaign], Awaitable[T]]) -> T:
    """What `use` makes of the campaign that `argument` names.  Raises `StoreError`."""

    async def main() -> T:
        async with place.opened() as connection:
            return await use(connection, await campaign_named(connection, place.url, campaign_name(argument)))

    return run_async(main)


def look(place: StorePlace, argument: str, use: Callable[[CopiedReader, Source, list[str]], T]) -> T:
    """`use` gets all that the store has of a campaign, and a line about its workers where there are several."""

    async def found(connection: Connection, stored: StoredCampaign) -> T:
        workers = await senders(connection, place.url, stored.id)
        lines = [f"{len(workers)} workers: {', '.join(map(str, workers))}."] if len(workers) > 1 else []
        async with _copied(place, connection, stored) as (reader, source):
            return await to_thread.run_sync(use, reader, source, lines)

    return in_store(place, argument, found)


def stop(place: StorePlace, argument: str, *, now: bool, wait: float) -> int:
    """Stops a campaign on all machines."""

    async def ask_all(connection: Connection, stored: StoredCampaign) -> tuple[bool, bool, Tally, str]:
        control = StoreControl(connection, place.url, stored)
        was_sending = bool(await control.sender())
        request = await to_thread.run_sync(requested_here, now)
        await control.ask_to_stop(request)
        has_ended = await stop_run(control, request, wait=wait)
        return was_sending, has_ended, await _tally(place, connection, stored), stored.name

    was_sending, has_ended, tally, name = in_store(place, argument, ask_all)
    result = {"outbox": None, "was_sending": was_sending, "has_ended": has_ended, "left": tally.open}
    if not note_result(result):
        _say_stopped(place, name, tally, was_sending=was_sending, has_ended=has_ended)
    return EXIT_OK if has_ended else EXIT_STOPPED


def _say_stopped(place: StorePlace, name: str, tally: Tally, *, was_sending: bool, has_ended: bool) -> None:
    named, where = place.named(name), place.where(name)
    if not has_ended:
        click.echo(f"{where} is stopping: messages are still under way, and no others are begun.")
        lines = step("To see when it has ended", f"bulkmail status {named}")
        lines += step("To abort them", f"bulkmail stop {named} --now")
    else:
        click.echo(f"Stopped: {where}." if was_sending else f"{where} is not being sent; no worker takes it up now.")
        lines = []
        if tally.open:
            lines += step(f"To continue with the {say_left(tally)} left", f"bulkmail resume {named}")
            lines += step("To skip them", f"bulkmail cancel {named}")
    for line in lines:
        click.echo(line)


def cancel(place: StorePlace, argument: str, *, yes: bool, wait: float) -> None:
    """Cancels a campaign; it is stopped first if it is being sent."""

    async def look_at(connection: Connection, stored: StoredCampaign) -> tuple[int, bool]:
        left = (await _tally(place, connection, stored)).open
        return left, bool(await senders(connection, place.url, stored.id))

    async def end(connection: Connection, stored: StoredCampaign) -> int:
        control = StoreControl(connection, place.url, stored)
        if not await stop_run(control, await to_thread.run_sync(requested_here), wait=wait):
            raise ConfigError(
                f"{where} is stopping, but messages are still under way ({await control.sender()})",
                hint=f"try again in a minute; bulkmail stop {place.named(stored.name)} --now aborts them",
            )
        return await control.cancel()

    left, is_running = in_store(place, argument, look_at)
    where = place.where(campaign_name(argument))
    if not left:
        click.echo(f"There is nothing to cancel in {where}.")
        return
    if not yes:
        if is_running:
            click.echo(f"{where} is being sent now, and will be stopped first.", err=True)
        click.confirm(f"{count(left, 'recipient')} will be skipped. Cancel them?", abort=True, err=True)
    click.echo(f"{count(in_store(place, argument, end), 'recipient')} cancelled in {where}.")
