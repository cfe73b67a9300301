"""Pages in `campaign.toml`, the files that they name, and the files that rows name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import ConfigError
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.settings import load
from tests.settings.conftest import MakeShop

HEAD = 'relay = "sandbox:"\nrecipients = "people.csv"\n\n[message]\nfrom = "shop@example.org"\nsubject = "Hi"\n'


def campaign_of(**typed: object) -> Campaign:
    return load("shop", Overrides(**typed), environ={}).campaign  # type: ignore[arg-type]


def fault_of(**typed: object) -> str:
    with pytest.raises(ConfigError) as caught:
        campaign_of(**typed)
    return f"{caught.value}; {caught.value.hint}"


@pytest.mark.parametrize(
    ("key", "file", "text"),
    [
        ("markdown", "message.md", "# Hi {{ name }}"),
        ("mjml", "message.mjml", "<mjml><mj-body></mj-body></mjml>"),
        ("html", "message.html", "<p>Hi"),
    ],
)
def test_page_comes_from_a_file_or_stands_in_the_campaign(make_shop: MakeShop, key: str, file: str, text: str) -> None:
    make_shop(f'{HEAD}{key} = "{file}"\npreheader = "Soon"\ninline_css = false\n', **{file: text})
    campaign = campaign_of()
    assert getattr(campaign, key).text == text
    assert campaign.preheader is not None
    assert campaign.preheader.name == "campaign.toml: preheader"
    assert not campaign.inline_css
    make_shop(f"{HEAD}{key} = '''\n{text}\n'''\n", folder="other")
    assert getattr(load("other", environ={}).campaign, key).text.strip() == text


def test_one_page_is_enough(make_shop: MakeShop) -> None:
    make_shop(f'{HEAD}html = "message.txt"\nmarkdown = "message.txt"\nmjml = "message.txt"\n')
    fault = fault_of()
    assert "shop/campaign.toml:8: markdown: the message is given by html already; keep one of html" in fault
    assert "shop/campaign.toml:9: mjml: the message is given by html already" in fault


def test_flag_takes_the_place_of_any_page(make_shop: MakeShop) -> None:
    make_shop(f'{HEAD}markdown = "message.txt"\n')
    Path("other.html").write_text("<p>x</p>")
    campaign = campaign_of(html="other.html")
    assert campaign.markdown is None
    assert campaign.html is not None


# --- files of the page


def test_pictures_and_style_sheets_of_the_folder_come_along(make_shop: MakeShop) -> None:
    page = "<link rel=stylesheet href=style.css><img src='img/logo.png'><img src=../top.png><img src=https://x.example/a.png>"
    make_shop(
        f'{HEAD}html = "mail/message.html"\n',
        **{
            "mail/message.html": page + '{% include "foot.html" %}',
            "foot.html": "<img src='foot.gif'>",
            "mail/style.css": "p { color: red }",
            "mail/img/logo.png": b"\x89PNG",
            "top.png": b"\x89TOP",
            "foot.gif": b"GIF",
        },
    )
    campaign = campaign_of()
    assert [(image.source, image.filename, image.content_type, image.content) for image in campaign.images] == [
        ("img/logo.png", "logo.png", "image/png", b"\x89PNG"),
        ("../top.png", "top.png", "image/png", b"\x89TOP"),
        ("foot.gif", "foot.gif", "image/gif", b"GIF"),
    ]
    assert [(sheet.name, sheet.text) for sheet in campaign.stylesheets] == [("style.css", "p { color: red }")]


def test_pictures_stay_out_if_the_campaign_says_so(make_shop: MakeShop) -> None:
    make_shop(f'{HEAD}html = "message.html"\nembed = false\n', **{"message.html": "<img src=no.png>"})
    assert campaign_of().images == ()


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("no.png", 'message.html: names the file "no.png", which is not in shop'),
        ("../secret.png", 'names the file "../secret.png", which is not in shop'),
        ("/etc/passwd", 'names the file "/etc/passwd", which is not in shop'),
        ("link.png", 'names the file "link.png", which is not in shop'),
        ("..%2fsecret.png", "which is not in shop"),
        ("folder", 'names the file "folder", which is not in shop'),
        ("big.png", "which is larger than 0.0001 MB"),
        ("a\\b.png", "which is not in shop"),
    ],
)
def test_picture_that_cannot_come_along_is_reported(
    make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch, source: str, fault: str
) -> None:
    monkeypatch.setattr("bulkmail.settings.body_files.LARGEST_IMAGE", 100)
    files = {"message.html": f'<img src="{source}">', "big.png": b"x" * 101, "folder/x": ""}
    shop = make_shop(f'{HEAD}html = "message.html"\n', **files)
    Path("secret.png").write_bytes(b"secret")
    (shop / "link.png").symlink_to(Path("secret.png").absolute())
    assert fault in fault_of()


def test_pictures_of_a_message_by_flags_are_found_beside_it(make_shop: MakeShop) -> None:
    make_shop(**{"message.html": "<img src=logo.png>", "logo.png": b"PNG"})
    typed = Overrides(html="shop/message.html", sender="a@example.org", subject="x", to=("b@example.org",))
    assert [image.content for image in load(None, typed, environ={}).campaign.images] == [b"PNG"]


def test_page_that_cannot_be_read_is_reported_once(make_shop: MakeShop) -> None:
    make_shop(f'{HEAD}html = "message.html"\n', **{"message.html": "a\n{% if %}"})
    assert fault_of().count("message.html:2") == 1
    make_shop(f'{HEAD}html = "message.html"\n', folder="odd", **{"message.html": "a\n\ufdd0"})
    with pytest.raises(ConfigError, match=r"message\.html:2: holds U\+FDD0"):
        load("odd", environ={})


# --- files of rows


def test_files_of_rows_are_reported_from_those_of_all(make_shop: MakeShop) -> None:
    shop = make_shop(
        f'{HEAD}text = "message.txt"\nattachments = ["menu.pdf", "{{{{ id }}}}.pdf", '
        '{ file = "terms.pdf", name = "{{ name }}.pdf", type = "application/x-pdf", optional = true }]\n',
        **{"menu.pdf": b"%PDF"},
    )
    campaign = campaign_of(attach=("shop/menu.pdf", "x{{ id }}.pdf"))
    assert [attachment.filename for attachment in campaign.attachments] == ["menu.pdf", "menu.pdf"]
    first, second, typed = campaign.row_attachments
    assert (first.path.text, first.root, first.prefix) == ("{{ id }}.pdf", str(shop.absolute()), 0)
    assert first.path.name == "shop/campaign.toml:8: attachments"
    assert second.filename is not None
    assert (second.filename.text, second.content_type, second.is_optional) == (
        *("{{ name }}.pdf", "application/x-pdf"),
        True,
    )
    assert typed.path.text == "x{{ id }}.pdf"


@pytest.mark.parametrize(
    ("path", "root", "prefix"),
    [
        ("{{ id }}.pdf", "shop", 0),
        ("invoices/{{ id }}.pdf", "shop", 0),
        ("../invoices/{{ id }}.pdf", "invoices", 12),
        ("HERE/invoices/a{{ id }}.pdf", "invoices", None),
    ],
    ids=["plain", "below", "beside", "absolute"],
)
def test_folder_of_rows_is_what_the_campaign_itself_names(
    make_shop: MakeShop, path: str, root: str, prefix: int | None
) -> None:
    path = path.replace("HERE", os.getcwd())
    make_shop(f'{HEAD}text = "message.txt"\nattachments = ["{path}"]\n')
    Path("invoices").mkdir()
    (attachment,) = campaign_of().row_attachments
    assert os.path.realpath(attachment.root) == os.path.realpath(root)
    assert attachment.prefix == (path.index("a{{") if prefix is None else prefix)


def test_attachments_root_is_the_folder_of_rows(make_shop: MakeShop) -> None:
    make_shop(f'{HEAD}text = "message.txt"\nattachments_root = "../files"\nattachments = ["../x/{{{{ id }}}}.pdf"]\n')
    assert "there is no folder shop/../files" in fault_of()
    Path("files").mkdir()
    (attachment,) = campaign_of().row_attachments
    assert os.path.realpath(attachment.root) == os.path.realpath("files")
    assert attachment.prefix == 0  # so that ".." in it is refused


def test_type_of_a_row_file_is_checked(make_shop: MakeShop) -> None:
    make_shop(f'{HEAD}text = "message.txt"\nattachments = [{{ file = "{{{{ id }}}}", type = "pdf" }}]\n')
    assert 'type = "pdf": is not a content type' in fault_of()


WORD = """<html><head><meta http-equiv=Content-Type content="text/html; charset={}"></head>
<body><p>Grüße – {{{{ name }}}}</p></body></html>"""


@pytest.mark.parametrize(
    ("said", "encoding"),
    [
        ("windows-1252", "cp1252"),
        ("iso-8859-1", "cp1252"),
        ("utf-8", "utf-8"),
        ("windows-1252", "utf-8"),
        ("x", "utf-16"),
    ],
)
def test_page_is_read_in_the_encoding_that_it_says(make_shop: MakeShop, said: str, encoding: str) -> None:
    make_shop(f'{HEAD}html = "message.html"\n', **{"message.html": WORD.format(said).encode(encoding)})
    html = campaign_of().html
    assert html is not None
    assert "<p>Grüße – {{ name }}</p>" in html.text


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04\x14\0", "a document of Word or another office program"),
        (b"{\\rtf1\\ansi x}", "rich text (RTF)"),
        (b"%PDF-1.7 x", "a PDF"),
    ],
)
def test_what_is_no_text_is_reported_as_what_it_is(make_shop: MakeShop, content: bytes, what: str) -> None:
    make_shop(f'{HEAD}html = "message.html"\n', **{"message.html": content})
    assert f"is {what}" in fault_of()
    assert "save it as plain text (.txt) or as a web page (.html)" in fault_of()
