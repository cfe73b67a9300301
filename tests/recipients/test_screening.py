"""Who of a list gets the message."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bulkmail.message.template.rendering import compile_condition
from bulkmail.model.errors import ListError
from bulkmail.model.recipient import Address, BadRow, Place, Recipient
from bulkmail.model.tally import Status
from bulkmail.recipients.screening import Screened, Suppression, _Places, screen

Write = Callable[[str, str | bytes], str]


def person(address: str, **fields: object) -> Recipient:
    return Recipient(Address.parse(address), "", {"email": address, **fields}, Place("list.csv", 2))


def test_condition_on_the_outcomes_of_a_rehearsal_is_refused() -> None:
    where = compile_condition("delivery_status != 'accepted'")
    real = person("ann@example.org", delivery_status="rejected", delivery_rehearsal="")
    assert screen(real, suppression=None, where=where).status is Status.PENDING
    rehearsed = person("ann@example.org", delivery_status="accepted", delivery_rehearsal="yes")
    with pytest.raises(ListError, match=r"list\.csv:2: this is the report of a rehearsal"):
        screen(rehearsed, suppression=None, where=where)
    assert screen(rehearsed, suppression=None, where=None).status is Status.PENDING


def suppression(write: Write, content: str | bytes, name: str = "stop.txt") -> Suppression:
    stop = Suppression()
    stop.add_file(write(name, content))
    return stop


def reason(stop: Suppression, address: str) -> str:
    return stop.matches(Address.parse(address))


MATCHES = {
    "address": ("ann@example.org\n", "ann@example.org", "in stop.txt:1"),
    "address-in-other-case": ("Ann@Example.ORG\n", "aNN@eXAMPLE.org", "in stop.txt:1"),
    "address-with-name": ("# stop\nAnn <ann@example.org>\n", "ann@example.org", "in stop.txt:2"),
    "address-with-comment": ("ann@example.org\t# asked on the phone\n", "ann@example.org", "in stop.txt:1"),
    "address-with-hash": ("a#b@example.org # x\n", "a#b@example.org", "in stop.txt:1"),
    "address-in-unicode": ("zoë@example.org\n", "zoe\u0308@example.org", "in stop.txt:1"),
    "domain": ("\n\n@example.org\n", "bob@example.org", "in stop.txt:3"),
    "domain-in-other-case": ("@Example.ORG\n", "bob@example.org", "in stop.txt:1"),
    "domain-in-its-script": ("@müller.de\n", "bob@xn--mller-kva.de", "in stop.txt:1"),
    "domain-in-ascii": ("@xn--mller-kva.de\n", "bob@MÜLLER.de", "in stop.txt:1"),
    "first-of-two-lines": ("a@example.org\na@example.org\n", "a@example.org", "in stop.txt:1"),
    "address-before-domain": ("@example.org\na@example.org\n", "a@example.org", "in stop.txt:2"),
    "first-in-line": ("ann@example.org;bob@example.org\n", "ann@example.org", "in stop.txt:1"),
    "second-in-line": ("ann@example.org;bob@example.org\n", "bob@example.org", "in stop.txt:1"),
    "behind-comma": ("ann@example.org, Bob Li <bob@example.org>\n", "bob@example.org", "in stop.txt:1"),
    "behind-space": ("ann@example.org  bob@example.org\tcy@example.org\n", "cy@example.org", "in stop.txt:1"),
    "domain-in-line": ("ann@example.org, @example.com\n", "bob@example.com", "in stop.txt:1"),
    "domain-with-star": ("*@example.org\n", "bob@example.org", "in stop.txt:1"),
    "mailto-in-brackets": ("<mailto:ann@example.org>\n", "ann@example.org", "in stop.txt:1"),
    "mailto-with-subject": ("MAILTO:ann%2Bx@example.org?subject=stop\n", "ann+x@example.org", "in stop.txt:1"),
    "address-in-quotes": ("'ann@example.org'\n", "ann@example.org", "in stop.txt:1"),
    "address-in-printed-quotes": ("\u201cann@example.org\u201d\n", "ann@example.org", "in stop.txt:1"),
    "address-with-mailto": ("mailto:ann@example.org\n", "ann@example.org", "in stop.txt:1"),
    "somebody-else": ("ann@example.org\n", "bob@example.org", ""),
    "subdomain-of-domain": ("@example.org\n", "bob@mail.example.org", ""),
    "domain-of-subdomain": ("@mail.example.org\n", "bob@example.org", ""),
    "ending-of-domain": ("@example.org\n", "bob@myexample.org", ""),
    "in-a-comment": ("# ann@example.org\n", "ann@example.org", ""),
    "empty-file": ("", "ann@example.org", ""),
    "cr-lf-and-mark": ("\ufeff# stop\r\nann@example.org\r\n", "ann@example.org", "in stop.txt:2"),
}


@pytest.mark.parametrize(("content", "address", "expected"), MATCHES.values(), ids=MATCHES)
def test_suppression_matches(write: Write, content: str, address: str, expected: str) -> None:
    stop = suppression(write, content)
    assert reason(stop, address) == expected
    assert stop.notices == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("example.org", "'example.org' has no @; for the whole domain write @example.org"),
        ("ann", "'ann' has no @"),
        ("ann@", "'ann@' has nothing after the @"),
        ("@", "'@' has nothing after the @"),
        ("a@x.org, b", "'b' has no @"),
        (
            "*@*.x.org",
            "'*@*.x.org' means subdomains, and only whole domains can be named; write each, as in @mail.x.org",
        ),
        ("*.x.org", "'*.x.org' means subdomains"),
        ("@*.x.org", "'@*.x.org' means subdomains"),
        ("@.x.org", "'@.x.org' means subdomains"),
        (".x.org", "'.x.org' means subdomains"),
        ("b*@x.org", "'b*@x.org' has a wildcard; write each address, or @x.org for the whole domain"),
        ("?nn@x.org", "'?nn@x.org' has a wildcard"),
        ("%@x.org", "'%@x.org' has a wildcard"),
        ("b(at)x.org", "'b(at)x.org' has no @"),
        ("b\uff20x.org", "'b\uff20x.org' has no @"),
        ('"a@x.org","x.org"', "'\"x.org\"' has no @"),
        ("a@x.org; \x1b[2Jb@x.org", "'[2Jb@x.org' "),
    ],
)
def test_suppression_keeps_each_entry_that_it_cannot_understand(write: Write, line: str, why: str) -> None:
    stop = suppression(write, f"ok@example.org\n{line}\n")
    ((place, reason),) = stop.faults
    assert str(place) == "stop.txt:2"
    assert reason.startswith(why)
    assert len(stop) == 1 + ("a@x.org" in line)
    assert stop.notices == []


@pytest.mark.parametrize(
    "line", ["ann@x.org\tAnn", "2026-01-02\tann@x.org\thard bounce", '"ann@x.org","Ann","asked, twice"']
)
def test_suppression_takes_the_addresses_of_a_table_without_a_header(write: Write, line: str) -> None:
    stop = suppression(write, f"ok@example.org\n{line}\n")
    assert reason(stop, "ann@x.org") == "in stop.txt:2"
    assert stop.faults == []
    (notice,) = stop.notices
    assert notice.startswith("stop.txt:2: ")
    assert notice.endswith("beside an address is not read as an entry")


@pytest.mark.parametrize("second", ["email2", "E-Mail 2", "email_address_2"])
def test_suppression_reads_numbered_address_columns(write: Write, second: str) -> None:
    rows = "a@x.org,b@x.org,2024\nc@x.org,,2025\nd@x.org,e@,2026\n"
    stop = suppression(write, f"email,{second},since\n{rows}", "stop.csv")
    assert reason(stop, "a@x.org") == reason(stop, "b@x.org") == "in stop.csv:2"
    assert reason(stop, "c@x.org") == "in stop.csv:3"
    assert [str(place) for place, _ in stop.faults] == ["stop.csv:4"]
    assert stop.notices == []


def test_suppression_says_which_other_columns_hold_addresses(write: Write) -> None:
    stop = suppression(write, "email,added by,note\na@x.org,me@shop.org,a @ b\nc@x.org,me@shop.org,\n", "stop.csv")
    assert len(stop) == 2
    assert stop.notices == [
        "stop.csv: addresses in 'added by' are not suppressed; name a column email2 if they should be"
    ]


def test_suppression_counts_faults_that_are_too_many_to_keep(write: Write) -> None:
    stop = suppression(write, "@ok.org\n" + "bad\n" * 1_000)
    assert len(stop.faults) == 20
    assert stop.fault_count == 1_000


def test_suppression_survives_a_giant_line(write: Write) -> None:
    stop = suppression(write, "x" * 3_000_000 + "\nann@example.org\n")
    assert len(stop) == 1
    assert stop.faults[0][1].startswith("'xxx")


LISTS = {
    "csv": ("stop.csv", "name,email\nAnn,ann@example.org\n", "in stop.csv:2"),
    "csv-named-txt": ("stop.txt", "name;E-Mail\nAnn;ann@example.org\n", "in stop.txt:2"),
    "csv-one-column": ("stop.csv", "email\nann@example.org\n", "in stop.csv:2"),
    "csv-quoted-header": ("stop.csv", '"email","name"\n"ann@example.org","Ann"\n', "in stop.csv:2"),
    "csv-without-header": ("stop.csv", "ann@example.org\n", "in stop.csv:1"),
    "json": ("stop.json", '[{"email": "ann@example.org"}]', "in stop.json:1"),
    "json-lines": ("stop.jsonl", '\n{"email": "ann@example.org"}', "in stop.jsonl:2"),
}


@pytest.mark.parametrize(("name", "content", "expected"), LISTS.values(), ids=LISTS)
def test_suppression_takes_a_list(write: Write, name: str, content: str, expected: str) -> None:
    stop = suppression(write, content, name)
    assert reason(stop, "ann@example.org") == expected
    assert len(stop) == 1


def test_suppression_takes_those_whom_a_report_reached(write: Write) -> None:
    statuses = [status.value for status in Status]
    rows = "".join(f"{status}@example.org,{status}\n" for status in statuses)
    stop = suppression(write, "email,delivery_status\n" + rows + "no one,invalid\n", "run-report.csv")
    reached = {status for status in statuses if reason(stop, f"{status}@example.org")}
    assert reached == {"accepted", "in_doubt"}
    assert stop.notices == []


def test_suppression_takes_the_copies_that_a_report_reached_whatever_became_of_their_row(write: Write) -> None:
    copies = json.dumps([{"address": f"{status.value}@example.org", "status": status.value} for status in Status])
    text = io.StringIO(newline="")
    rows = [["email", "delivery_status", "delivery_copies"], ["ann@example.org", "rejected", copies]]
    csv.writer(text).writerows([*rows, ["bob@example.org", "accepted", ""]])
    stop = suppression(write, text.getvalue(), "run-report.csv")
    reached = {status.value for status in Status if reason(stop, f"{status.value}@example.org")}
    assert reached == {"accepted", "in_doubt"}
    assert (reason(stop, "ann@example.org"), reason(stop, "bob@example.org")) == ("", "in run-report.csv:3")
    assert stop.notices == []


@pytest.mark.parametrize(
    "cell", ["boss@example.org", "[1]", "7", '[{"address": "x", "status": "accepted"}]', "[" * 9999]
)
def test_suppression_says_which_copies_it_cannot_read(write: Write, cell: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["email", "delivery_status", "delivery_copies"], ["ann@example.org", "accepted", cell]])
    stop = suppression(write, text.getvalue(), "run-report.csv")
    assert reason(stop, "ann@example.org")
    ((place, fault),) = stop.faults
    assert str(place) == "run-report.csv:2"
    assert fault.startswith("delivery_copies is not as a report")


def test_suppression_takes_an_empty_list(write: Write) -> None:
    for name, content in [("stop.csv", "email,name\n"), ("stop.json", "[]"), ("stop.jsonl", ""), ("stop.csv", "")]:
        assert len(suppression(write, content, name)) == 0


def test_suppression_keeps_the_bad_rows_of_a_list(write: Write) -> None:
    stop = suppression(write, "email,name\nbad,x\n,Cy\nbob@example.org,Bob\n", "stop.csv")
    assert [str(place) for place, _ in stop.faults] == ["stop.csv:2", "stop.csv:3"]
    assert len(stop) == 1


@pytest.mark.parametrize("row", ["ann@example.org,Ann,too,many", '"ann@example.org; bob@example.org",Ann'])
def test_suppression_takes_the_addresses_of_bad_rows(write: Write, row: str) -> None:
    stop = suppression(write, f"email,name\n{row}\n", "stop.csv")
    assert reason(stop, "ann@example.org") == "in stop.csv:2"
    assert stop.faults == []


def test_suppression_refuses_a_table_without_addresses(write: Write) -> None:
    with pytest.raises(ListError, match="no column is named email, mail or address; found 'name' and 'town'"):
        suppression(write, "name,town\nAnn,Wien\n", "stop.csv")


def test_suppression_refuses_a_missing_file(folder: Path) -> None:
    with pytest.raises(ListError, match=r"there is no file stop\.txt"):
        Suppression().add_file("stop.txt")


def test_suppression_says_which_of_several_files(write: Write) -> None:
    stop = suppression(write, "a@example.org\n", "one.txt")
    stop.add_file(write("two.txt", "a@example.org\nb@example.org\n"))
    stop.add_keys(["c@example.org"], name="last.outbox")
    assert [reason(stop, f"{who}@example.org") for who in "abcd"] == [
        "in one.txt:1",
        "in two.txt:2",
        "in last.outbox",
        "",
    ]


@pytest.mark.slow
def test_places_finds_what_was_added_and_nothing_else() -> None:
    rng = random.Random(7)
    keys = [f"{rng.random()}@example.org" for _ in range(20_000)]
    places = _Places()
    for line, key in enumerate(keys, 1):
        places.add(key, line % 3, line=line)
    assert len(places) == 20_000
    assert [places.find(key) for key in keys] == [(line % 3, line) for line in range(1, 20_001)]
    assert not any(places.find(f"{rng.random()}@example.com") for _ in range(20_000))


def test_places_finds_keys_whose_hashes_collide_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkmail.recipients.screening._hash", lambda key: int(key) << 40 | 1023)
    places = _Places()
    for line in range(1, 400):
        places.add(str(line), 0, line=line)
    assert [places.find(str(line)) for line in range(1, 400)] == [(0, line) for line in range(1, 400)]
    assert places.find("400") is None


def is_in_vienna(fields: Mapping[str, object]) -> bool:
    return fields.get("town") == "Wien"


def test_screen_leaves_a_good_row_pending(write: Write) -> None:
    row = person("ann@example.org", town="Wien")
    stop = suppression(write, "bob@example.org\n")
    assert screen(row, suppression=stop, where=is_in_vienna) == Screened(row, Status.PENDING, "")
    assert screen(row, suppression=None, where=None) == Screened(row, Status.PENDING, "")


def test_screen_calls_a_bad_row_invalid(write: Write) -> None:
    row = BadRow("the address is empty", {"town": "Graz"}, Place("list.csv", 3))
    stop = suppression(write, "bob@example.org\n")
    assert screen(row, suppression=stop, where=is_in_vienna) == Screened(row, Status.INVALID, "the address is empty")


def test_screen_filters_before_it_suppresses(write: Write) -> None:
    stop = suppression(write, "@example.org\n")
    graz, vienna = person("a@example.org", town="Graz"), person("b@example.org", town="Wien")
    assert screen(graz, suppression=stop, where=is_in_vienna) == Screened(graz, Status.FILTERED, "excluded by --where")
    assert screen(vienna, suppression=stop, where=is_in_vienna) == Screened(vienna, Status.SUPPRESSED, "in stop.txt:1")


def test_row_that_a_condition_makes_no_sense_for_is_bad() -> None:
    row = Recipient(Address.parse("ann@example.org"), "", {"amount": "1.234,50"}, Place("list.csv", 2))
    screened = screen(row, suppression=None, where=compile_condition("amount | float > 100"))
    assert screened.status is Status.INVALID
    assert isinstance(screened.row, BadRow)
    assert screened.reason.startswith("--where: amount is '1.234,50', which is not a number; write amount | number,")
