"""Pictures that the page names by the row: brought along, never from elsewhere, and looked for before sending."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest
from click.testing import CliRunner

import bulkmail
from bulkmail.cli import main
from bulkmail.mailing.ordering import messages
from bulkmail.message.attachments import enclosures
from bulkmail.message.compose.composer import Composer
from bulkmail.model.campaign import NO_KEYS
from bulkmail.model.errors import TemplateError
from bulkmail.model.recipient import Address, Place, Recipient
from bulkmail.settings.settings import load

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
PNG = b"\x89PNG\r\n\x1a\n" + b"picture"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "badges").mkdir()
    for name in ("1.png", "2.png", "a&b 'c'.png", "Zoë@2x.png", "50%20 off.png"):
        (tmp_path / "badges" / name).write_bytes(PNG + name.encode())
    (tmp_path / "badges" / "empty.png").touch()
    (tmp_path / "badges" / "notes.txt").write_text("no picture")
    return tmp_path


def person(**fields: str) -> Recipient:
    return Recipient(Address.parse("ann@example.com"), "", fields, Place("list.csv", 2))


def composed(folder: Path, html: str, **fields: str) -> EmailMessage:
    campaign = bulkmail.compose(from_="shop@shop.example", subject="x", html=html, folder=folder)
    return parsed(Composer(campaign, run_id="r"), **fields)


def parsed(composer: Composer, **fields: str) -> EmailMessage:
    message = composer.compose(person(**fields), row=1, forward_path="ann@example.com", date=0.0)
    return message_from_bytes(b"".join(message.buffers), policy=default)  # type: ignore[arg-type]


def shown(message: EmailMessage) -> dict[str, bytes]:
    """The pictures that the page shows, by the name of their file."""
    (page,) = [part for part in message.walk() if part.get_content_type() == "text/html"]
    ids = re.findall(r'cid:([^"\')]+)', page.get_content())
    parts = {part["Content-ID"].strip("<>"): part for part in message.walk() if part["Content-ID"]}
    assert set(ids) == set(parts)
    return {str(part.get_filename()): part.get_content() for part in parts.values()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "html",
    [
        '<img src="badges/{{ id }}.png" alt="b">',
        "<img src=badges/{{ id }}.png alt=b>",
        "<img src='badges/{{ id }}.png?v=1#top' alt='b'>",
        '<table background="badges/{{ id }}.png"><tr><td>x</table>',
        '<img src="badges/{% if id %}{{ id }}{% endif %}.png" alt="b">',
        "<img src=\"{{ ('badges/' ~ id ~ '.png') | picture }}\" alt=\"b\">",
        "<div style=\"background: url({{ ('badges/' ~ id ~ '.png') | picture }})\">x</div>",
        '<style>p {color: red}</style><p>x</p><img src="badges/{{ id }}.png" alt="b">',
    ],
)
@pytest.mark.parametrize("name", ["1", "a&b 'c'", "Zoë@2x", "50%20 off"])
def test_page_shows_the_picture_of_its_row(folder: Path, html: str, name: str) -> None:
    assert shown(composed(folder, html, id=name)) == {f"{name}.png": PNG + f"{name}.png".encode()}


@pytest.mark.parametrize("source", ["my%20badges/{{ id }}.png", "my badges/{{ id }}.png", "my&#32;badges/{{ id }}.png"])
def test_address_of_the_page_is_read_as_pages_write_addresses(folder: Path, source: str) -> None:
    (folder / "badges").rename(folder / "my badges")
    assert list(shown(composed(folder, f'<img src="{source}" alt="b">', id="1"))) == ["1.png"]


def test_column_called_picture_is_no_picture(folder: Path) -> None:
    message = composed(folder, "<p>{{ picture }}</p>", picture="x")
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


def test_text_that_is_made_of_the_page_has_the_alternative_text(folder: Path) -> None:
    message = composed(folder, '<p>Hello</p><img src="badges/{{ id }}.png" alt="Badge of {{ id }}">', id="1")
    (text,) = [part for part in message.walk() if part.get_content_type() == "text/plain"]
    assert text.get_content().split() == ["Hello", "Badge", "of", "1"]


@pytest.mark.parametrize(
    ("cell", "what"),
    [
        ("gone", "is not there"),
        ("1.png/../../../secret", 'has ".." in it'),
        ("../secret", 'has ".." in it'),
        ("..\\secret", "has a backslash"),
        ("link", "leads out of the folder"),
        ("empty", "is empty"),
        ("a\tb", "holds a control character"),
    ],
)
def test_picture_that_cannot_be_sent_makes_the_row_invalid(folder: Path, cell: str, what: str) -> None:
    (folder.parent / "secret.png").write_bytes(PNG)
    (folder / "badges" / "link.png").symlink_to(folder.parent / "secret.png")
    campaign = bulkmail.compose(
        from_="a@example.com", subject="x", html='<img src="badges/{{ id }}.png" alt="b">', folder=folder
    )
    composer = Composer(campaign, run_id="r")
    for tried in (lambda: composer.check(person(id=cell)), lambda: parsed(composer, id=cell)):
        with pytest.raises(enclosures.EnclosureError, match=re.escape(what)) as caught:
            tried()
        assert str(caught.value).startswith("html:1: ")
        assert str(folder) in caught.value.hint


@pytest.mark.parametrize(
    "cell", ["/etc/passwd", "//host/x.png", "\\\\host\\x.png", "C:/x.png", "~/x.png", "badges", ""]
)
def test_path_that_is_all_cell_stays_in_the_folder(folder: Path, cell: str) -> None:
    campaign = bulkmail.compose(
        from_="a@example.com", subject="x", html='<img src="{{ pic | picture }}" alt="b">', folder=folder
    )
    with pytest.raises(TemplateError):
        Composer(campaign, run_id="r").check(person(pic=cell))


def test_file_that_is_no_picture_is_refused(folder: Path) -> None:
    with pytest.raises(TemplateError, match="is no picture by its name"):
        composed(folder, '<img src="badges/{{ id }}" alt="b">', id="notes.txt")


def test_filter_is_refused_outside_of_a_page(folder: Path) -> None:
    campaign = bulkmail.compose(from_="a@example.com", subject="{{ id | picture }}", html="<p>x</p>", folder=folder)
    with pytest.raises(TemplateError, match="picture shows a file of the campaign's folder"):
        Composer(campaign, run_id="r").check(person(id="1"))


def test_picture_of_many_rows_is_encoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    original = enclosures.base64_lines

    def counting(data: bytes) -> bytes:
        encoded.append(len(data))
        return original(data)

    monkeypatch.setattr(enclosures, "base64_lines", counting)
    campaign = bulkmail.compose(
        from_="a@example.com", subject="x", html='<img src="badges/{{ id }}.png" alt="b">', folder=folder
    )
    composer = Composer(campaign, run_id="r")
    first, again = parsed(composer, id="1"), parsed(composer, id="1")
    assert len(encoded) == 1
    assert first.as_bytes() == again.as_bytes()


def attached(message: EmailMessage) -> list[str | None]:
    return [part.get_filename() for part in message.iter_attachments()]


@pytest.mark.parametrize("attachment", ["badges/{{ id }}.png", "badges/1.png"])
def test_picture_named_by_cid_is_shown_and_not_attached_as_well(folder: Path, attachment: str) -> None:
    name = "{{ id }}.png" if "{{" in attachment else "1.png"
    files = [attachment if "{{" in attachment else folder / attachment, "badges/{{ other }}.png"]
    campaign = bulkmail.compose(
        from_="a@example.com", subject="x", html=f'<img src="cid:{name}" alt="b">', folder=folder, attachments=files
    )
    message = parsed(Composer(campaign, run_id="r"), id="1", other="2")
    assert shown(message) == {"1.png": PNG + b"1.png"}
    assert attached(message) == ["2.png"]


def test_cid_of_a_file_that_the_row_does_not_attach_is_refused(folder: Path) -> None:
    with pytest.raises(TemplateError, match="is not the name of a file that the row attaches"):
        composed(folder, '<img src="cid:{{ id }}.png" alt="b">', id="1")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (0, 1), result.output
    return result.output


def rehearsed(folder: Path) -> Iterator[EmailMessage]:
    for path in sorted((folder / "runs").glob("*.inbox/new/*")):
        yield message_from_bytes(path.read_bytes(), policy=default)  # type: ignore[misc]


@pytest.mark.slow
def test_message_file_shows_its_attachment_and_has_it_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "ticket.mail").write_text(
        "TO: {{ email }}\nFROM: shop@shop.example\nSUBJECT: Your ticket\nATTACHMENT: badges/{{ pic }}\n"
        'Content-Type: text/html\n\n<p>x</p><img src="badges/{{ pic }}" alt="code">\n'
    )
    (folder / "db.csv").write_text("email,pic\nann@example.com,1.png\n")
    run("send", "ticket.mail", "--recipients", "db.csv", "--relay", "sandbox:", "--yes")
    (message,) = rehearsed(folder)
    assert list(shown(message)) == ["1.png"]
    assert attached(message) == []


@pytest.fixture
def campaign(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example of the guide, with a list."""
    monkeypatch.chdir(folder)
    section = GUIDE.partition("### A picture for each recipient\n")[2].partition("\n### ")[0]
    (html,) = re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    settings = 'relay = "sandbox:"\nrecipients = "list.csv"\n[message]\nfrom = "shop@shop.example"\nsubject = "Badge"\n'
    (folder / "campaign.toml").write_text(settings + html, encoding="utf-8")
    (folder / "list.csv").write_text("email,name,id\nann@example.com,Ann,1\nbob@example.com,Bob,9\n")
    return folder


@pytest.mark.slow
def test_example_of_the_guide_shows_each_badge_in_preview_and_rehearsal(campaign: Path) -> None:
    (campaign / "badges" / "9.png").write_bytes(PNG)
    found = [campaign for _, _, campaign in messages(load(str(campaign)), keys=NO_KEYS)]
    assert len([campaign for campaign in found if not isinstance(campaign, TemplateError)]) == 2
    run("send", ".", "--yes")
    assert sorted(name for message in rehearsed(campaign) for name in shown(message)) == ["1.png", "9.png"]


def test_check_names_line_and_file_of_a_missing_picture(campaign: Path) -> None:
    reported = json.loads(run("check", ".", "--json"))
    (finding,) = [each for each in reported["findings"] if each["code"] == "attachment-missing"]
    assert finding["rows"] == [3]
    assert "'badges/9.png' is not there" in finding["message"]
    assert reported["recipients"] == 1


@pytest.mark.slow
def test_pictures_are_found_beside_the_page_first(campaign: Path) -> None:
    (campaign / "pages" / "badges").mkdir(parents=True)
    (campaign / "pages" / "badges" / "1.png").write_bytes(PNG + b"beside")
    text = (campaign / "campaign.toml").read_text()
    html = text[text.index('"""') + 3 : text.rindex('"""')]
    (campaign / "pages" / "page.html").write_text(html)
    (campaign / "campaign.toml").write_text(text[: text.index("html =")] + 'html = "pages/page.html"\n')
    (campaign / "badges" / "9.png").write_bytes(PNG + b"above")
    run("send", ".", "--yes")
    assert sorted(content for message in rehearsed(campaign) for content in shown(message).values()) == [
        PNG + b"above",
        PNG + b"beside",
    ]


@pytest.mark.slow
def test_pictures_are_left_alone_where_nothing_is_embedded(campaign: Path) -> None:
    with (campaign / "campaign.toml").open("a") as file:
        file.write("embed = false\n")
    run("send", ".", "--yes")
    messages = list(rehearsed(campaign))
    assert messages
    assert not any(part["Content-ID"] for message in messages for part in message.walk())


def test_attached_picture_that_is_not_there_is_named(campaign: Path) -> None:
    text = (campaign / "campaign.toml").read_text().replace("badges/{{ id }}.png", "cid:logo.png")
    (campaign / "campaign.toml").write_text(text)
    result = CliRunner().invoke(main, ["check", "."])
    assert result.exit_code == 2
    assert 'names "cid:logo.png", and no attachment has that name' in result.output


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("1.png; 2.png", ["1.png", "2.png"]),
        ("1.png\n2.png\r\n", ["1.png", "2.png"]),
        ("1.png;;", ["1.png"]),
        ("one;two.png", ["one;two.png"]),
        ("one;two.png; 1.png", None),
        ("1.png; gone.png", None),
        ("1.png; ../secret.png", None),
    ],
)
def test_cell_may_name_several_files_that_must_all_be_there(
    folder: Path, cell: str, expected: list[str] | None
) -> None:
    (folder / "badges" / "one;two.png").write_bytes(PNG)
    campaign = bulkmail.compose(
        from_="a@example.com", subject="x", text="y", folder=folder, attachments=["badges/{{ files }}"]
    )
    composer = Composer(campaign, run_id="r")
    if expected is None:
        with pytest.raises(enclosures.EnclosureError):
            composer.check(person(files=cell))
    else:
        composer.check(person(files=cell))
        assert attached(parsed(composer, files=cell)) == expected
