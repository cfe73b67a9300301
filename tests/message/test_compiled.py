"""A compiled message has the bytes that the general composer makes, for any template and any cells."""

import logging
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkmail.message.compose import compiled
from bulkmail.message.compose.composer import PROOFS, Composer, TriedMessage
from bulkmail.model.campaign import Attachment, Campaign, Keys, Template, Unsubscribe
from bulkmail.model.delivery import Message
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.recipient import Address, Place, Recipient
from bulkmail.model.relay import Secret
from tests.examples import many
from tests.message.test_composer_property import pieces

SENDERS = ["Shop <news@shop.example>", "{{ a }} <news@shop.example>"]
KEYS = Keys(unsubscribe=Secret("k" * 32))

CELLS = [
    "{{ a }}",
    "{{ b }}",
    "{{ row.a }}",
    "{{ row['b'] }}",
    "{{ email }}",
    "{{ a | upper }}",
    "{{ b|urlencode }}",
    "{{ nothing }}",
    "{{ a | date('long') }}",
    "{{ b | date(read='dmy') | upper }}",
    "{{ a | time }}",
    "{{ b | number }}",
    "{{ a | number(decimals=1) | trim }}",
    "{{ b | money('EUR') }}",
    "{{ a | money(currency='EUR', locale='en_US') }}",
    "{{ b | percent(of=100) }}",
    "{{ a | plural('day', '# days') }}",
    "{{ today | date }}",
    "{{ now | time | lower }}",
    "{{ today }}",
    "{{ season | upper }}",
    "{{ price }}",
]
FRAGMENTS = [
    "Dear ",
    "\n",
    "\n\n",
    "\r\n",
    " ",
    ".",
    "From ",
    "=",
    "größer",
    "Привет, мир! ",
    "a line that is much longer than the seventy-six characters that a line of quoted-printable may have",
    "' \" \\ { } k0 c0 %s %b",
    "{{ '{{' }}",
    "{% if a %}yes{% endif %}",
    "{{ row.items }}",
    "{{ unsubscribe_url }}",
    "{{ nothing }}",
    "{% include 'part' %}",
    "{{ a | nl2br }}",
    "{{ b | utm('news') }}",
    "{{ [a, b] | list }}",
    "{{ (b | number) + 1 }}",
    "{{ b | money(a) }}",
    "{{ b | number(default=0) }}",
]
PAGE = [
    *FRAGMENTS,
    '<a href="',
    '<a title="',
    '">x</a>',
    "<p>",
    "</p>\n",
    "javascript:",
    "j",
    "java",
    "<b class=x>",
]
templates = st.lists(st.sampled_from(CELLS + FRAGMENTS), max_size=12).map("".join)
pages = st.lists(st.sampled_from(CELLS + PAGE), max_size=12).map("".join)
lines = st.lists(st.sampled_from([*CELLS, "News", " ", "für ", "=?", "x" * 60]), min_size=1, max_size=5).map("".join)
cells = (
    st.sampled_from(
        [
            "Ann",
            "",
            "Zoë",
            "j",
            "ja",
            "javascript:alert(1)",
            "script:x",
            "a=javascript:x",
            "x" * 80,
            "a\nb",
            " ",
            "ü" * 30,
            "2026-12-24",
            "24.12.2026 18:30",
            "01/02/2026",
            "1.234,50",
            "1234.5",
            "19 %",
            "3",
            "de",
            "https://shop.example/?a=b",
        ]
    )
    | pieces
)


def recipient_of(a: str, b: str, *, name: str = "", address: str = "ann@example.com") -> Recipient:
    fields = {"a": a, "b": b, "c": "2026-12-24", "d": "1.234,50"}
    return Recipient(Address.parse(address), name, fields, Place("list.csv", 2))


def outcome(composer: Composer, recipient: Recipient) -> Message | str:
    """The message, or why there is none."""
    try:
        return composer.compose(recipient, row=7, forward_path=recipient.address.wire, date=1_700_000_000.5)
    except TemplateError as error:
        return str(error)


def tried(composer: Composer, recipient: Recipient) -> object:
    """What trying it shows."""
    try:
        return composer.check(recipient)
    except TemplateError as error:
        return str(error)


def both(campaign: Campaign) -> tuple[Composer, Composer]:
    """The composer as it is, past its proofs, and the one that never compiles."""
    fast, general = (Composer(campaign, run_id="r", keys=KEYS, compiles=compiles) for compiles in (True, False))
    fast._proofs = 0
    return fast, general


@pytest.mark.slow
@settings(max_examples=many.max_examples // 5)  # each makes two composers
@pytest.mark.timeout(240)
@given(st.data())
def test_compiled_message_has_the_bytes_of_the_general_one(data: st.DataObject) -> None:
    text, html = data.draw(templates, "text"), data.draw(pages, "html")
    campaign = Campaign(
        "property",
        Template(
            "from", data.draw(st.sampled_from(["Shop <news@shop.example>", "{{ a }} <news@shop.example>"]), "from")
        ),
        Template("subject", data.draw(lines, "subject")),
        text=Template("text.txt", text) if data.draw(st.booleans(), "has text") else None,
        html=Template("page.html", html),
        to_name=data.draw(st.none() | lines.map(lambda value: Template("to_name", value)), "to_name"),
        partials=(Template("part", "part of {{ a }}\n"),),
        inline_css=data.draw(st.booleans(), "inlined"),
        preheader=data.draw(st.none() | st.just(Template("preheader", "{{ b }}, look")), "preheader"),
        unsubscribe=data.draw(st.none() | st.just(Unsubscribe(https="https://shop.example/u/{token}")), "unsubscribe"),
        locale=data.draw(
            st.none() | st.sampled_from(["de_AT", "fr", "en_US", "{{ a }}"]).map(lambda name: Template("locale", name)),
            "locale",
        ),
        moment="2026-12-24T18:30:00+01:00",
        data='{"season":"spring","price":19.90}',
        reverse_path=data.draw(st.sampled_from(["", "b@shop.example", "b+{verp}@shop.example"]), "path"),
    )
    try:
        fast, general = both(campaign)
    except (ConfigError, TemplateError):
        return
    for _ in range(5):
        recipient = recipient_of(
            data.draw(cells, "a"),
            data.draw(cells, "b"),
            name=data.draw(cells, "name"),
            address=data.draw(st.sampled_from(["ann@example.com", "zoë@example.com", "x@" + "y" * 50 + ".example"])),
        )
        assert outcome(fast, recipient) == outcome(general, recipient)
        shown = tried(general, recipient)
        assert tried(fast, recipient) == shown
        in_brief = fast.check_in_brief
        subject = in_brief(dict(recipient.fields), recipient.address.wire, recipient.name) if in_brief else None
        assert subject is None or TriedMessage(subject) == shown


PLAIN = Campaign(
    "plain",
    Template("from", "Shop <news@shop.example>"),
    Template("subject", "{{ a }}, the tulips are here"),
    text=Template("text.txt", "Dear {{ a }} {{ b }},\n\nthey are red.\n"),
    html=Template("page.html", '<p>Dear {{ a }},</p>\n<a href="{{ b }}">look</a>\n'),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "campaign",
    [
        PLAIN,
        replace(PLAIN, text=None),
        replace(PLAIN, html=None),
        replace(PLAIN, attachments=(Attachment("a.bin", "application/octet-stream", b"\0" * 9000),)),
        replace(PLAIN, unsubscribe=Unsubscribe(https="https://shop.example/u/{token}")),
        replace(PLAIN, stylesheets=(Template("a.css", "p { color: red }"),)),
        replace(PLAIN, preheader=Template("preheader", "for {{ a }}")),
        replace(PLAIN, to_name=Template("to_name", "{{ a }} {{ b }}")),
        replace(PLAIN, text=Template("text.txt", "Здравствуйте, {{ a }}!\n")),
        replace(PLAIN, text=Template("text.txt", "{% for n in range(3) %}{{ n }}{% endfor %}")),
        replace(
            PLAIN,
            text=Template(
                "text.txt",
                "Dear {{ a }},\n\nplease do not forget to pay what you owe us.\n\n"
                "{{ today | date }}: {{ row.c | date('long') }} {{ row.d | money('EUR') }}\n",
            ),
            html=Template("page.html", "<p>{{ a }} {{ row.d | number }} {{ row.c | date }} {{ now | time }}</p>\n"),
            locale=Template("locale", "fr"),
        ),
    ],
    ids=[
        "both",
        "html",
        "text",
        "attachment",
        "unsubscribe",
        "css",
        "preheader",
        "to_name",
        "cyrillic",
        "loop",
        "locale",
    ],
)
@pytest.mark.parametrize("name", ["Ann", "Zoë", 'Ann "A" Lee'])
def test_general_composer_is_not_needed_for_ordinary_rows(
    campaign: Campaign, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, general = both(campaign)
    recipient = recipient_of(name, "https://shop.example/a?b=c", name=name)
    expected, subject = outcome(general, recipient), tried(general, recipient)

    def refuse(*_: object, **__: object) -> Message:
        raise AssertionError("the general composer was asked")

    monkeypatch.setattr(Composer, "_draft", refuse)
    monkeypatch.setattr(Composer, "_message", refuse)
    assert outcome(fast, recipient) == expected
    assert tried(fast, recipient) == subject


def test_generated_source_holds_nothing_of_the_campaign() -> None:
    campaign = replace(
        PLAIN,
        subject=Template("subject", "SECRET'\"\\{{ a }}"),
        text=Template("text.txt", 'SECRET"""\n\\n{{ row["SECRET\']#"] }}\n%s{}\n'),
        html=None,
    )
    source = Composer(campaign, run_id="SECRET")._compiled.source  # type: ignore[union-attr]
    assert "SECRET" not in source
    assert not {"import", "__", "exec"} & set(source.replace(".__class__", "").split())


def test_general_message_goes_out_when_the_compiled_one_differs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "date_field", lambda second: b"Date: never\r\n")
    composer, general = (Composer(PLAIN, run_id="r", compiles=compiles) for compiles in (True, False))
    recipient = recipient_of("Ann", "https://shop.example")
    with caplog.at_level(logging.ERROR, logger="bulkmail.message"):
        for _ in range(PROOFS + 1):
            assert outcome(composer, recipient) == outcome(general, recipient)
    assert [record.getMessage() for record in caplog.records] == ["the compiled message differs from the general one"]


LOCAL = replace(
    PLAIN,
    subject=Template("subject", "{{ amount | money('EUR') }}"),
    text=Template(
        "text.txt",
        "Please do not forget what is due: {{ due | date('long') }}, "
        "{{ n | plural(one='# day', other='# days') }}, {{ lang }}\n",
    ),
    html=Template("page.html", "<p>Please pay {{ amount | number(decimals=1) }} with {{ vat | percent }}</p>\n"),
    locale=Template("locale", "{{ lang | trim }}"),
)


def test_row_with_a_locale_of_its_own_is_written_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same cells in another locale, before and after: nothing is remembered for the wrong people."""
    fast, general = both(LOCAL)
    cells = {"due": "2026-12-24", "amount": "1,234.50", "n": "1", "vat": "19%"}
    recipients = [
        Recipient(Address.parse("ann@shop.example"), "Ann", {**cells, "lang": lang, "n": n}, Place("list.csv", 2))
        for lang in ("de_AT", "en_US", " fr ", "de-AT", "en_IN")
        for n in ("1", "1.0", "2")
    ]
    expected = [(outcome(general, each), tried(general, each)) for each in recipients]

    def refuse(*_: object, **__: object) -> Message:
        raise AssertionError("the general composer was asked")

    monkeypatch.setattr(Composer, "_draft", refuse)
    monkeypatch.setattr(Composer, "_message", refuse)
    for _ in range(2):
        assert [(outcome(fast, each), tried(fast, each)) for each in recipients] == expected
    assert len({subject for _, subject in expected}) > 2


@pytest.mark.slow
@pytest.mark.parametrize("lang", ["", "  ", "xx_YY", "Klingon", "de_AT\n"])
def test_row_whose_locale_is_none_is_refused_as_ever(lang: str) -> None:
    fast, general = both(LOCAL)
    cells = {"due": "2026-12-24", "amount": "12.50", "n": "1", "vat": "19%", "lang": lang}
    recipient = Recipient(Address.parse("ann@shop.example"), "Ann", cells, Place("list.csv", 2))
    good = replace(recipient, fields={**cells, "lang": "de_AT"})
    assert outcome(fast, good) == outcome(general, good)
    assert outcome(fast, recipient) == outcome(general, recipient)
    assert tried(fast, recipient) == tried(general, recipient)


def test_filter_remembers_a_bounded_number_of_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_MOST_KEPT", 3)
    calls: list[object] = []
    made = compiled._stepped(compiled.FilterStep("number", lambda value: calls.append(value) or f"<{value}>"))
    assert [made(str(n % 2), "fr") for n in range(6)] == ["<0>", "<1>"] * 3
    assert calls == ["0", "1"]
    assert [made(str(n), "fr") for n in range(9)] == [f"<{n}>" for n in range(9)]
    long = "9" * (compiled._LONGEST_KEPT + 1)
    assert made(long, "fr") == made(long, "fr") == f"<{long}>"
    assert calls.count(long) == 2
