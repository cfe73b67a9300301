"""Checks on the list: its rows, columns and addresses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import lru_cache

from bulkmail.checks.check_finding import Hits, Severity
from bulkmail.checks.evidence import Evidence, Found
from bulkmail.checks.row_checks import Repeats
from bulkmail.checks.tried_messages import Failure
from bulkmail.message.header.heading import EmptySubject
from bulkmail.message.template.constants import read_values
from bulkmail.message.template.field_names import FUNCTIONS
from bulkmail.message.template.template_errors import EnclosureError, UndefinedField
from bulkmail.model.errors import TemplateError
from bulkmail.model.recipient import FIELD as VARIANT
from bulkmail.recipients.columns import listed
from bulkmail.recipients.remarks import SeenLines
from bulkmail.text import count, printable, suggest

FEW_INVALID = 3  # rows; one or two never stop a run, however short the list is
# By number, as Excel calls them in its list of formats.
_OWN_FORMATS = dict.fromkeys(("12", "13"), "format for fractions")
_OWN_FORMATS |= dict.fromkeys(("14", "15", "16", "17", "22"), "format for dates of each computer")
_OWN_FORMATS |= dict.fromkeys(("5", "6", "7", "8", "41", "42", "43", "44"), "format for money of each computer")
MOST = 10  # findings of one check; what is more is counted

_SPECIAL = (EnclosureError, EmptySubject)


def bad_row(evidence: Evidence) -> Iterator[Found]:
    """Rows without a usable address."""
    rows = evidence.rows
    for row in rows.first:
        hits = Hits()
        hits.add(row.place.line)
        yield Found(f"nothing is sent: {row.reason}", str(row.place), hits=hits)
    if rows.bad > len(rows.first):
        yield Found(f"{count(rows.bad - len(rows.first), 'more row')} cannot be used; the report lists them all")


def many_invalid(evidence: Evidence) -> Iterator[Found]:
    """So large a share of rows unusable or without a message that the list itself must be damaged."""
    messages = evidence.messages
    for number, of, what in (
        (evidence.rows.bad, evidence.tally.rows, "cannot be used"),
        (messages.failed, messages.rows, "have no message"),
    ):
        if FEW_INVALID <= number < of and number > evidence.most_invalid * of:
            yield Found(
                f"{number:,} of {count(of, 'row')} {what}: {number / of:.1%}, the limit is {evidence.most_invalid:.0%}",
                fix=f"correct the list; if it is right, allow more with --max-invalid {math.ceil(100 * number / of)}%",
            )


def row_does_not_render(evidence: Evidence) -> Iterator[Found]:
    """Messages that their templates cannot make."""
    failures = [each for each in evidence.messages.failures.values() if not isinstance(each.error, _SPECIAL)]
    yield from _failed(evidence, failures)


def attachment_missing(evidence: Evidence) -> Iterator[Found]:
    """Files that rows name and that are not there."""
    failures = [each for each in evidence.messages.failures.values() if isinstance(each.error, EnclosureError)]
    yield from _failed(evidence, failures)


def subject_empty(evidence: Evidence) -> Iterator[Found]:
    """Rows whose subject comes out empty."""
    failures = [each for each in evidence.messages.failures.values() if isinstance(each.error, EmptySubject)]
    yield from _failed(evidence, failures)


def _failed(evidence: Evidence, failures: list[Failure]) -> Iterator[Found]:
    """An error only if no row at all can be sent."""
    messages = evidence.messages
    severity = Severity.ERROR if messages.rows and messages.failed == messages.rows else Severity.WARNING
    failures = sorted(failures, key=lambda failure: -failure.hits.number)
    for failure in failures[:MOST]:
        place, hits = failure.place, failure.hits
        where = str(place) if hits.number == 1 else place.file
        rows = f" in {count(hits.number, 'row')}" + (f": {hits}" if hits.number > 1 else "")
        yield Found(f"{failure.error}{rows}", where, _fix_of(failure.error), severity, hits=hits)
    if len(failures) > MOST:
        rest = sum(failure.hits.number for failure in failures[MOST:])
        yield Found(f"{count(rest, 'more row')} fail for other reasons; the report lists them all", severity=severity)


def _fix_of(error: TemplateError) -> str:
    if isinstance(error, EnclosureError):
        return f"put the file in the folder that the row names, or correct the cell; {error.hint}"
    if isinstance(error, UndefinedField) and not error.is_clock:
        return f"{error.hint}; correct the name, or {{{{ name | default('…') }}}} says what to write instead"
    return error.hint


def unknown_name(evidence: Evidence) -> Iterator[Found]:
    """Names that no column has, in parts of a message that no row has reached."""
    if not evidence.messages.rows or not evidence.columns:
        return
    reported = {
        failure.error.name
        for failure in evidence.messages.failures.values()
        if isinstance(failure.error, UndefinedField)
    }
    for name in sorted(evidence.required - set(evidence.columns) - FUNCTIONS):
        if name not in reported:
            yield Found(f"the message uses {name!r}, which is not a column{suggest(name, evidence.columns)}")


def value_hidden(evidence: Evidence) -> Iterator[Found]:
    """Columns that come before a value of the campaign with the same name."""
    for name in read_values(evidence.campaign.data):
        if name in evidence.columns and (evidence.mentioned is None or name in evidence.mentioned):
            yield Found(f"{name!r} is a column of the list and a value of the campaign", f"column {name}", column=name)


def variants_same(evidence: Evidence) -> Iterator[Found]:
    """Variants of which every recipient gets the same."""
    variants = evidence.campaign.variants
    if variants and evidence.mentioned is not None and VARIANT not in evidence.mentioned:
        names = ", ".join(name for name, _ in variants)
        yield Found(f"no template uses {{{{ {VARIANT} }}}}, so the variants {names} are the same")


def ambiguous_column(evidence: Evidence) -> Iterator[Found]:
    """Names that the message uses and that several columns have."""
    return ambiguous(evidence.repeated, evidence.required | (evidence.mentioned or frozenset()))


def ambiguous(repeated: Mapping[str, Sequence[str]], used: Set[str]) -> Iterator[Found]:
    """What `ambiguous_column` finds; `repeated` as in `Evidence`, `used` are the names in the message."""
    for name, others in repeated.items():
        if name in used:
            instead = ", ".join(f"{{{{ {_in_template(other)} }}}}" for other in others)
            yield Found(
                f"the message uses {name!r}, and {len(others) + 1} columns have that name",
                f"column {name}",
                f"rename all but one of them in the list, or write {instead} if that is meant",
                column=name,
            )


def empty_field(evidence: Evidence) -> Iterator[Found]:
    """Columns that stand in the message and are blank in some rows."""
    for name, hits in sorted(evidence.messages.blank.items(), key=lambda item: -item[1].number):
        yield Found(
            f"{name!r} is empty in {count(hits.number, 'row')}: {hits}",
            f"column {name}",
            f"fill it in, or write {{{{ {_in_template(name)} or '…' }}}} in the message",
            column=name,
            hits=hits,
        )


def _in_template(name: str) -> str:
    return name if name.isidentifier() else f"row[{name!r}]"


def dummy_cell(evidence: Evidence) -> Iterator[Found]:
    """Cells where a program wrote that there is nothing."""
    for (name, cell), hits in list(evidence.messages.dummies.items())[:MOST]:
        yield Found(
            f"{name!r} is {cell!r} in {count(hits.number, 'row')}: {hits}", f"column {name}", column=name, hits=hits
        )


def damaged_cell(evidence: Evidence) -> Iterator[Found]:
    """Cells that a program has damaged, in columns that stand in the message."""
    damaged = evidence.messages.damaged
    for (name, cell, sign), hits in list(damaged.items())[:MOST]:
        what = f" (see {sign!r})" if sign != cell else ""
        rows = f"{count(hits.number, 'row')}: {hits}"
        yield Found(f"{name!r} is {cell!r}{what} in {rows}", f"column {name}", column=name, hits=hits)
    if len(damaged) > MOST:
        more = sum(hits.number for hits in list(damaged.values())[MOST:])
        yield Found(f"{count(more, 'more row')} have damaged cells")


def unused_column(evidence: Evidence) -> Iterator[Found]:
    """Columns that nothing mentions."""
    if evidence.mentioned is None or not evidence.messages.rows:
        return
    made = {VARIANT} if evidence.campaign.variants else set()
    own = evidence.own_columns | made | {name.partition(".")[0] for name in evidence.own_columns}
    unused = [each for each in evidence.columns if each not in evidence.mentioned | own]
    if unused:
        names = ", ".join(repr(printable(name, 40)) for name in unused[:MOST])
        more = f" and {len(unused) - MOST:,} more" if len(unused) > MOST else ""
        yield Found(f"the message does not use {count(len(unused), 'column')}: {names}{more}")


def mistyped_address(evidence: Evidence) -> Iterator[Found]:
    """Domains that are one slip away from those of the large providers."""
    found = [(domain, hits, right) for domain, hits in evidence.messages.domains.items() if (right := meant(domain))]
    found.sort(key=lambda item: -item[1].number)
    for domain, hits, right in found[:MOST]:
        yield Found(
            f"@{domain} in {count(hits.number, 'row')}: {hits}; did you mean @{right}?",
            fix=f"correct it to @{right} if that is right, or remove the row",
            hits=hits,
        )
    if len(found) > MOST:
        yield Found(f"{count(len(found) - MOST, 'more domain')} look mistyped")


def role_address(evidence: Evidence) -> Iterator[Found]:
    """Addresses of offices rather than people."""
    for kind, what in (("role", "a role, not a person (info@, sales@ …)"), ("nobody", "a machine (noreply@ …)")):
        if hits := evidence.messages.roles.get(kind):
            yield Found(f"{count(hits.number, 'address', 'addresses')} of {what}: {hits}", hits=hits)


def duplicate(evidence: Evidence) -> Iterator[Found]:
    """Addresses that stand in the list again."""
    if evidence.duplicates.number:
        hits = evidence.duplicates
        rows = count(hits.number, "row repeats", "rows repeat")
        fix = "see duplicate-differs: some of them say something else" if evidence.repeats.rows else ""
        yield Found(f"{rows} an address that appears above: {hits}", fix=fix, hits=hits)


def duplicate_differs(evidence: Evidence) -> Iterator[Found]:
    """Rows that are left out as duplicates, and whose message would be another one."""
    if not evidence.campaign.group_by:
        yield from _differing(evidence.repeats, "only line {} is sent")


def grouped_differs(evidence: Evidence) -> Iterator[Found]:
    """Rows that share a message and differ in what the message has once."""
    if evidence.campaign.group_by:
        yield from _differing(evidence.repeats, "their message has the values of line {}")


def _differing(repeats: Repeats, outcome: str) -> Iterator[Found]:
    for repeat in repeats.first:
        lines, hits = [repeat.kept, *repeat.left_out], Hits(repeat.count, repeat.left_out)
        more = f" and {repeat.count - len(repeat.left_out):,} more" if repeat.count > len(repeat.left_out) else ""
        yield Found(
            f"lines {', '.join(map(str, lines))}{more} of {printable(repeat.address, 60)} differ in "
            f"{listed(repeat.columns, MOST)}; {outcome.format(repeat.kept)}",
            f"column {repeat.columns[0]}",
            column=repeat.columns[0],
            hits=hits,
        )
    if repeats.addresses > len(repeats.first):
        more_addresses = count(repeats.addresses - len(repeats.first), "more address", "more addresses")
        yield Found(f"the rows of {more_addresses} differ, too")


def suppressed(evidence: Evidence) -> Iterator[Found]:
    """Addresses that are on a suppression list."""
    if evidence.suppressed.number:
        hits = evidence.suppressed
        yield Found(f"{count(hits.number, 'row')} suppressed, skipped: {hits}", hits=hits)
    if evidence.suppressed_copies.number:
        hits = evidence.suppressed_copies
        copies = count(hits.number, "copy", "copies")
        yield Found(f"{copies} (to, cc, bcc) suppressed, skipped; their rows are sent: {hits}", hits=hits)


def suppression_entry(evidence: Evidence) -> Iterator[Found]:
    """Entries of suppression lists that suppress no recipient."""
    for place, reason in evidence.suppression_faults[:MOST]:
        yield Found(f"no recipient is suppressed by this entry: {reason}", str(place))
    if (more := evidence.suppression_fault_count - MOST) > 0:
        yield Found(f"{count(more, 'more entry', 'more entries')} of suppression lists cannot be read")


def hidden_row(evidence: Evidence) -> Iterator[Found]:
    """Rows that a sheet hides, by a filter or by hand, and that get the message all the same."""
    if evidence.messages.hidden_rows.number:
        hits = evidence.messages.hidden_rows
        rows = count(hits.number, "row is hidden in the sheet and gets", "rows are hidden in the sheet and get")
        yield Found(f"{rows} the message: {hits}", hits=hits)


def cell_format(evidence: Evidence) -> Iterator[Found]:
    """Columns in the message that a sheet shows in another way than they stand there."""
    remarks = evidence.remarks
    for column, lines in remarks.formats.items():
        code = lines.example.removeprefix("?")
        kind = f"format {printable(code, 40)!r}"
        if lines.example.startswith("?"):
            kind = _OWN_FORMATS.get(code, f"built-in format {code}")
        what = f"is shown in the {kind}, which depends on the computer or is not supported, and arrives without it"
        yield from _seen(evidence, column, lines, what)
    for column, lines in remarks.inexact.items():
        what = f"has numbers such as {lines.example}, of which a sheet keeps only 15 digits"
        yield from _seen(evidence, column, lines, what, "format the column as text and enter these numbers again")
    for column, lines in remarks.blank.items():
        what = "has formulas without a stored result, which count as empty"
        yield from _seen(evidence, column, lines, what, "open the workbook in a spreadsheet program and save it")


def _seen(evidence: Evidence, column: int, lines: SeenLines, what: str, fix: str = "") -> Iterator[Found]:
    name = evidence.remarks.name(column)
    if evidence.mentioned is None or name in evidence.mentioned:
        hits = Hits(lines.count, lines.first)
        rows = count(hits.number, "row")
        yield Found(f"{name!r} {what}, in {rows}: {hits}", f"column {name}", fix, column=name, hits=hits)


_KNOWN = {
    "gmial.com": "gmail.com",
    "gmal.com": "gmail.com",
    "gmil.com": "gmail.com",
    "gmai.com": "gmail.com",
    "gamil.com": "gmail.com",
    "gnail.com": "gmail.com",
    "gmail.co": "gmail.com",
    "gmail.cm": "gmail.com",
    "gmail.om": "gmail.com",
    "googlemail.co": "googlemail.com",
    "hotmial.com": "hotmail.com",
    "hotmal.com": "hotmail.com",
    "hotmil.com": "hotmail.com",
    "hotmai.com": "hotmail.com",
    "homtail.com": "hotmail.com",
    "hotmail.co": "hotmail.com",
    "hotmail.cm": "hotmail.com",
    "yaho.com": "yahoo.com",
    "yahooo.com": "yahoo.com",
    "yhoo.com": "yahoo.com",
    "yahoo.co": "yahoo.com",
    "yahoo.cm": "yahoo.com",
    "outlok.com": "outlook.com",
    "outloo.com": "outlook.com",
    "outllok.com": "outlook.com",
    "outlook.co": "outlook.com",
    "iclod.com": "icloud.com",
    "icoud.com": "icloud.com",
    "icloud.co": "icloud.com",
    "gmx.ed": "gmx.de",
    "wbe.de": "web.de",
    "t-onlin.de": "t-online.de",
    "t-onlie.de": "t-online.de",
    "tonline.de": "t-online.de",
}
# Only names of at least five letters: a shorter one is too often one letter off another real domain.
_PROVIDERS = ("gmail", "googlemail", "hotmail", "outlook", "yahoo", "icloud", "protonmail", "fastmail", "comcast")
# One letter off, and real all the same.
_REAL = frozenset("email ymail mail hotmai1 grail gail gmails gemail cloud yahoos outlooks yaboo".split())  # noqa: SIM905
# No top-level domain is called so.
_ENDINGS = {
    "con": "com", "cmo": "com", "ocm": "com", "vom": "com", "xom": "com", "comm": "com", "coom": "com", "cpm": "com",
    "ogr": "org", "orgg": "org", "nte": "net", "ent": "net", "nett": "net", "ed": "de",
}  # fmt: skip


@lru_cache(maxsize=16_384)
def meant(domain: str) -> str:
    """The domain most likely meant by `domain`, which is in lower case; empty when it looks right."""
    if domain in _KNOWN:
        return _KNOWN[domain]
    name, _, ending = domain.rpartition(".")
    if not name:
        return ""
    if ending in _ENDINGS:
        right = f"{name}.{_ENDINGS[ending]}"
        return _KNOWN.get(right, right)
    if ending != "com" or "." in name or name in _REAL or name in _PROVIDERS:
        return ""
    close = [each for each in _PROVIDERS if each[0] == name[0] and _is_one_slip(name, each)]
    return f"{close[0]}.com" if len(close) == 1 else ""


def _is_one_slip(one: str, other: str) -> bool:
    """Whether one letter was left out, added, doubled, exchanged, or two neighbours swapped."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    rest, target = one[start:], other[start:]
    return (
        rest[1:] == target
        or rest == target[1:]
        or rest[1:] == target[1:]
        or (rest[:2] == target[1::-1] and rest[2:] == target[2:])
    )
