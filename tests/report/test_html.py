"""The page: it says what the tally says, needs no one else to be read, and nothing in the rows does anything in it."""

import re
from base64 import b64encode
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from bulkmail.model.campaign import Campaign, InlineImage, Template, Unsubscribe
from bulkmail.model.errors import BulkmailError
from bulkmail.model.feedback_event import FeedbackKind, ReturnedCounts
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.entries import AttemptRecord
from bulkmail.report.figures import MOST_BUCKETS, MOST_PROVIDERS, MOST_ROWS, People, Timeline, figures_of
from bulkmail.report.html import write_html
from bulkmail.report.run_source import Pass, Source
from bulkmail.report.specimen import specimen_of
from tests.report.making import STARTED, make_record, make_rejected, make_run, make_source

HOSTILE = "</td></table><script>alert(1)</script><img src=x onerror=alert(1)>\u202e"


def page_of(source: Source) -> str:
    target = BytesIO()
    write_html(source, target)
    return target.getvalue().decode("utf-8")


def attempt(row: int = 1, *, at: float = STARTED, took: float = 0.1, outcome: str = "accepted", **changes):
    values = {"row": row, "address": f"user{row}@example.org", "relay": "smtp://mail.example.com:587", "code": 250}
    values |= {"enhanced": "2.0.0", "reason": "accepted"}
    return AttemptRecord(at=at, took=took, outcome=outcome, **values | changes)


def test_page_says_the_totals_and_the_rows():
    rows = [make_record(1), make_rejected(2), make_record(3, Status.DUPLICATE, reason="same address as row 1")]
    parsed = LexborHTMLParser(page_of(make_source(rows)))
    totals = {item.css_first("strong").text(): item.css_first("b").text() for item in parsed.css(".totals li")}
    assert totals == {"accepted": "1", "rejected": "1", "duplicate": "1"}
    assert [item.css_first("i").text() for item in parsed.css(".totals li")] == ["33.3%"] * 3
    addresses = [row.css("td")[1].text() for row in parsed.css("table.rows tbody tr")]
    assert addresses == ["user2@example.org", "user1@example.org", "user3@example.org"]  # to look at first
    assert "550 5.1.1 no such user" in parsed.css_first("table.rows").text()


def test_page_needs_no_one_else_and_its_script_is_the_only_one():
    campaign = Campaign("Spring", Template("f", "a@example.com"), Template("s", "Hi"), html=Template("h", HOSTILE))
    source = make_source([make_record(1)])
    page = page_of(Source(source.run, source.tally, source.unproven_rows, campaign=campaign))
    parsed = LexborHTMLParser(page)
    assert not parsed.css("link, img, base, form, object, embed")
    assert [frame.attributes.get("src") for frame in parsed.css("iframe")] == [None]
    assert "sandbox" in parsed.css_first("iframe").attributes
    (script,) = parsed.css("script")
    digest = b64encode(sha256(script.text().encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in parsed.css_first("meta[http-equiv]").attributes["content"]


def test_hostile_rows_stay_text():
    row = make_rejected(1, address=f"{HOSTILE}@example.org", reply=HOSTILE + "x" * 10_000, reason=HOSTILE)
    source = make_source([row], name=HOSTILE, list_name=HOSTILE, relay=HOSTILE)
    tries = [attempt(address=HOSTILE, reason=HOSTILE, took=9.0), attempt(at=STARTED + 5, enhanced=HOSTILE)]
    page = page_of(Source(source.run, source.tally, source.unproven_rows, attempts=lambda: iter(tries)))
    parsed = LexborHTMLParser(page)
    assert len(parsed.css("script")) == 1
    assert not parsed.css("img")
    assert "\u202e" not in page
    assert len(page) < 40_000


def test_rehearsal_says_so_first():
    parsed = LexborHTMLParser(page_of(make_source([make_record(1)], is_rehearsal=True)))
    assert parsed.css_first("header p").text() == "Rehearsal: no mail was sent to your recipients."


def test_totals_are_short_and_their_reasons_follow():
    rows = [make_record(n, Status.INVALID, reason=f"column {n % 12} is empty") for n in range(1, 41)]
    parsed = LexborHTMLParser(page_of(make_source(rows)))
    (total,) = parsed.css(".totals li")
    assert total.css_first("span").text() == "the row cannot be used why"
    why = parsed.css_first(total.css_first("a").attributes["href"])
    assert why.css_first("caption").text() == "4 other reasons in the CSV report."
    assert [cell.text() for cell in why.css_first("tr").css("td")[:3]] == ["column 1 is empty", "4", "10.0%"]


def test_each_pass_of_a_campaign_has_its_plot_and_its_line():
    passes = tuple(
        Pass(
            make_run(number=number, started_at=STARTED + number),
            make_source([make_record(), make_rejected(2)]).tally,
            ReturnedCounts({FeedbackKind.HARD: 1}),
            lambda: (attempt(at=STARTED + at) for at in range(0, 90, 10)),
        )
        for number in (1, 2)
    )
    parsed = LexborHTMLParser(page_of(replace(make_source([make_record()]), passes=passes)))
    assert [title.text() for title in parsed.css("figure h3")] == ["Pass 1", "Pass 2"]
    (section,) = [each for each in parsed.css("section") if each.css_first("h2").text() == "Passes"]
    first = section.css_first("tr").css("td")
    assert first[0].text().startswith("1: 2023-11-14 ") and first[0].text().endswith(", 1 came back")
    assert [cell.text() for cell in first[1:3]] == ["2", "50.0%"]


def test_long_list_shows_those_to_look_at_and_says_how_many_more_there_are():
    rows = [make_record(n) for n in range(1, MOST_ROWS + 1)] + [make_rejected(MOST_ROWS + 1)]
    parsed = LexborHTMLParser(page_of(make_source(rows)))
    shown = parsed.css("table.rows tbody tr")
    assert len(shown) == MOST_ROWS
    assert shown[0].css("td")[1].text() == f"user{MOST_ROWS + 1}@example.org"
    assert "1 more are in the CSV report" in parsed.css_first("main").text()


def test_page_is_not_written_when_the_rows_are_not_those_counted():
    with pytest.raises(BulkmailError, match="does not add up"):
        page_of(make_source([make_record(1)], tally=Tally(2, {Status.ACCEPTED: 2})))


def test_nothing_sent_yet_is_a_page_too():
    page = page_of(make_source([make_record(1, Status.PENDING)], started_at=None, ended_at=None))
    assert "Nothing was sent." in page


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.floats(-1e4, 1e7), st.sampled_from(["accepted", "rejected"])), min_size=1, max_size=60),
)
def test_timeline_counts_every_try_in_few_buckets(tries):
    timeline = Timeline()
    for at, outcome in tries:
        timeline.add(at, outcome)
    assert len(timeline.buckets) <= MOST_BUCKETS
    assert sum(timeline.buckets, Counter()) == Counter(outcome for _, outcome in tries)
    latest = max(at for at, _ in tries)
    assert timeline.start + timeline.seconds * len(timeline.buckets) >= latest


def test_figures_name_the_largest_domains_and_the_slowest_tries():
    people = People()
    for number in range(40):
        for row in range(number + 1):
            people.add(make_record(row + 1, address=f"user{row}@Domain{number}.example"))
    tries = [attempt(n, took=n / 10, code=None, enhanced="", reason="timeout") for n in range(30)]
    figures = figures_of(people, tries)
    assert [domain for domain, _ in figures.providers][:2] == ["domain39.example", "domain38.example"]
    assert len(figures.providers) == MOST_PROVIDERS + 1
    assert figures.providers[-1][0] == "others"
    assert sum(counts.total() for _, counts in figures.providers) == people.total == 820
    assert figures.slowest[0] == ("user29@example.org", 2.9)
    assert figures.replies == [("timeout", 30)]
    assert sum(figures.latencies) == 30


def test_specimen_is_the_message_with_its_pictures_and_links_that_lead_nowhere():
    campaign = Campaign(
        "Spring",
        Template("f", "a@example.com"),
        Template("s", "Hi {{ town }}"),
        html=Template("h", '<img src="logo.png"><a href="{{ unsubscribe_url }}">stop</a>'),
        images=(InlineImage("logo.png", "logo.png", "image/png", b"\x89PNG"),),
        unsubscribe=Unsubscribe("https://shop.example/u/{token}"),
    )
    specimen = specimen_of(campaign, [make_record(1, address="no address"), make_record(2)])
    assert specimen is not None
    assert (specimen.subject, specimen.to) == ("Hi Graz", "User 2 <user2@example.org>")
    assert 'src="data:image/png;base64,iVBORw==' in specimen.html
    assert re.search(r"https://shop\.example/u/[\w-]+", specimen.html)


def test_specimen_is_none_for_ready_made_messages_and_for_messages_that_cannot_be_made():
    broken = Campaign("x", Template("f", "a@example.com"), Template("s", "{{ nowhere }}"), text=Template("t", "x"))
    assert specimen_of(None, [make_record(1)]) is None
    assert specimen_of(broken, [make_record(1)]) is None
