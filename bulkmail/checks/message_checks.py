"""Checks on the message: subject, page, leftovers, size."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bulkmail.checks.check_finding import Hits, Severity
from bulkmail.checks.evidence import Evidence, Found
from bulkmail.checks.tried_messages import LONGEST_SUBJECT
from bulkmail.model.lazy import lazy_pattern
from bulkmail.text import count, printable

MOST = 5  # findings of one kind
CLIPPED = 102 * 1024  # bytes of HTML from which Gmail shows only the beginning
SOME_REFUSE, MOST_REFUSE = 10_000_000, 25_000_000  # bytes of a message
_BASE64 = 78 / 57  # bytes on the line for each of a file: 57 become a line of 76 and its end


def subject_missing(evidence: Evidence) -> Iterator[Found]:
    """A campaign that has none."""
    if not evidence.campaign.has_subject:
        yield Found("the message has no subject", evidence.campaign.subject.name)


def subject_long(evidence: Evidence) -> Iterator[Found]:
    """Subjects too long to be shown completely."""
    hits, longest = evidence.messages.long_subjects, evidence.messages.longest_subject
    if hits.number:
        yield Found(
            f"the subject has more than {LONGEST_SUBJECT} characters (at most {len(longest)}) in "
            f"{count(hits.number, 'row')}: {hits}",
            evidence.campaign.subject.name,
            hits=hits,
        )


def subject_test(evidence: Evidence) -> Iterator[Found]:
    """Subjects of a trial."""
    if hits := evidence.messages.subjects.get("test"):
        yield Found(
            f'the subject says "test" in {count(hits.number, "row")}: {hits}', evidence.campaign.subject.name, hits=hits
        )


def placeholder(evidence: Evidence) -> Iterator[Found]:
    """What was to be replaced, in the message or in cells that it shows."""
    yield from _flaws(evidence, "placeholder")
    for (name, found), hits in list(evidence.messages.leftovers.items())[:MOST]:
        yield Found(
            f"{found!r} is in {name!r} of {count(hits.number, 'row')}: {hits}",
            f"column {name}",
            "correct the cell",
            column=name,
            hits=hits,
        )
    if not evidence.messages.leftovers:
        reported = {flaw.what for flaw in evidence.flaws}
        for found, hits in evidence.messages.subjects.items():
            if found != "test" and f"{found!r} is in the message" not in reported:
                where = evidence.campaign.subject.name
                yield Found(f"{found!r} is in the subject of {count(hits.number, 'row')}: {hits}", where, hits=hits)


def unclosed_tag(evidence: Evidence) -> Iterator[Found]:
    """Elements that are not closed."""
    yield from _flaws(evidence, "unclosed-tag")


def visible_tag(evidence: Evidence) -> Iterator[Found]:
    """Tags that are shown as text."""
    yield from _flaws(evidence, "visible-tag")


def image_without_alt(evidence: Evidence) -> Iterator[Found]:
    """Pictures that say nothing when they are not shown."""
    yield from _flaws(evidence, "image-without-alt")


def image_local(evidence: Evidence) -> Iterator[Found]:
    """Pictures that stay behind."""
    yield from _flaws(evidence, "image-local")


def link_empty(evidence: Evidence) -> Iterator[Found]:
    """Links that lead nowhere."""
    yield from _flaws(evidence, "link-empty")


def link_relative(evidence: Evidence) -> Iterator[Found]:
    """Links that lead nowhere from a mail."""
    yield from _flaws(evidence, "link-relative")
    for (name, fault), link in list(evidence.messages.dead_links.items())[:MOST]:
        yield Found(
            f"a link begins with {name!r}, which {fault} in {count(link.hits.number, 'row')}, for example "
            f"{printable(link.example, 60)!r}: {link.hits}",
            f"column {name}",
            "write the whole address in the cells, https://… or mailto:…",
            column=name,
            hits=link.hits,
        )


def link_local(evidence: Evidence) -> Iterator[Found]:
    """Links to the writer's own computer."""
    yield from _flaws(evidence, "link-local")


def link_insecure(evidence: Evidence) -> Iterator[Found]:
    """Links without TLS."""
    yield from _flaws(evidence, "link-insecure")


def active_content(evidence: Evidence) -> Iterator[Found]:
    """What mail programs take out of a page."""
    yield from _flaws(evidence, "active-content")


def _flaws(evidence: Evidence, code: str) -> Iterator[Found]:
    flaws = [flaw for flaw in evidence.flaws if flaw.code == code]
    for flaw in flaws[:MOST]:
        rows = f", for example in the message{'s' if flaw.hits.number > 1 else ''} of {flaw.hits}" if flaw.hits else ""
        yield Found(f"{flaw.what}{rows}", flaw.where, hits=flaw.hits)
    if len(flaws) > MOST:
        places = ", ".join(dict.fromkeys(flaw.where for flaw in flaws[MOST:][:MOST]))
        yield Found(f"{len(flaws) - MOST:,} more of this kind, in {places}" + (" …" if len(flaws) > 2 * MOST else ""))


def html_clipped(evidence: Evidence) -> Iterator[Found]:
    """Pages that Gmail cuts off."""
    hits, largest = Hits(), 0
    for sample in evidence.messages.samples:
        size = len((sample.message.html or "").encode())
        if size > CLIPPED:
            hits.add(sample.place.line)
            largest = max(largest, size)
    if hits.number:
        yield Found(f"the HTML has up to {largest // 1024} KB, for example in {hits}", hits=hits)


def attachment_empty(evidence: Evidence) -> Iterator[Found]:
    """Files without content."""
    campaign, empty = evidence.campaign, evidence.messages.empty_files
    fixed = [(item.filename, item.content) for item in campaign.attachments]
    for filename, content in fixed + [(image.filename, image.content) for image in campaign.images]:
        if not content:
            yield Found(f"{printable(filename, 60)!r} has 0 bytes")
    for path, hits in list(empty.items())[:MOST]:
        yield Found(f"{printable(path, 60)!r} has 0 bytes, in {count(hits.number, 'row')}: {hits}", hits=hits)
    if len(empty) > MOST:
        rows = sum(hits.number for hits in list(empty.values())[MOST:])
        yield Found(f"{len(empty) - MOST:,} more files have 0 bytes, in {count(rows, 'row')}")


def invitation_attached(evidence: Evidence) -> Iterator[Found]:
    """Invitations that are plain files."""
    for item in evidence.campaign.attachments:
        is_calendar = item.content_type.lower() == "text/calendar" or item.filename.lower().endswith(".ics")
        method = _METHOD.search(item.content[:_BEGINNING]) if is_calendar else None
        if method:
            tags = ", and the {{ … }} in it is not filled in" if b"{{" in item.content else ""
            yield Found(
                f"{printable(item.filename, 60)!r} is an invitation (METHOD:{method[1].decode('ascii')}) attached as "
                f"a plain file{tags}",
                fix=f'write calendar = "{printable(item.filename, 60)}" below [message] instead of attaching it',
            )


_METHOD = lazy_pattern(rb"^METHOD:(REQUEST|CANCEL|REPLY|COUNTER)\s*$", re.IGNORECASE | re.MULTILINE)
_BEGINNING = 100_000  # bytes


def attachment_too_big(evidence: Evidence) -> Iterator[Found]:
    """Messages that servers refuse for their size."""
    campaign, (row_files, line) = evidence.campaign, evidence.messages.largest_files
    files = [(item.filename, len(item.content)) for item in campaign.attachments]
    files += [(image.filename, len(image.content)) for image in campaign.images]
    bodies = max((_size(sample.message.text, sample.message.html) for sample in evidence.messages.samples), default=0)
    size = int((sum(raw for _, raw in files) + row_files) * _BASE64) + bodies
    hits = Hits()
    if row_files:
        hits.add(line)
    rows = f" ({hits})" if row_files else ""
    largest = max(files, key=lambda item: item[1], default=("", 0))
    what = f"; the largest file is {printable(largest[0], 60)}" if largest[1] > row_files else ""
    reported = f"a message has {size / 1e6:,.1f} MB on its way{rows}{what}"
    limits = [(facts.capabilities.size_limit, facts.relay) for facts in evidence.relays if facts.capabilities]
    refusing = [(limit, relay) for limit, relay in limits if limit and size > limit]
    known = hits if row_files else None
    for limit, relay in refusing:
        bound = f"{relay.peer} takes at most {limit / 1e6:,.1f} MB" if limit else ""
        yield Found(f"{reported}; {bound}", severity=Severity.ERROR, hits=known)
    if refusing:
        return
    if size > MOST_REFUSE:
        yield Found(f"{reported}; most servers reject more than 25 MB", hits=known)
    elif size > SOME_REFUSE:
        yield Found(f"{reported}; some servers reject more than 10 MB", severity=Severity.NOTE, hits=known)


def _size(*bodies: str | None) -> int:
    return sum(len(body.encode()) for body in bodies if body)
