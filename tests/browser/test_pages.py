"""The report and the preview in a browser, with rows as someone malicious would write them."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

import pytest

from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.tally import Status
from bulkmail.outbox.entries import AttemptRecord
from bulkmail.preview.preview_page import Album
from bulkmail.report.html import write_html
from bulkmail.report.run_source import Source
from tests.report.making import STARTED, make_record, make_rejected, make_source

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(60)]

HARM = "<script>document.title = 'harm'</script><img src=x onerror=\"document.title = 'harm'\">"
RIGHT_TO_LEFT = "\u202eשרה כהן‏ أحمد\u2067"
LONG = "x" * 10_000
PAGE = f"""<!doctype html><html><head><title>Spring</title></head><body style="background: #fff; color: #222">
<h1>{{{{ first_name }}}}</h1><p>Dear friend</p>{HARM}<a href="https://shop.example/">the shop</a>
<img src="https://tracker.example/1.gif" alt="roses"><table width="900"><tr><td>wide</td></tr></table></body></html>"""
VIEWS = ("Desktop", "Phone", "Text", "Headers")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of rows in each state, some of them hostile."""
    rows = [
        make_record(1, last_at=STARTED, first_at=STARTED),
        make_rejected(2, address=f"{LONG}@example.org", reply=LONG, reason=LONG[:300]),
        make_rejected(3, address=f'"{HARM}"@example.org', name=HARM, reply=HARM, reason=HARM),
        make_record(4, Status.DEFERRED, address="sara@example.net", name=RIGHT_TO_LEFT, reply=RIGHT_TO_LEFT, code=451),
        make_record(5, Status.IN_DOUBT, address="doubt@example.com", reason="the connection broke"),
        *(make_record(6 + n, status, reason="so it is") for n, status in enumerate(Status) if not status.is_eligible),
        *(make_record(20 + n, address=f"user{n}@shop{n}.example") for n in range(30)),
    ]
    attempts = [
        AttemptRecord(
            row=n, address=f"user{n}@shop{n}.example", relay="smtp://mail.example.com:587", code=250, enhanced="2.0.0",
            reason=HARM, at=STARTED + n, took=n / 4, outcome=outcome,
        )
        for n in range(30) for outcome in ("accepted", "deferred", "rejected", "in_doubt")
    ]  # fmt: skip
    campaign = Campaign(
        HARM, Template("from", "Garden shop <news@shop.example>"), Template("subject", RIGHT_TO_LEFT),
        html=Template("message.html", PAGE.replace("{{ first_name }}", "Spring")), text=Template("message.txt", LONG),
    )  # fmt: skip
    made = make_source(rows, name=f"{RIGHT_TO_LEFT} {HARM}", list_name=LONG, relay=HARM, is_rehearsal=True)
    source = Source(made.run, made.tally, made.unproven_rows, attempts=lambda: iter(attempts), campaign=campaign)
    target = tmp_path_factory.mktemp("report") / "report.html"
    write_html(source, target)
    return target


@pytest.fixture(scope="module")
def preview(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preview of three letters: a hostile one, one without HTML, one with all that is long."""
    album = Album()
    for number, (to, subject, text, html) in enumerate(
        [
            ("Ann <ann@example.com>", HARM, HARM, PAGE),
            (f"{RIGHT_TO_LEFT} <sara@example.net>", RIGHT_TO_LEFT, "Dear Sara", None),
            ("bob@example.org", LONG, LONG, f"<p>{LONG}</p>"),
        ],
        1,
    ):
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "Shop <shop@shop.example>", to, subject
        message["X-Long"] = LONG
        message.set_content(text)
        if html is not None:
            message.add_alternative(html, subtype="html")
        message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename=f"{HARM}.pdf")
        envelope = Envelope("shop@shop.example", "ann@example.com")
        album.add(Message(envelope, "<1@x>", [message.as_bytes()]), f"row {number}, people.csv:{number + 1}")
    return album.write(tmp_path_factory.mktemp("preview"), "page", title=f"{RIGHT_TO_LEFT} {HARM}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_report_fits_is_legible_and_does_nothing_unasked(opened, report, width, scheme):
    shown = opened(report, width=width, scheme=scheme)
    for summary in shown.page.locator("summary").all():
        summary.click()
    assert shown.too_wide() == []
    assert shown.violations() == []
    assert shown.surprises == []
    assert shown.page.title() != "harm"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_preview_fits_is_legible_and_does_nothing_unasked(opened, preview, width, scheme):
    shown = opened(preview, width=width, scheme=scheme)
    for number in (1, 2, 3):
        shown.page.goto(f"{preview.as_uri()}#message-{number}")
        for view in VIEWS:
            shown.page.get_by_role("radio", name=view).check()
            assert shown.too_wide() == [], (number, view)
            if number == 1 and view != "Phone":  # which has the same colours as Desktop
                assert shown.violations() == [], view
    assert shown.surprises == []
    assert shown.page.title() != "harm"


@pytest.mark.parametrize(("width", "view"), [(360, "Phone"), (1280, "Desktop")])
def test_preview_opens_as_what_it_is_looked_at_on(opened, preview, width, view):
    assert opened(preview, width=width).page.get_by_role("radio", name=view).is_checked()


def test_report_is_searched_and_sorted(opened, report):
    page = opened(report).page
    rows = page.locator("table.rows tbody tr")
    page.get_by_label("Search").fill("user7@ accepted")
    assert rows.filter(visible=True).locator("td:nth-child(2)").all_inner_texts() == ["user7@shop7.example"]
    assert page.locator("output").inner_text() == f"1 of {rows.count()} rows"
    page.get_by_label("Search").fill("")
    for expected in (False, True):
        page.locator("th button").first.click()
        numbers = [int(text) for text in rows.locator("td:nth-child(1)").all_inner_texts()]
        assert numbers == sorted(numbers, reverse=expected)
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_preview_is_searched_and_leafed_through(opened, preview):
    page = opened(preview, width=360).page
    page.get_by_label("Search").fill("bob@")
    assert page.locator("nav li").filter(visible=True).count() == 1
    page.get_by_label("Search").blur()
    page.keyboard.press("ArrowRight")
    assert page.locator("article").filter(visible=True).get_attribute("id") == "message-2"
    page.get_by_role("link", name="Next →").click()
    assert page.locator("article").filter(visible=True).get_attribute("id") == "message-3"


@pytest.mark.parametrize("width", [360, 1280])
def test_pages_are_read_without_scripts(opened, report, preview, width):
    shown = opened(report, width=width, scripts=False)
    assert shown.page.locator("table.rows tbody tr").filter(visible=True).count() > 30
    assert not shown.page.get_by_label("Search").is_visible()  # it would do nothing
    assert shown.too_wide() == []
    shown = opened(preview, width=width, scripts=False)
    shown.page.get_by_role("radio", name="Text").check()
    shown.page.get_by_role("link", name="Next →").filter(visible=True).click()
    assert shown.page.locator("article").filter(visible=True).locator("pre").inner_text().strip() == "Dear Sara"
