"""A campaign as reports show it: all its passes, each with what came back about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from bulkmail.mailing.previous_run import passes_of
from bulkmail.mailing.suppression_sources import is_there, open_used, scope_of
from bulkmail.model.errors import SuppressionError
from bulkmail.model.feedback_event import Returned, ReturnedEvent, SentPath, fold_returned
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.report.run_source import Source
from bulkmail.suppression.ports import SuppressionStore
from bulkmail.text import count, printable


@contextmanager
def opened_campaign(outbox: Path, *, alone: bool) -> Iterator[tuple[Source, list[str]]]:
    """What to report of the campaign whose latest run is in `outbox`, and what could not be read, as sentences.

    Several passes are one source; `alone`: only this run.  Good as long as the context lasts.  Raises `OutboxError`.
    """
    paths, missing = ([outbox], 0) if alone else passes_of(outbox)
    notices = []
    if missing:
        notices.append(
            f"{count(missing, 'outbox', 'outboxes')} of earlier passes of {printable(str(outbox))} cannot be found:"
            " recipients reached by them are shown as suppressed"
        )
    with ExitStack() as stack:
        readers = [stack.enter_context(OutboxReader.open(path)) for path in paths]
        returned, unmatched = _returned(readers, notices)
        sources = [
            Source.of(reader, path, returned=each) for path, reader, each in zip(paths, readers, returned, strict=True)
        ]
        source = sources[0] if len(sources) == 1 else Source.joined(sources)
        yield replace(source, returned=replace(source.returned, unmatched=unmatched)), notices


def _returned(readers: Sequence[OutboxReader], notices: list[str]) -> tuple[list[Returned], int]:
    """What came back about each run, and how much is matched to none."""
    found, unmatched, lists = [], 0, set[str]()
    last_began = max(reader.started_at or reader.created_at for reader in readers)
    for reader in readers:
        used = reader.info.suppression_list
        if used is None or reader.is_rehearsal or not is_there(used):
            found.append(Returned())
            continue
        try:
            with open_used(used) as store:
                until = _next_of_list(store, readers, last_began)
                found.append(returned_of(reader, store, until=until))
                if used.name not in lists:
                    lists.add(used.name)
                    unmatched += store.count_unmatched()
        except SuppressionError as error:
            notices.append(f"what came back cannot be read: {error}")
            found.append(Returned())
    return found, unmatched


def _next_of_list(store: SuppressionStore, passes: Sequence[OutboxReader], after: float) -> float:
    """When another campaign of the same list was begun, so that opt-outs from then on are about that one."""
    list_id = scope_of(passes[-1].campaign)
    own = {reader.run_id for reader in passes}
    later = (run.began_at for run in store.runs() if run.list_id == list_id and run.run_id not in own)
    return min((began for began in later if began > after), default=math.inf)


def returned_of(reader: OutboxReader, store: SuppressionStore, *, until: float = math.inf) -> Returned:
    """What came back about the run of `reader`; opt-outs that name no run, up to `until` (wall clock)."""
    events = store.returned(reader.run_id)
    list_id = scope_of(reader.campaign)
    if list_id is not None and reader.started_at is not None and reader.started_at < until:
        events += _found(reader, store.opted_out(list_id, since=reader.started_at, to=until))
    rows = {event.row for event in events if event.row is not None}
    paths, seen = [], set[int]()
    for each in sorted(reader.find(rows=rows) if rows else [], key=lambda found: found.id):
        paths.append(SentPath(each.id, each.row, each.forward_path, is_copy=each.row in seen))
        seen.add(each.row)
    return fold_returned(events, paths)


def _found(reader: OutboxReader, events: Sequence[ReturnedEvent]) -> list[ReturnedEvent]:
    """The opt-outs of addresses that had got a message of the run by then, with its row and delivery."""
    keys = {event.key for event in events} - {""}
    by_path = {each.forward_path.lower(): each for each in (reader.find(paths=keys) if keys else []) if each.was_sent}
    found = []
    for event in events:
        sent = by_path.get(event.key)
        if sent is not None and sent.first_at is not None and sent.first_at <= event.at:
            found.append(event._replace(row=sent.row, delivery=sent.id))
    return found
