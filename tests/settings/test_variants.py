"""A body whose file each row chooses: all files are read beforehand, and no row gets at any other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bulkmail.message.compose.composer import Composer, Rendered
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.recipient import Address, Place, Recipient
from bulkmail.settings.settings import load

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
TOP = 'recipients = "people.csv"\n[message]\nfrom = "shop@shop.example"\nsubject = "x"\n'
FILES = {
    "message-de.html": "<body><p style='color: red'>Hallo {{ name }}<img src='logo.png' alt='x'></p></body>\n",
    "message-en.html": "<style>p { color: blue }</style><p>Hello {{ name }}{% include 'foot.txt' %}</p>\n",
    "message-de.txt": "Hallo {{ name }}\n{% if name %}\n!\n{% endif %}\n",
    "message-en.txt": "Hello {{ name }}\n",
    "message-de.md": "Hallo **{{ name }}**\n",
    "foot.txt": ", bye",
    "secret.html": "no",
    "people.csv": "email,name,lang\nann@example.com,Ann,de\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shop = tmp_path / "shop"
    shop.mkdir()
    for name, text in FILES.items():
        (shop / name).write_text(text)
    (shop / "logo.png").write_bytes(b"PNG")
    return shop


def composer(folder: Path, body: str) -> Composer:
    (folder / "campaign.toml").write_text(TOP + body)
    return Composer(load(str(folder)).campaign, run_id="r")


def render(made: Composer, lang: str) -> Rendered:
    fields = {"name": "Ann & Bob", "lang": lang}
    return made.render(Recipient(Address.parse("ann@example.com"), "", fields, Place("people.csv", 2)))


def test_each_row_gets_the_file_that_it_names(folder: Path) -> None:
    made = composer(folder, 'html = "message-{{ lang }}.html"\ntext = "message-{{ lang | lower }}.txt"\n')
    german, english = render(made, "de"), render(made, "en")
    assert german.html is not None
    assert english.html is not None
    assert re.search(r'Hallo Ann &amp; Bob<img src="cid:\w+@inline"', german.html)
    assert '<p style="color: blue' in english.html
    assert "Hello Ann &amp; Bob, bye" in english.html
    assert (german.text, english.text) == ("Hallo Ann & Bob\n!\n", "Hello Ann & Bob\n")


def test_text_is_made_of_the_page_of_the_row(folder: Path) -> None:
    made = composer(folder, 'html = "message-{{ lang }}.html"\n')
    assert render(made, "en").text == "Hello Ann & Bob, bye\n"
    assert render(composer(folder, 'markdown = "message-{{ lang }}.md"\n'), "de").text == "Hallo Ann & Bob\n"


def test_fallback_is_for_rows_without_a_file_of_their_own(folder: Path) -> None:
    made = composer(folder, 'text = { file = "message-{{ lang }}.txt", fallback = "message-en.txt" }\n')
    assert [render(made, lang).text for lang in ("de", "fr", "")] == [
        "Hallo Ann & Bob\n!\n", "Hello Ann & Bob\n", "Hello Ann & Bob\n",
    ]  # fmt: skip


@pytest.mark.parametrize("lang", ["fr", "", "../message-de", "de.html/../../x", "/etc/passwd"])
def test_row_without_a_file_fails_and_reaches_no_other(folder: Path, lang: str) -> None:
    made = composer(
        folder, 'html = "{{ lang }}.html"\n' if lang.startswith("/") else 'html = "message-{{ lang }}.html"\n'
    )
    with pytest.raises(TemplateError, match=r"campaign\.toml: html: there is no template"):
        render(made, lang)


def test_every_file_is_a_part_of_the_message(folder: Path) -> None:
    (folder / "campaign.toml").write_text(TOP + 'text = "message-{{ lang }}.txt"\n')
    before = load(str(folder))
    (folder / "message-en.txt").write_text("Hi {{ name }}\n")
    assert load(str(folder)).campaign.fingerprint != before.campaign.fingerprint
    assert {path.name for path in before.files} >= {"message-de.txt", "message-en.txt"}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ('html = "nothing-{{ lang }}.html"', 'there is no file "nothing-*.html"'),
        ('html = "../{{ lang }}.html"', "is not below the campaign's folder"),
        ('html = "{% if a %}x{% endif %}.html"', "cannot be chosen so by the row"),
        ('mjml = "message-{{ lang }}.mjml"', "cannot be chosen so by the row"),
        ('text = "message-de.txt"\ncalendar = "{{ lang }}.ics"', "cannot be chosen so by the row"),
        (
            'text = { file = "message-{{ lang }}.txt", fallback = "message-fr.txt" }',
            'there is no fallback "message-fr.txt"',
        ),
        ('text = { file = "message-de.txt", fallback = "message-en.txt" }', "names the same file for every row"),
    ],
)
def test_fault_is_reported_before_anything_is_sent(folder: Path, body: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composer(folder, f"{body}\n")
    assert what in str(caught.value)


def test_broken_file_is_reported_although_no_row_names_it(folder: Path) -> None:
    (folder / "message-fr.txt").write_text("{% if %}")
    with pytest.raises(ConfigError, match=r"message-fr\.txt:1"):
        composer(folder, 'text = "message-{{ lang }}.txt"\n')


def test_guide_example_loads(folder: Path) -> None:
    section = GUIDE.partition("### A file for each language\n")[2].partition("\n### ")[0]
    (example,) = re.findall(r"```\n\[message\]\n(.*?)```", section, re.DOTALL)
    assert render(composer(folder, example), "fr").text == "Hello Ann & Bob\n"
