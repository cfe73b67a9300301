"""What single checks see, and what they must not take for a fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.checks import bulk_checks
from bulkmail.checks.catalog import judge, softened
from bulkmail.checks.check_finding import Finding, Hits, Severity
from bulkmail.checks.evidence import Evidence, flaws_of
from bulkmail.checks.html_flaws import MOST, look_over
from bulkmail.checks.leftovers import leftover
from bulkmail.checks.list_checks import _PROVIDERS, meant
from bulkmail.checks.row_checks import RowCheck
from bulkmail.checks.tried_messages import SAMPLE, MessageCheck, Sample
from bulkmail.message.compose.composer import Composer, Rendered, TriedMessage
from bulkmail.message.template.field_names import mentioned_names, printed_names
from bulkmail.message.template.tags import Masked
from bulkmail.model.campaign import Campaign, Dkim, Template, Unsubscribe
from bulkmail.model.feedback_event import MANY
from bulkmail.model.recipient import Place, Recipient
from bulkmail.model.tally import Status, Tally

MakeRecipient = Callable[..., Recipient]


def make_campaign(**parts: object) -> Campaign:
    made = {
        name: Template(name, part) if isinstance(part, str) and name != "reverse_path" else part
        for name, part in parts.items()
    }
    given = {"sender": Template("from", "shop@shop.example"), "subject": Template("subject", "News"), **made}
    return Campaign("news", **given)  # type: ignore[arg-type]


# --- the list ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "right"),
    [
        ("gmial.com", "gmail.com"),
        ("gmaill.com", "gmail.com"),
        ("gmail.con", "gmail.com"),
        ("gmial.con", "gmail.com"),
        ("hotmsil.com", "hotmail.com"),
        ("outlokk.com", "outlook.com"),
        ("shop.example.con", "shop.example.com"),
        ("yahoo.co", "yahoo.com"),
    ],
)
def test_mistyped_domain_is_reported_with_what_was_meant(domain: str, right: str) -> None:
    assert meant(domain) == right


@pytest.mark.parametrize(
    "domain",
    [
        "gmail.com",
        "ymail.com",
        "email.com",
        "mail.com",
        "grail.com",
        "gmx.de",
        "gmx.at",
        "web.de",
        "live.com",
        "me.com",
        "hotmail.fr",
        "yahoo.co.uk",
        "yahoo.de",
        "cloud.com",
        "mail.gmail.com.example",
        "example.com",
        "t-online.de",
        "company.co",
        "shop.cm",
        "bluewin.ch",
        "aol.com",
        "mac.com",
        "tmail.com",
        "fastmail.fm",
        "localhost",
    ],
)
def test_real_domain_is_not_taken_for_a_mistyped_one(domain: str) -> None:
    assert meant(domain) == ""


@given(st.sampled_from(_PROVIDERS), st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=6))
def test_domain_that_merely_begins_like_a_provider_is_someones_own(provider: str, more: str) -> None:
    assert meant(f"{provider}{more}.com") in (
        "",
        *(f"{other}.com" for other in _PROVIDERS if other.startswith("google")),
    )


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("Dear {{ name }}", {"name"}),
        ("Dear {{ name | title }} {{ row['First name'] }}", {"name", "First name"}),
        ("{{ name or 'friend' }}{{ name | default('x', true) }}", set()),
        ("{% if name %}{{ name }}{% else %}friend{% endif %}", set()),
        ("{{ name if name else 'friend' }}", set()),
        ("{% if town == 'Wien' %}{{ name }}{% endif %}", {"name"}),
        ("{% for line in bill.lines %}{{ line.what }}{% endfor %}", set()),
        ('{{ "%s of %s" | format(name, town) }}', {"name", "town"}),
        ("{{ 'Dear ' ~ name }}", {"name"}),
    ],
)
def test_only_what_stands_in_the_message_as_it_is_leaves_a_gap(text: str, printed: set[str]) -> None:
    assert printed_names(make_campaign(text=text)) == printed


def test_message_that_reads_whole_rows_uses_every_column() -> None:
    assert mentioned_names(make_campaign(text="{% for key in row %}{{ key }}{% endfor %}")) is None
    assert mentioned_names(
        make_campaign(text="{{ row['First name'] }}{{ row.get('town') }}{{ age | default('') }}")
    ) == {
        "First name",
        "town",
        "age",
    }


@pytest.mark.slow
def test_rows_are_looked_at_in_bounded_memory(make_recipient: MakeRecipient) -> None:
    class Trials:
        def check(self, recipient: Recipient) -> TriedMessage:
            return TriedMessage(f"lorem {recipient.place.line}")

        def render(self, recipient: Recipient) -> Rendered:
            return Rendered("s", "shop@shop.example", "", "t", None)

    messages = MessageCheck(frozenset({"name"}), printed=frozenset({"name"}), total=5_000)
    rows = ((line, make_recipient(f"a@d{line}.example", f"{{{{ {line} }}}}", line=line)) for line in range(2, 5_002))
    assert messages.bad_rows(rows, Trials()) == []
    assert messages.rows == 5_000
    assert len(messages.samples) == SAMPLE
    assert max(len(messages.leftovers), len(messages.subjects)) <= 1_000
    blank = [(1, make_recipient(name="  ", line=7000)), (2, make_recipient(name=None, line=7001))]
    messages.bad_rows(blank, Trials())
    assert messages.blank["name"].first == [7000, 7001]


def test_hits_are_reported_in_few_words() -> None:
    hits = Hits()
    for line in (4, 17, 33, 34, 35, 36, 37):
        hits.add(line)
    assert str(hits) == "lines 4, 17, 33, 34, 35, … and 2 more"


# --- the letter -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["Lorem ipsum", "Hi {{ name }}", "*|FNAME|*", "%%NAME%%", "${name}", "[[name]]", "{% x"]
)
def test_leftover_is_seen(text: str) -> None:
    assert leftover(f"Dear {text} and so on")


@pytest.mark.parametrize(
    "text", ["Müller & Söhne", "100 %", "{name}", "$5 {x}", "Todo el mundo", "XXXL", "Florem", "[1]", "Tom*", "CO2%% x"]
)
def test_ordinary_text_is_no_leftover(text: str) -> None:
    assert leftover(text) == ""


@pytest.mark.parametrize(
    "page",
    [
        "<ul><li>one<li>two</ul><p>a<p>b",
        "<table><tr><td>a<td>b</table>",
        "{% if x %}<div>{% else %}<div class='y'>{% endif %}</div>",
        '<img src="{{ x }}" alt=""><img {% if y %}alt="z"{% endif %}><a href="{{ url }}">x</a><a id="top"></a>',
        '<a href="#top">up</a><a href="mailto:a@b.example">m</a><a href="https://localhost.example/">x</a>',
        "<style>.x { color: red } /* TODO */</style><!-- TODO lorem --><br/><svg><path d=''/></svg>",
        "<p>&copy; {{ '{{' }} {% raw %}{ }{% endraw %}",
    ],
)
def test_sound_page_has_no_flaw(page: str) -> None:
    flaws = look_over(Template("message.html", page), is_page=True)
    flaws = [flaw for flaw in flaws if flaw.code != "unclosed-tag" or "{%" not in page]
    assert flaws == []


def test_name_of_a_vocabulary_is_no_link() -> None:
    text = (
        '<mjml xmlns:v="http://schemas.microsoft.com/vml"><svg xmlns="http://www.w3.org/2000/svg"/> http://a.example/'
    )
    flaws = look_over(Template("message.mjml", text), is_page=False)
    assert [flaw.what for flaw in flaws] == ["http://a.example/ begins with http:"]


def test_flaw_is_reported_with_its_line_though_tags_go_over_several() -> None:
    page = "{% set x = [\n1,\n2] %}\n<a\n href=''>x</a>\n<img src='a.png'>"
    assert [(flaw.code, flaw.where) for flaw in look_over(Template("message.html", page), is_page=True)] == [
        ("link-empty", "message.html:4"),
        ("image-without-alt", "message.html:6"),
    ]


@pytest.mark.parametrize(
    ("text", "is_page", "seen"),
    [
        ("<p>Ann&lt;br&gt;Street</p>", True, ["<br>"]),
        ("<p>Ann<br>Street &lt;3 &lt;ann@example.org&gt;</p><!-- &lt;br&gt; -->", True, []),
        (
            "<p>&lt;a href='https://x.example'&gt;here&lt;/a&gt; &lt;BR /&gt;</p>",
            True,
            ["<a href='https://x.example'>", "<BR />"],
        ),
        ("Dear Ann,<br>\nhello <b>you</b>", False, ["<br>", "<b>", "</b>"]),
        ("Ann <ann@example.org>, 1 <b and c> 2, <broken>, <<Name>>", False, []),
    ],
)
def test_tag_that_recipients_see_is_a_flaw(text: str, is_page: bool, seen: list[str]) -> None:
    flaws = look_over(Template("message", text), is_page=is_page, is_plain=not is_page)
    assert [flaw.what for flaw in flaws if flaw.code == "visible-tag"] == [f"recipients see {tag!r}" for tag in seen]


@given(st.text(alphabet="<>/abip \"'={}%#!-&;", max_size=80))
def test_any_page_is_looked_over_without_an_error(page: str) -> None:
    look_over(Template("message.html", page), is_page=True)


# --- bulk senders -----------------------------------------------------------------------------------------------------


def evidence(campaign: Campaign, *, rows: int = 10, sender: str = "", hosts: tuple[str, ...] = ()) -> Evidence:
    messages = MessageCheck()
    address = sender or campaign.sender.text
    messages.samples.append(Sample(Place("people.csv", 2), Rendered("News", address, "", "Hello", None)))
    messages.rows = rows
    return Evidence(campaign, RowCheck(), messages, Tally(rows, {Status.PENDING: rows}), relay_hosts=hosts)


def found_in(given: Evidence) -> dict[str, Severity]:
    return {finding.code: finding.severity for finding in judge(given)}


def test_small_mailing_hears_nothing_of_bulk_senders() -> None:
    campaign = make_campaign(text="x", sender="shop@gmail.com", reverse_path="b@other.example")
    assert found_in(evidence(campaign)) == {}
    assert found_in(evidence(campaign, rows=MANY)) == {
        "free-sender": Severity.WARNING,
        "one-click-missing": Severity.WARNING,
        "bounces-not-aligned": Severity.WARNING,
        "dkim-not-aligned": Severity.NOTE,
        "bounces-without-token": Severity.NOTE,
    }


@pytest.mark.parametrize(
    ("hours", "severity"), [(23, None), (24, Severity.WARNING), (47, Severity.WARNING), (48, Severity.ERROR)]
)
def test_mail_that_came_back_must_be_read_within_two_days(hours: int, severity: Severity | None) -> None:
    given = replace(evidence(make_campaign(text="x")), intake_overdue=hours * 3_600.0)
    found = judge(given)
    assert [finding.severity for finding in found if finding.code == "intake-stale"] == ([severity] if severity else [])
    assert all(each.severity is Severity.WARNING for each in softened(found, "intake-stale"))


def test_list_that_keeps_the_rules_hears_nothing() -> None:
    campaign = make_campaign(
        text="x",
        list_id="news.shop.example",
        unsubscribe=Unsubscribe(https="https://shop.example/u/{token}"),
        dkim=(Dkim("shop.example", "s1"),),
        reverse_path="bounces+{bounce}@mail.shop.example",
    )
    assert found_in(evidence(campaign, rows=MANY)) == {}


def test_free_provider_may_be_the_relay_itself() -> None:
    campaign = make_campaign(text="x", sender="shop@gmail.com", list_id="news.shop.example")
    assert not list(bulk_checks.free_sender(evidence(campaign, hosts=("smtp.gmail.com",))))
    assert list(bulk_checks.free_sender(evidence(campaign, hosts=("mail.shop.example",))))


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        pytest.param((), [], id="rehearsal"),
        pytest.param(("localhost", "127.0.0.1"), [], id="this-machine"),
        pytest.param(
            ("mail.relay.net",),
            ["From at shop.example, unsubscribing on the web at shop.example.com: this is an example domain"],
            id="elsewhere",
        ),
    ],
)
def test_domain_for_examples_goes_nowhere_but_to_this_machine(hosts: tuple[str, ...], found: list[str]) -> None:
    campaign = make_campaign(
        text="x",
        sender="news@shop.example",
        reverse_path="bounces@real.shop",
        unsubscribe=Unsubscribe(https="https://shop.example.com/u/{token}", mailto="u@example.shop?subject={token}"),
    )
    assert [each.message for each in bulk_checks.made_up_domain(evidence(campaign, hosts=hosts))] == found


def test_domain_for_examples_in_a_header_or_a_link_is_reported() -> None:
    campaign = make_campaign(
        text="x",
        sender="news@gardenshop.net",
        reverse_path="b@gardenshop.net",
        headers=(("List-Unsubscribe", Template("h", "<mailto:stop@shop.example?subject=stop>")),),
    )
    given = evidence(campaign, hosts=("mail.relay.net",))
    page = '<p>See shop.invalid, <a href="https://www.example.com/a">this</a></p>'
    given.messages.samples.append(Sample(Place("people.csv", 3), Rendered("News", "", "", None, page)))
    assert [each.message for each in bulk_checks.made_up_domain(given)] == [
        "List-Unsubscribe at shop.example, a link at www.example.com: this is an example domain"
    ]
    assert not list(bulk_checks.made_up_domain(evidence(campaign, hosts=())))


def test_signature_makes_good_for_a_reverse_path_elsewhere() -> None:
    campaign = make_campaign(
        text="x", list_id="n.shop.example", reverse_path="b@relay.example", dkim=(Dkim("news.shop.example", "s"),)
    )
    (found,) = bulk_checks.reverse_path_alignment(evidence(campaign))
    assert found.severity is Severity.NOTE


@pytest.mark.parametrize(
    ("bounces", "sender", "is_one"),
    [
        ("a.gv.at", "b.gv.at", False),
        ("mail.a.gv.at", "a.gv.at", True),
        ("a.example.co.uk", "b.example.co.uk", True),
        ("a.co.uk", "b.co.uk", False),
        ("ann.github.io", "bob.github.io", False),
        ("mail.shop.com", "shop.net", False),
        ("mail.shop.com", "Shop.com", True),
        ("mail.xn--bcher-kva.de", "bücher.de", True),
        ("mail.shop.unlisted", "shop.unlisted", True),
    ],
)
def test_reverse_path_is_aligned_within_one_organization(bounces: str, sender: str, is_one: bool) -> None:
    campaign = make_campaign(text="x", list_id="n.shop.net", sender=f"a@{sender}", reverse_path=f"b@{bounces}")
    assert (not list(bulk_checks.reverse_path_alignment(evidence(campaign)))) is is_one


def test_findings_come_the_gravest_first() -> None:
    campaign = make_campaign(text="{{ nmae }} lorem ipsum", sender="shop@gmail.com")
    composer = Composer(campaign, run_id="x")
    messages = MessageCheck()
    from bulkmail.model.recipient import Address

    row = Recipient(Address.parse("info@a.example"), "", {"email": "x"}, Place("p.csv", 2))
    messages.bad_rows([(1, row)], composer)
    found: list[Finding] = judge(
        Evidence(campaign, RowCheck(), messages, Tally(1, {Status.INVALID: 1}), flaws=flaws_of(campaign, messages))
    )
    assert [finding.severity for finding in found] == [Severity.ERROR, Severity.WARNING]
    assert found[0].code == "row-does-not-render"


def test_lines_are_found_only_for_the_flaws_that_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a look at all before it; for 100,000 open elements that was half a minute."""
    asked = []
    unmasked = Masked.unmasked
    monkeypatch.setattr(Masked, "unmasked", lambda self, text: asked.append(text) or unmasked(self, text))
    page = Template("message.html", "<div></nothing><o:p/>" * 5_000)
    flaws = look_over(page, is_page=True)
    assert {flaw.what for flaw in flaws} == {"</nothing> closes nothing"}
    assert len(asked) == MOST
