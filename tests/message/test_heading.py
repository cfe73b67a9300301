"""Who gets a message and who answers for it: Cc, Bcc, more of To, Sender, List-Id, Feedback-ID."""

from email import message_from_bytes
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.compose.composer import Composer
from bulkmail.message.header.addresses import AddressList
from bulkmail.message.template.rendering import Workshop, referenced_names
from bulkmail.model.campaign import Template
from bulkmail.model.errors import AddressError, ConfigError, TemplateError
from bulkmail.model.recipient import Address, parse_mailboxes, split_list


@pytest.fixture
def compose(make_campaign, make_recipient):
    """The message as it is read, its forward paths, and its envelope's reverse path."""

    def compose(fields=None, *, address="ann@example.org", **parts):
        composer = Composer(make_campaign(**parts), run_id="run")
        recipient = make_recipient(address, **(fields or {}))
        composer.check(recipient)
        message = composer.compose(recipient, row=1, forward_path=address, date=0.0)
        read = message_from_bytes(b"".join(message.buffers), policy=default)
        return read, composer.forward_paths(recipient), message.envelope.reverse_path

    return compose


def mailboxes(header):
    return [(mailbox.display_name, mailbox.addr_spec) for mailbox in header.addresses] if header else []


@pytest.mark.parametrize(
    ("cc", "fields", "shown"),
    [
        ("bob@example.org", {}, [("", "bob@example.org")]),
        ("Bob Li <bob@example.org>, cy@example.org", {}, [("Bob Li", "bob@example.org"), ("", "cy@example.org")]),
        ("{{ boss }}", {"boss": ""}, []),
        ("{{ boss }}", {"boss": " "}, []),
        ("{{ boss }}", {"boss": "a@x.example; b@x.example,"}, [("", "a@x.example"), ("", "b@x.example")]),
        ("{{ boss }}", {"boss": '"Li, Bob" <b@x.example>'}, [("Li, Bob", "b@x.example")]),
        ("{{ boss }}, d@x.example", {"boss": "a@x.example"}, [("", "a@x.example"), ("", "d@x.example")]),
        ("{{ who }} <b@x.example>", {"who": "Li, Bob"}, [("Li, Bob", "b@x.example")]),
        ('"{{ who }}, Jr" <b@x.example>', {"who": "Bob"}, [("Bob, Jr", "b@x.example")]),
        ("{{ who | default('a, b') }} <b@x.example>", {}, [("a, b", "b@x.example")]),
        (
            "{% for p in team %}{{ p }}, {% endfor %}",
            {"team": ["a@x.example", "b@x.example"]},
            [("", "a@x.example"), ("", "b@x.example")],
        ),
        ("Zoë <zoe@bücher.example>", {}, [("Zoë", "zoe@xn--bcher-kva.example")]),
        ("ANN@example.org, b@x.example, B@x.example", {}, [("", "b@x.example")]),
    ],
)
def test_cc_is_shown_and_written_to(compose, cc, fields, shown):
    read, paths, _ = compose(fields, cc=cc)
    assert mailboxes(read["Cc"]) == shown
    assert paths == ("ann@example.org", *[address for _, address in shown])


def test_bcc_is_written_to_and_shown_nowhere(compose):
    read, paths, _ = compose(bcc="Audit <audit@example.org>, cy@example.org", cc="cy@example.org")
    assert paths == ("ann@example.org", "cy@example.org", "audit@example.org")
    assert b"audit" not in bytes(read).lower()
    assert b"bcc" not in bytes(read).lower()


def test_to_takes_more_beside_the_row(compose):
    read, paths, _ = compose(to="{{ email }}, Bob <bob@example.org>")
    assert mailboxes(read["To"]) == [("Ann", "ann@example.org"), ("Bob", "bob@example.org")]
    assert paths == ("ann@example.org", "bob@example.org")


def test_message_without_copies_goes_to_its_row(compose):
    assert compose()[1] == ("ann@example.org",)


@pytest.mark.parametrize(
    ("template", "cell", "said"),
    [
        ("{{ x }}", "bob", "Cc has 'bob', which has no @"),
        ("{{ x }}", "a@x.example, bob", "Cc has 'bob', which has no @"),
        ("{{ x }}", "a@x.example\r\nBcc: v@x.example", "a carriage return"),
        ("{{ x }}", "a@x.example\u2028v@x.example", "a line separator"),
        ("{{ x }}", "x" * 20_000, "20,000 characters long"),
        ("{{ x }} <b@x.example>", "v@evil.example, Bob", "holds several addresses"),
        ("{{ x }} <b@x.example>", "v@evil.example>, <w@evil.example", "holds several addresses"),
        ("{{ x }} <b@x.example>", "<v@evil.example>,", "holds several addresses"),
        ('"{{ x }}" <b@x.example>', '" <v@evil.example>, "', "holds several addresses"),
        ("b@{{ x }}", "x.example, v@evil.example", "holds several addresses"),
        ("{{ y }}", "", "'y' is undefined"),
    ],
)
@pytest.mark.parametrize("name", ["cc", "bcc"])
def test_bad_address_is_reported_with_its_place(make_campaign, make_recipient, name, template, cell, said):
    composer = Composer(make_campaign(**{name: template}), run_id="run")
    for act in (composer.forward_paths, composer.check):
        with pytest.raises(TemplateError) as error:
            act(make_recipient(x=cell))
        assert said.replace("Cc", name.title()) in str(error.value)
        assert str(error.value).startswith(f"campaign.toml: {name}")
        assert len(str(error.value)) < 300


@pytest.mark.slow
@given(st.text(max_size=30).filter(lambda text: "@" not in text or "," in text))
def test_name_from_a_cell_never_becomes_an_address(text):
    workshop = Workshop()
    each = AddressList("Cc", Template("cc", "{{ x }} <b@x.example>"), workshop)
    fields = {"x": text}
    try:
        found = each.mailboxes(workshop.variables(fields), fields)
    except TemplateError:
        return
    assert [address.wire for _, address in found] == ["b@x.example"]


def test_names_of_lists_are_needed_from_the_row(make_campaign):
    campaign = make_campaign(
        to="{{ a }}",
        cc="{{ b }}",
        bcc="{{ c }}",
        sent_by="{{ d }}",
        list_id="{{ e }}",
        feedback_id="{{ f }}",
        reverse_path="{{ g }}",
    )
    assert referenced_names(campaign) == {"name", *"abcdefg"}


# --- dividing lists --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", [""]),
        ("a,b;c", ["a", "b", "c"]),
        ('"a,b" <c>,d', ['"a,b" <c>', "d"]),
        (r'"a\",b",c', [r'"a\",b"', "c"]),
        ("<a,b>,c", ["<a,b>", "c"]),
        ('"a,b', ['"a', "b"]),
        ("<a,b", ["<a", "b"]),
        ("{a,b}", ["{a", "b}"]),
    ],
)
def test_split_list_divides_at_commas(text, pieces):
    assert split_list(text) == pieces


def test_split_list_keeps_what_it_is_reported_to():
    assert split_list("{{ f(a, b) }},c", kept=r"\{\{.*?\}\}") == ["{{ f(a, b) }}", "c"]


@given(st.text(max_size=50))
def test_split_list_loses_nothing(text):
    assert (
        sorted("".join(split_list(text))) == sorted(text.replace(",", "").replace(";", ""))
        or '"' in text
        or "<" in text
    )


def test_parse_mailboxes_names_the_one_that_is_wrong():
    assert parse_mailboxes("a@x.example, , B <b@x.example>;") == [
        ("", Address("a", "x.example")),
        ("B", Address("b", "x.example")),
    ]
    with pytest.raises(AddressError, match=r"has 'b\\x1b', which"):
        parse_mailboxes("a@x.example, b\x1b")


# --- who sends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "sent_by", "shown"),
    [
        ("{{ name }} <{{ name | lower }}@example.org>", "Post <post@example.org>", "Post <post@example.org>"),
        ("Post <post@example.org>", "POST@example.org", None),
        ("Post <post@example.org>", "{{ '' }}", None),
    ],
    ids=["differs", "same", "empty"],
)
def test_sender_is_written_where_it_differs(compose, sender, sent_by, shown):
    read, _, reverse_path = compose(sender=sender, sent_by=sent_by)
    assert read["Sender"] == shown
    assert reverse_path == "post@example.org"


def test_sender_is_not_set_twice(make_campaign):
    with pytest.raises(ConfigError, match="set twice"):
        Composer(
            make_campaign(sent_by="a@x.example", headers=(("Sender", Template("h", "b@x.example")),)), run_id="run"
        )


def test_bad_sender_is_reported(make_campaign, recipient):
    with pytest.raises(TemplateError, match="Sender is 'Ann', which has no @"):
        Composer(make_campaign(sent_by="{{ name }}"), run_id="run").check(recipient)


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("Garden news <news.example.org>", "Garden news <news.example.org>"),
        ("news.example.org", "<news.example.org>"),
        ("<news.example.org>", "<news.example.org>"),
        ("Grüße <news.example.org>", "Grüße <news.example.org>"),
        ('"Garden, news" <news.example.org>', '"Garden, news" <news.example.org>'),
        ("Garden, news <news.example.org>", '"Garden, news" <news.example.org>'),
    ],
)
@pytest.mark.parametrize("as_header", [False, True], ids=["setting", "header"])
def test_list_id_names_the_list(compose, value, header, as_header):
    template = Template("l", value)
    read, _, _ = compose(**({"headers": (("List-Id", template),)} if as_header else {"list_id": template}))
    assert read["List-Id"] == header
    assert read["Precedence"] == (None if as_header else "bulk")


@pytest.mark.parametrize(
    "value", ["Garden news", "news", "<news.example.org", "a <b c.d>", "a <b>", "x <a.b> y", "<ü.b>", "<>"]
)
def test_list_id_that_names_none_is_refused(make_campaign, value):
    with pytest.raises(TemplateError, match="List-Id is not the name of a list"):
        Composer(make_campaign(list_id=value), run_id="run")


def test_list_id_is_not_set_twice(make_campaign):
    with pytest.raises(ConfigError, match="set twice"):
        Composer(make_campaign(list_id="a.b", headers=(("List-ID", Template("h", "c.d")),)), run_id="run")


@pytest.mark.slow
@pytest.mark.parametrize("value", ["spring:news:gardenshop", "a:b:c:sender", "sender"])
def test_feedback_id_is_written(compose, value):
    assert compose(feedback_id=value)[0]["Feedback-ID"] == value


@pytest.mark.parametrize(
    "value", ["a:b:c:d:sender", "spring:shop", "spring:", "a b:sender", "spring::sender", "x:" + "s" * 16]
)
def test_feedback_id_that_gmail_would_not_take_is_refused(make_campaign, value):
    with pytest.raises(TemplateError, match="Feedback-ID is not like"):
        Composer(make_campaign(feedback_id=value), run_id="run")


def test_rendered_shows_all_who_get_it(make_campaign, recipient):
    campaign = make_campaign(to="b@x.example", cc="C <c@x.example>", bcc="d@x.example", sent_by="e@x.example")
    rendered = Composer(campaign, run_id="run").render(recipient)
    assert rendered.to == "Ann <ann@example.org>, b@x.example"
    assert rendered.headers == (("Sender", "e@x.example"), ("Cc", "C <c@x.example>"), ("Bcc", "d@x.example"))
