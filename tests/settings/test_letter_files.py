"""A campaign in one file: headers, an empty line, a body."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkmail.message.compose.composer import Composer
from bulkmail.message.header.addresses import RowAddress
from bulkmail.model.errors import ConfigError
from bulkmail.model.recipient import Address, Place, Recipient
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.recipients.list_source import from_rows, open_list
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.runs import find_run, run_path
from bulkmail.settings.settings import Settings, load
from tests.message.pages import kinds

HEAD = "TO: {{email}}\nSUBJECT: Numbers for {{name}}\nFROM: My Self <me@example.org>\n"
PARTS = f"{HEAD}Content-Type: multipart/mixed; boundary=b\n\n--b\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BULKMAIL_RELAY", raising=False)
    Path("people.csv").write_text('email,name,number\nme@example.org,"My Self",17\nbob@example.com,"Bob",42\n')
    return tmp_path


def settings_of(text: str, name: str = "message.txt", **more: object) -> Settings:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return load(name, Overrides(recipients="people.csv", **more), environ={})  # type: ignore[arg-type]


def message_of(settings: Settings, **fields: object):  # type: ignore[no-untyped-def]
    from email import message_from_bytes
    from email.policy import default

    row = {"email": "bob@example.com", "name": "Bob", "number": "42", **fields}
    recipient = Recipient(Address("bob", "example.com"), "Bob", row, Place("people.csv", 3))
    composer = Composer(settings.campaign, run_id="run")
    composer.check(recipient)
    message = composer.compose(recipient, row=1, forward_path="bob@example.com", date=0.0)
    return message_from_bytes(b"".join(message.buffers), policy=default)


def test_message_is_a_campaign() -> None:
    settings = settings_of(f"{HEAD}\nHi, {{{{name}}}},\n\nYour number is {{{{number}}}}.\n")
    assert settings.name == "message"
    assert settings.is_folder
    assert settings.list_options.address_column == "email"
    assert run_path(settings, rehearsal=False) == Path("runs/message.outbox")
    message = message_of(settings)
    assert message["Subject"] == "Numbers for Bob"
    assert message["From"] == "My Self <me@example.org>"
    assert message.get_content() == "Hi, Bob,\r\n\r\nYour number is 42.\r\n"


def test_message_has_its_runs_beside_it() -> None:
    settings = settings_of(f"{HEAD}\nx", "post/message.txt")
    path = run_path(settings, rehearsal=False)
    assert path == Path("post/runs/message.outbox")
    path.parent.mkdir()
    path.write_bytes(b"SQLite format 3\0")
    assert find_run("post/message.txt") == path
    assert find_run("post/runs/message.outbox") == path


def test_headers_go_where_they_belong_in_any_case() -> None:
    settings = settings_of(
        "to: {{ name }} <{{ row['email'] }}>\nSubject: a\n  b\nfrom: me@example.org\nReply-to: r@example.org\n"
        "CC: c@example.org\nBcc: b@example.org\nX-Shop: {{ number }}\nReturn-Path: bounce@example.org\n"
        "MIME-Version: 1.0\n{# no one sees this #}\nList-Id: <news.example.org>\n\nx\n"
    )
    campaign = settings.campaign
    assert campaign.to_name and campaign.to_name.text == "{{ name }}"
    assert campaign.cc and campaign.cc.text == "c@example.org"
    assert campaign.bcc and campaign.bcc.text == "b@example.org"
    assert campaign.reverse_path == "bounce@example.org"
    assert settings.list_options.address_column == "email"
    message = message_of(settings)
    assert message["Subject"] == "a b"
    assert message["Reply-To"] == "r@example.org"
    assert message["X-Shop"] == "42"
    assert message["List-Id"] == "<news.example.org>"


def mailed(settings: Settings, *rows: dict[str, object]) -> list[tuple[str, str, str]]:
    """Who would get it: the row's name and address, and all addresses that its message goes to."""
    assert settings.address is not None
    people = from_rows(rows, options_of(settings))
    composer = Composer(settings.campaign, run_id="run")
    return [
        (row.name, row.address.wire, " ".join(composer.forward_paths(row)))
        if isinstance(row, Recipient)
        else ("", "", row.reason)
        for row in people
    ]


def options_of(settings: Settings) -> ListOptions:
    assert settings.address is not None
    given = settings.list_options
    return ListOptions(given.address_column, given.name_column, row_address=RowAddress(settings.address))


ROW = {"a": "ann@example.com", "b": "bea@example.com", "login": "ann7", "name": "Ann"}


@pytest.mark.parametrize(
    ("to", "name", "addresses"),
    [
        ("{{ a }}", "", "ann@example.com"),
        ("{{ row['a'] }}", "", "ann@example.com"),
        ("{{ login }}@school.example", "", "ann7@school.example"),
        ("{{ login | upper }}@{{ 'x' if name else 'y' }}.example", "", "ANN7@x.example"),
        ("office@school.example", "", "office@school.example"),
        ("{{ a }}, {{ b }}", "", "ann@example.com bea@example.com"),
        ("{{ a }}; Bea Li <{{ b }}>", "", "ann@example.com bea@example.com"),
        ("{{ name }} <{{ a }}>, {{ b }}", "Ann", "ann@example.com bea@example.com"),
        ("{% for each in [a, b] %}{{ each }}, {% endfor %}", "", "ann@example.com bea@example.com"),
        (
            "{{ b }}, {{ login }}@school.example, boss@school.example",
            "",
            "bea@example.com ann7@school.example boss@sch…",
        ),
        ("{{ a }}, {{ a }}", "", "ann@example.com"),
    ],
    ids=[
        *("column", "quoted-column", "made-of-a-column", "expressions", "same-for-all", "two-columns", "semicolon"),
        *("name-and-two", "loop", "three", "twice-the-same"),
    ],
)
def test_to_may_be_anything_that_makes_addresses(to: str, name: str, addresses: str) -> None:
    settings = settings_of(f"TO: {to}\nSUBJECT: x\nFROM: me@example.org\n\nx")
    [(shown, first, all_of_them)] = mailed(settings, ROW)
    assert all_of_them == addresses.replace("sch…", "school.example")
    assert first == all_of_them.split()[0]
    assert shown == name


def test_name_of_a_single_to_stands_apart_from_the_address() -> None:
    settings = settings_of("TO: {{ name }} <{{ login }}@x.example>\nSUBJECT: x\nFROM: me@example.org\n\nx")
    people = from_rows([{**ROW, "name": "Li, Ann <boss@example.com>"}], options_of(settings))
    [person] = people
    assert isinstance(person, Recipient)
    message = Composer(settings.campaign, run_id="run").compose(person, row=1, forward_path="x@y.example", date=0.0)
    assert b'To: "Li, Ann <boss@example.com>" <ann7@x.example>\r\n' in b"".join(message.buffers)


def test_first_address_that_is_not_empty_is_the_row_s_own() -> None:
    settings = settings_of("TO: {{ a }}, {{ b }}\nSUBJECT: x\nFROM: me@example.org\n\nx")
    found = mailed(
        settings,
        {"a": "", "b": "bea@example.com"},
        {"a": "ann@example.com", "b": ""},
        {"a": "", "b": ""},
        {"a": "ann", "b": "bea@example.com"},
        {"b": "bea@example.com"},
    )
    assert [each[1] for each in found] == ["bea@example.com", "ann@example.com", "", "", ""]
    assert [each[2] for each in found[2:]] == [
        "there is no address: To is empty",
        "message.txt: to: To has 'ann', which has no @",
        "message.txt: to: 'a' is undefined; a template of this row can use b, email, row",
    ]


def test_cell_of_to_may_hold_several_addresses_and_a_name() -> None:
    settings = settings_of("TO: {{ mails }}\nSUBJECT: x\nFROM: me@example.org\n\nx")
    rows = [{"mails": "Ann <ann@example.com>; bea@example.com"}, {"mails": "Cy <cy@example.com>"}, {"mails": "d, e@x"}]
    *people, bad = mailed(settings, *rows)
    assert people == [
        ("Ann", "ann@example.com", "ann@example.com bea@example.com"),
        ("Cy", "cy@example.com", "cy@example.com"),
    ]
    assert bad[2].startswith("the address 'd, e@x' is not valid")


def test_to_makes_the_addresses_of_a_file_as_well(here: Path) -> None:
    settings = settings_of("TO: {{ a }}, {{ b }}\nSUBJECT: x\nFROM: me@example.org\n\nx")
    (here / "list.csv").write_text(
        "a,b,name\nann@x.example,bea@x.example,N\n,,\n,,Cy\n,dan@x.example,\nno,e@x.example,\n"
    )
    with open_list(here / "list.csv", options_of(settings)) as rows:
        found = [(row.place.line, row.address.wire if isinstance(row, Recipient) else row.reason) for row in rows]
        notices = rows.notices
    assert found == [
        (2, "ann@x.example"),
        (4, "there is no address: To is empty"),
        (5, "dan@x.example"),
        (6, "message.txt: to: To has 'no', which has no @"),
    ]
    assert any("1 row without any content skipped, the first at line 3" in notice for notice in notices)


def test_cell_of_a_file_may_hold_several_addresses(here: Path) -> None:
    settings = settings_of("TO: {{ mails }}\nSUBJECT: x\nFROM: me@example.org\n\nx")
    (here / "list.csv").write_text('mails\n"Ann <ann@x.example>, bea@x.example"\ncy@x.example\n"d, e@x"\n')
    with open_list(here / "list.csv", options_of(settings)) as rows:
        ann, cy, bad = rows
    assert isinstance(ann, Recipient) and isinstance(cy, Recipient)
    assert [(ann.name, ann.address.wire), (cy.name, cy.address.wire)] == [
        ("Ann", "ann@x.example"),
        ("", "cy@x.example"),
    ]
    composer = Composer(settings.campaign, run_id="run")
    assert composer.forward_paths(ann) == ("ann@x.example", "bea@x.example")
    assert not isinstance(bad, Recipient) and bad.reason.startswith("the address 'd, e@x' is not valid")


def test_column_of_to_is_found_in_any_case() -> None:
    settings = settings_of("TO: {{ mail }}\nSUBJECT: x\nFROM: me@example.org\n\nx")
    assert mailed(settings, {"MAIL": "ann@example.com"}) == [("", "ann@example.com", "ann@example.com")]


def test_flags_that_name_people_or_column_go_before_to() -> None:
    text = "TO: {{ a }}, {{ b }}\nSUBJECT: x\nFROM: me@example.org\n\nx"
    Path("message.txt").write_text(text)
    for flags in (Overrides(recipients="people.csv", address_column="email"), Overrides(to=("ann@example.com",))):
        settings = load("message.txt", flags, environ={})
        assert settings.address is None
        assert settings.campaign.to is None


def test_rows_that_all_go_to_one_address_are_no_duplicates() -> None:
    for to, keeps in (("office@x.example", True), ("{{ a }}", False), ("{{ a }}, office@x.example", False)):
        assert settings_of(f"TO: {to}\nFROM: me@example.org\n\nx").allow_duplicates is keeps


@pytest.mark.parametrize("subject", ["", "SUBJECT:\n", "Subject:  \n"], ids=["none", "empty", "blank"])
def test_message_may_do_without_a_subject(subject: str) -> None:
    message = message_of(settings_of(f"TO: {{{{ email }}}}\nFROM: me@example.org\n{subject}\nx"))
    assert message["Subject"] is None
    assert message.get_content() == "x\r\n"


def test_subject_that_a_row_leaves_empty_is_refused() -> None:
    with pytest.raises(ConfigError, match="Subject is empty"):
        message_of(settings_of(f"{HEAD.replace('Numbers for {{name}}', '{{ name }}')}\nx"), name="")


def test_subject_of_a_flag_is_that_of_a_message_without() -> None:
    settings = settings_of("TO: {{ email }}\nFROM: me@example.org\n\nx", subject="Numbers")
    assert message_of(settings)["Subject"] == "Numbers"


def test_no_cell_adds_a_header() -> None:
    settings = settings_of(f"{HEAD}X-Note: {{{{ number }}}}\n\nx")
    with pytest.raises(ConfigError, match="a header is one line"):
        message_of(settings, number="1\nBcc: evil@example.com")
    with pytest.raises(ConfigError, match="a header is one line"):
        message_of(settings, name="1\r\n\r\n<script>")
    message = message_of(settings_of(f"{HEAD}\n{{{{ number }}}}"), number="Bcc: evil@example.com\n\nx")
    assert message["Bcc"] is None
    assert message.get_content().startswith("Bcc: evil@example.com")


def test_subject_may_be_encoded_already() -> None:
    settings = settings_of("TO: {{email}}\nFROM: me@example.org\nSUBJECT: =?utf-8?q?=C3=9Cber?= {{name}}\n\nx")
    assert message_of(settings)["Subject"] == "Über Bob"


def test_subject_that_is_encoded_in_nothing_known_stays_as_it_is() -> None:
    for word in ("=?\ufffdtf-8?q?caf=C3=A9?=", "=?no-such?q?x?=", "=?utf-8?b?x?="):
        settings = settings_of(f"TO: {{{{email}}}}\nFROM: me@example.org\nSUBJECT: {word}\n\nx")
        assert settings.campaign.subject.text == word


@pytest.mark.parametrize(
    ("content_type", "body", "structure"),
    [
        ("", "x", ["text/plain"]),
        ("Content-Type: text/plain; charset=us-ascii\n", "ü", ["text/plain"]),
        ("Content-Type: text/html\n", "<p>x</p>", ["multipart/alternative", "text/plain", "text/html"]),
        ("CONTENT-TYPE: text/markdown\n", "# x", ["multipart/alternative", "text/plain", "text/html"]),
    ],
    ids=["none", "plain", "html", "markdown"],
)
def test_body_is_of_the_type_that_is_said(content_type: str, body: str, structure: list[str]) -> None:
    assert kinds(message_of(settings_of(f"{HEAD}{content_type}\n{body}"))) == structure


MULTIPART = """MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="boundary"

This is a message in parts.

--boundary
Content-Type: text/plain; charset=us-ascii

Hi, {{name}},

--boundary
Content-Type: text/html; charset=us-ascii

<p>Hi, {{name}},</p>
--boundary--
after
"""


def test_multipart_may_be_written_by_hand() -> None:
    message = message_of(settings_of(f"{HEAD}{MULTIPART}"))
    assert kinds(message) == ["multipart/alternative", "text/plain", "text/html"]
    assert message.get_body(("plain",)).get_content() == "Hi, Bob,\r\n"
    assert message.get_body(("html",)).get_content() == "<p>Hi, Bob,</p>\r\n"


def test_multipart_may_have_parts_of_parts_and_encodings() -> None:
    body = (
        "Content-Type: multipart/mixed; boundary=outer\n\n--outer\n"
        'Content-Type: multipart/alternative; boundary="in"\n\n'
        "--in\n\nHi, {{name}}\n--in\nContent-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n"
        "<p>=C3=BC {{name}}</p>\n--in--\n--outer--\n"
    )
    message = message_of(settings_of(HEAD + body))
    assert message.get_body(("plain",)).get_content() == "Hi, Bob\r\n"
    assert message.get_body(("html",)).get_content() == "<p>ü Bob</p>\r\n"


def test_part_of_another_type_is_a_file() -> None:
    body = (
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nHi, {{name}}\n"
        '--b\nContent-Type: application/pdf; name="menu.pdf"\nContent-Transfer-Encoding: base64\n\nJVBE\nRi0x\n'
        "--b\nContent-Type: text/plain\nContent-Disposition: attachment; filename=notes.txt\n\nnotes\n"
        "--b\nContent-Type: application/pdf\n\nDUMMY\n--b--\n"
    )
    message = message_of(settings_of(HEAD + body))
    assert message.get_body(("plain",)).get_content() == "Hi, Bob\r\n"
    found = [(part.get_filename(), part.get_content_type()) for part in message.iter_attachments()]
    assert found == [("menu.pdf", "application/pdf"), ("notes.txt", "text/plain"), ("file3.pdf", "application/pdf")]
    assert [part.get_payload(decode=True) for part in message.iter_attachments()] == [b"%PDF-1", b"notes", b"DUMMY"]


def test_attachments_are_of_all_and_of_rows(here: Path) -> None:
    (here / "post").mkdir()
    (here / "post" / "file1.docx").write_bytes(b"one")
    (here / "file2.pdf").write_bytes(b"two")
    (here / "shared").mkdir()
    (here / "shared" / "Bob_work.txt").write_bytes(b"three")
    (here / "post" / "n42.txt").write_bytes(b"four")
    settings = settings_of(
        f"{HEAD}ATTACHMENT: file1.docx\nattachment: ../file2.pdf\nATTACHMENT: {here}/shared/{{{{name}}}}_work.txt\n"
        "ATTACHMENT: n{{number}}.txt\n\nx",
        "post/message.txt",
    )
    files = list(message_of(settings).iter_attachments())
    assert [file.get_filename() for file in files] == ["file1.docx", "file2.pdf", "Bob_work.txt", "n42.txt"]
    for evil in ("../file2", "/etc/passwd", f"{here}/shared/Bob"):
        with pytest.raises(ConfigError, match=r"absolute|\.\."):
            message_of(settings, name=evil)
    with pytest.raises(ConfigError, match=r"n43\.txt' is not there"):
        message_of(settings, number="43")


@pytest.mark.parametrize("body", ["text/html\n\n<img src='image.jpg'>", "text/markdown\n\n![x](./image.jpg)"])
def test_attached_picture_that_is_shown_is_there_once(here: Path, body: str) -> None:
    (here / "image.jpg").write_bytes(b"\xff\xd8")
    (here / "menu.jpg").write_bytes(b"\xff\xd9")
    message = message_of(settings_of(f"{HEAD}ATTACHMENT: ./image.jpg\nATTACHMENT: menu.jpg\nContent-Type: {body}"))
    pictures = [part for part in message.walk() if part.get_content_maintype() == "image"]
    assert [(part.get_filename(), part.get_content_disposition()) for part in pictures] == [
        ("image.jpg", "inline"),
        ("menu.jpg", "attachment"),
    ]
    assert f"cid:{pictures[0]['Content-ID'][1:-1]}" in message.get_body(("html",)).get_content()


def test_pictures_of_the_same_content_are_one_part(here: Path) -> None:
    for name in ("a.png", "b.png"):
        (here / name).write_bytes(b"\x89PNG")
    attached = "ATTACHMENT: a.png\nATTACHMENT: b.png\n"
    message = message_of(settings_of(f"{HEAD}{attached}Content-Type: text/html\n\n<img src='a.png'><img src='b.png'>"))
    [picture] = [part for part in message.walk() if part.get_content_maintype() == "image"]
    assert picture.get_filename() == "a.png"
    assert message.get_body(("html",)).get_content().count(f"cid:{picture['Content-ID'][1:-1]}") == 2


def test_picture_of_a_folder_that_is_attached_as_well_is_there_twice(here: Path) -> None:
    (here / "image.jpg").write_bytes(b"\xff\xd8")
    Path("campaign.toml").write_text(
        'recipients = "people.csv"\n[message]\nfrom = "me@example.org"\nsubject = "x"\nattachments = ["image.jpg"]\n'
        "html = { inline = '<img src=\"image.jpg\">' }\n"
    )
    message = message_of(load("campaign.toml", environ={}))
    assert [part.get_content_disposition() for part in message.walk() if part.get_content_maintype() == "image"] == [
        "inline",
        "attachment",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Dear all,\n\nx", 'message.txt:1: "Dear all," is not a header; a message begins with headers'),
        (f"{HEAD}what is this\n\nx", 'message.txt:4: "what is this" is not a header'),
        (f"{HEAD}Subject: again\n\nx", "message.txt:4: Subject is there twice"),
        (f"{HEAD}X-A: 1\nx-a: 2\n\nx", "message.txt:5: x-a is there twice"),
        (f"{HEAD}TO: {{{{other}}}}\n\nx", "message.txt:4: TO is there twice"),
        (HEAD.replace("{{email}}", "all.example.com") + "\nx", 'message.txt:1: address = "all.example.com": has'),
        (HEAD.replace("{{email}}", " ") + "\nx", "message.txt:1: TO is empty"),
        (HEAD.replace("{{email}}", "{{ a | }}@x.example") + "\nx", "message.txt: to: expected token"),
        (HEAD.replace("FROM", "X-From") + "\nx", "message.txt: no FROM says who the mail is from"),
        (f"{HEAD}Content-Type: image/png\n\nx", 'message.txt:6: a part of the type "image/png" cannot be written here'),
        (f"{HEAD}Content-Type: multipart/mixed\n\nx", "message.txt:6: the multipart does not say its boundary"),
        (f"{HEAD}Content-Type: multipart/mixed; boundary=b\n\nx", "message.txt:6: no line begins with --b"),
        (f"{PARTS}Content-Type: image/png\n\n{{{{ a }}}}\n--b--\n", 'message.txt:9: a part of the type "image/png" is'),
        (f"{PARTS}Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n%\n--b--\n", 'not "base64"'),
        (f"{PARTS}Hello\n\nhow are you?\n--b--\n", 'message.txt:7: "Hello" is not a header of a part'),
        (f"{PARTS}Content-Type: text/html\n--b--\n", "message.txt:7: a part has headers and no text"),
        (f"{HEAD}ATTACHMENT:\n\nx", "message.txt:4: attachments: an attachment names no file"),
        (f"{HEAD}ATTACHMENT: no.pdf\n\nx", 'message.txt:4: attachments = "no.pdf": there is no such file'),
        (f"{HEAD}\nx\n{{% if %}}", "message.txt:6: "),
        (f"{HEAD}Content-Transfer-Encoding: base64\n\n%%%", 'message.txt:6: the part is not "base64"'),
        (
            f"{HEAD}CONTENT-TYPE: text/html\n\n<img src='no.png'>",
            'message.txt: names the file "no.png", which is not in',
        ),
    ],
    ids=[
        *(
            "no-headers",
            "no-header",
            "subject-twice",
            "header-twice",
            "to-twice",
            "to-no-address",
            "to-empty",
            "to-syntax",
            "no-from",
        ),
        *(
            "image",
            "no-boundary",
            "no-part",
            "file-of-a-row",
            "file-encoding",
            "part-without-empty-line",
            "part-of-headers",
            "no-file",
            "file-missing",
        ),
        *("syntax", "encoding", "picture-missing"),
    ],
)
def test_fault_of_a_message_is_reported_with_its_line(text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(text)
    assert fault in str(caught.value)


def test_error_in_a_body_names_the_line_of_the_file() -> None:
    for content_type in ("text/plain", "text/html", "text/markdown"):
        with pytest.raises(ConfigError, match=r"message\.txt:7: 'nmae' is undefined; did you mean 'name'\?"):
            message_of(settings_of(f"{HEAD}Content-Type: {content_type}\n\nHi\n{{{{ nmae }}}}"))


def test_message_may_have_windows_line_ends_and_a_mark() -> None:
    Path("message.txt").write_bytes(("\ufeff" + f"{HEAD}\nx\n").replace("\n", "\r\n").encode())
    settings = load("message.txt", Overrides(recipients="people.csv"), environ={})
    assert message_of(settings).get_content() == "x\r\n"


def test_flags_go_before_the_message() -> None:
    settings = settings_of(f"{HEAD}\nx", subject="Other", address_column="name")
    assert settings.campaign.subject.text == "Other"
    assert settings.list_options.address_column == "name"


def test_message_without_a_list_says_how_to_name_one() -> None:
    Path("message.txt").write_text(f"{HEAD}\nx")
    with pytest.raises(ConfigError, match="--recipients is missing"):
        load("message.txt", environ={})
