"""Links that lead nowhere from a mail, and what other programs were to fill in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bulkmail.checks.leftovers import dead, placeholder_in
from bulkmail.cli import main

DEAD = [
    "www.example.com",
    "example.com/a",
    "example.com:8080/a",
    "/offers",
    "offers.html",
    "../a",
    "?id=1",
    "//cdn.example.com/a",
    "ann@example.com",
    "https//example.com",
    "https;//example.com",
    "http:/example.com",
    "https:example.com",
    "https://",
    "https://https://example.com",
    "http://https//example.com",
    "htps://example.com",
    "mailto:ann",
    "mailto:",
    "tel:",
    "tel:Ann",
    "sms: ",
    "C:\\offers.pdf",
    "https://exa mple.com/a",
]
ALIVE = [
    "",
    "#part",
    "https://example.com",
    "HTTP://example.com/a?b=c#d",
    "https://example.com/%C3%A9%20%da%ad",
    "https://[2001:db8::1]/",
    "mailto:ann@example.com?subject=Hi",
    "mailto:?subject=Hi",
    "tel:+43123",
    "sms:+43123",
    "webcal://example.com/a.ics",
    "whatsapp://send",
    "cid:1@inline",
    "data:image/png;base64,xx",
]


@pytest.mark.parametrize("value", DEAD)
def test_link_is_dead(value: str) -> None:
    assert dead(value)


@pytest.mark.parametrize("value", ALIVE)
def test_link_may_lead_somewhere(value: str) -> None:
    assert dead(value) == ""
    assert placeholder_in(value) == ""


@pytest.mark.parametrize("value", ["\ufdd00\ufdd1", "\ufdd00\ufdd1/a", "https://\ufdd00\ufdd1", "ab\ufdd00\ufdd1"])
def test_what_the_row_decides_is_not_judged_in_the_template(value: str) -> None:
    assert dead(value) == ""


@pytest.mark.parametrize(
    "value", ["/\ufdd00\ufdd1", "www.\ufdd00\ufdd1", "https//\ufdd00\ufdd1", "offers/\ufdd00\ufdd1"]
)
def test_beginning_of_a_link_is_judged_in_the_template(value: str) -> None:
    assert dead(value)


@pytest.mark.parametrize(
    "value",
    [
        "*|UNSUB|*", "%unsubscribe_url%", "%%unsubscribe%%", "[unsubscribe]", "{unsubscribe}", "{$unsubscribe}",
        "${url}", "<%= url %>", "##UNSUB##", "@@url@@", "https://example.com/?e=*|EMAIL|*",
        "https://example.com/?e=%email%",
    ],
)  # fmt: skip
def test_placeholder_of_another_program_is_found(value: str) -> None:
    assert placeholder_in(value)


def findings(folder: Path, html: str, rows: str) -> list[dict[str, object]]:
    (folder / "people.csv").write_text(rows)
    (folder / "message.html").write_text(f"<!DOCTYPE html><html><body><p>{html}</p></body></html>")
    flags = ("--from", "Shop <news@gardenshop.net>", "--subject", "Hi", "--relay", "sandbox:")
    files = ("--recipients", str(folder / "people.csv"), "--html", str(folder / "message.html"))
    found: list[dict[str, object]] = json.loads(CliRunner().invoke(main, ["check", *flags, *files, "--json"]).stdout)[
        "findings"
    ]
    return found


@pytest.mark.slow
def test_cell_that_is_no_link_is_reported_by_column_and_row_however_late_it_comes(tmp_path: Path) -> None:
    rows = "email,url\n" + "".join(f"a{n}@example.com,https://example.com/{n}\n" for n in range(200))
    rows = rows.replace("https://example.com/133", "www.example.com/133")
    found = [each for each in findings(tmp_path, '<a href="{{ url }}">x</a>', rows) if each["code"] == "link-relative"]
    assert len(found) == 1
    assert (found[0]["where"], found[0]["rows"]) == ("column url", [135])
    assert "'www.example.com/133'" in str(found[0]["message"])


@pytest.mark.slow
def test_placeholder_in_an_attribute_is_reported(tmp_path: Path) -> None:
    page = '<a href="*|UNSUB|*">x</a> <img src="https://example.com/a.png" alt="*|NAME|*">'
    found = findings(tmp_path, page, "email\nann@example.com\n")
    assert [each["code"] for each in found] == ["placeholder", "placeholder"]


def test_own_tags_in_attributes_are_no_placeholders(tmp_path: Path) -> None:
    page = '<a href="{{ url }}" title="{{ name }}">x</a><a href="{% if a %}https://example.com/a{% endif %}">y</a>'
    assert findings(tmp_path, page, "email,url,name,a\nann@example.com,https://example.com,Ann,1\n") == []
