"""What is not about one run: a message to oneself, the relay, what came back, the suppression list, the log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from bulkmail.console.commands import StartedCommand, command_line
from bulkmail.console.folders import CampaignFolder
from bulkmail.console.pages import Console, PageNotice, Templates, form_of, redirect
from bulkmail.console.sending_pages import log_of, password_of
from bulkmail.mailing.suppression_list import open_settings
from bulkmail.model.errors import AddressError, BulkmailError
from bulkmail.model.feedback_event import FeedbackKind
from bulkmail.model.recipient import Address
from bulkmail.model.relay import Secret
from bulkmail.model.suppression import SuppressionReason
from bulkmail.settings.suppressions import load_suppressions
from bulkmail.suppression.ports import EntryQuery, StoredEvent, SuppressionStore
from bulkmail.text import printable

MOST = 200  # entries and events that are shown
WAITED = 20.0  # seconds that the answer waits for a command that takes seconds


class OtherPages:
    """Pages of their own."""

    def __init__(self, console: Console, templates: Templates) -> None:
        self._console = console
        self._templates = templates

    # -- a message to oneself

    async def test(self, request: Request) -> Response:
        """The form that sends one message to oneself."""
        return self._test(await self._console.campaign(request))

    def _test(self, campaign: CampaignFolder, form: dict[str, str] | None = None, problem: str = "") -> Response:
        return self._templates.page(
            "test.html",
            400 if problem else 200,
            campaign=campaign,
            form={"to": "", "row": "1"} | (form or {}),
            problem=problem,
            command=command_line(["send", campaign.shown, "--test", "me@example.com", "--row", "1"]),
        )

    async def send_test(self, request: Request) -> Response:
        """Sends one message, as a row gets it."""
        campaign = await self._console.campaign(request)
        form = await form_of(request)
        to, row = form.get("to", "").strip(), form.get("row", "").strip() or "1"
        try:
            Address.parse(to)
        except AddressError as error:
            return self._test(campaign, form, f"The address {error}.")
        if not (row.isascii() and row.isdigit() and int(row)):
            return self._test(campaign, form, "The row is a whole number, from 1.")
        words = ["send", campaign.shown, "--test", to, "--row", row]
        return await self._run(campaign, words, password_of(form))

    # -- the relay

    async def relay(self, request: Request) -> Response:
        """What the page can ask the mail server."""
        campaign = await self._console.campaign(request)
        return self._templates.page("relay.html", campaign=campaign, command=command_line(["relay", campaign.shown]))

    async def ask_relay(self, request: Request) -> Response:
        """Logs in to the mail server and says what it is like."""
        campaign = await self._console.campaign(request)
        form = await form_of(request)
        return await self._run(campaign, ["relay", campaign.shown], password_of(form))

    async def _run(self, campaign: CampaignFolder, words: Sequence[str], password: Secret | None) -> Response:
        words = [*words, *(["--password-stdin"] if password is not None else [])]

        def start() -> StartedCommand:
            subject = f"{words[0]} {campaign.id}"
            return self._console.commands.start(words, subject=subject, output=log_of(campaign), password=password)

        job = await to_thread.run_sync(start)
        await self._console.commands.wait(job, WAITED)
        return redirect(f"/j/{job.id}")

    # -- what came back, and the suppression list

    async def returns(self, request: Request) -> Response:
        """Bounces, complaints and opt-outs, by campaign, and what is matched to no message."""
        context = await self._from_store(_returned)
        return self._templates.page("returns.html", **context)

    async def suppressions(self, request: Request) -> Response:
        """The newest entries, or all that is known of one address."""
        query = request.query_params
        wanted = query.get("reason", "")
        reason = SuppressionReason(wanted) if wanted in {each.value for each in SuppressionReason} else None
        address = query.get("q", "").strip()[:320]
        context = await self._from_store(lambda store: _entries(store, reason, address))
        return self._templates.page(
            "suppressions.html", reasons=[each.value for each in SuppressionReason], reason=wanted, q=address, **context
        )

    async def _from_store(self, read: Any) -> dict[str, Any]:
        """What `read` makes of the suppression list, with where that is; nothing is made where there is none."""

        def look() -> dict[str, Any]:
            here = {"here": ""}
            try:
                settings = load_suppressions()
                path = settings.path()
                if not Path(path).exists():
                    return here | {"found": None, "file": printable(str(path), 300)}
                with open_settings(settings) as store:
                    return here | {"found": read(store), "file": printable(str(path), 300)}
            except (BulkmailError, RuntimeError) as error:
                said = PageNotice.of(error) if isinstance(error, BulkmailError) else PageNotice("bad", str(error))
                return here | {"found": None, "file": "", "notice": said}

        return await to_thread.run_sync(look)

    # -- the log

    async def log(self, request: Request) -> Response:
        """What was started here."""
        entries = await to_thread.run_sync(self._console.journal.entries)
        running = {job.pid: job.id for job in self._console.commands.jobs()}
        return self._templates.page("log.html", here="/log", entries=entries, jobs=running)


def _returned(store: SuppressionStore) -> dict[str, Any]:
    by_campaign: dict[str, dict[str, int]] = {}
    for (campaign, kind), number in store.count_returned().items():
        by_campaign.setdefault(printable(campaign, 120), {})[kind.value] = number
    kinds = [kind.value for kind in FeedbackKind if any(kind.value in counts for counts in by_campaign.values())]
    return {
        "kinds": kinds,
        "campaigns": sorted(by_campaign.items()),
        "unmatched": [_event(each) for each in store.unmatched(50)],
        "unmatched_in_all": store.count_unmatched(),
        "held": [(printable(each.provider), printable(each.campaign), each.held) for each in store.mistakes()],
    }


def _event(stored: StoredEvent) -> dict[str, Any]:
    event = stored.event
    return {
        "at": event.at,
        "kind": event.kind.value,
        "address": printable(stored.key or str(event.address or ""), 200),
        "campaign": printable(event.campaign, 120),
        "row": event.row,
        "words": printable(event.words or event.reason, 300),
    }


def _entries(store: SuppressionStore, reason: SuppressionReason | None, address: str) -> dict[str, Any]:
    now = time.time()
    events: list[StoredEvent] = []
    if address:
        key = address.lower()
        if not key.startswith("@"):
            try:
                key = Address.parse(address).key
            except AddressError:
                key = ""
        history = store.history(key) if key else None
        entries = list(history.entries) if history else []
        events = list(history.events) if history else []
        total = len(entries)
    else:
        query = EntryQuery(reason=reason)
        total, entries = store.count(query), store.newest(query, MOST)
    return {
        "total": total,
        "entries": [
            {
                "key": printable(entry.key, 200),
                "reason": entry.reason.value,
                "since": entry.since,
                "until": entry.until,
                "holds": entry.holds(now),
                "scope": printable(entry.scope, 120),
                "note": printable(entry.note, 300),
            }
            for entry in entries
        ],
        "events": [_event(each) for each in events],
        "most": MOST,
    }
