"""What a hostile list or folder may try, and what comes of it: refused with the place named, or plain text."""

import re
from email import message_from_bytes
from email.policy import default
from html import unescape

import pytest

from bulkmail.message.compose.composer import Composer
from bulkmail.message.template import template_errors
from bulkmail.message.template.environment import LONGEST_OUTPUT
from bulkmail.model.campaign import Attachment, Campaign, Template
from bulkmail.model.errors import ConfigError, TemplateError

LINE_BREAKERS = {
    "crlf": "Ann\r\nBcc: victim@example.net",
    "cr": "Ann\rBcc: victim@example.net",
    "lf": "Ann\nBcc: victim@example.net",
    "nul": "Ann\0",
    "line-separator": "Ann\u2028Bcc: victim@example.net",
    "next-line": "Ann\x85Bcc: victim@example.net",
    "surrogate": "Ann\udc0a",
}
CODE = {
    "expression": "{{ 7*7 }}",
    "statement": "{% for x in range(9) %}x{% endfor %}",
    "class": "{{ ''.__class__.__mro__ }}",
    "comment": "{# gone #}",
    "script": "<script>alert(1)</script>",
    "script-link": '<a href="javascript:alert(1)">x</a>',
    "attribute": '" onload="alert(1)',
    "encoded-word": "=?utf-8?q?=0D=0ABcc=3A_victim=40example.net?=",
    "two-mailboxes": "Ann <a@example.net>, Bob <b@example.net>",
    "dot": "\n.\n",
    "boundary": "--=_a_00000000000000000000000000000000--",
}


@pytest.fixture
def message(make_campaign):
    """A message that shows the cell `x` in subject, text and HTML."""

    def make(**changes):
        parts = {
            "subject": "News for {{ x }}",
            "text": "Dear {{ x }}!\n",
            "html": '<p title="{{ x }}">Dear {{ x }}!</p>\n',
            **changes,
        }
        return make_campaign(**parts)

    return make


def compose(campaign, recipient):
    """The message as the standard library reads it, after a check that the checks says the same as the composer."""
    composer = Composer(campaign, run_id="run")
    composer.check(recipient)
    message = composer.compose(recipient, row=1, forward_path=recipient.address.wire, date=1_700_000_000.0)
    return message_from_bytes(b"".join(message.buffers), policy=default)


def refusal(campaign, recipient):
    """What the checks says; the composer must say the same."""
    with pytest.raises(TemplateError) as checked:
        Composer(campaign, run_id="run").check(recipient)
    with pytest.raises(TemplateError) as composed:
        Composer(campaign, run_id="run").compose(recipient, row=1, forward_path="a@example.org", date=0.0)
    assert str(checked.value) == str(composed.value)
    return str(checked.value)


# --- in a cell -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("attack", LINE_BREAKERS.values(), ids=LINE_BREAKERS.keys())
@pytest.mark.parametrize("header", ["subject", "to_name", "headers", "reply_to", "sender"])
def test_cell_in_a_header_is_refused_when_it_breaks_the_line(make_campaign, make_recipient, header, attack):
    template = Template("the header", "{{ x }} <a@example.com>" if header in ("reply_to", "sender") else "{{ x }}")
    campaign = make_campaign(**{header: (("X-Tag", template),) if header == "headers" else template})
    said = refusal(campaign, make_recipient(x=attack))
    assert said.startswith("the header")
    assert "'x'" in said
    assert "victim" not in said


@pytest.mark.parametrize("attack", LINE_BREAKERS.values(), ids=LINE_BREAKERS.keys())
def test_name_of_a_recipient_is_refused_when_it_breaks_the_line(make_campaign, make_recipient, attack):
    said = refusal(make_campaign(subject="News"), make_recipient(name=attack))
    assert "name" in said
    assert "victim" not in said


@pytest.mark.parametrize(
    "attack", ["Ann\r\nBcc: x", "Ann\rBcc: x", "Ann\nBcc: x", "\r\n.\r\n", "\u2028", "\x85"], ids=ascii
)
def test_cell_in_a_body_may_break_lines_and_adds_no_header(message, make_recipient, attack):
    read = compose(message(subject="News"), make_recipient(x=attack))
    assert read["Bcc"] is None
    text = read.get_body(("plain",)).get_content().replace("\r\n", "\n")
    assert text == f"Dear {attack.replace(chr(13) + chr(10), chr(10)).replace(chr(13), chr(10))}!\n"


@pytest.mark.parametrize("attack", ["\0", "\ud800"], ids=["nul", "surrogate"])
def test_cell_in_a_body_is_refused_when_no_mail_can_hold_it(message, make_recipient, attack):
    assert "'x'" in refusal(message(subject="News"), make_recipient(x=attack))


@pytest.mark.slow
@pytest.mark.parametrize("attack", CODE.values(), ids=CODE.keys())
def test_cell_stays_text_in_the_bodies(message, make_recipient, attack):
    read = compose(message(subject="News"), make_recipient(x=attack))
    assert [part.get_content_type() for part in read.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert read.get_body(("plain",)).get_content().replace("\r\n", "\n") == f"Dear {attack}!\n"
    html = read.get_body(("html",)).get_content()
    assert html.count("<") == 2
    assert html.count('"') == 2


@pytest.mark.parametrize("attack", [value for value in CODE.values() if "\n" not in value])
def test_cell_stays_text_in_the_headers(make_campaign, make_recipient, attack):
    campaign = make_campaign(subject="{{ x }}", to_name="{{ x }}", headers=(("X-Tag", Template("X-Tag", "{{ x }}")),))
    composer = Composer(campaign, run_id="run")
    message = composer.compose(make_recipient(x=attack), row=1, forward_path="ann@example.org", date=0.0)
    read = message_from_bytes(b"".join(message.buffers), policy=default)
    assert read["Subject"] == attack
    assert read["X-Tag"] == attack
    assert [mailbox.addr_spec for mailbox in read["To"].addresses] == ["ann@example.org"]
    assert read["Bcc"] is None


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "java\nscript:alert(1)",
        " " * 99 + "javascript:x",
        "\x01javascript:x",
    ],
    ids=["plain", "cased", "broken", "far", "behind-a-control"],
)
@pytest.mark.parametrize("quote", ['"', "'", ""], ids=["double", "single", "bare"])
def test_cell_that_is_a_link_may_not_run_a_script(make_campaign, make_recipient, quote, link):
    campaign = make_campaign(html=f"<p>\n<a href={quote}{{{{ x }}}}{quote}>you</a>")
    assert "html:2: " in (reported := refusal(campaign, make_recipient(x=link)))
    assert "is no address that a message may link to" in reported


@pytest.mark.parametrize("quote", ['"', "'", ""], ids=["double", "single", "bare"])
def test_template_with_a_link_that_runs_a_script_is_refused(make_campaign, quote):
    with pytest.raises(TemplateError, match="a link in line 2 of the message would run a script"):
        Composer(make_campaign(html=f"<p>\n<a href={quote}JavaScript:alert(1){quote}>you</a>"), run_id="run")


@pytest.mark.parametrize("link", ["https://example.com/javascript:x", "/?a=b&c=javascript", "mailto:jo@example.com"])
def test_cell_that_is_an_ordinary_link_stays_one(make_campaign, make_recipient, link):
    read = compose(make_campaign(text=None, html='<a href="{{ x }}">you</a>'), make_recipient(x=link))
    assert link.replace("&", "&amp;") in read.get_body(("html",)).get_content()


def test_link_that_runs_a_script_is_found_behind_what_looks_like_the_end_of_its_tag(make_campaign):
    html = "<p>\n<a title='1 > 0' href='javascript:x()'>x</a> is not x=javascript:"
    with pytest.raises(TemplateError, match="would run a script"):
        Composer(make_campaign(html=html), run_id="run")


@pytest.mark.parametrize("said", ["a = b; javascript: no", "x=javascript:", '= "JavaScript:" and \'=j avascript:'])
def test_cell_may_speak_of_scripts_in_the_text(make_campaign, make_recipient, said):
    read = compose(make_campaign(text=None, html="<p>{{ x }}</p><p class=end>"), make_recipient(x=said))
    assert said in unescape(read.get_body(("html",)).get_content())


@pytest.mark.slow
def test_cell_that_speaks_of_nothing_but_scripts_takes_no_longer(make_campaign, make_recipient):
    read = compose(make_campaign(text=None, html="<p>{{ x }}</p>"), make_recipient(x="=javascript:" * 200_000))
    assert read.get_body(("html",)).get_content().count("=javascript:") == 200_000


@pytest.mark.parametrize("place", ["text", "html"])
def test_cell_of_ten_megabytes_is_refused_in_a_body(make_campaign, make_recipient, place):
    campaign = make_campaign(**{place: "{{ x }}"})
    assert "more than 10,000,000 characters" in refusal(campaign, make_recipient(x="x" * (LONGEST_OUTPUT + 1)))


def test_cell_of_ten_megabytes_is_refused_in_a_header(make_campaign, make_recipient):
    said = refusal(make_campaign(subject="{{ x }}"), make_recipient(x="x" * LONGEST_OUTPUT))
    assert "10,000,000 characters long" in said
    assert len(said) < 200


def test_name_of_a_megabyte_is_refused(make_campaign, make_recipient):
    assert "1,000,000 characters long" in refusal(make_campaign(subject="News"), make_recipient(name="x" * 1_000_000))


@pytest.mark.slow
@pytest.mark.parametrize("count", ["999999999", 10**9, 10**18], ids=["text", "number", "huge"])
@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(x | int) %}{% endfor %}",
        "{{ 'y' * (x | int) }}",
        "{{ 'y'.center(x | int) }}",
        "{{ 'y'.encode().center(x | int) }}",
        "{{ 'y'.encode() * (x | int) }}",
        "{{ (1).to_bytes(x | int) }}",
        "{{ row | tojson(indent=x | int) }}",
        "{{ 'y' | center(x | int) }}",
        "{{ ('%' ~ x ~ 'd') % 1 }}",
        "{{ '{:>{}}'.format(1, x | int) }}",
        "{{ 9 ** (x | int) }}",
        "{{ [1] * (x | int) }}",
    ],
    ids=[
        *("range", "repeat", "method", "method-of-bytes", "bytes", "number", "json", "filter", "percent", "format"),
        *("power", "list"),
    ],
)
def test_cell_that_is_a_huge_number_makes_nothing_huge(make_campaign, make_recipient, template, count):
    refusal(make_campaign(text=template), make_recipient(x=count))


def test_format_from_a_cell_reaches_no_attribute(make_campaign, make_recipient):
    refusal(make_campaign(text="{{ x.format(row) }}"), make_recipient(x="{0.__class__.__mro__}"))


# --- in a template ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ row.__class__.__mro__ }}",
        "{{ range.__globals__ }}",
        "{{ x.__init__.__globals__['os'] }}",
        "{{ self.__dict__ }}",
        "{{ ''['__class__'] }}",
        "{{ '' | attr('__class__') }}",
        "{{ row.pop('x') }}",
        "{{ row.clear() }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for i in range(99999) %}" + "x" * 200 + "{% endfor %}",
        "{{ 'x' * 10000001 }}",
        "{{ 9 ** 99999 }}",
    ],
)
@pytest.mark.parametrize("place", ["subject", "text", "html"])
def test_template_cannot_leave_the_sandbox(make_campaign, make_recipient, place, template):
    campaign = make_campaign(**{place: Template("the template", template)})
    with pytest.raises(TemplateError, match=r"^the template"):
        Composer(campaign, run_id="run").check(make_recipient(x="x"))


@pytest.mark.parametrize(
    "name", ["X-Tag\r\nBcc", "X Tag", "X-Tag:", "", "Bcc", "To", "DKIM-Signature", "Content-Type", "X-Ü"]
)
def test_header_name_that_would_do_harm_is_refused(make_campaign, name):
    with pytest.raises(ConfigError) as error:
        Composer(make_campaign(headers=((name, Template("h", "v")),)), run_id="run")
    assert "\n" not in str(error.value)
    assert "\r" not in str(error.value)


@pytest.mark.parametrize("attack", [*LINE_BREAKERS.values()], ids=LINE_BREAKERS.keys())
def test_reverse_path_that_would_break_a_command_is_refused(make_campaign, attack):
    with pytest.raises(ConfigError) as error:
        Composer(make_campaign(reverse_path=f"{attack}@example.com"), run_id="run")
    assert "\n" not in str(error.value)


# --- in a file name --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *LINE_BREAKERS.values(),
        "../../etc/passwd",
        "..\\boot.ini",
        "/etc/passwd",
        "a\tb.pdf",
        "",
        " ",
        "x" * 256,
        "ü" * 128,
    ],
    ids=ascii,
)
def test_file_name_that_would_do_harm_is_refused(make_campaign, name):
    with pytest.raises(ConfigError) as error:
        Composer(make_campaign(attachments=(Attachment(name, "text/plain", b""),)), run_id="run")
    assert not re.search("[\r\n\0\u2028\x85\udc0a]", str(error.value))


@pytest.mark.parametrize("name", [value for value in CODE.values() if not re.search("/|\n|=[?]", value)])
def test_file_name_stays_text(make_campaign, make_recipient, name):
    read = compose(make_campaign(attachments=(Attachment(name, "text/plain", b"x"),)), make_recipient())
    assert [part.get_filename() for part in read.iter_attachments()] == [name]
    assert read["Bcc"] is None


@pytest.mark.parametrize(
    "content_type", ["text/plain\r\nBcc: x", "text", "text/", "text/plain; x=y", "te xt/plain", "\0/a"]
)
def test_file_type_that_would_do_harm_is_refused(make_campaign, content_type):
    with pytest.raises(ConfigError):
        Composer(make_campaign(attachments=(Attachment("a.txt", content_type, b""),)), run_id="run")


def test_file_of_ten_megabytes_is_one_shared_buffer(make_campaign, make_recipient):
    composer = Composer(make_campaign(attachments=(Attachment("a.bin", "a/b", bytes(10_000_000)),)), run_id="run")
    one, two = (
        composer.compose(make_recipient(), row=row, forward_path="ann@example.org", date=0.0).buffers for row in (1, 2)
    )
    shared = [first for first, second in zip(one, two, strict=True) if first is second]
    assert sum(map(len, shared)) > 13_000_000
    assert sum(map(len, one)) - sum(map(len, shared)) < 3_000


def test_campaign_shows_no_content_of_files_in_its_repr():
    assert "secret" not in repr(Attachment("a", "a/b", b"secret"))
    assert "secret" not in repr(
        Campaign("c", Template("f", "x"), Template("s", "y"), attachments=(Attachment("a", "a/b", b"secret"),))
    )


def test_computer_without_memory_rejects_no_recipient(make_campaign, make_recipient, monkeypatch):
    """The row is not at fault, and its message may be made when there is some again."""
    composer = Composer(make_campaign(text="{{ x.missing }}"), run_id="run")

    class Short:
        @property
        def missing(self):
            raise MemoryError

    recipient = make_recipient(x=Short())
    with pytest.raises(TemplateError, match="text: wants more memory than a message may have"):
        composer.render(recipient)
    monkeypatch.setattr(template_errors, "_has_room", lambda: False)
    with pytest.raises(MemoryError):
        composer.render(recipient)
