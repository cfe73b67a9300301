"""Sending from Python: one call, an iterator of outcomes, or messages that are ready made."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime
from email.message import EmailMessage
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread

from bulkmail.mailing import previous_run
from bulkmail.mailing.checking import Messages
from bulkmail.mailing.following import Followed, FollowUp, parse_unless, read_followed, with_thread
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.permits import make_schedule
from bulkmail.mailing.program import (
    Attached,
    DeliveryResults,
    ListOrder,
    SendingStopped,
    read_attachments,
    with_page_files,
)
from bulkmail.mailing.pulse import ProgressTeller, SendingProgress
from bulkmail.mailing.relays import check_routes, open_routes
from bulkmail.mailing.rows import Given, Handover, Selection
from bulkmail.mailing.suppression_list import files_to_note, read_suppression
from bulkmail.message.template.constants import written_values
from bulkmail.message.template.locality import locality_of
from bulkmail.model.campaign import NO_KEYS, Campaign, Dkim, Keys, Template, Unsubscribe
from bulkmail.model.errors import ConfigError
from bulkmail.model.pace import Pace
from bulkmail.model.recipient import Variants, parse_variants
from bulkmail.model.relay import Kind, Relay, Secret, Tls
from bulkmail.model.route import Route
from bulkmail.model.tally import MOST_INVALID
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.outbox.run_info import RunInfo
from bulkmail.recipients.given import not_rows, reader_of
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.report.report import Report
from bulkmail.settings.presets import expanded
from bulkmail.settings.secrets import find_keys
from bulkmail.settings.suppressions import SuppressionSettings, load_suppressions
from bulkmail.smtp.trace import Conversation, ConversationTrace

Through = str | Relay | Route | Iterable[str | Relay | Route]
"""A relay as a program gives it: its URL, or what was made of one; or several of these."""
Tell = Callable[[SendingProgress], None]


def compose(
    *,
    from_: str,
    subject: str,
    text: str | None = None,
    html: str | None = None,
    markdown: str | None = None,
    mjml: str | None = None,
    preheader: str | None = None,
    calendar: str | None = None,
    inline_css: bool = True,
    folder: str | os.PathLike[str] | None = None,
    to_name: str | None = None,
    sender: str | None = None,
    reply_to: str | None = None,
    headers: Mapping[str, str] | None = None,
    attachments: Iterable[Attached] = (),
    cc: str | None = None,
    bcc: str | None = None,
    list_id: str | None = None,
    feedback_id: str | None = None,
    reverse_path: str = "",
    unsubscribe: Unsubscribe | None = None,
    dkim: Iterable[Dkim] = (),
    locale: str | None = None,
    timezone: str = "",
    data: Mapping[str, object] | None = None,
    variants: Iterable[str] | Mapping[str, int] = (),
    group_by: str | Iterable[str] = (),
    name: str = "message",
) -> Campaign:
    """A campaign from texts, each of them a Jinja template over the fields of a row.

    The keys for `unsubscribe` and `dkim` come from where these say, or are given to `Mailer`.

    `markdown` or `mjml` may stand for `html`, and a missing `text` is made of it.  Attachments are read now, but those
    whose path is a template, which are looked for below `folder`.  So are pictures and style sheets that the page names
    by a local path; without `folder` they are left alone.  Filters such as `date` write by `locale` (`"de_AT"`, or a
    template: `"{{ lang }}"`), and `now` shows the clock of `timezone`.  Every template finds the values of `data` by
    their names (text, numbers, dates, lists, mappings), where the row has no such field.  `variants` are
    names, or names and their shares, that recipients are divided among: each row has its own as the field `variant`.
    `group_by` is a column, or several: rows with the same values there get one message, whose templates find the fields
    of each in `rows`, in the order of the list; `"email"` is the address.
    Raises `ConfigError` when there is no body, a file cannot be read, there is no such locale or time zone, or a value
    cannot be kept.
    """
    if text is None and html is None and markdown is None and mjml is None:
        raise ConfigError("a message needs a text, or html, or both")
    everyone, rows = read_attachments(attachments, root=folder or ".")
    campaign = Campaign(
        name=name,
        sender=Template("from", from_),
        sent_by=_template("sender", sender),
        subject=Template("subject", subject),
        text=_template("text", text),
        html=_template("html", html),
        to_name=_template("to_name", to_name),
        reply_to=_template("reply_to", reply_to),
        headers=tuple((key, Template(key, value)) for key, value in (headers or {}).items()),
        attachments=everyone,
        reverse_path=reverse_path,
        cc=_template("cc", cc),
        bcc=_template("bcc", bcc),
        list_id=_template("list_id", list_id),
        feedback_id=_template("feedback_id", feedback_id),
        unsubscribe=unsubscribe,
        dkim=tuple(dkim),
        markdown=_template("markdown", markdown),
        mjml=_template("mjml", mjml),
        preheader=_template("preheader", preheader),
        calendar=_template("calendar", calendar),
        inline_css=inline_css,
        row_attachments=rows,
        locale=_template("locale", locale),
        timezone=timezone,
        data=written_values(data or {}),
        variants=_variants(variants),
        group_by=(group_by,) if isinstance(group_by, str) else tuple(group_by),
    )
    locality_of(campaign)
    return campaign if folder is None else with_page_files(campaign, folder)


def _variants(given: Iterable[str] | Mapping[str, int]) -> Variants:
    shares = given if isinstance(given, Mapping) else dict.fromkeys(given, 1)
    return parse_variants(shares) if shares else ()


def _template(name: str, text: str | None) -> Template | None:
    return None if text is None else Template(name, text)


class Mailer:
    """A relay, its password and a pace, to send one campaign or many with.  Holds no connection between runs.

    `relay` is a URL, a known relay with its user (`"gmail:ann@gmail.com"`), a `Relay` or a `Route`, or several of
    these; then `password` is a mapping from each relay's label (its name, or its URL without options) to its password.
    `keys` sign unsubscribe links and messages; without them
    each campaign says where its keys are.  `on_message` is given every message of a campaign before it is signed, and
    returns it or another: once in the pre-send checks, and once each time it is sent.  It must make the same of
    the same message, or a row in doubt cannot be sent again; a message that it raises an exception for is not sent.  It
    may block: it is run where messages are written, so be quick.  Runs on asyncio only.

    `suppressions` is the suppression list that holds: by default the user's, as for `bulkmail send`; a path is another
    file, None is none at all.  `tls_context` says whom to trust over TLS in place of each relay's `ca_file` and
    `client_certificate`: one for all relays, or a mapping from labels.  What it leaves unverified stays unverified,
    passwords included.
    """

    def __init__(
        self,
        relay: Through,
        *,
        password: str | Mapping[str, str] | None = None,
        pace: Pace | None = None,
        keys: Keys | None = None,
        on_message: Callable[[EmailMessage], EmailMessage] | None = None,
        suppressions: SuppressionSettings | str | os.PathLike[str] | None = "",
        tls_context: ssl.SSLContext | Mapping[str, ssl.SSLContext] | None = None,
    ) -> None:
        several = [relay] if isinstance(relay, str | Relay | Route) else relay
        self.routes = tuple(_route(one) for one in several)
        check_routes(self.routes)
        self.pace = pace or Pace()
        self.keys = keys
        self.on_message = on_message
        self.suppressions = suppressions
        self._passwords = _passwords(self.routes, password)
        self._tls_contexts = _tls_contexts(self.routes, tls_context)
        self._conversations: list[Conversation] = []

    def conversation(self) -> Conversation:
        """Every line of the SMTP conversation of the run that is started next, for `async for` beside it.

        It ends with that run, also when the run fails.  Lines wait for a slow reader up to a bound, then are left out
        and counted.  Passwords and tokens are hidden as in the file of `--trace`.
        """
        conversation = Conversation()
        self._conversations.append(conversation)
        return conversation

    @contextmanager
    def _heard(self) -> Iterator[ConversationTrace | None]:
        """The trace for the readers that asked for the conversation of the next run; None without any."""
        readers, self._conversations = self._conversations, []
        try:
            yield ConversationTrace(readers) if readers else None
        finally:
            for reader in readers:
                reader.end()

    async def send(
        self,
        campaign: Campaign,
        recipients: Given | None = None,
        *,
        outbox: str | os.PathLike[str] | None = None,
        options: ListOptions = ListOptions(),  # noqa: B008 - frozen
        where: str = "",
        suppress: Iterable[str | os.PathLike[str]] = (),
        allow_duplicates: bool = False,
        allow_empty: bool = False,
        max_invalid: float = MOST_INVALID,
        send_at: str | datetime = "",
        timezone: str = "",
        follow_up: str | os.PathLike[str] | None = None,
        unless: Iterable[str] = (),
        progress: Tell | None = None,
    ) -> Report:
        """Sends `campaign` to every recipient and returns what became of each.

        With `outbox`, a path, the run survives this process: the same call continues where it stopped, and does nothing
        when it has ended.  Without, it lives in memory.  An outbox is for one campaign, one list and either a rehearsal
        or real sending: with another, `ConfigError`.  `suppress` names files of addresses, delivery reports and
        outboxes; they are read again by each call.  No more than the share `max_invalid` of the rows may be invalid.

        `send_at` is when each recipient is sent to: `"2026-12-24 09:00"`, `"09:00"` for the next one, a `datetime`, or
        `"column:NAME"`; by the clocks of `timezone`, a zone's name or `"column:NAME"`, else of the zone of the campaign
        or of this machine.  The times are read once and kept in the outbox.  The call waits for them, unless the pace
        has `wait=0`: then it sends what is due, and the same call later continues.

        `follow_up` is the outbox of an earlier run: the messages answer those of that run, and go only to recipients
        whom it reached, and who did none of `unless` since (`"bounced"`, `"complained"`, `"unsubscribed"`).  Without
        `recipients` its rows are the list.

        `progress` is called in the event loop as outcomes become durable, so it must be quick.  What it raises
        stops the run after the messages under way, and is raised here.
        Cancelling the task ends the run at once: what was under way then may be in doubt.

        Raises `NothingToSend`, which has the report, when no recipient is left to send to, unless `allow_empty`.

        Raises `ConfigError`, `TemplateError`, `ListError`, `ChecksFailed`, `OutboxError` before anything is sent;
        `SendingStopped`, which has the report, when the relay or the outbox fails on the way.
        """
        schedule = make_schedule(send_at, timezone, fallback=campaign.timezone)
        followed = await self._followed(follow_up, unless)
        order = ListOrder(
            options, where, tuple(suppress), allow_duplicates, allow_empty, max_invalid, schedule, followed
        )
        with self._heard() as trace:
            mailing = await self._prepared(campaign, recipients, outbox=outbox, order=order)
            return await self._run(mailing, trace=trace, progress=progress)

    @asynccontextmanager
    async def deliver(
        self,
        campaign: Campaign,
        recipients: Given | None = None,
        *,
        outbox: str | os.PathLike[str] | None = None,
        options: ListOptions = ListOptions(),  # noqa: B008 - frozen
        where: str = "",
        suppress: Iterable[str | os.PathLike[str]] = (),
        allow_duplicates: bool = False,
        allow_empty: bool = False,
        max_invalid: float = MOST_INVALID,
        send_at: str | datetime = "",
        timezone: str = "",
        follow_up: str | os.PathLike[str] | None = None,
        unless: Iterable[str] = (),
    ) -> AsyncIterator[DeliveryResults]:
        """As `send()`, but a context manager: `async with` it and `async for` over the outcomes.

        Leaving early, by `break` or an exception, stops the run after what is under way.
        """
        schedule = make_schedule(send_at, timezone, fallback=campaign.timezone)
        followed = await self._followed(follow_up, unless)
        order = ListOrder(
            options, where, tuple(suppress), allow_duplicates, allow_empty, max_invalid, schedule, followed
        )
        with ExitStack() as stack:
            trace = stack.enter_context(self._heard())
            mailing = await self._prepared(campaign, recipients, outbox=outbox, order=order)
            heard = stack.pop_all()
        deliveries = DeliveryResults()

        async def run() -> None:
            error: Exception | None = None
            try:
                with heard:
                    deliveries.report = await self._run(mailing, deliveries, trace=trace)
            except Exception as raised:
                error = raised
            finally:
                deliveries.end(error)

        left_by: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            try:
                try:
                    yield deliveries
                except Exception as error:  # not a cancellation, which ends the run at once
                    left_by = error
                mailing.stop()
            finally:
                deliveries.leave()
        if left_by is not None:
            raise left_by  # as it was, not in the group's exception
        deliveries.raise_error()

    async def send_messages(
        self,
        messages: Messages,
        *,
        outbox: str | os.PathLike[str] | None = None,
        allow_empty: bool = False,
        progress: Tell | None = None,
    ) -> Report:
        """Sends messages that are ready made, each to its own To, Cc and Bcc.  Otherwise as `send()`.

        They are the same messages to an `outbox` if all but Date, Message-ID and Content-ID is the same.
        """
        with self._heard() as trace:
            mailing = await self._prepared_messages(
                messages, path=None if outbox is None else Path(outbox), allow_empty=allow_empty
            )
            return await self._run(mailing, trace=trace, progress=progress)

    async def resume(
        self,
        outbox: str | os.PathLike[str],
        *,
        suppress: Iterable[str | os.PathLike[str]] = (),
        progress: Tell | None = None,
    ) -> Report:
        """Continues the run in `outbox` as it was recorded, with its rows and its message.

        Raises as `send()` does; `ConfigError` for a rehearsal through a relay that delivers, and the reverse.
        """
        path = Path(outbox)

        def reopened() -> Mailing:
            keys = self.keys if self.keys is not None else find_keys(_campaign_in(path))
            return Mailing.reopen(
                path, routes=self.routes, pace=self.pace, keys=keys, on_message=self.on_message, suppress=suppress
            )

        with self._heard() as trace:
            return await self._run(await to_thread.run_sync(reopened), trace=trace, progress=progress)

    async def _prepared_messages(self, messages: Messages, *, path: Path | None, allow_empty: bool) -> Mailing:
        past = await self._past(path)
        if past is not None and past.has_begun:
            previous_run.refuse_others(past, past.changes_from("", await previous_run.digest_of_messages(messages)))
            return await self._reopened(past.path, NO_KEYS)
        digest = previous_run.Digest()
        mailing = await Mailing.prepare_messages(
            path,
            messages,
            routes=self.routes,
            pace=self.pace,
            seen=partial(previous_run.add_message, digest),
            suppressions=await self._suppression_settings(),
        )
        return self._ready(mailing, digest, allow_empty=allow_empty)

    async def _prepared(
        self,
        campaign: Campaign,
        recipients: Given | None,
        *,
        outbox: str | os.PathLike[str] | None,
        order: ListOrder,
    ) -> Mailing:
        if order.followed is not None:
            campaign = with_thread(campaign, order.followed)
        path = None if outbox is None else Path(outbox)
        keys = self.keys if self.keys is not None else await to_thread.run_sync(find_keys, campaign)
        past = await self._past(path)
        digest = await to_thread.run_sync(order.digest, recipients)
        async with order.opened(recipients, digest) as rows:
            if past is not None and (past.has_begun or past.is_planned):
                if isinstance(rows, previous_run.DigestedRows):
                    await rows.read_through()
                previous_run.refuse_others(past, past.changes(campaign, str(digest), order.schedule))
                return await self._reopened(past.path, keys, order.suppress)
            suppression = await to_thread.run_sync(read_suppression, order.suppress)
            noted = RunInfo(suppress=await to_thread.run_sync(files_to_note, order.suppress))
            mailing = await Mailing.prepare(
                path,
                campaign=campaign,
                rows=rows,
                routes=self.routes,
                pace=self.pace,
                selection=Selection(
                    order.where,
                    suppression,
                    order.allow_duplicates,
                    most_invalid=order.max_invalid,
                    address_column=order.options.address_column,
                ),
                is_rehearsal=self._is_rehearsal,
                info=noted,
                keys=keys,
                on_message=self.on_message,
                suppressions=await self._suppression_settings(),
                schedule=order.schedule,
                followed=order.followed,
            )
        return self._ready(mailing, digest, where=order.where, allow_empty=order.allow_empty)

    async def _followed(self, outbox: str | os.PathLike[str] | None, unless: Iterable[str]) -> Followed | None:
        names = parse_unless(unless if isinstance(unless, str) else ",".join(unless)) if unless else frozenset[str]()
        if outbox is None:
            if names:
                raise ConfigError("unless is about the recipients of another run", hint="say follow_up=OUTBOX as well")
            return None
        return await to_thread.run_sync(
            read_followed, FollowUp(Path(outbox), names), await self._suppression_settings()
        )

    async def _suppression_settings(self) -> SuppressionSettings | None:
        """Which suppression list holds, None for none.  Raises `ConfigError`."""
        chosen = self.suppressions
        if chosen is None or isinstance(chosen, SuppressionSettings):
            return chosen
        settings = await to_thread.run_sync(load_suppressions)
        return replace(settings, file=Path(chosen)) if chosen else settings

    @property
    def _is_rehearsal(self) -> bool:
        return self.routes[0].relay.kind.is_rehearsal

    async def _past(self, path: Path | None) -> previous_run.Past | None:
        """The run at `path`.  Raises `ConfigError` when it is a rehearsal and this call is not, or the reverse."""
        if path is None:
            return None
        past = await to_thread.run_sync(previous_run.look, path)
        previous_run.refuse_other_kind(past, is_rehearsal=self._is_rehearsal, hint="give each an outbox of its own")
        return past

    def _ready(self, mailing: Mailing, digest: previous_run.Digest, *, where: str = "", allow_empty: bool) -> Mailing:
        """The same mailing when it may be sent.  Raises `ChecksFailed` and `NothingToSend`."""
        mailing.outbox.note(list_digest=str(digest))
        mailing.pass_gate()
        if not allow_empty:
            mailing.refuse_empty(where=where)
        return mailing

    async def _reopened(self, path: Path, keys: Keys, suppress: Sequence[str | os.PathLike[str]] = ()) -> Mailing:
        return await to_thread.run_sync(
            lambda: Mailing.reopen(
                path, routes=self.routes, pace=self.pace, keys=keys, on_message=self.on_message, suppress=suppress
            )
        )

    async def _run(
        self,
        mailing: Mailing,
        deliveries: DeliveryResults | None = None,
        *,
        trace: ConversationTrace | None = None,
        progress: Tell | None = None,
    ) -> Report:
        teller = None if progress is None else ProgressTeller(mailing.tally.open, progress, stop=mailing.stop)
        try:
            async with open_routes(
                self.routes, self._passwords, inbox=mailing.inbox, trace=trace, tls_contexts=self._tls_contexts
            ) as connects:
                if teller is not None:
                    ending = await mailing.send(connects, observe=teller.observe)
                elif deliveries is None:
                    ending = await mailing.send(connects)
                else:
                    ending = await mailing.send(connects, observe=deliveries.observe, ready=deliveries.has_room)
        except BaseException:
            mailing.abandon()
            raise
        report = await to_thread.run_sync(mailing.close)
        if teller is not None and teller.error is not None:
            raise teller.error
        if ending.error is not None:
            raise SendingStopped(ending.error, report) from ending.error
        return report


async def send(
    campaign: Campaign,
    recipients: Given,
    *,
    relay: Through,
    password: str | Mapping[str, str] | None = None,
    pace: Pace | None = None,
    outbox: str | os.PathLike[str] | None = None,
    allow_empty: bool = False,
    progress: Tell | None = None,
) -> Report:
    """Sends `campaign` to every recipient through `relay`; see `Mailer.send()`.

    In one line: `report.accepted` counts those accepted, `report.failed` lists `(address, code, reply)`.
    """
    mailer = Mailer(relay, password=password, pace=pace)
    return await mailer.send(campaign, recipients, outbox=outbox, allow_empty=allow_empty, progress=progress)


def send_sync(
    campaign: Campaign,
    recipients: Given,
    *,
    relay: Through,
    password: str | Mapping[str, str] | None = None,
    pace: Pace | None = None,
    outbox: str | os.PathLike[str] | None = None,
    allow_empty: bool = False,
    progress: Tell | None = None,
) -> Report:
    """`send()` for programs without an event loop.

    Rows are read while no loop runs, as a Django query demands.
    """
    mailer = Mailer(relay, password=password, pace=pace)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        if isinstance(recipients, str | os.PathLike) or not isinstance(recipients, Iterable) or not_rows(recipients):
            return runner.run(
                mailer.send(campaign, recipients, outbox=outbox, allow_empty=allow_empty, progress=progress)
            )
        rows: Handover[object] = Handover(recipients, reader_of(recipients))
        return rows.run(mailer.send(campaign, rows, outbox=outbox, allow_empty=allow_empty, progress=progress), runner)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


def _route(relay: str | Relay | Route) -> Route:
    if isinstance(relay, str):
        return Route.parse(expanded(relay, needs_user=True))
    return Route(relay) if isinstance(relay, Relay) else relay


def _passwords(routes: Sequence[Route], password: str | Mapping[str, str] | None) -> list[Secret | None]:
    """Raises `ConfigError` when it is not clear which relay a password is for."""
    if password is None:
        return [None] * len(routes)
    if isinstance(password, str):
        if len(routes) > 1:
            raise ConfigError("one password for several relays", hint='give {"name of the relay": "password"}')
        return [Secret(password)]
    labels = [route.label for route in routes]
    if unknown := sorted(set(password) - set(labels)):
        raise ConfigError(f"a password for {unknown[0]!r}, which is no relay", hint=f"known are {', '.join(labels)}")
    return [Secret(password[label]) if label in password else None for label in labels]


def _tls_contexts(
    routes: Sequence[Route], given: ssl.SSLContext | Mapping[str, ssl.SSLContext] | None
) -> list[ssl.SSLContext | None]:
    """Raises `ConfigError` for a context that no relay could use, or that stands beside the relay's own settings."""
    if given is None:
        return [None] * len(routes)
    labels = [route.label for route in routes]
    if isinstance(given, ssl.SSLContext):
        given = {
            route.label: given for route in routes if route.relay.kind is Kind.SMTP and route.relay.tls is not Tls.OFF
        }
        if not given:
            raise ConfigError("tls_context: no relay speaks TLS", hint="leave it out, or tls=off out of the relay URL")
    if unknown := sorted(set(given) - set(labels)):
        raise ConfigError(f"a TLS context for {unknown[0]!r}, which is no relay", hint=f"known are {', '.join(labels)}")
    for route in routes:
        context = given.get(route.label)
        if context is not None and context.protocol is ssl.PROTOCOL_TLS_SERVER:
            raise ConfigError("tls_context is one for a server", hint="make it by ssl.create_default_context()")
        if context is not None and (route.relay.ca_file or route.relay.client_certificate):
            raise ConfigError(
                f"{route.label}: ca_file or client_certificate, and a TLS context, which says that itself",
                hint="load the files into the context, or leave it out",
            )
    return [given.get(label) for label in labels]


def _campaign_in(path: Path) -> Campaign | None:
    with OutboxReader.open(path) as reader:
        return reader.campaign
